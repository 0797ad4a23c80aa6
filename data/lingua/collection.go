package lingua

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"iter"
	"slices"
	"strings"

	"rung/data"
	"rung/nn/backend/philox"
)

// A Split is a part of all combinations of concepts that a query can ask for. No two splits share one.
type Split string

// The splits.
const (
	Train Split = "train"
	Dev   Split = "dev"
	Test  Split = "test"
)

// splitOf decides the split of a combination by a hash of it: an eighth each is for dev and test.
func (l *Language) splitOf(combination []int) Split {
	h := fnv.New64a()
	_ = binary.Write(h, binary.LittleEndian, l.seed)
	for _, c := range combination {
		_ = binary.Write(h, binary.LittleEndian, int32(c))
	}
	switch h.Sum64() >> 32 % 8 {
	case 0:
		return Test
	case 1:
		return Dev
	}
	return Train
}

// A Passage is one text of a collection.
type Passage struct {
	ID string
	Text
}

// A Collection is passages and queries, each of which has some of the passages as candidates. Relevant
// is a passage that names all concepts of the query.
type Collection struct {
	Passages []Passage
	Queries  []data.Example
	asked    [][]int // the concepts of each query, in ascending order
}

// Examples yields the queries.
func (c *Collection) Examples() iter.Seq2[data.Example, error] {
	return func(yield func(data.Example, error) bool) {
		for _, q := range c.Queries {
			if !yield(q, nil) {
				return
			}
		}
	}
}

// Limits of a query's candidates, and how a query's words are chosen.
const (
	mostRelevant = 3
	otherWord    = .6 // probability that a query avoids the words that the first telling has for a concept
	minimum      = 2 * mostRelevant
)

// Collection makes n queries of a split with k candidates each: one to three that are relevant; of the
// rest about a third each names two of the query's three concepts, has a word of the query, or is of
// its topic. Each query's story is told twice or three times, beside two tellings of a story that
// differs in one concept the query asks for. A split has one collection of each n.
func (l *Language) Collection(s Split, n, k int) (*Collection, error) {
	if s != Train && s != Dev && s != Test {
		return nil, fmt.Errorf("lingua: no split %q, only %s, %s, %s", s, Train, Dev, Test)
	}
	if n < 1 || k < minimum || k > n {
		return nil, fmt.Errorf("lingua: %d queries of %d candidates: want %d or more candidates, and as many queries", n, k, minimum)
	}
	c := &Collection{}
	for i := range n {
		d := &draw{seed: l.seed, name: fmt.Sprintf("%s %d", s, i)}
		l.ask(d, s, c)
	}
	d := &draw{seed: l.seed, name: fmt.Sprintf("%s %d candidates", s, n)}
	shuffle(d, c.Passages) // so that ids say nothing
	for i := range c.Passages {
		c.Passages[i].ID = fmt.Sprintf("p%05d", i)
	}
	x := newIndex(c.Passages)
	for i := range c.Queries {
		q := &c.Queries[i]
		q.ID = fmt.Sprintf("%s%05d", s, i)
		x.candidates(d, q, c.asked[i], k)
	}
	return c, nil
}

// ask adds a query and the passages of its story and of one like it.
func (l *Language) ask(d *draw, s Split, c *Collection) {
	var st story
	var want []int
	for want == nil {
		st = l.story(d)
		want = l.combination(d, st, s)
	}
	told := l.tell(d, st)
	c.Passages = append(c.Passages, Passage{Text: told})
	for range 1 + d.below(2) {
		c.Passages = append(c.Passages, Passage{Text: l.tell(d, st)})
	}
	other := l.near(d, st, one(d, want))
	for range 2 {
		c.Passages = append(c.Passages, Passage{Text: l.tell(d, other)})
	}
	c.Queries = append(c.Queries, data.Example{Query: l.query(d, want, told)})
	c.asked = append(c.asked, want)
}

// combination is two things and a deed or quality of a story that make a combination of the split, nil
// if the story has none.
func (l *Language) combination(d *draw, st story, s Split) []int {
	var all [][]int
	for _, k := range []class{deed, quality} {
		for out := range storyThings {
			w := slices.Delete(slices.Clone(st.concepts[thing]), out, out+1)
			w = append(w, st.concepts[k][0])
			slices.Sort(w)
			if l.splitOf(w) == s {
				all = append(all, w)
			}
		}
	}
	if len(all) == 0 {
		return nil
	}
	return one(d, all)
}

// query asks for concepts, mostly in other words than the text has.
func (l *Language) query(d *draw, want []int, told Text) string {
	has := strings.Fields(told.String())
	w := []string{one(d, l.askers)}
	for _, c := range some(d, want, len(want)) {
		words := l.words[c]
		if d.chance(otherWord) {
			words = slices.DeleteFunc(slices.Clone(words), func(w string) bool { return slices.Contains(has, w) })
		}
		w = append(w, one(d, words))
	}
	return strings.Join(w, " ") + " ?"
}

// index finds passages by concept, word and topic.
type index struct {
	passages []Passage
	concept  map[int][]int
	word     map[string][]int
	topic    map[int][]int
}

func newIndex(ps []Passage) *index {
	x := &index{passages: ps, concept: map[int][]int{}, word: map[string][]int{}, topic: map[int][]int{}}
	for i, p := range ps {
		for _, c := range p.concepts {
			x.concept[c] = append(x.concept[c], i)
		}
		words := strings.Fields(p.String())
		slices.Sort(words)
		for _, w := range slices.Compact(words) {
			x.word[w] = append(x.word[w], i)
		}
		x.topic[p.Topic] = append(x.topic[p.Topic], i)
	}
	return x
}

// candidates chooses k candidates for a query. No choice looks at the length of a text.
func (x *index) candidates(d *draw, q *data.Example, want []int, k int) {
	named := map[int]int{} // how many of the query's concepts a passage names
	for _, c := range want {
		for _, p := range x.concept[c] {
			named[p]++
		}
	}
	var relevant, partly, alike []int
	for p, n := range named {
		switch n {
		case len(want):
			relevant = append(relevant, p)
		case len(want) - 1:
			partly = append(partly, p)
		}
	}
	for _, w := range strings.Fields(q.Query) {
		alike = append(alike, x.word[w]...)
	}
	topic := x.topic[x.passages[slices.Min(relevant)].Topic] // not the first: that is a map's
	var chosen []int
	take := func(from []int, n int) {
		from = slices.Clone(from)
		slices.Sort(from) // the order of a map must not show
		from = slices.Compact(from)
		shuffle(d, from)
		for _, p := range from {
			if n == 0 || len(chosen) == k {
				return
			}
			if !slices.Contains(chosen, p) {
				chosen = append(chosen, p)
				n--
			}
		}
	}
	irrelevant := func(from []int) []int {
		return slices.DeleteFunc(slices.Clone(from), func(p int) bool { return named[p] == len(want) })
	}
	take(relevant, mostRelevant)
	third := (k - len(chosen)) / 3
	take(partly, third)
	take(irrelevant(alike), third)
	take(irrelevant(topic), k)
	for len(chosen) < k {
		if p := d.below(len(x.passages)); named[p] < len(want) && !slices.Contains(chosen, p) {
			chosen = append(chosen, p)
		}
	}
	shuffle(d, chosen)
	for _, p := range chosen {
		c := data.Candidate{ID: x.passages[p].ID, Text: x.passages[p].String()}
		if named[p] == len(want) {
			c.Label = 1
		}
		q.Candidates = append(q.Candidates, c)
	}
}

// Shuffled is the same collection with each query's labels in random order: there is nothing to learn
// from it, and whoever seems to is reading what he should not.
func (c *Collection) Shuffled(seed uint64) *Collection {
	s := &Collection{Passages: c.Passages, Queries: slices.Clone(c.Queries), asked: c.asked}
	for i := range s.Queries {
		q := &s.Queries[i]
		was := q.Candidates
		q.Candidates = slices.Clone(was)
		for to, from := range philox.Perm(len(was), seed, "labels of "+q.ID) {
			q.Candidates[to].Label = was[from].Label
		}
	}
	return s
}
