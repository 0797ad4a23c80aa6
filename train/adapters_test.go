package train

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/lora"
	"rung/nn"
	"rung/nn/backend"
	"rung/nn/graph"
	"rung/nn/loss"
	"rung/nn/nntest/golden"
	"rung/train/report"
)

// adaptedTiny is newTiny with an adapter.
func adaptedTiny(t testing.TB, c lora.Config) (ids, *lora.Adapter) {
	t.Helper()
	m := newTiny()
	a, err := lora.Apply(m.Cross, c, 3)
	require.NoError(t, err)
	return m, a
}

func configOf(kind string, edit func(c *lora.Config)) lora.Config {
	c := lora.DefaultsOf(kind)
	c.Targets = []string{"query", "value", "dense"}
	if c.Feedforward = nil; c.Rank > 0 {
		c.Rank = 4
	}
	edit(&c)
	return c
}

// kinds are adapters whose training has a part of its own: another base, weights drawn to zero, several rates.
func kindsOf() map[string]lora.Config {
	none := func(*lora.Config) {}
	return map[string]lora.Config{
		"dora": configOf(lora.DoRA, none), "ia3": configOf(lora.IA3, none), "allora": configOf(lora.ALLoRA, none),
		"dynamic": configOf(lora.Dynamic, func(c *lora.Config) { c.Shrink = .5 }),
		"pissa":   configOf(lora.Plain, func(c *lora.Config) { c.Init = lora.InitPiSSA }),
		"lora-fa": configOf(lora.Plain, func(c *lora.Config) { c.FreezeA = true }),
		"lora+":   configOf(lora.Plain, func(c *lora.Config) { c.LoRAPlus = 8 }),
	}
}

// Stopped and resumed, a run of every kind ends as if it had not been; and every kind learns.
func TestAdaptersResume(t *testing.T) {
	for name, ac := range kindsOf() {
		t.Run(name, func(t *testing.T) {
			d := Data{examples(24), examples(8)}
			run := func(c Config, stop int) []Step {
				m, _ := adaptedTiny(t, ac)
				r, err := Start(context.Background(), m, loss.BCE{}, d, c)
				require.NoError(t, err)
				steps := until(t, r, stop)
				require.NoError(t, r.Close())
				return steps
			}
			c := config(t)
			c.LR = 5e-3
			want := run(c, 0)
			require.Less(t, want[len(want)-1].Loss, want[0].Loss)
			k := config(t)
			k.LR, k.Backend = 5e-3, workers(t, 3)
			run(k, 5)
			k.Resume = true
			require.Equal(t, want[5:], run(k, 0))
			require.Equal(t, finalState(t, c.Out), finalState(t, k.Out))
			require.Equal(t, metrics(t, c.Out), metrics(t, k.Out))
		})
	}
}

// One step of SGD moves B by λ times what it moves without LoRA+, and nothing else: in the configuration's groups too.
func TestLoRAPlus(t *testing.T) {
	moved := func(plus float64, groups ...Group) map[string][]float32 {
		m, a := adaptedTiny(t, configOf(lora.Plain, func(c *lora.Config) { c.LoRAPlus, c.Init = plus, lora.InitOrthogonal }))
		c := config(t)
		c.Optimizer, c.LR, c.WeightDecay, c.Clip, c.Warmup, c.Steps, c.KeepBest, c.Groups = "sgd", 1e-2, 0, 0, 0, 1, "", groups
		r, err := Start(context.Background(), m, loss.BCE{}, Data{Train: examples(8)}, c)
		require.NoError(t, err)
		defer r.Close()
		out := map[string][]float32{}
		for _, p := range a.Params() {
			v, err := graph.ReadWeight[float32](r.Store(), p.Path)
			require.NoError(t, err)
			out[p.Path] = v
		}
		for range r.Steps() {
			break
		}
		for path, was := range out {
			v, err := graph.ReadWeight[float32](r.Store(), path)
			require.NoError(t, err)
			for i := range v {
				v[i] -= was[i]
			}
			out[path] = v
		}
		return out
	}
	plain := moved(0)
	for _, c := range []struct {
		got     map[string][]float32
		a, b, q float32
	}{
		{moved(1), 1, 1, 1},
		{moved(16), 1, 16, 1},
		{moved(16, Group{Match: "query", LR: 3e-2}), 1, 16, 3},
	} {
		for path, v := range c.got {
			f := c.a
			if strings.HasSuffix(path, ".lora_B.weight") {
				f = c.b
			}
			if strings.Contains(path, "query") {
				f *= c.q
			}
			for i, x := range v {
				require.InDelta(t, f*plain[path][i], x, 2e-6, path)
			}
		}
	}
	m, _ := adaptedTiny(t, configOf(lora.Plain, func(c *lora.Config) { c.LoRAPlus = 4 }))
	c := config(t)
	for _, at := range []string{"layer.0.attention.self.query", "layer.1.attention.self.query", "layer.0.*value", "layer.1.*value"} {
		c.Groups = append(c.Groups, Group{Match: at, LR: 1e-3})
	}
	_, err := Start(context.Background(), m, loss.BCE{}, Data{Train: examples(8), Dev: examples(4)}, c)
	require.EqualError(t, err, "train: 10 learning rates, at most 8: the groups, each once more where an adapter asks for another rate (lora_plus)")
}

// Weights of ranks that learn nothing become zero, and stay it; the log says how many are left.
func TestDynamicRanks(t *testing.T) {
	ac := configOf(lora.Dynamic, func(c *lora.Config) { c.Shrink = .5 })
	m, a := adaptedTiny(t, ac)
	c := config(t)
	c.LR, c.Epochs = 2e-3, 6
	r, err := Start(context.Background(), m, loss.BCE{}, Data{examples(24), examples(8)}, c)
	require.NoError(t, err)
	steps := all(t, r)
	left, ones := 0, 0
	for _, p := range a.Params() {
		if strings.HasSuffix(p.Path, ".lora_w") {
			w, err := graph.ReadWeight[float32](r.Store(), p.Path)
			require.NoError(t, err)
			for _, x := range w {
				if x != 0 {
					left++
				}
				ones++
			}
		}
	}
	require.NoError(t, r.Close())
	last := steps[len(steps)-1].Ranks
	require.Equal(t, &report.Ranks{Left: left, All: ones, Modules: last.Modules}, last)
	require.Less(t, left, ones)
	require.Positive(t, left)
	recs, err := report.Read(filepath.Join(c.Out, report.File))
	require.NoError(t, err)
	before := ones + 1
	n := 0
	for _, rec := range recs {
		if rec.Ranks != nil {
			require.Equal(t, ones, rec.Ranks.All)
			before, n = rec.Ranks.Left, n+1
		}
	}
	require.Equal(t, left, before)
	require.Greater(t, n, 1)
	t.Logf("%d of %d ranks are left", left, ones)
}

// A that is frozen stays as it is drawn.
func TestFrozenA(t *testing.T) {
	m, a := adaptedTiny(t, configOf(lora.Plain, func(c *lora.Config) { c.FreezeA = true }))
	c := config(t)
	c.Steps = 3
	r, err := Start(context.Background(), m, loss.BCE{}, Data{examples(12), examples(4)}, c)
	require.NoError(t, err)
	all(t, r)
	for _, p := range a.Params() {
		was := make([]float32, p.Size())
		if p.Init != nil && strings.Contains(p.Path, ".lora_A.") {
			require.NoError(t, p.Init(was))
			now, err := graph.ReadWeight[float32](r.Store(), p.Path)
			require.NoError(t, err)
			require.Equal(t, was, now)
			require.NotContains(t, r.opt.names, p.Path)
		} else if strings.Contains(p.Path, ".lora_B.") {
			require.Contains(t, r.opt.names, p.Path)
		}
	}
	require.NoError(t, r.Close())
}

// A weight that is drawn to zero is not decayed as well; those beside it are, and are not drawn.
func TestShrunkIsNotDecayed(t *testing.T) {
	c := Defaults()
	s := golden.Store(t, workers(t, 1), []*nn.Param{
		{Path: "a", Dims: []int{16}, Trainable: true},
		{Path: "w", Dims: []int{16}, Trainable: true, Shrink: .1},
		{Path: "b", Dims: []int{16}, Trainable: true},
	}, true)
	o, err := newOptimizer(&c, s)
	require.NoError(t, err)
	defer func() { require.NoError(t, o.close()) }()
	var did []string
	for _, call := range o.calls {
		switch call.Op {
		case backend.AdamW:
			did = append(did, fmt.Sprint("decay ", call.F[3]))
		case backend.Shrink:
			did = append(did, fmt.Sprint("shrink ", call.F[0]))
		}
	}
	require.Equal(t, []string{"decay 0.01", "decay 0", "shrink 0.1", "decay 0.01"}, did)
}
