package lora

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn"
	"rung/nn/backend"
	"rung/nn/graph"
	"rung/nn/nntest/golden"
)

// ALLoRA's gradients are LoRA's of A and B with the rows of the gradient of B A scaled.
func TestALLoRA(t *testing.T) {
	const eta = 2.
	be, b := golden.Ref[float64](t, 2), smallBatch()
	grads := func(kind string) (*Adapter, *graph.Store, map[string][]float64) {
		m := smallCross(t)
		c := Config{Kind: kind, Rank: 2, Alpha: 2, Targets: []string{"layer.1.output.dense"}} // the last: nothing behind it scales
		if kind == ALLoRA {
			c.Alpha, c.Eta = 0, eta
		}
		a, err := Apply(m, c, 1)
		require.NoError(t, err)
		stir(a, 6)
		own, base := golden.Store(t, be, a.Params(), true), golden.Store(t, be, a.Base(), false)
		j := start[float64](t, be, m, bce, b, own, base)
		j.Result(t, nn.OutLoss, 1)
		all := map[string][]float64{}
		for _, p := range a.Params() {
			all[p.Path] = golden.Grad[float64](t, own, p.Path)
		}
		return a, own, all
	}
	a, own, scaled := grads(ALLoRA)
	_, _, plain := grads(Plain)
	l := a.sites[0].low
	ba := make([]float64, l.Base.Out()*l.Base.In())
	require.NoError(t, l.fold(func(p *nn.Param) ([]float64, error) { return read([]*graph.Store{own}, p.Path) }, ba, nil))
	for i, n := range lengths(ba, l.Base.Out()) {
		f := 1 / math.Sqrt(n+1/(eta*eta))
		for r := range l.Rank() {
			k := i*l.Rank() + r
			require.InDelta(t, f*plain[l.B.Path][k], scaled[l.B.Path][k], 1e-12)
		}
	}
	require.Greater(t, golden.Rel(scaled[l.A.Path], plain[l.A.Path]), 1e-2)
	for path, g := range plain {
		if !strings.Contains(path, ".lora_") {
			near(t, g, scaled[path], 1e-14)
		}
	}
}

// With A zero and B not, the product's rows are zero: every row learns eta times as fast.
func TestALLoRAFresh(t *testing.T) {
	m := smallCross(t)
	a, err := Apply(m, Config{Kind: ALLoRA, Rank: 2, Eta: 3, Targets: []string{"query"}}, 1)
	require.NoError(t, err)
	be, b := golden.Ref[float64](t, 2), smallBatch()
	own, base := golden.Store(t, be, a.Params(), true), golden.Store(t, be, a.Base(), false)
	start[float64](t, be, m, bce, b, own, base).Result(t, nn.OutLoss, 1)
	n := smallCross(t)
	p, err := Apply(n, Config{Rank: 2, Alpha: 2, Targets: []string{"query"}}, 1)
	require.NoError(t, err)
	own2 := golden.Store(t, be, p.Params(), true)
	start[float64](t, be, n, bce, b, own2, base).Result(t, nn.OutLoss, 1)
	for _, q := range a.Params() {
		if strings.Contains(q.Path, ".lora_B") {
			want := golden.Grad[float64](t, own2, q.Path)
			for i, g := range golden.Grad[float64](t, own, q.Path) {
				require.InDelta(t, 3*want[i], g, 1e-9)
			}
		}
	}
}

// A start from singular values: what is taken out of W is the best approximation of its rank, and A and B share it.
func TestPiSSA(t *testing.T) {
	m := smallCross(t)
	c := with4(func(c *Config) { c.Init, c.Rank = InitPiSSA, 3 })
	a, err := Apply(m, c, 1)
	require.NoError(t, err)
	for _, s := range a.sites {
		w, err := s.pissa.original()
		require.NoError(t, err)
		left, err := initial(s.base.W)
		require.NoError(t, err)
		out, in := s.base.Out(), s.base.In()
		values := singular(w, out, in)
		rest := singular(widen(left), out, in)
		for i := range rest { // those that are left, then zeros
			want := 0.
			if i+3 < len(values) {
				want = values[i+3]
			}
			require.InDelta(t, want, rest[i], 1e-5, s.slot.Path)
		}
		av, err := initial(s.low.A)
		require.NoError(t, err)
		bv, err := initial(s.low.B)
		require.NoError(t, err)
		for r := range 3 { // A's rows and B's columns are as long, √(S/Scale)
			var x, y float64
			for i := range in {
				x += float64(av[r*in+i]) * float64(av[r*in+i])
			}
			for i := range out {
				y += float64(bv[i*3+r]) * float64(bv[i*3+r])
			}
			require.InDelta(t, values[r]/s.low.Scale, x, 1e-5)
			require.InDelta(t, values[r]/s.low.Scale, y, 1e-5)
		}
		again, err := initial(s.low.B)
		require.NoError(t, err)
		require.Equal(t, bv, again)
	}
	n := smallCross(t) // the same bits in another process's model
	d, err := Apply(n, c, 9)
	require.NoError(t, err)
	for i := range a.sites {
		x, err := initial(a.sites[i].low.A)
		require.NoError(t, err)
		y, err := initial(d.sites[i].low.A)
		require.NoError(t, err)
		require.Equal(t, x, y)
	}
}

// Ranks whose weight is zero are dropped, module by module; one without any keeps one rank of zeros.
func TestDynamicRanks(t *testing.T) {
	m := smallCross(t)
	a, err := Apply(m, Config{Kind: Dynamic, Rank: 4, Alpha: 8, Shrink: .1, Targets: []string{"query", "key"}}, 1)
	require.NoError(t, err)
	stir(a, 2)
	dir := t.TempDir()
	require.NoError(t, a.Save(dir, Source{}, golden.Store(t, golden.Ref[float32](t, 2), m.Params(), false)))
	f, err := Open(dir)
	require.NoError(t, err)
	defer f.Close()
	require.Equal(t, Plain, f.Config.Kind)
	var ranks []int
	match, err := newMatcher(&f.Config, nil)
	require.NoError(t, err)
	for _, s := range a.sites {
		rank, alpha := match.size(s.slot.Path)
		require.InDelta(t, 2, f.Config.scale(rank, alpha), 1e-15)
		ranks = append(ranks, rank)
		require.NotContains(t, f.w.Names(), prefix+s.slot.Path+".lora_w")
	}
	require.Equal(t, []int{2, 2, 1, 2}, ranks)
	x, err := f.matrix(prefix + a.sites[2].slot.Path + ".lora_B.weight")
	require.NoError(t, err)
	for _, v := range flat(x) {
		require.Zero(t, v)
	}
	require.InDelta(t, .1, a.sites[0].layer.own()[2].Shrink, 0)
}

// No program of a dynamic adapter or of DoRA costs more calls than it must: MulCols are there once a module.
func TestCalls(t *testing.T) {
	count := func(c Config, op backend.Op) (n int) {
		m := smallCross(t)
		_, err := Apply(m, c, 1)
		require.NoError(t, err)
		p, err := nn.Compile(m, nn.Plan{Dims: graph.Dims{T: 16, N: 4, B: 4, K: 1}})
		require.NoError(t, err)
		for _, call := range p.Calls {
			if call.Op == op {
				n++
			}
		}
		return n
	}
	dora := small4("query", "value")
	dora.Kind = DoRA
	require.Equal(t, 4, count(dora, backend.MulCols))
	require.Equal(t, 4, count(dora, backend.Normalize))
	allora := Config{Kind: ALLoRA, Rank: 4, Eta: 2, Targets: []string{"query"}}
	require.Zero(t, count(allora, backend.Normalize), "norms are of backward only")
}
