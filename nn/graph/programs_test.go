package graph_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn"
	"rung/nn/backend"
	"rung/nn/graph"
)

var small = nn.Config{
	ModelType: "bert", Layers: 3, Hidden: 8, Heads: 2, FF: 12, Vocab: 5, Positions: 3, Types: 2, Embedding: 8, Eps: 1e-5,
	Dropout: .1, AttnDrop: .2,
}

// encode adds an encoder and returns its last hidden state, then those that recomputation keeps.
func encode(g *net, enc *nn.Encoder, dropout bool) (*nn.Pass, []graph.E) {
	p := nn.NewPass(g.Builder, g.d, dropout)
	for _, q := range enc.Params() {
		g.param(q.Path, q.Dims...)
	}
	bottom := *enc
	bottom.Blocks = nil
	x := bottom.Forward(p)
	keep := []graph.E{x}
	for _, b := range enc.Blocks {
		x = b.Forward(p, x)
		keep = append(keep, x)
	}
	return p, keep
}

// logits (N,1) of a cross-encoder.
func logits(dropout bool) build {
	return func(g *net) []graph.E {
		p, keep := encode(g, nn.NewEncoder(small, ""), dropout)
		x := p.First(keep[len(keep)-1], p.Offsets)
		x = g.Tanh(g.Linear(x, g.param("pooler.weight", 8, 8), g.param("pooler.bias", 8)))
		y := g.Linear(p.Dropout(x, small.Dropout, "head"), g.param("head.weight", 1, 8), g.param("head.bias", 1))
		return append([]graph.E{y}, keep...)
	}
}

// losses (B,1) of it.
func losses(dropout bool) build {
	return func(g *net) []graph.E {
		outs := logits(dropout)(g)
		s := g.Gather(outs[0], g.index("slots"))
		outs[0] = g.RowSum(g.Mul(g.BCE(s, g.table("labels")), g.table("mask")))
		return outs
	}
}

// Spare capacity, stale memory and workers change no bit; nothing is allocated; plain and rewritten
// agree, also in what dropout drops.
func TestSameBits(t *testing.T) {
	for _, dropout := range []bool{false, true} {
		plain := start(t, losses(dropout), option{})
		plain.do(t)
		first := start(t, losses(dropout), option{rewrite: true})
		first.do(t)
		near(t, first, plain)
		for i, o := range []option{
			{spareT: 1},
			{spareN: 3},
			{spareB: 2},
			{spareT: 9, spareN: 3, spareB: 1},
			{spareT: 9, spareN: 3, stale: 0x40},
			{workers: 2},
			{workers: 3, spareT: 5},
			{workers: 7},
		} {
			o.rewrite = true
			j := start(t, losses(dropout), o)
			for range 2 {
				j.do(t)
				same(t, j, first)
			}
			require.Zero(t, testing.AllocsPerRun(5, func() { j.do(t) }), "case %d: allocations in Do", i)
		}
	}
	on, off := start(t, losses(true), option{}), start(t, losses(false), option{})
	on.do(t)
	off.do(t)
	require.Greater(t, rel(on.value(t), off.value(t)), 1e-3, "dropout drops nothing")
	on.n.Step++
	before := on.value(t)
	on.do(t)
	require.NotEqual(t, before, on.value(t), "the masks of two steps are the same")
}

// Sequences may be empty at the start, in the middle and at the end, where the offset is the capacity:
// the others have the same bits.
func TestEmptySequences(t *testing.T) {
	for _, rewrite := range []bool{false, true} {
		var first *job
		for at := range batch.N {
			j := start(t, logits(true), option{rewrite: rewrite})
			probe := graph.Floats[float64](j.r, "probe")
			clear(probe)
			offs, lens, next := j.r.Ints("offsets"), []int32{3, 1, 3}, 0
			tok := int32(0)
			for s := range batch.N {
				offs[s] = tok
				if s == at {
					continue
				}
				for k := tok; k < tok+lens[next]; k++ {
					j.r.Ints("seqs")[k] = int32(s)
				}
				tok += lens[next]
				j.r.Ints("keys")[s] = int32(100 + next)
				probe[s] = float64(next) - .7
				next++
			}
			offs[batch.N] = tok
			j.do(t)
			if first == nil {
				first = j
			}
			require.Equal(t, without(first.value(t), 0), without(j.value(t), at))
			require.Equal(t, first.gradients(t), j.gradients(t))
		}
	}
}

func without(v []float64, i int) []float64 { return append(append([]float64{}, v[:i]...), v[i+1:]...) }

// A unit that weighs 0 adds nothing, even if its loss is not finite.
func TestUnusedUnits(t *testing.T) {
	f := func(g *net) []graph.E {
		s := g.Gather(g.seq("x", 1), g.index("slots"))
		l := g.RowSum(g.Unary(backend.Exp, g.Add(s, g.Input("extra", graph.Rows(backend.Unit, g.d.B, g.d.K)))))
		return []graph.E{g.WeightedSum(g.Input("weights", graph.Rows(backend.Unit, g.d.B, 1)), l)}
	}
	j := start(t, f, option{spareB: 1})
	want, grads := j.loss(t), j.gradients(t)
	for _, bad := range []float64{math.NaN(), math.Inf(1), 1e300} {
		for k := range batch.K {
			graph.Floats[float64](j.r, "extra")[2*batch.K+k] = bad
		}
		require.Equal(t, want, j.loss(t))
		require.Equal(t, grads, j.gradients(t))
	}
	require.False(t, math.IsNaN(want))
}

// Gradients are added to what is there, by several programs on one store.
func TestAccumulate(t *testing.T) {
	j := start(t, losses(true), option{rewrite: true})
	ctx := context.Background()
	j.do(t)
	once := j.gradients(t)
	require.NoError(t, j.r.Do(ctx, &j.n, true))
	for path, g := range j.gradients(t) {
		for i := range g {
			require.InDelta(t, 2*once[path][i], g[i], 1e-12, path)
		}
	}
	k := start(t, logits(false), option{rewrite: true, spareT: 4})
	require.NoError(t, k.r.Bind(j.s))
	require.NoError(t, k.r.Do(ctx, &k.n, false))
	other := j.gradients(t)
	j.do(t)
	require.Equal(t, once, j.gradients(t), "another program between")
	require.NoError(t, k.r.Do(ctx, &k.n, true))
	for path, g := range j.gradients(t) {
		for i := range g {
			require.InDelta(t, once[path][i]+other[path][i], g[i], 1e-12, path)
		}
	}
}

// Other weights are one more Bind, and so are the first again. What cannot be bound changes nothing.
func TestBind(t *testing.T) {
	j := start(t, losses(false), option{rewrite: true})
	j.do(t)
	v, g := j.value(t), j.gradients(t)
	require.NoError(t, j.r.Bind(j.store(t, "other.")))
	j.do(t)
	require.NotEqual(t, v, j.value(t))
	require.NoError(t, j.r.Bind(j.s))
	j.do(t)
	require.Equal(t, v, j.value(t))
	require.Equal(t, g, j.gradients(t))

	seg := []graph.Segment{{Path: "head.weight", Dims: []int{1, 8}, Trainable: true}}
	over, err := graph.NewStore(j.be, seg, true)
	require.NoError(t, err)
	t.Cleanup(func() { _ = over.Close() })
	require.ErrorContains(t, j.r.Bind(over), `graph: no store has the weight "`)
	j.do(t)
	require.Equal(t, v, j.value(t))
	require.Equal(t, g, j.gradients(t), "a Bind that failed took effect")

	require.NoError(t, j.r.Bind(over, j.s)) // a store over another: head.weight is 0 now
	j.do(t)
	require.NotEqual(t, v, j.value(t))
	top, err := graph.ReadGradient[float64](over, "head.weight")
	require.NoError(t, err)
	require.NotZero(t, rel(top, make([]float64, 8)))

	wrong, err := graph.NewStore(j.be, []graph.Segment{{Path: "head.weight", Dims: []int{8, 1}}}, false)
	require.NoError(t, err)
	t.Cleanup(func() { _ = wrong.Close() })
	require.EqualError(t, j.r.Bind(wrong, j.s), `graph: weight "head.weight" is [8 1] in the store and [1 8] in the program`)
	seg[0].Trainable = false
	frozen, err := graph.NewStore(j.be, seg, true)
	require.NoError(t, err)
	t.Cleanup(func() { _ = frozen.Close() })
	require.EqualError(t, j.r.Bind(frozen, j.s), `graph: weight "head.weight" has no gradient in the store`)
}

// What is frozen costs no call and no memory.
func TestFrozen(t *testing.T) {
	all := start(t, logits(false), option{rewrite: true})
	all.do(t)
	var frozen []string
	for _, name := range all.g.params {
		if !strings.HasPrefix(name, "head.") {
			frozen = append(frozen, name)
		}
	}
	j := start(t, logits(false), option{rewrite: true, frozen: frozen})
	j.do(t)
	require.Equal(t, all.value(t), j.value(t))
	want := all.gradients(t)
	require.Equal(t, map[string][]float64{"head.weight": want["head.weight"], "head.bias": want["head.bias"]}, j.gradients(t))
	backward := 0
	for _, c := range j.p.Calls {
		switch c.Op {
		case backend.MatNN, backend.AttnGrad, backend.NormDX, backend.NormDG, backend.UnaryGrad, backend.EmbedGrad:
			t.Errorf("a frozen program calls %v", c.Op)
		case backend.MatTN, backend.ColSum:
			backward++
		}
	}
	require.Equal(t, 2, backward)
	require.Equal(t, 32, j.s.Trainable()) // two weights, each on cache lines of its own
	require.Less(t, j.p.Arena, all.p.Arena)
}

// A hidden state that is also an output keeps all of its rows.
func TestOutputInside(t *testing.T) {
	f := func(hidden bool) (map[backend.Axis]int, *graph.Program) {
		g := &net{Builder: graph.New(backend.Float64), dims: map[string][]int{}, d: batch}
		p, keep := encode(g, nn.NewEncoder(small, ""), false)
		x := keep[len(keep)-1]
		outs := []graph.E{p.First(x, p.Offsets)}
		if hidden {
			outs = append(outs, x)
		}
		b, outs := graph.Rewrite(outs)
		s := graph.Spec{Outputs: map[string]graph.E{"first": outs[0]}}
		if hidden {
			s.Outputs["hidden"] = outs[1]
		}
		prog, err := graph.Compile(b, s)
		require.NoError(t, err)
		n := map[backend.Axis]int{}
		for _, c := range prog.Calls {
			if c.Op == backend.MatNT {
				n[c.Out[0].Axis]++
			}
		}
		return n, prog
	}
	n, _ := f(false) // two whole layers of 4, keys and values of the last; query, out, up, down of it
	require.Equal(t, map[backend.Axis]int{backend.Tok: 9, backend.Seq: 4}, n)
	n, p := f(true)
	require.Equal(t, map[backend.Axis]int{backend.Tok: 12}, n)
	require.Equal(t, batch.T, p.Out["hidden"].Rows)
}

// Recomputation changes no bit and saves memory.
func TestRecompute(t *testing.T) {
	for _, rewrite := range []bool{false, true} {
		a := start(t, losses(true), option{rewrite: rewrite, spareT: 100})
		b := start(t, losses(true), option{rewrite: rewrite, spareT: 100, keep: true})
		a.do(t)
		b.do(t)
		// The kept last state is an output of the rewriting, so that fewer rows are pushed down.
		near(t, a, b)
		require.Less(t, b.p.Arena, a.p.Arena)
		require.Greater(t, len(b.p.Calls), len(a.p.Calls))
		if !rewrite {
			same(t, a, b)
		}
		t.Logf("rewritten %v: arena %d, with recomputation %d; calls %d, %d", rewrite, a.p.Arena, b.p.Arena, len(a.p.Calls), len(b.p.Calls))
	}
}

// Gradients of units are those of runs in which only that unit weighs; their sum is the gradient.
func TestPerUnit(t *testing.T) {
	each, all := start(t, losses(true), option{rewrite: true, perUnit: true}), start(t, losses(true), option{rewrite: true})
	for _, j := range []*job{each, all} {
		copy(j.r.Ints("slots"), []int32{0, 1, -1, 2, -1, -1, 3, -1, -1})
		copy(graph.Floats[float64](j.r, "mask"), []float64{1, 1, 0, 1, 0, 0, 1, 0, 0})
	}
	copy(each.r.Ints(graph.UnitRows(backend.Tok)), []int32{0, 3, 4, 7})
	copy(each.r.Ints(graph.UnitRows(backend.Seq)), []int32{0, 2, 3, 4})
	copy(each.r.Ints(graph.UnitRows(backend.Unit)), []int32{0, 1, 2, 3})
	probe := append([]float64{}, graph.Floats[float64](all.r, "probe")...)
	each.do(t)
	for u := range batch.B {
		clear(graph.Floats[float64](all.r, "probe"))
		graph.Floats[float64](all.r, "probe")[u] = probe[u]
		all.do(t)
		for path, want := range all.gradients(t) {
			got, err := graph.UnitGradient[float64](each.r, path, u)
			require.NoError(t, err)
			require.Less(t, rel(got, want), 1e-12, "%s of unit %d", path, u)
		}
	}
	_, err := graph.UnitGradient[float64](each.r, "head.bias", batch.B)
	require.Error(t, err)
	_, err = graph.UnitGradient[float64](each.r, "nothing", 0)
	require.EqualError(t, err, `graph: no gradient of "nothing" per unit`)
}

// Names of the nodes of a rewritten ranker: nothing is left to fuse.
func TestFused(t *testing.T) {
	_, p, _, err := compile(losses(false), option{rewrite: true})
	require.NoError(t, err)
	n := map[string]int{}
	for _, c := range p.Calls {
		name, _, _ := strings.Cut(c.Node, "#")
		n[fmt.Sprintf("%s %v", name, c.Op)]++
	}
	require.Equal(t, small.Layers, n["gelu unary"], "GELU is computed again once a layer, and never by itself in forward")
	require.Zero(t, n["gelu.dx unary.grad"])
	require.Equal(t, small.Layers, n["attention attn"])
	// Fan-in of two residuals a layer, and in the last of its first rows with its keys and values: products are added
	// to the sum where it is.
	require.Zero(t, n["add add"], "%v", n)
	require.Zero(t, n["linear.dx scale"])
	added := 0
	for _, c := range p.Calls {
		if c.Op == backend.MatNN && c.Out[0].Acc {
			added++
		}
	}
	require.Equal(t, 2*small.Layers+1, added)
}
