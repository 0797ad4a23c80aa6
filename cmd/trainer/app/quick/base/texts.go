package base

import (
	"iter"
	"slices"
	"strconv"
	"strings"

	"rung/data"
	"rung/data/lingua"
	"rung/nn/backend/philox"
)

const (
	choices = 8 // second halves to choose from
	tries   = 8 // texts with a word in common that are looked at for each choice
)

// texts is what a stage learns from.
type texts struct {
	stage
	all  []lingua.Text
	with map[string][]int // texts whose second half has a word, for words that are not everywhere
}

// examples are the texts of a stage: the first half as a query, and as candidates the second half and
// those of other texts. Every second one of these has words of the query, as many as a few draws find,
// so that to have words in common says little.
func (s stage) examples(l *lingua.Language) iter.Seq2[data.Example, error] {
	return func(yield func(data.Example, error) bool) {
		x := &texts{stage: s, all: make([]lingua.Text, s.texts), with: map[string][]int{}}
		for i := range x.all {
			x.all[i] = l.Text(s.name, i)
			words := strings.Fields(x.all[i].Halves[1])
			slices.Sort(words)
			for _, w := range slices.Compact(words) {
				x.with[w] = append(x.with[w], i)
			}
		}
		for w, in := range x.with {
			if len(in) > s.texts/50 { // a particle, or a full stop
				delete(x.with, w)
			}
		}
		for i := range x.all {
			if !yield(x.example(i), nil) {
				return
			}
		}
	}
}

// example makes an example of text i.
func (x *texts) example(i int) data.Example {
	n := uint64(0)
	draw := func(of int) int {
		n++
		return int(philox.Uint64(Seed, x.name+" "+strconv.Itoa(i), n) % uint64(of))
	}
	e := data.Example{ID: strconv.Itoa(i), Query: x.all[i].Halves[0]}
	words := slices.DeleteFunc(strings.Fields(e.Query), func(w string) bool { return len(x.with[w]) == 0 })
	if x.words > 0 && len(words) > x.words {
		for k := range x.words {
			j := k + draw(len(words)-k)
			words[k], words[j] = words[j], words[k]
		}
		words = words[:x.words]
		e.Query = strings.Join(words, " ")
	}
	add := func(text int, label float32) {
		e.Candidates = append(e.Candidates, data.Candidate{ID: strconv.Itoa(len(e.Candidates)), Text: x.all[text].Halves[1], Label: label})
	}
	add(i, 1)
	for len(e.Candidates) < choices {
		o := draw(len(x.all))
		if len(e.Candidates)%2 == 0 && len(words) > 0 {
			if a := x.alike(i, words, draw); a != i {
				o = a
			}
		}
		if o != i {
			add(o, 0)
		}
	}
	return e
}

// alike is a text other than i that has one of words, and the most of them among a few draws; i if there
// is none.
func (x *texts) alike(i int, words []string, draw func(of int) int) int {
	same := x.with[words[draw(len(words))]]
	found, most := i, 0
	for range tries {
		o, n := same[draw(len(same))], 0
		for _, w := range words {
			if _, ok := slices.BinarySearch(x.with[w], o); ok {
				n++
			}
		}
		if o != i && n > most {
			found, most = o, n
		}
	}
	return found
}
