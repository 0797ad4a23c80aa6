package train_test

import (
	"context"
	"fmt"
	"iter"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/cmd/trainer/app/quick/base"
	"rung/data"
	"rung/data/lingua"
	"rung/lora"
	"rung/nn/arch"
	"rung/nn/backend/philox"
	"rung/nn/loss"
	"rung/nn/nntest/shared"
	"rung/train"
)

// Tasks that contradict each other, in a made-up language: a query is a word for the task and a word for a concept. A
// passage answers it if it names the concept that the task's permutation makes of the query's: for task 0 the same, for
// the others another. Every query comes with the answers of all tasks and as many other passages, so that what is right
// for one task is wrong for the others. Training and test pair different words for the same two concepts.
const (
	tasks    = 4
	concepts = 24
	others   = 4 // candidates that answer no task
)

type conflict struct {
	language *lingua.Language
	askers   []string
	answer   [tasks][concepts]int
}

func newConflict() *conflict {
	c := &conflict{language: lingua.New(base.Seed)}
	words := c.language.Words()
	c.askers = words[len(words)-tasks:]
	for t := range tasks {
		for try := 0; ; try++ {
			p := philox.Perm(concepts, 77, fmt.Sprintf("task %d try %d", t, try))
			clash := false
			for i := range concepts {
				if t == 0 {
					p[i] = i
				}
				for s := range t {
					clash = clash || c.answer[s][i] == int(p[i])
				}
			}
			if clash {
				continue
			}
			for i := range concepts {
				c.answer[t][i] = int(p[i])
			}
			break
		}
	}
	return c
}

// examples are n queries of a split, the tasks in turn.
func (c *conflict) examples(split string, n int) iter.Seq2[data.Example, error] {
	return func(yield func(data.Example, error) bool) {
		for i := range n {
			k := uint64(0)
			below := func(n int) int { k++; return int(philox.Uint64(9, split, uint64(i)<<16|k) % uint64(n)) }
			word := func(concept, synonym int) string {
				w, _ := c.language.SynonymsOf(concept) // concepts that exist
				return w[synonym]
			}
			task, of, q := i%tasks, below(concepts), below(lingua.Synonyms)
			passage := func(concept int) string {
				p := below(lingua.Synonyms - 1) // in training, any but one for each word of the query
				if p >= q {
					p++
				}
				if split == "test" {
					p = q
				}
				deed, quality := word(144+below(48), below(lingua.Synonyms)), word(192+below(48), below(lingua.Synonyms))
				return word(concept, p) + " " + quality + " " + deed + " ."
			}
			x := data.Example{ID: fmt.Sprint(split, i), Query: c.askers[task] + " " + word(of, q), Domain: fmt.Sprint("task", task)}
			add := func(concept int, label float32) {
				x.Candidates = append(x.Candidates, data.Candidate{ID: fmt.Sprint(len(x.Candidates)), Text: passage(concept), Label: label})
			}
			used := map[int]bool{}
			for t := range tasks {
				a := c.answer[t][of]
				used[a] = true
				label := float32(0)
				if t == task {
					label = 1
				}
				add(a, label)
			}
			for len(x.Candidates) < tasks+others {
				if o := below(concepts); !used[o] {
					used[o] = true
					add(o, 0)
				}
			}
			if !yield(x, nil) {
				return
			}
		}
	}
}

// arms are what is compared. Experts have rank 4, of which two serve a token: LoRA of rank 8 has their active products, of
// rank 20 as many trained parameters as five experts.
func arms() map[string]lora.Config {
	plain := func(rank int) lora.Config {
		c := lora.Defaults()
		c.Rank, c.Alpha = rank, 2*float64(rank)
		return c
	}
	mix := func(set func(x *lora.Experts)) lora.Config {
		c := lora.MixtureDefaults()
		c.Rank, c.Alpha = 4, 8
		set(&c.Mixture)
		return c
	}
	return map[string]lora.Config{
		"domain": mix(func(x *lora.Experts) {
			x.Router, x.Balance, x.Experts, x.SharedExperts = lora.RouteDomain, lora.BalanceNone, tasks+1, 1
			for t := range tasks {
				x.Domains = append(x.Domains, fmt.Sprint("task", t))
			}
		}),
		"sequence":            mix(func(x *lora.Experts) { x.Router = lora.RouteSequence }),
		"lora, equal active":  plain(8),
		"lora, equal trained": plain(20),
	}
}

// conflictSteps is what each run gets.
const conflictSteps = 1600

func runConflict(t *testing.T, c *conflict, cfg lora.Config, lr float64, seed uint64, split string) (mrr float64, trained int) {
	dir := t.TempDir()
	require.NoError(t, base.Write(context.Background(), dir+"/base"))
	m, err := arch.OpenCross(context.Background(), dir+"/base", arch.Options{Labels: 1, Seed: seed, MaxLength: 16})
	require.NoError(t, err)
	defer m.Close()
	a, err := lora.Apply(m, cfg, seed)
	require.NoError(t, err)
	tc := train.Defaults()
	tc.Epochs, tc.Steps, tc.Batch, tc.LR, tc.Seed, tc.EvalEvery = 0, conflictSteps, 64, lr, seed, conflictSteps
	tc.Metrics = []string{"MRR"}
	r, err := train.Start(context.Background(), m, loss.Listwise{}, train.Data{Train: c.examples("train", 3200), Dev: c.examples(split, 400)}, tc)
	require.NoError(t, err)
	for s := range r.Steps() {
		if s.Evaluation != nil {
			mrr = s.Evaluation.Values["MRR"]
		}
	}
	require.NoError(t, r.Err())
	require.NoError(t, r.Close())
	return mrr, a.Summary().Trainable
}

// A mixture learns tasks that contradict each other better than one LoRA of as many trained parameters and one of as many
// active products: every arm has its learning rate chosen among the same three on other data and another seed, then five
// seeds on the test.
func TestMixtureWins(t *testing.T) {
	shared.Long(t)
	c := newConflict()
	scores := map[string][]float64{}
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for n := range arms() {
			if !yield(n) {
				return
			}
		}
	}) {
		cfg := arms()[name]
		best, at, trained := -1., 0., 0
		for _, lr := range []float64{5e-4, 1e-3, 2e-3} {
			v, n := runConflict(t, c, cfg, lr, 100, "dev")
			t.Logf("%s: lr %g: dev MRR %.4f", name, lr, v)
			if trained = n; v > best {
				best, at = v, lr
			}
		}
		for seed := range 5 {
			v, _ := runConflict(t, c, cfg, at, uint64(seed+1), "test")
			scores[name] = append(scores[name], v)
		}
		t.Logf("%s: %d trained, lr %g: test MRR %.4f", name, trained, at, scores[name])
	}
	for _, name := range []string{"lora, equal active", "lora, equal trained"} {
		d, p := paired(scores["domain"], scores[name])
		t.Logf("domain - %s: %+.4f, p = %.2g", name, d, p)
		require.Greater(t, d, 0.)
		require.Less(t, p, .01)
	}
}

// paired is the mean difference of five pairs, and the two-sided p of Student's t with four degrees of freedom.
func paired(a, b []float64) (mean, p float64) {
	n := float64(len(a))
	for i := range a {
		mean += (a[i] - b[i]) / n
	}
	v := 0.
	for i := range a {
		v += (a[i] - b[i] - mean) * (a[i] - b[i] - mean) / (n - 1)
	}
	x := mean / math.Sqrt(v/n)
	y := x * x / (x*x + 4)
	return mean, 1 - math.Sqrt(y)*(1+(1-y)/2) // of t with 4 degrees of freedom
}
