package train_test

import (
	"context"
	"fmt"
	"iter"
	"math"
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

// confirmed draws the test, 9 the rest: no run had seen that test before the settings were fixed.
const confirmed = 20261127

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
		key := uint64(9)
		if split == "test" {
			key = confirmed
		}
		for i := range n {
			k := uint64(0)
			below := func(n int) int { k++; return int(philox.Uint64(key, split, uint64(i)<<16|k) % uint64(n)) }
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

// An arm is one of the adapters that are compared.
type arm struct {
	name   string
	config lora.Config
}

func plainArm(name string, rank int) arm {
	c := lora.Defaults()
	c.Rank, c.Alpha = rank, 2*float64(rank)
	return arm{name, c}
}

// mixtureArm has experts of rank 4, of which two serve a row.
func mixtureArm(name string, set func(c *lora.Config)) arm {
	c := lora.MixtureDefaults()
	c.Rank, c.Alpha = 4, 8
	set(&c)
	return arm{name, c}
}

// arms are what is compared, what the claim is about first. LoRA of rank 8 has the active products of two experts, of rank
// 20 as many trained parameters as five.
func arms() []arm {
	return []arm{
		mixtureArm("domain", func(c *lora.Config) {
			x := &c.Mixture
			x.Router, x.Balance, x.Experts, x.SharedExperts = lora.RouteDomain, lora.BalanceNone, tasks+1, 1
			for t := range tasks {
				x.Domains = append(x.Domains, fmt.Sprint("task", t))
			}
		}),
		plainArm("lora equal trained", 20),
		plainArm("lora equal active", 8),
		mixtureArm("token", func(c *lora.Config) { c.Mixture.Router = lora.RouteToken }),
		mixtureArm("sequence", func(c *lora.Config) { c.Mixture.Router = lora.RouteSequence }),
	}
}

// conflictSteps is what each run gets.
const conflictSteps = 3200

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
// active products: every arm has its learning rate chosen among the same three, by the mean of three seeds on other queries, then
// five seeds on the test.
//
// This is the third form of it, and was run once as it stands, on seeds and test candidates that nothing was chosen by.
// The first two had half the updates and one seed to choose the rate by: docs/adapters.md has what all three gave.
func TestMixtureWins(t *testing.T) {
	shared.Long(t)
	c := newConflict()
	scores := map[string][]float64{}
	for _, a := range arms() {
		t.Run(a.name, func(t *testing.T) {
			best, at, trained := -1., 0., 0
			for _, lr := range []float64{5e-4, 1e-3, 2e-3} {
				var all []float64
				for seed := range uint64(3) {
					v, n := runConflict(t, c, a.config, lr, 100+seed, "dev")
					all, trained = append(all, v), n
				}
				t.Logf("lr %g: dev MRR %.4f", lr, all)
				if m := mean(all); m > best {
					best, at = m, lr
				}
			}
			for seed := range uint64(5) {
				v, _ := runConflict(t, c, a.config, at, 21+seed, "test")
				scores[a.name] = append(scores[a.name], v)
			}
			of := scores[a.name]
			t.Logf("%d trained, lr %g: test MRR %.4f: %.4f", trained, at, mean(of), of)
		})
	}
	for _, a := range arms()[1:] {
		if scores["domain"] == nil || scores[a.name] == nil {
			continue // -run asked for some arms only
		}
		d, p := paired(scores["domain"], scores[a.name])
		t.Logf("domain - %s: %+.4f, p = %.2g", a.name, d, p)
		if a.config.Kind == lora.Plain {
			require.Greater(t, d, 0.)
			require.Less(t, p, .01)
		}
	}
}

func mean(v []float64) (m float64) {
	for _, x := range v {
		m += x / float64(len(v))
	}
	return m
}

// paired is the mean difference of three or five pairs, and the two-sided p of Student's t.
func paired(a, b []float64) (diff, p float64) {
	n := float64(len(a))
	for i := range a {
		diff += (a[i] - b[i]) / n
	}
	v := 0.
	for i := range a {
		v += (a[i] - b[i] - diff) * (a[i] - b[i] - diff) / (n - 1)
	}
	t := math.Abs(diff) / math.Sqrt(v/n)
	switch y := math.Sqrt(t * t / (t*t + n - 1)); len(a) { // the closed forms for 2 and 4 degrees of freedom
	case 3:
		return diff, 1 - y
	case 5:
		return diff, 1 - y*(1+(1-y*y)/2)
	}
	return diff, math.NaN()
}

// Quantiles of t: 4.303 and 2.776 are exceeded by 5% of draws, in either direction, 9.925 and 4.604 by 1%.
func TestPaired(t *testing.T) {
	for _, c := range []struct {
		t, p float64
		n    int
	}{{4.3027, .05, 3}, {9.9248, .01, 3}, {2.7764, .05, 5}, {4.6041, .01, 5}} {
		a := make([]float64, c.n) // of variance 1 about c.t/√n
		for i := range a {
			a[i] = c.t / math.Sqrt(float64(c.n))
		}
		s := math.Sqrt(float64(c.n-1) / 2)
		a[0], a[1] = a[0]+s, a[1]-s
		_, p := paired(a, make([]float64, c.n))
		require.InDelta(t, c.p, p, 1e-5)
	}
}
