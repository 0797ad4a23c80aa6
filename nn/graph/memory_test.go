package graph_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rung/nn"
	"rung/nn/backend"
	"rung/nn/graph"
)

// miniLM is the sizes of all-MiniLM-L6-v2.
var miniLM = nn.Config{
	ModelType: "bert", Layers: 6, Hidden: 384, Heads: 12, FF: 1536, Vocab: 30522, Positions: 512, Types: 2, Embedding: 384, Eps: 1e-12,
	Dropout: .1, AttnDrop: .1,
}

// cross compiles a cross-encoder for 32 sequences of 128 tokens in float32; trained says which
// weights have a gradient.
func cross(t *testing.T, dropout, recompute bool, lowRank int, trained func(string) bool) *graph.Program {
	t.Helper()
	g := &net{Builder: graph.New(backend.Float32), d: graph.Dims{T: 32 * 128, N: 32, B: 32, K: 1}, dims: map[string][]int{}}
	enc := nn.NewEncoder(miniLM, "")
	for _, s := range enc.Slots() {
		if lowRank > 0 {
			*s.Layer = adapted{*s.Layer, g, s.Path, lowRank}
		}
	}
	p, keep := encode(g, enc, dropout)
	s := g.Linear(p.First(keep[len(keep)-1], p.Offsets), g.param("head.weight", 1, miniLM.Hidden), g.param("head.bias", 1))
	outs := []graph.E{g.BCE(g.Gather(s, p.Slots()), g.Input("labels", graph.Rows(backend.Unit, 32, 1)))}
	if recompute {
		outs = append(outs, keep[:len(keep)-1]...)
	}
	b, outs := graph.Rewrite(outs)
	spec := graph.Spec{Seeds: []graph.Seed{{Out: outs[0], Grad: b.Input("w", outs[0].Shape())}}, Keep: outs[1:]}
	for _, name := range g.params {
		if trained == nil || trained(name) {
			spec.Wrt = append(spec.Wrt, b.Param(name, g.dims[name]...))
		}
	}
	prog, err := graph.Compile(b, spec)
	require.NoError(t, err)
	return prog
}

// adapted is a layer with a low-rank term.
type adapted struct {
	nn.Layer
	g    *net
	path string
	rank int
}

func (a adapted) Forward(p *nn.Pass, x graph.E) graph.E {
	y := a.Layer.Forward(p, x)
	h := p.Linear(x, a.g.param(a.path+".lora_A", a.rank, x.Shape().Cols()), graph.E{})
	return p.Add(y, p.Linear(h, a.g.param(a.path+".lora_B", y.Shape().Cols(), a.rank), graph.E{}))
}

// What training MiniLM on 32 sequences of 128 tokens takes, against the least that the same lifetimes
// need. The limits are what it takes today, and a little.
func TestMemoryOfMiniLM(t *testing.T) {
	lora := func(name string) bool { return strings.Contains(name, "lora_") || strings.HasPrefix(name, "head.") }
	for _, c := range []struct {
		name      string
		dropout   bool
		recompute bool
		rank      int
		trained   func(string) bool
		limit     float64 // MB
	}{
		{name: "all weights", limit: 375},
		{name: "all weights, dropout", dropout: true, limit: 375},
		{name: "all weights, recomputation", recompute: true, limit: 170},
		{name: "low-rank terms of all linear layers", rank: 16, trained: lora, limit: 375},
		{name: "scores", trained: func(name string) bool { return name == "head.bias" }, limit: 40},
	} {
		t0 := time.Now()
		p := cross(t, c.dropout, c.recompute, c.rank, c.trained)
		mb := float64(p.Arena) * 4e-6
		t.Logf("%s: arena %.0f MB, %.3f of the bound, %d calls, compiled in %v", c.name, mb, float64(p.Arena)/float64(p.Bound), len(p.Calls), time.Since(t0).Round(time.Millisecond))
		require.LessOrEqual(t, mb, c.limit, c.name)
		require.LessOrEqual(t, float64(p.Arena), 1.05*float64(p.Bound), c.name)
		if testing.Verbose() {
			t.Log(widest(p))
		}
	}
}

// widest is how many elements each kind of call writes into the arena, largest first: what could be
// saved if it did not live as long.
func widest(p *graph.Program) string {
	size := map[string]int{}
	for _, c := range p.Calls {
		name, _, _ := strings.Cut(c.Node, "#")
		for k, o := range c.Out {
			if o.Space == backend.Arena {
				size[fmt.Sprintf("%s[%d]", name, k)] += o.Rows * o.Cols
			}
		}
	}
	keys := slices.SortedFunc(maps.Keys(size), func(a, b string) int { return cmp.Compare(size[b], size[a]) })
	var s strings.Builder
	for _, k := range keys[:min(8, len(keys))] {
		fmt.Fprintf(&s, "%s %.0f MB, ", k, float64(size[k])*4e-6)
	}
	return s.String()
}
