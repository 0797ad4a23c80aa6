package graph_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"rung/nn"
	"rung/nn/backend"
	"rung/nn/graph"
	"rung/nn/nntest/golden"
	"rung/nn/nntest/shared"
)

// tape runs the graph of f on Gorgonia's TapeMachine, forward and backward, and returns the value and
// the gradients, each the sum of its contributions.
func tape(t *testing.T, f build, rewrite bool, j *job) ([]float64, map[string][]float64) {
	t.Helper()
	g := &net{Builder: graph.New(backend.Float64), d: j.g.d, dims: map[string][]int{}}
	b, outs := g.Builder, f(g)[:1]
	if rewrite {
		b, outs = graph.Rewrite(outs)
	}
	var wrt []graph.E
	for _, name := range g.params {
		wrt = append(wrt, b.Param(name, g.dims[name]...))
	}
	seed := b.Input("probe", outs[0].Shape())
	grads := b.VJP([]graph.Seed{{Out: outs[0], Grad: seed}}, wrt)
	require.NoError(t, b.Err())

	let := func(name string, s graph.Shape, v any) {
		for _, n := range b.Graph().ByName(name) {
			require.NoError(t, G.Let(n, tensor.New(tensor.WithShape(s.Dims...), tensor.WithBacking(v))), name)
		}
	}
	for _, l := range j.p.Leaves[backend.Input] {
		let(l.Name, l.Shape, append([]float64{}, graph.Floats[float64](j.r, l.Name)...))
	}
	for _, l := range j.p.Leaves[backend.Index] {
		let(l.Name, l.Shape, append([]int32{}, j.r.Ints(l.Name)...))
	}
	for i, name := range g.params {
		v, err := graph.ReadWeight[float64](j.s, name)
		require.NoError(t, err)
		let(name, wrt[i].Shape(), v)
	}
	for _, n := range b.Graph().Inputs() { // of backward only: programs prune them
		if n.Value() == nil {
			data := any(make([]float64, n.Shape().TotalSize()))
			if n.Dtype() == tensor.Int32 {
				data = make([]int32, n.Shape().TotalSize())
				copy(data.([]int32), ints[n.Name()])
			}
			require.NoError(t, G.Let(n, tensor.New(tensor.WithShape(n.Shape()...), tensor.WithBacking(data))))
		}
	}
	vm := G.NewTapeMachine(b.Graph())
	defer vm.Close()
	require.NoError(t, vm.RunAll())
	sums := map[string][]float64{}
	for i, name := range g.params {
		sums[name] = make([]float64, wrt[i].Shape().Size())
		for _, e := range grads[i] {
			for k, x := range e.Node().Value().Data().([]float64) {
				sums[name][k] += x
			}
		}
	}
	return outs[0].Node().Value().Data().([]float64), sums
}

func agree(t *testing.T, f build, rewrite bool, j *job) {
	t.Helper()
	j.do(t)
	v, grads := tape(t, f, rewrite, j)
	require.Less(t, rel(j.value(t), v), 1e-12)
	got := j.gradients(t)
	require.Len(t, got, len(grads))
	for path, want := range grads {
		require.Less(t, rel(got[path], want), 1e-12, path)
	}
}

// TapeMachine is a second opinion on differentiation, lowering and planning: the same graphs, run node
// by node on memory of their own.
func TestTapeMachine(t *testing.T) {
	for _, rewrite := range []bool{false, true} {
		f := losses(false)
		agree(t, f, rewrite, start(t, f, option{rewrite: rewrite}))
		stock := func(g *net) []graph.E {
			outs := losses(false)(g)
			return []graph.E{stockMul(g, stock1(g, G.Tanh, outs[0]), outs[0])}
		}
		agree(t, stock, rewrite, start(t, stock, option{rewrite: rewrite}))
	}
}

// The same of golden/tiny's weights.
func TestTapeMachineTiny(t *testing.T) {
	c, w := golden.Config(t, shared.Path(t, "golden", "tiny")), golden.File(t, "tiny", "model.safetensors")
	f := func(g *net) []graph.E {
		p, keep := encode(g, nn.NewEncoder(c, ""), false)
		return []graph.E{g.Tanh(g.Linear(p.First(keep[len(keep)-1], p.Offsets), g.param("pooler.dense.weight", c.Hidden, c.Hidden), g.param("pooler.dense.bias", c.Hidden)))}
	}
	for _, rewrite := range []bool{false, true} {
		j := start(t, f, option{rewrite: rewrite})
		for _, name := range j.g.params {
			require.NoError(t, graph.WriteWeight(j.s, name, golden.Floats(t, w, "bert."+name)))
		}
		agree(t, f, rewrite, j)
	}
}
