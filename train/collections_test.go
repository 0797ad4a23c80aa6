package train_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rung/data"
	"rung/data/read"
	"rung/lora"
	"rung/nn/arch"
	"rung/nn/backend"
	"rung/nn/backend/philox"
	"rung/nn/device"
	"rung/nn/loss"
	"rung/nn/nntest/shared"
	"rung/train"
	"rung/train/metric"
)

// Three collections that are learned together: sentences that answer a question, abstracts about a matter of nutrition,
// Chinese sentences of one meaning. What is relevant differs, but they do not contradict each other. The Chinese is spelled
// in MiniLM's English vocabulary, which knows a quarter of its characters and has one token for all the others.

const (
	collectionSteps  = 200
	collectionLength = 64
	wrongAnswers     = 5 // of a training query
	heldOut          = 100
	perCollection    = 800 // training queries
)

// A collection's examples are split into those that are trained on, those that rates are chosen by, and the test.
type collection struct {
	name, measure     string
	train, tune, test []data.Example
}

func collections(t *testing.T) []*collection {
	return []*collection{wikiQuestions(t), nutrition(t), chinese(t)}
}

// examplesOf reads a split of a collection: its queries with a positive.
func examplesOf(t *testing.T, spec read.Spec) (all []data.Example, c *read.Collection) {
	c, err := read.Open(context.Background(), spec, read.Defaults())
	require.NoError(t, err)
	for x, err := range c.Examples(context.Background()) {
		require.NoError(t, err)
		all = append(all, x)
	}
	return all, c
}

// divide shuffles training examples, keeps heldOut of them for the choice of rates and at most n for training.
func (c *collection) divide(all []data.Example, n int) {
	for i, k := range philox.Perm(len(all), 5, c.name) {
		switch {
		case i < heldOut:
			c.tune = append(c.tune, all[k])
		case len(c.train) < n:
			c.train = append(c.train, all[k])
		}
	}
	for _, s := range [][]data.Example{c.train, c.tune, c.test} {
		for i := range s {
			s[i].ID, s[i].Domain = c.name+" "+s[i].ID, c.name
		}
	}
}

// drawn keeps n candidates of an example, a choice by its id.
func drawn(of []data.Candidate, n int, id string) (kept []data.Candidate) {
	for _, k := range philox.Perm(len(of), 6, id)[:min(n, len(of))] {
		kept = append(kept, of[k])
	}
	return kept
}

// wikiQuestions is WikiQA: all answers and five other sentences to train on, the dev set as it is to test.
func wikiQuestions(t *testing.T) *collection {
	c := &collection{name: "wikiqa", measure: "MAP"}
	dir := shared.Path(t, "data", "wikiqa")
	c.test, _ = examplesOf(t, read.Spec{Kind: "wikiqa", Path: dir, Split: "dev"})
	all, _ := examplesOf(t, read.Spec{Kind: "wikiqa", Path: dir, Split: "train"})
	for i := range all {
		var right, wrong []data.Candidate
		for _, k := range all[i].Candidates {
			if k.Label > 0 {
				right = append(right, k)
			} else {
				wrong = append(wrong, k)
			}
		}
		all[i].Candidates = append(right, drawn(wrong, wrongAnswers, all[i].ID)...)
	}
	c.divide(all, perCollection)
	return c
}

// nutrition is NFCorpus, of which only relevant documents are judged: the others are drawn from the corpus. One relevant and
// five others to train on, up to two and eight for every second query
// of the dev set to test.
func nutrition(t *testing.T) *collection {
	c := &collection{name: "nfcorpus", measure: "nDCG@10"}
	dir := shared.Path(t, "data", "nfcorpus")
	var corpus []read.Text
	load := func(split string, right, wrong int) []data.Example {
		all, r := examplesOf(t, read.Spec{Kind: "beir", Path: dir, Split: split})
		if corpus == nil {
			for d, err := range r.Corpus(context.Background()) {
				require.NoError(t, err)
				corpus = append(corpus, d)
			}
		}
		for i := range all {
			x := &all[i]
			judged := map[string]bool{}
			for _, k := range x.Candidates {
				judged[k.ID] = true
			}
			x.Candidates = drawn(x.Candidates, right, x.ID)
			for k, n := uint64(0), wrong; n > 0; k++ {
				if d := corpus[philox.Uint64(7, x.ID, k)%uint64(len(corpus))]; !judged[d.ID] {
					judged[d.ID] = true
					x.Candidates = append(x.Candidates, data.Candidate{ID: d.ID, Text: d.Text})
					n--
				}
			}
		}
		return all
	}
	for i, x := range load("dev", 2, 8) {
		if i%2 == 0 {
			c.test = append(c.test, x)
		}
	}
	c.divide(load("train", 1, wrongAnswers), perCollection)
	return c
}

// chinese is SimCLUE's triples: which of two sentences means what the first does. Its measure is accuracy. A sentence of the
// test is not trained on.
func chinese(t *testing.T) *collection {
	c := &collection{name: "simclue", measure: "P@1"}
	asked := map[string]bool{}
	load := func(file string) (all []data.Example) {
		f, err := os.Open(filepath.Join(shared.Path(t, "data", "simclue_zh", "triclue_small"), file))
		require.NoError(t, err)
		defer f.Close()
		in := json.NewDecoder(bufio.NewReader(f))
		for in.More() {
			var row struct {
				ID    int    `json:"id"`
				Query string `json:"sentence_0"`
				One   string `json:"sentence_1"`
				Two   string `json:"sentence_2"`
				Label int    `json:"label"`
			}
			require.NoError(t, in.Decode(&row))
			if asked[row.Query] {
				continue
			}
			x := data.Example{ID: fmt.Sprint(row.ID), Query: row.Query, Candidates: []data.Candidate{{ID: "1", Text: row.One}, {ID: "2", Text: row.Two}}}
			x.Candidates[row.Label-1].Label = 1
			all = append(all, x)
		}
		return all
	}
	c.test = load("dev.json")
	for _, x := range c.test {
		asked[x.Query] = true
	}
	c.divide(load("train.json"), perCollection)
	return c
}

// collectionArms: experts of rank 8 by domain are 32 ranks, of which each token has 16 active; experts of rank 4 by token are
// 32 ranks and a router, of which a token has 8 active, and the router costs about as much as 4 more.
func collectionArms() []arm {
	all := []arm{
		mixtureArm("mixture by domain", func(c *lora.Config) {
			x := &c.Mixture
			c.Rank, c.Alpha = 8, 16
			x.Router, x.Balance, x.Experts, x.SharedExperts, x.Domains = lora.RouteDomain, lora.BalanceNone, 4, 1, []string{"wikiqa", "nfcorpus", "simclue"}
		}),
		plainArm("lora equal trained", 32),
		plainArm("lora equal active", 16),
		mixtureArm("mixture by token", func(*lora.Config) {}),
	}
	for i := range all {
		all[i].config.Targets = []string{"query", "value"}
	}
	return all
}

// measured evaluates scores of a collection, query by query.
func measured(t *testing.T, c *collection, e *data.Encoded, scores [][]float32) *metric.Result {
	qrels, run := metric.Qrels{}, metric.Run{}
	for i, u := range e.Units {
		qrels[u.ID] = map[string]int{}
		for k, id := range u.IDs {
			qrels[u.ID][id] = int(u.Labels[k])
			run[u.ID] = append(run[u.ID], metric.Doc{ID: id, Score: scores[i][k]})
		}
	}
	m, err := metric.ParseAll(c.measure)
	require.NoError(t, err)
	r, err := metric.Evaluate(qrels, run, m, metric.Options{})
	require.NoError(t, err)
	return r
}

// runCollections trains on all collections and evaluates each by itself.
func runCollections(t *testing.T, be backend.Backend, all []*collection, a arm, lr float64, seed uint64,
	of func(*collection) []data.Example,
) (results []*metric.Result, trained int) {
	ctx := context.Background()
	m, err := arch.OpenCross(ctx, shared.Path(t, "models", "all-MiniLM-L6-v2"), arch.Options{Labels: 1, Seed: seed, MaxLength: collectionLength})
	require.NoError(t, err)
	defer m.Close()
	adapter, err := lora.Apply(m, a.config, seed)
	require.NoError(t, err)
	tc := train.Defaults()
	tc.Epochs, tc.Steps, tc.LR, tc.Seed, tc.Backend = 0, collectionSteps, lr, seed, be
	tc.Window, tc.Metrics = 1, []string{"MAP"} // batches are of all collections
	d := train.Data{Train: func(yield func(data.Example, error) bool) {
		for _, c := range all {
			for _, x := range c.train {
				if !yield(x, nil) {
					return
				}
			}
		}
	}}
	r, err := train.Start(ctx, m, loss.Listwise{}, d, tc)
	require.NoError(t, err)
	for range r.Steps() {
	}
	require.NoError(t, r.Err())
	s := arch.NewScorer(be, m, 0, r.Store())
	for _, c := range all {
		e := &data.Encoded{}
		for _, x := range of(c) {
			require.NoError(t, m.Encode(e, x))
		}
		scores, err := s.Score(ctx, e)
		require.NoError(t, err)
		results = append(results, measured(t, c, e, scores))
	}
	require.NoError(t, s.Close())
	require.NoError(t, r.Close())
	return results, adapter.Summary().Trainable
}

// A mixture on three real collections at once, beside one LoRA of as many trained parameters and one of as many active
// products: what comes out is printed, whichever way it falls. Every arm has the better of two learning rates, by the mean of
// the three measures on training queries that are held out, and three seeds.
func TestCollections(t *testing.T) {
	shared.Long(t)
	all := collections(t)
	for _, c := range all {
		t.Logf("%s: %d queries to train on, %d to choose by, %d to test", c.name, len(c.train), len(c.tune), len(c.test))
	}
	be, err := device.Open("")
	require.NoError(t, err)
	by := map[string][][]*metric.Result{} // (seeds, collections)
	size := map[string]int{}
	for _, a := range collectionArms() {
		began := time.Now()
		best, at := -1., 0.
		for _, lr := range []float64{5e-4, 2e-3} {
			r, n := runCollections(t, be, all, a, lr, 100, func(c *collection) []data.Example { return c.tune })
			v := means(r)
			t.Logf("%s: lr %g: held out %.4f, mean %.4f", a.name, lr, v, mean(v))
			if size[a.name] = n; mean(v) > best {
				best, at = mean(v), lr
			}
		}
		for seed := range uint64(3) {
			r, _ := runCollections(t, be, all, a, at, seed+1, func(c *collection) []data.Example { return c.test })
			t.Logf("%s: seed %d: test %.4f", a.name, seed+1, means(r))
			by[a.name] = append(by[a.name], r)
		}
		t.Logf("%s: %d trained, lr %g, %.0f s", a.name, size[a.name], at, time.Since(began).Seconds())
	}
	require.Equal(t, size["lora equal trained"], size["mixture by domain"])
	for i, c := range all {
		for _, a := range collectionArms() {
			v := overSeeds(by[a.name], i)
			t.Logf("%s, %s, %s: %.4f, %.4f to %.4f", c.name, c.measure, a.name, mean(v), slices.Min(v), slices.Max(v))
		}
		for _, a := range collectionArms() {
			for _, b := range collectionArms() {
				if a.config.Kind == lora.Mixture && b.config.Kind == lora.Plain {
					d, p := paired(overSeeds(by[a.name], i), overSeeds(by[b.name], i))
					k, err := metric.Compare(ofSeeds(by[b.name], i), ofSeeds(by[a.name], i), metric.DefaultCompare())
					require.NoError(t, err)
					t.Logf("%s: %s - %s: %+.4f, p = %.2g over seeds, %.2g over queries", c.name, a.name, b.name, d, p, k[0].PRandom)
				}
			}
		}
	}
}

// means are the values of collections.
func means(r []*metric.Result) (v []float64) {
	for _, x := range r {
		v = append(v, x.All[0])
	}
	return v
}

// overSeeds are the values of collection i.
func overSeeds(r [][]*metric.Result, i int) (v []float64) {
	for _, x := range r {
		v = append(v, x[i].All[0])
	}
	return v
}

// ofSeeds is the result of collection i with each query's mean over seeds.
func ofSeeds(r [][]*metric.Result, i int) *metric.Result {
	out := *r[0][i]
	out.Values = [][]float64{make([]float64, len(out.Queries))}
	for _, x := range r {
		for q, v := range x[i].Values[0] {
			out.Values[0][q] += v / float64(len(r))
		}
	}
	return &out
}
