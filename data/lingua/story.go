package lingua

import (
	"fmt"
	"slices"
	"strings"
)

// A story is what a text says: concepts of one topic. It can be told in many words.
type story struct {
	topic    int
	concepts [classes][]int // three things, a deed, a quality
}

const storyThings = 3

func (l *Language) story(d *draw) story {
	s := story{topic: d.below(Topics)}
	t := &l.topics[s.topic]
	s.concepts = [classes][]int{some(d, t[thing], storyThings), some(d, t[deed], 1), some(d, t[quality], 1)}
	return s
}

// near is a story of the same topic that differs in the given concept.
func (l *Language) near(d *draw, s story, concept int) story {
	n := s
	k := classOf(concept)
	n.concepts[k] = slices.Clone(s.concepts[k])
	for {
		if c := one(d, l.topics[s.topic][k]); !slices.Contains(s.concepts[k], c) {
			n.concepts[k][slices.Index(n.concepts[k], concept)] = c
			return n
		}
	}
}

// half is two clauses that name each concept of the story once, and one thing more of the topic. All
// halves have six words with a meaning; only words without one make some longer.
func (l *Language) half(d *draw, s story) (text string, concepts []int) {
	more := one(d, l.topics[s.topic][thing])
	ts := append(slices.Clone(s.concepts[thing]), more)
	shuffle(d, ts)
	does, is := s.concepts[deed][0], s.concepts[quality][0]
	clauses := []string{
		l.clause(d, ts[0], -1, ts[1], does),
		l.clause(d, ts[2], is, ts[3], -1),
	}
	shuffle(d, clauses)
	return strings.Join(clauses, " "), append(ts, does, is)
}

// clause names concepts in order, those that are not negative, each by one of its words. Particles
// stand before things, between them, and at the end.
func (l *Language) clause(d *draw, first, is, second, does int) string {
	var w []string
	word := func(c int) {
		if c >= 0 {
			w = append(w, one(d, l.words[c]))
		}
	}
	particle := func(at string, p float64) {
		if d.chance(p) {
			w = append(w, one(d, l.particles[at]))
		}
	}
	particle("thing", .4)
	word(first)
	word(is)
	particle("link", .6)
	particle("thing", .2)
	word(second)
	word(does)
	particle("end", .2)
	return strings.Join(append(w, "."), " ")
}

// A Text is a passage in its two halves, each of which names all concepts of one story.
type Text struct {
	Halves   [2]string
	Topic    int
	concepts []int // of both, in ascending order
}

// String is the passage.
func (t Text) String() string { return t.Halves[0] + " " + t.Halves[1] }

func (l *Language) tell(d *draw, s story) Text {
	t := Text{Topic: s.topic}
	for i := range t.Halves {
		var c []int
		t.Halves[i], c = l.half(d, s)
		t.concepts = append(t.concepts, c...)
	}
	slices.Sort(t.concepts)
	t.concepts = slices.Compact(t.concepts)
	return t
}

// Text is text i of a stream without judgements, to learn the language from.
func (l *Language) Text(stream string, i int) Text {
	d := &draw{seed: l.seed, name: fmt.Sprintf("text %s %d", stream, i)}
	return l.tell(d, l.story(d))
}
