package graph_test

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/graph"
)

// tied reads a table as an embedding and as the weight of a Linear, whose gradient is made first; and as weights of
// a LayerNorm.
func tied(g *net) []graph.E {
	word := g.param("word", 5, 5)
	x := g.Embed(g.index("ids"), g.index("pos"), g.index("types"), word, g.param("position", 3, 5), graph.E{})
	x = g.LayerNorm(x, g.param("g", 5), g.param("b", 5), 1e-5)
	return []graph.E{g.Linear(x, word, g.param("b", 5))}
}

// What the first call that adds to a gradient overwrites need not be cleared; all else is.
func TestOverwritten(t *testing.T) {
	for name, f := range map[string]build{"ranker": losses(true), "tied": tied} {
		t.Run(name, func(t *testing.T) {
			j := start(t, f, option{rewrite: true})
			require.NoError(t, j.r.Do(context.Background(), &j.n, true)) // on memory that is zero
			want := j.gradients(t)
			require.Greater(t, overwritten(t, j.p), len(want)/2)

			other, err := graph.NewStore(j.be, []graph.Segment{{Path: "nobody's", Dims: []int{70}, Trainable: true}}, true)
			require.NoError(t, err)
			defer other.Close()
			require.NoError(t, j.r.Bind(j.s, other))
			for _, s := range []*graph.Store{j.s, other} {
				spoil(t, s)
			}
			j.do(t)
			require.Equal(t, want, j.gradients(t))
			g, err := graph.ReadGradient[float64](other, "nobody's")
			require.NoError(t, err)
			require.Equal(t, make([]float64, 70), g)

			// No row of any kind: all is zero.
			spoil(t, j.s)
			j.n.Count = [backend.NumAxes]int{}
			j.do(t)
			for path, g := range j.gradients(t) {
				require.Equal(t, make([]float64, len(g)), g, path)
			}
		})
	}
}

// overwritten counts the gradients that have a First; none has two, and no table has one.
func overwritten(t *testing.T, p *graph.Program) (n int) {
	seen, first := map[int]bool{}, map[int]bool{}
	for _, c := range p.Calls {
		for _, b := range c.Out {
			if b.Space != backend.Grad {
				require.False(t, b.First)
				continue
			}
			if b.First {
				require.NotEqual(t, backend.EmbedGrad, c.Op)
				require.False(t, seen[b.ID], "%s is not the first", c.Node)
				first[b.ID] = true
			}
			seen[b.ID] = true
		}
	}
	return len(first)
}

// spoil makes all gradients NaN.
func spoil(t *testing.T, s *graph.Store) {
	for _, g := range s.Seg {
		v := make([]float64, g.Size())
		for i := range v {
			v[i] = math.NaN()
		}
		require.NoError(t, s.Grad.WriteAt(host.Bytes(v), int64(g.Off)*8))
	}
}

// Products are added to the other gradients of a fan-in: in place where nobody else reads them.
func TestFanIn(t *testing.T) {
	square := func(g *net, name string, x graph.E) graph.E { return g.Linear(x, g.param(name, 4, 4), graph.E{}) }
	for name, c := range map[string]struct {
		f       func(g *net) graph.E
		inPlace int
		copied  int
	}{
		"in place": {func(g *net) graph.E {
			x := g.tok("x", 4)
			return g.Add(g.Tanh(x), square(g, "w", x))
		}, 1, 0},
		"a factor is the sum": {func(g *net) graph.E {
			x := g.tok("x", 4)
			return g.Add(x, square(g, "w", x))
		}, 0, 1},
		"the sum has a reader afterwards": {func(g *net) graph.E {
			z, x := g.tok("z", 4), g.tok("x", 4)
			return g.Mul(g.Add(x, z), square(g, "w", x))
		}, 0, 1},
		"the sum has a reader before": {func(g *net) graph.E {
			x, z := g.tok("x", 4), g.tok("z", 4)
			return g.Mul(g.Add(x, z), square(g, "w", x))
		}, 1, 0},
		"two in a row": {func(g *net) graph.E {
			x := g.tok("x", 4)
			y := g.Add(g.Tanh(x), square(g, "w", x))
			return g.Add(g.Tanh(y), square(g, "u", y))
		}, 2, 0},
		"of two products": {func(g *net) graph.E {
			x := g.tok("x", 4)
			return g.Add(g.Tanh(x), g.Mul(square(g, "w", x), square(g, "u", x)))
		}, 1, 0},
		"beneath an activation": {func(g *net) graph.E {
			x := g.GELU(g.tok("x", 4))
			return g.Add(g.Tanh(x), square(g, "w", x))
		}, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			j := start(t, func(g *net) []graph.E { return []graph.E{g.Tanh(c.f(g))} }, option{})
			j.differences(t)
			n := map[backend.Op]int{}
			for _, x := range j.p.Calls {
				if x.Op == backend.Scale || x.Op == backend.MatNN && x.Out[0].Acc {
					n[x.Op]++
				}
			}
			require.Equal(t, c.inPlace+c.copied, n[backend.MatNN])
			require.Equal(t, c.copied, n[backend.Scale])
		})
	}
}
