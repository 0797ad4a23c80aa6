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

// fewest words of a first half that are asked for; all of them are six.
const fewest = 2

// source is texts, and what is needed to draw examples from them.
type source struct {
	name  string
	texts []lingua.Text
	with  map[string][]int // texts whose second half has a word, for words that are not everywhere
}

// examples are n texts of a stream: some words of the first half as a query, and as candidates the
// second half and those of other texts. Every second one of these has words of the query, as many as a
// few draws find, so that to have words in common says little.
func examples(l *lingua.Language, stream string, n int) iter.Seq2[data.Example, error] {
	return func(yield func(data.Example, error) bool) {
		x := &source{name: stream, texts: make([]lingua.Text, n), with: map[string][]int{}}
		for i := range x.texts {
			x.texts[i] = l.Text(stream, i)
			words := strings.Fields(x.texts[i].Halves[1])
			slices.Sort(words)
			for _, w := range slices.Compact(words) {
				x.with[w] = append(x.with[w], i)
			}
		}
		for w, in := range x.with {
			if len(in) > n/50 { // a particle, or a full stop
				delete(x.with, w)
			}
		}
		for i := range x.texts {
			if !yield(x.example(i), nil) {
				return
			}
		}
	}
}

// example makes an example of text i.
func (x *source) example(i int) data.Example {
	n := uint64(0)
	draw := func(of int) int {
		n++
		return int(philox.Uint64(Seed, x.name+" "+strconv.Itoa(i), n) % uint64(of))
	}
	words := slices.DeleteFunc(strings.Fields(x.texts[i].Halves[0]), func(w string) bool { return len(x.with[w]) == 0 })
	for k := range words {
		j := k + draw(len(words)-k)
		words[k], words[j] = words[j], words[k]
	}
	words = words[:min(len(words), fewest+draw(max(1, len(words))))]
	e := data.Example{ID: strconv.Itoa(i), Query: strings.Join(words, " ")}
	add := func(text int, label float32) {
		e.Candidates = append(e.Candidates, data.Candidate{ID: strconv.Itoa(len(e.Candidates)), Text: x.texts[text].Halves[1], Label: label})
	}
	add(i, 1)
	for len(e.Candidates) < choices {
		o := draw(len(x.texts))
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
func (x *source) alike(i int, words []string, draw func(of int) int) int {
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
