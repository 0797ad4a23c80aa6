package quick

import (
	"math"
	"strings"
)

// bm25 scores texts by the words that they share with a query (Robertson et al. 1994, with the idf
// that Lucene has, which is never negative):
//
//	s(q,p) = Σ_w log(1 + (n - n_w + ½)/(n_w + ½)) f / (f + k1 (1 - b + b |p|/avg))
//
// for the words w of q, where f is how often p has w and n_w how many of the n passages have it. Words
// are what is between white space.
type bm25 struct {
	passages float64
	with     map[string]float64 // passages that have a word
	mean     float64            // words of a passage
}

// k1 and b as in Anserini, for short passages.
const k1, b = .9, .4

// newBM25 counts the words of a collection.
func newBM25(passages []string) *bm25 {
	m := &bm25{passages: float64(len(passages)), with: map[string]float64{}}
	for _, p := range passages {
		words := strings.Fields(p)
		m.mean += float64(len(words)) / m.passages
		for w := range counts(words) {
			m.with[w]++
		}
	}
	return m
}

// score is higher the more words a passage shares with the query, and the rarer they are.
func (m *bm25) score(query, passage string) float64 {
	words := strings.Fields(passage)
	in := counts(words)
	long := k1 * (1 - b + b*float64(len(words))/m.mean)
	s := 0.0
	for _, w := range strings.Fields(query) {
		if f := in[w]; f > 0 {
			n := m.with[w]
			s += math.Log(1+(m.passages-n+.5)/(n+.5)) * f / (f + long)
		}
	}
	return s
}

func counts(words []string) map[string]float64 {
	n := map[string]float64{}
	for _, w := range words {
		n[w]++
	}
	return n
}
