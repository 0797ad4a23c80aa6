package lingua

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/data"
	"rung/data/token"
	"rung/nn/backend/philox"
	"rung/train/metric"
)

// The language of seed 1 is that of a committed encoder: it must not change by accident.
func TestSameEverywhere(t *testing.T) {
	l := New(1)
	h := sha256.New()
	fmt.Fprintln(h, l.Vocabulary())
	for i := range 100 {
		fmt.Fprintln(h, l.Text("any", i))
	}
	for _, s := range []Split{Train, Dev, Test} {
		c, err := l.Collection(s, 60, 12)
		require.NoError(t, err)
		type query struct { // what the language decides of an example
			id, text   string
			candidates []data.Candidate
		}
		var queries []query
		for _, x := range c.Queries {
			require.Empty(t, x.Domain)
			queries = append(queries, query{x.ID, x.Query, x.Candidates})
		}
		fmt.Fprintln(h, c.Passages, queries)
	}
	require.Equal(t, "868a24566c5b81494773fbde88fc0c74c025a2c4b3a7624bcf7a6c9586439220", hex.EncodeToString(h.Sum(nil)))
	require.NotEqual(t, l.Words(), New(2).Words())
}

// A collection of thousands, where queries have relevant passages of several topics, is the same each time.
func TestSameAgain(t *testing.T) {
	l := New(1)
	a, err := l.Collection(Train, 2000, 8)
	require.NoError(t, err)
	b, err := l.Collection(Train, 2000, 8)
	require.NoError(t, err)
	require.True(t, reflect.DeepEqual(a.Queries, b.Queries)) // not Equal, which would print them
}

func TestWords(t *testing.T) {
	l := New(7)
	seen := map[string]bool{}
	for _, w := range l.Words() {
		require.Regexp(t, "^[a-z]+$", w)
		require.False(t, seen[w], w)
		seen[w] = true
	}
	require.Len(t, seen, Concepts*Synonyms+particles+askers)
	for c := range Concepts {
		words, err := l.SynonymsOf(c)
		require.NoError(t, err)
		for _, w := range words {
			got, ok := l.Concept(w)
			require.True(t, ok)
			require.Equal(t, c, got)
		}
	}
	_, err := l.SynonymsOf(Concepts)
	require.Error(t, err)
	_, ok := l.Concept("?")
	require.False(t, ok)
}

// Each word is one token, and a word that is none is spelt.
func TestVocabulary(t *testing.T) {
	l := New(1)
	tok, err := token.FromVocab(l.Vocabulary(), token.Defaults())
	require.NoError(t, err)
	for _, w := range l.Words() {
		require.Len(t, tok.AppendIDs(nil, w), 1, w)
	}
	require.NotContains(t, tok.AppendIDs(nil, "xylophone quiz!"), tok.UNK())
	for i := range 50 {
		require.NotContains(t, tok.AppendIDs(nil, l.Text("any", i).String()), tok.UNK())
	}
}

func collection(t testing.TB, s Split, n, k int) (*Language, *Collection) {
	l := New(1)
	c, err := l.Collection(s, n, k)
	require.NoError(t, err)
	return l, c
}

// concepts are what a text names.
func concepts(l *Language, text string) map[int]bool {
	m := map[int]bool{}
	for _, w := range strings.Fields(text) {
		if c, ok := l.Concept(w); ok {
			m[c] = true
		}
	}
	return m
}

// A label says whether the passage names all that the query asks for, no more and no less.
func TestLabels(t *testing.T) {
	l, c := collection(t, Test, 250, 20)
	for _, q := range c.Queries {
		want := concepts(l, q.Query)
		require.Len(t, want, 3)
		require.Len(t, q.Candidates, 20)
		require.GreaterOrEqual(t, q.Positives(), 1)
		require.LessOrEqual(t, q.Positives(), mostRelevant)
		ids := map[string]bool{}
		partly := 0
		for _, p := range q.Candidates {
			require.False(t, ids[p.ID])
			ids[p.ID] = true
			named, has := 0, concepts(l, p.Text)
			for w := range want {
				if has[w] {
					named++
				}
			}
			if named == 2 {
				partly++
			}
			require.Equal(t, named == 3, p.Label == 1, "%s %s", q.Query, p.Text)
		}
		require.Positive(t, partly, "no passage names two concepts of %q", q.Query)
	}
}

// No combination that dev or test asks for is asked for in training, nor is a passage shared.
func TestSplitsAreDisjoint(t *testing.T) {
	asked, text := map[string]Split{}, map[string]Split{}
	for s, n := range map[Split]int{Train: 1500, Dev: 200, Test: 300} {
		l, c := collection(t, s, n, 8)
		for _, q := range c.Queries {
			var w []int
			for k := range concepts(l, q.Query) {
				w = append(w, k)
			}
			slices.Sort(w)
			k := fmt.Sprint(w)
			if other, ok := asked[k]; ok {
				require.Equal(t, s, other, k)
			}
			asked[k] = s
		}
		for _, p := range c.Passages {
			if other, ok := text[p.String()]; ok {
				require.Equal(t, s, other, p.String())
			}
			text[p.String()] = s
		}
	}
}

// What a passage looks like without the query must not tell whether it is relevant: scorers that see
// its length, its place in the list, its id, or how common its words are, do no better than chance.
func TestNoLeaks(t *testing.T) {
	_, c := collection(t, Test, 1000, 20)
	common := map[string]float64{}
	for _, p := range c.Passages {
		for _, w := range strings.Fields(p.String()) {
			common[w]++
		}
	}
	commonness := func(i int, q data.Example) float64 {
		n, words := 0.0, strings.Fields(q.Candidates[i].Text)
		for _, w := range words {
			n += common[w]
		}
		return n / float64(len(words))
	}
	scorers := map[string]func(i int, q data.Example) float64{
		"common words":  commonness,
		"rare words":    func(i int, q data.Example) float64 { return -commonness(i, q) },
		"constant":      func(int, data.Example) float64 { return 0 },
		"place":         func(i int, _ data.Example) float64 { return float64(i) },
		"last place":    func(i int, _ data.Example) float64 { return -float64(i) },
		"longer":        func(i int, q data.Example) float64 { return float64(len(strings.Fields(q.Candidates[i].Text))) },
		"shorter":       func(i int, q data.Example) float64 { return -float64(len(strings.Fields(q.Candidates[i].Text))) },
		"more letters":  func(i int, q data.Example) float64 { return float64(len(q.Candidates[i].Text)) },
		"fewer letters": func(i int, q data.Example) float64 { return -float64(len(q.Candidates[i].Text)) },
	}
	for name, f := range scorers {
		z := surprise(t, c, f)
		t.Logf("%s: %.1f", name, z)
		require.Less(t, math.Abs(z), 5.0, name) // p < 1e-6
	}
	// The test can see: one that looks at labels a little is far from chance.
	d := &draw{seed: 1, name: "hint"}
	require.Greater(t, surprise(t, c, func(i int, q data.Example) float64 {
		return float64(d.below(100)) + 20*float64(q.Candidates[i].Label)
	}), 5.0)
}

// surprise is by how many standard errors a scorer's mean nDCG@10 differs from that of a random order.
func surprise(t testing.TB, c *Collection, score func(i int, q data.Example) float64) float64 {
	qrels, run, random := metric.Qrels{}, metric.Run{}, metric.Run{}
	for _, q := range c.Queries {
		qrels[q.ID] = map[string]int{}
		for i, p := range q.Candidates {
			qrels[q.ID][p.ID] = int(p.Label)
			run[q.ID] = append(run[q.ID], metric.Doc{ID: p.ID, Score: float32(score(i, q))})
		}
		for i, j := range philox.Perm(len(q.Candidates), 5, q.ID) {
			random[q.ID] = append(random[q.ID], metric.Doc{ID: q.Candidates[i].ID, Score: float32(j)})
		}
	}
	m, err := metric.ParseAll("nDCG@10")
	require.NoError(t, err)
	a, err := metric.Evaluate(qrels, random, m, metric.Options{})
	require.NoError(t, err)
	b, err := metric.Evaluate(qrels, run, m, metric.Options{})
	require.NoError(t, err)
	cmp, err := metric.Compare(a, b, metric.CompareOptions{Permutations: 1000, Resamples: 100, Confidence: .95, Seed: 1})
	require.NoError(t, err)
	return cmp[0].T
}

// Shuffled labels keep how many candidates are relevant, and the texts.
func TestShuffled(t *testing.T) {
	_, c := collection(t, Train, 100, 8)
	s := c.Shuffled(3)
	require.Equal(t, s.Queries, c.Shuffled(3).Queries)
	require.NotEqual(t, s.Queries, c.Shuffled(4).Queries)
	moved := 0
	for i, q := range s.Queries {
		require.Equal(t, c.Queries[i].Positives(), q.Positives())
		for k, p := range q.Candidates {
			was := c.Queries[i].Candidates[k]
			require.Equal(t, was.Text, p.Text)
			if was.Label != p.Label {
				moved++
			}
		}
	}
	require.Greater(t, moved, 100)
}

func TestRefused(t *testing.T) {
	l := New(1)
	for _, x := range []struct {
		s    Split
		n, k int
	}{{"other", 50, 10}, {Test, 0, 10}, {Test, 50, 2}, {Test, 10, 20}} {
		_, err := l.Collection(x.s, x.n, x.k)
		require.ErrorContains(t, err, "lingua: ")
	}
	n := 0
	_, c := collection(t, Dev, 20, 10)
	for range c.Examples() {
		n++
		break
	}
	require.Equal(t, 1, n)
}
