// Package lingua makes up a language, texts in it, and collections of queries with judged passages.
//
// The language has concepts and, for each of them, several words that mean the same. A text is about
// a few concepts of one topic and uses any of their words, so that a query and the passages that
// answer it often have no word in common: matching words fails where knowing what words mean does
// not. What words mean can be learned from texts alone, by the company they keep.
//
// Everything is a function of a seed: the same numbers give the same texts on every machine.
package lingua

import (
	"fmt"
	"slices"
	"strings"
)

// How large the language is.
const (
	things    = 144 // concepts that clauses are about
	deeds     = 48  // that things do to each other: the last word of a clause
	qualities = 48  // that things have: the word after its thing
	Concepts  = things + deeds + qualities
	Synonyms  = 5 // words of each concept
	Topics    = 16
	perTopic  = 2 // topics that each concept belongs to
	particles = 24
	askers    = 4
)

// A class is the part that a concept plays in a clause.
type class int

const (
	thing class = iota
	deed
	quality
	classes
)

func classOf(concept int) class {
	switch {
	case concept < things:
		return thing
	case concept < things+deeds:
		return deed
	}
	return quality
}

// A Language is its words and what they mean. It does not change and may be shared.
type Language struct {
	seed      uint64
	words     [Concepts][]string     // of each concept: all mean the same
	topics    [Topics][classes][]int // concepts of each topic, in ascending order
	particles map[string][]string    // words without a meaning, by what they stand before
	askers    []string               // words that a query begins with
	meaning   map[string]int         // concept of each word that has one
}

// New makes up the language of a seed.
func New(seed uint64) *Language {
	l := &Language{seed: seed, particles: map[string][]string{}, meaning: map[string]int{}}
	d := &draw{seed: seed, name: "words"}
	taken := map[string]bool{}
	for c := range l.words {
		for range Synonyms {
			w := newWord(d, taken, 2)
			l.words[c] = append(l.words[c], w)
			l.meaning[w] = c
		}
	}
	for i := range particles {
		at := [...]string{"thing", "link", "end"}[i%3]
		l.particles[at] = append(l.particles[at], newWord(d, taken, 1))
	}
	for range askers {
		l.askers = append(l.askers, newWord(d, taken, 1))
	}
	l.arrange()
	return l
}

// arrange puts every concept into perTopic topics, the same number of each class into each topic (but
// that a topic which draws a concept twice has it once).
func (l *Language) arrange() {
	d := &draw{seed: l.seed, name: "topics"}
	for k, span := range [classes][2]int{{0, things}, {things, things + deeds}, {things + deeds, Concepts}} {
		for range perTopic {
			var all []int
			for c := span[0]; c < span[1]; c++ {
				all = append(all, c)
			}
			shuffle(d, all)
			for i, c := range all {
				t := &l.topics[i%Topics][k]
				*t = append(*t, c)
			}
		}
		for t := range l.topics {
			slices.Sort(l.topics[t][k])
			l.topics[t][k] = slices.Compact(l.topics[t][k])
		}
	}
}

var (
	onsets = strings.Fields("b d f g h k l m n p r s t v z br dr kl sh st tr")
	nuclei = strings.Fields("a e i o u ai ou")
	codas  = []string{"", "", "", "k", "l", "m", "n", "r", "s"}
)

// newWord is a pronounceable word that is not taken yet.
func newWord(d *draw, taken map[string]bool, syllables int) string {
	for {
		var b strings.Builder
		for range syllables {
			b.WriteString(one(d, onsets) + one(d, nuclei))
		}
		b.WriteString(one(d, codas))
		if w := b.String(); !taken[w] {
			taken[w] = true
			return w
		}
	}
}

// Words are all words: those of the concepts, synonyms side by side, then those without a meaning.
func (l *Language) Words() []string {
	var w []string
	for _, synonyms := range l.words {
		w = append(w, synonyms...)
	}
	for _, at := range []string{"thing", "link", "end"} {
		w = append(w, l.particles[at]...)
	}
	return append(w, l.askers...)
}

// Concept is what a word means: a number below Concepts; ok is false for a word without a meaning.
func (l *Language) Concept(word string) (c int, ok bool) {
	c, ok = l.meaning[word]
	return c, ok
}

// SynonymsOf are the words of a concept.
func (l *Language) SynonymsOf(concept int) ([]string, error) {
	if concept < 0 || concept >= Concepts {
		return nil, fmt.Errorf("lingua: concept %d is not in 0 to %d", concept, Concepts-1)
	}
	return slices.Clone(l.words[concept]), nil
}

// Vocabulary is a WordPiece vocabulary that has every word as one token, and letters, so that any other
// word is spelt.
func (l *Language) Vocabulary() []string {
	v := []string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", "?", "!"}
	for _, prefix := range []string{"", "##"} {
		for c := 'a'; c <= 'z'; c++ {
			v = append(v, prefix+string(c))
		}
	}
	return append(v, l.Words()...)
}
