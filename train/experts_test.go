package train

import (
	"context"
	"iter"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/data"
	"rung/lora"
	"rung/nn/graph"
	"rung/nn/loss"
	"rung/train/report"
)

// newMixture is newTiny with experts.
func newMixture(t testing.TB, set func(c *lora.Config, x *lora.Experts)) ids {
	t.Helper()
	m, c := newTiny(), lora.MixtureDefaults()
	c.Rank, c.Targets, c.Mixture.Experts = 2, []string{"query", "value", "output.dense"}, 4
	set(&c, &c.Mixture)
	_, err := lora.Apply(m, c, 1)
	require.NoError(t, err)
	return m
}

// routers are those whose state a run has to keep, or whose loss is of a batch.
var routers = map[string]func(c *lora.Config, x *lora.Experts){
	"switch": func(_ *lora.Config, x *lora.Experts) { x.ZLoss = 1e-3 },
	"bias":   func(_ *lora.Config, x *lora.Experts) { x.Balance, x.BiasRate = lora.BalanceBias, .01 },
	"sequence": func(_ *lora.Config, x *lora.Experts) {
		x.Router, x.Balance = lora.RouteSequence, lora.BalanceImportance
	},
	"rank": func(c *lora.Config, x *lora.Experts) {
		c.Rank, x.Router, x.TopK, x.Balance, x.BiasRate = 4, lora.RouteRank, 2, lora.BalanceBias, .01
	},
}

// Stopped and resumed, with another number of workers, a run ends with the same bits: biases of the choice and the log of the
// experts' use, too.
func TestMixtureResumes(t *testing.T) {
	for name, set := range routers {
		t.Run(name, func(t *testing.T) {
			d := Data{examples(20), examples(6)}
			run := func(c Config, stop int) []Step {
				r, err := Start(context.Background(), newMixture(t, set), loss.BCE{}, d, c)
				require.NoError(t, err)
				steps := until(t, r, stop)
				require.NoError(t, r.Close())
				return steps
			}
			c := config(t)
			want := run(c, 0)
			for _, s := range want {
				require.NotNil(t, s.Experts)
				require.Equal(t, 4*8, s.Experts.All)
				require.GreaterOrEqual(t, s.Experts.Load, 1.)
				require.Greater(t, s.Experts.Entropy, 0.)
				require.Equal(t, name == "bias" || name == "rank", s.Penalty == 0)
			}
			k := config(t)
			k.Backend = workers(t, 3)
			got := run(k, 4)
			k.Resume, k.Backend = true, workers(t, 1)
			got = append(got, run(k, 0)...)
			require.Equal(t, want, got)
			require.Equal(t, finalState(t, c.Out), finalState(t, k.Out))
			a := metrics(t, c.Out)
			require.Equal(t, a, metrics(t, k.Out))
			require.Len(t, a[len(a)-1].Loads, 8)
			for _, v := range a[len(a)-1].Loads {
				require.InDelta(t, 1, v[0]+v[1]+v[2]+v[3], 1e-9)
			}
		})
	}
}

// An evaluation that was cut off is made up for with the use of experts of its step.
func TestLoadsOfEvaluationCutOff(t *testing.T) {
	d, c := Data{examples(30), examples(10)}, config(t)
	r, err := Start(context.Background(), newMixture(t, routers["switch"]), loss.BCE{}, d, c)
	require.NoError(t, err)
	all(t, r)
	require.NoError(t, r.Close())

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	k := config(t)
	m := hooked{ids: newMixture(t, routers["switch"]), scoring: func() {}}
	r, err = Start(ctx, &m, loss.BCE{}, d, k)
	require.NoError(t, err)
	m.scoring = cancel
	for range r.Steps() {
	}
	require.ErrorIs(t, r.Err(), context.Canceled)
	require.NoError(t, r.Close())
	k.Resume = true
	r, err = Start(context.Background(), newMixture(t, routers["switch"]), loss.BCE{}, d, k)
	require.NoError(t, err)
	require.NotNil(t, r.pos.Pending)
	all(t, r)
	require.NoError(t, r.Close())
	require.Equal(t, metrics(t, c.Out), metrics(t, k.Out))
	require.Equal(t, finalState(t, c.Out), finalState(t, k.Out))
}

// The mean entropy of routers by sequence is that over sequences, however a batch is cut.
func TestEntropyOfSequences(t *testing.T) {
	var want *report.Experts
	for _, micro := range []int{1000, 40} {
		m := newMixture(t, func(_ *lora.Config, x *lora.Experts) { x.Router = lora.RouteSequence })
		for _, p := range m.Params() {
			if strings.HasSuffix(p.Path, ".lora_router.weight") {
				p.Init = p.Normal(3, 2)
			}
		}
		c := config(t)
		c.MicroTokens, c.Batch, c.Steps, c.Dropout = micro, 48, 1, false
		r, err := Start(context.Background(), m, loss.BCE{}, Data{Train: lengths(12)}, withoutDev(c))
		require.NoError(t, err)
		s := all(t, r)
		require.NoError(t, r.Close())
		if want == nil {
			want = s[0].Experts
		}
		require.InEpsilon(t, want.Entropy, s[0].Experts.Entropy, 1e-5)
		require.InDelta(t, want.Load, s[0].Experts.Load, 1e-9)
	}
}

// lengths are examples of which every second one is long.
func lengths(n int) iter.Seq2[data.Example, error] {
	return func(yield func(data.Example, error) bool) {
		i := 0
		for x, err := range examples(n) {
			if i++; i%2 == 0 {
				x.Query += strings.Repeat(" 7 11 23", 3)
			}
			if !yield(x, err) {
				return
			}
		}
	}
}

// What is trained beside a bias is updated beside it: neither its neighbours' rate nor their decay reaches it.
func TestBiasOfLoadByItself(t *testing.T) {
	m := newMixture(t, func(c *lora.Config, x *lora.Experts) {
		routers["bias"](c, x)
		c.Bias = lora.BiasAll // a LayerNorm's comes after the bias of a router
	})
	c := config(t)
	c.Steps, c.LR, c.Warmup, c.Schedule = 3, .1, 0, "constant"
	r, err := Start(context.Background(), m, loss.BCE{}, Data{Train: examples(12)}, withoutDev(c))
	require.NoError(t, err)
	all(t, r)
	defer r.Close()
	n := 0
	for _, p := range m.Params() {
		if p.Sign == 0 {
			continue
		}
		w, err := graph.ReadWeight[float32](r.Store(), p.Path)
		require.NoError(t, err)
		for _, v := range w {
			steps := float64(v) / .01
			require.InDelta(t, math.Round(steps), steps, 1e-4, p.Path)
			require.LessOrEqual(t, math.Abs(steps), 3.001, p.Path)
		}
		n++
	}
	require.Equal(t, 8, n)
}

// One update moves each bias against the load of the whole batch, however it is cut into micro-batches; neither the learning
// rate nor clipping matters to it, and it is in no norm.
func TestBiasOfLoad(t *testing.T) {
	var want map[string][]float32
	var norm float64
	for _, micro := range []int{40, 1000} {
		m := newMixture(t, routers["bias"])
		c := config(t)
		c.MicroTokens, c.Steps, c.LR, c.Warmup, c.Dropout = micro, 1, 1e-9, 0, false
		r, err := Start(context.Background(), m, loss.BCE{}, Data{Train: examples(12)}, withoutDev(c))
		require.NoError(t, err)
		s := all(t, r)
		got := map[string][]float32{}
		for _, p := range m.Params() {
			if p.Sign == 0 {
				continue
			}
			got[p.Path], err = graph.ReadWeight[float32](r.Store(), p.Path)
			require.NoError(t, err)
			moved := false
			for _, v := range got[p.Path] {
				require.Contains(t, []float32{-.01, 0, .01}, v)
				moved = moved || v != 0
			}
			require.True(t, moved)
		}
		require.Len(t, got, 8)
		require.NoError(t, r.Close())
		if want == nil {
			want, norm = got, s[0].GradNorm
		}
		require.Equal(t, want, got)
		require.InEpsilon(t, norm, s[0].GradNorm, 1e-4)
	}
}

func withoutDev(c Config) Config {
	c.KeepBest, c.Metrics = "", []string{"MAP"}
	return c
}

// The loss that is reported is the task's; the routers' is apart, and the mean over micro-batches by their tokens.
func TestPenaltyIsApart(t *testing.T) {
	first := func(micro int, weight float64) Step {
		c := config(t)
		c.MicroTokens, c.Batch, c.Steps, c.Dropout = micro, 48, 1, false
		m := newMixture(t, func(_ *lora.Config, x *lora.Experts) { x.Balance, x.ZLoss = lora.BalanceNone, weight })
		r, err := Start(context.Background(), m, loss.BCE{}, Data{Train: examples(12)}, withoutDev(c))
		require.NoError(t, err)
		defer r.Close()
		return all(t, r)[0]
	}
	none, one, cut := first(1000, 0), first(1000, .5), first(40, .5)
	require.Zero(t, none.Penalty)
	require.Equal(t, none.Loss, one.Loss)
	require.Greater(t, one.Penalty, 0.)
	require.InEpsilon(t, one.Penalty, cut.Penalty, 1e-5) // a z-loss is a sum over rows
	require.InEpsilon(t, one.Experts.Entropy, cut.Experts.Entropy, 1e-5)
	require.Equal(t, one.Experts.Load, cut.Experts.Load)
}

// Balancing evens out the use of experts.
func TestBalances(t *testing.T) {
	loads := map[string]float64{}
	for name, set := range map[string]func(c *lora.Config, x *lora.Experts){
		"none":   func(_ *lora.Config, x *lora.Experts) { x.Balance = lora.BalanceNone },
		"switch": func(_ *lora.Config, x *lora.Experts) { x.BalanceWeight = .5 },
		"bias":   func(_ *lora.Config, x *lora.Experts) { x.Balance, x.BiasRate = lora.BalanceBias, .01 },
	} {
		c := config(t)
		c.Epochs, c.MicroTokens, c.LR = 20, 1000, 1e-2
		r, err := Start(context.Background(), newMixture(t, set), loss.BCE{}, Data{Train: examples(40)}, withoutDev(c))
		require.NoError(t, err)
		s := all(t, r)
		require.NoError(t, r.Close())
		for _, x := range s[len(s)-10:] {
			loads[name] += x.Experts.Load / 10
		}
	}
	t.Log(loads)
	require.Less(t, loads["switch"], loads["none"]-.1)
	require.Less(t, loads["bias"], loads["none"]-.1)
}

// domained is a model whose units are of two domains in turn.
type domained struct{ ids }

func (m domained) Encode(e *data.Encoded, x data.Example) error {
	err := m.ids.Encode(e, x)
	e.Units[len(e.Units)-1].Domain = int32(len(e.Units) % 2)
	return err
}

// An expert that no example is for learns nothing.
func TestDomains(t *testing.T) {
	m := newMixture(t, func(_ *lora.Config, x *lora.Experts) {
		x.Router, x.Balance, x.Experts, x.SharedExperts, x.Domains = lora.RouteDomain, lora.BalanceNone, 4, 1, []string{"a", "b", "never"}
	})
	c := config(t)
	r, err := Start(context.Background(), domained{m}, loss.BCE{}, Data{Train: examples(12)}, withoutDev(c))
	require.NoError(t, err)
	steps := all(t, r)
	require.Equal(t, 8, steps[0].Experts.Dead) // one a layer
	n := 0
	for _, p := range m.Params() {
		if !strings.HasSuffix(p.Path, ".lora_B.weight") {
			continue
		}
		n++
		v, err := graph.ReadWeight[float32](r.Store(), p.Path)
		require.NoError(t, err)
		var norms [4]float64
		for i, x := range v {
			norms[i%8/2] += math.Abs(float64(x))
		}
		require.Zero(t, norms[2], p.Path)
		for _, e := range []int{0, 1, 3} {
			require.Greater(t, norms[e], 0., p.Path)
		}
	}
	require.Equal(t, 8, n)
	require.NoError(t, r.Close())
}
