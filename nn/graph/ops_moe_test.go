package graph_test

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/backend"
	"rung/nn/graph"
)

// routed is gates times rows, and the router's probabilities.
func routed(g *net, r graph.Routing) graph.E {
	n := r.Gates.Shape().Cols()
	return g.Add(g.Mul(r.Gates, g.tok("x", n)), g.Linear(r.Probs, g.param("w", n, r.Probs.Shape().Cols()), none()))
}

// biased is an input: what a bias gets as its gradient is no derivative.
func biased(g *net, n int) graph.E { return g.Input("bias", graph.Vec(n)) }

var experts = []row{
	{"Route", func(g *net) graph.E { return routed(g, g.Route(g.tok("z", 5), none(), 2, backend.RouteSoftmax, 1)) }},
	{"Route/all", func(g *net) graph.E { return routed(g, g.Route(g.tok("z", 3), none(), 3, backend.RouteSoftmax, 1)) }},
	{"Route/one, bias", func(g *net) graph.E {
		return routed(g, g.Route(g.tok("z", 5), biased(g, 5), 1, backend.RouteSoftmax, 1))
	}},
	{"Route/sigmoid", func(g *net) graph.E { return routed(g, g.Route(g.tok("z", 3), none(), 3, backend.RouteSigmoid, 2)) }},
	{"Route/sigmoid, bias", func(g *net) graph.E {
		return routed(g, g.Route(g.tok("z", 3), g.Tanh(g.Scale(biased(g, 6), .01)), 3, backend.RouteSigmoid, 2))
	}},
	{"Route/of first rows", func(g *net) graph.E {
		x := g.tok("x", 4)
		r := g.Route(g.Linear(x, g.param("r", 3, 4), none()), none(), 2, backend.RouteSoftmax, 1)
		h := g.GateMul(g.Linear(x, g.param("a", 6, 4), none()), r.Gates, 2, .5)
		y := g.Add(g.Linear(x, g.param("w", 4, 4), none()), g.Linear(h, g.param("u", 4, 6), none()))
		return g.First(y, g.index("offsets"))
	}},
	{"Assign", func(g *net) graph.E {
		return g.GateMul(g.tok("h", 8), g.Assign(g.index("types"), 4, 1).Gates, 2, 1.5)
	}},
	{"Spread", func(g *net) graph.E { return g.Tanh(g.Spread(g.seq("x", 4), g.index("offsets"), g.d.T)) }},
	{"GateMul", func(g *net) graph.E { return g.GateMul(g.tok("h", 6), g.tok("g", 3), 2, -1.5) }},
	{"GateMul/shared", func(g *net) graph.E { return g.GateMul(g.tok("h", 2), g.tok("g", 3), 2, .7) }},
	{"GroupIn", func(g *net) graph.E { return g.GroupIn(g.tok("x", 4), g.param("w", 10, 4), chosen(g), 2, false) }},
	{"GroupIn/transposed", func(g *net) graph.E {
		return g.GroupIn(g.tok("x", 4), g.param("w", 4, 5), chosen(g), 1, true)
	}},
	{"GroupOut", func(g *net) graph.E {
		return g.GroupOut(g.tok("y", 3), g.tok("h", 4), g.param("w", 10, 3), chosen(g), 2, false)
	}},
	{"GroupOut/transposed", func(g *net) graph.E {
		return g.GroupOut(g.tok("y", 3), g.tok("h", 4), g.param("w", 3, 10), chosen(g), 2, true)
	}},
	{"GroupIn/twice", func(g *net) graph.E {
		x, at := g.tok("x", 4), chosen(g)
		return g.Add(g.GroupIn(x, g.param("w", 10, 4), at, 2, false), g.GroupIn(x, g.param("v", 4, 10), at, 2, true))
	}},
	{"Take", func(g *net) graph.E { return g.Take(g.tok("x", 5), chosen(g)) }},
	{"Take/of first rows", func(g *net) graph.E {
		x := g.tok("x", 4)
		r := g.Route(g.Linear(x, g.param("r", 3, 4), none()), none(), 2, backend.RouteSoftmax, 1)
		h := g.GroupIn(x, g.param("a", 6, 4), r.Chosen, 2, false)
		h = g.GateMul(h, g.Take(r.Gates, r.Chosen), 2, .5)
		y := g.GroupOut(g.Linear(x, g.param("w", 4, 4), none()), h, g.param("u", 4, 6), r.Chosen, 2, true)
		return g.First(y, g.index("offsets"))
	}},
	{"Balance/all", balanced(backend.BalanceAll)},
	{"Balance/first", balanced(backend.BalanceFirst)},
	{"Balance/variation", balanced(backend.BalanceCV)},
	{"ZLoss", func(g *net) graph.E { return g.ZLoss(g.tok("z", 5), .3) }},
	{"Load", func(g *net) graph.E {
		n, _ := g.Load(g.Route(g.tok("z", 5), none(), 2, backend.RouteSoftmax, 1))
		return g.Mul(g.Scale(n, .1), g.param("v", 1, 5))
	}},
}

// chosen is two of five experts for each token.
func chosen(g *net) graph.E {
	return g.Route(g.tok("z", 5), none(), 2, backend.RouteSoftmax, 1).Chosen
}

func balanced(how int) func(g *net) graph.E {
	return func(g *net) graph.E {
		r := g.Route(g.tok("z", 5), none(), 2, backend.RouteSoftmax, 1)
		x := r.Probs
		if how == backend.BalanceCV {
			x = r.Gates
		}
		return g.Balance(x, r.Chosen, how, .3)
	}
}

// What a bias of choices gets in place of a gradient is how many rows chose each expert, less the mean: stale
// rows do not count, and neither does what a rewrite left out.
func TestBiasGetsLoad(t *testing.T) {
	for _, o := range []option{{}, {rewrite: true, spareT: 3, workers: 2}} {
		f := func(g *net) []graph.E {
			b := g.param("b", 4)
			r := g.Route(g.tok("z", 4), b, 2, backend.RouteSoftmax, 1)
			return []graph.E{g.First(g.GateMul(g.tok("h", 4), r.Gates, 1, 1), g.index("offsets"))}
		}
		j := start(t, f, o)
		j.do(t)
		got := j.gradients(t)["b"]
		all := 0.
		for _, v := range got {
			n := v + float64(2*batch.T)/4
			require.InDelta(t, math.Round(n), n, 1e-12)
			all += n
		}
		require.InDelta(t, float64(2*batch.T), all, 1e-12)
		require.Greater(t, slices.Max(got), 0.)
	}
}

// Building refuses what no router can do.
func TestRouteErrors(t *testing.T) {
	for want, f := range map[string]func(b *graph.Builder){
		"graph: route[T[5 4]]: want 1 to 4 of at most 256 experts, not 5": func(b *graph.Builder) {
			b.Route(b.Input("z", graph.Rows(backend.Tok, 5, 4)), none(), 5, 0, 1)
		},
		"graph: route[T[5 4] [3]]: want a bias for each of 4 experts": func(b *graph.Builder) {
			b.Route(b.Input("z", graph.Rows(backend.Tok, 5, 4)), b.Param("b", 3), 2, 0, 1)
		},
		"graph: gatemul[T[5 4] T[5 3]]: want h of 2 columns, for each expert or for all, and gates": func(b *graph.Builder) {
			b.GateMul(b.Input("h", graph.Rows(backend.Tok, 5, 4)), b.Input("g", graph.Rows(backend.Tok, 5, 3)), 2, 1)
		},
		"graph: group[T[5 4] [10 4] T[6 2]]: want rows and their choice of experts, and a weight of all experts": func(b *graph.Builder) {
			b.GroupIn(b.Input("x", graph.Rows(backend.Tok, 5, 4)), b.Param("w", 10, 4), b.Input("at", graph.Rows(backend.Tok, 6, 2)), 2, false)
		},
		"graph: group[T[5 4] [10 4] T[5 2]]: want experts of rank 3, have 10 rows for all": func(b *graph.Builder) {
			b.GroupIn(b.Input("x", graph.Rows(backend.Tok, 5, 4)), b.Param("w", 10, 4), b.Input("at", graph.Rows(backend.Tok, 5, 2)), 3, false)
		},
		"graph: group[T[5 4] [257 4] T[5 2]]: want at most 256 experts, have 257": func(b *graph.Builder) {
			b.GroupIn(b.Input("x", graph.Rows(backend.Tok, 5, 4)), b.Param("w", 257, 4), b.Input("at", graph.Rows(backend.Tok, 5, 2)), 1, false)
		},
		"graph: group[T[5 4] [10 4] T[5 2]]: want rows of 10": func(b *graph.Builder) {
			b.GroupIn(b.Input("x", graph.Rows(backend.Tok, 5, 4)), b.Param("w", 10, 4), b.Input("at", graph.Rows(backend.Tok, 5, 2)), 2, true)
		},
		"graph: group.sum[T[5 3] [10 4] T[5 2] T[5 4]]: want rank 2 for each of 2 chosen experts": func(b *graph.Builder) {
			b.GroupOut(b.Input("y", graph.Rows(backend.Tok, 5, 4)), b.Input("h", graph.Rows(backend.Tok, 5, 3)), b.Param("w", 10, 4), b.Input("at", graph.Rows(backend.Tok, 5, 2)), 2, false)
		},
		"graph: group.sum[T[5 4] [10 4] T[5 2] T[5 3]]: want T[5 4] to add to": func(b *graph.Builder) {
			b.GroupOut(b.Input("y", graph.Rows(backend.Tok, 5, 3)), b.Input("h", graph.Rows(backend.Tok, 5, 4)), b.Param("w", 10, 4), b.Input("at", graph.Rows(backend.Tok, 5, 2)), 2, false)
		},
		"graph: take[T[5 4] T[6 2]]: want x (R,E) and the choice (R,k)": func(b *graph.Builder) {
			b.Take(b.Input("x", graph.Rows(backend.Tok, 5, 4)), b.Input("at", graph.Rows(backend.Tok, 6, 2)))
		},
		"graph: a choice T[5 2] that is no router's over those experts": func(b *graph.Builder) {
			b.Take(b.Input("x", graph.Rows(backend.Tok, 5, 4)), b.Input("at", graph.Rows(backend.Tok, 5, 2)))
		},
		"graph: a choice T[5 3] that is no router's over those experts": func(b *graph.Builder) {
			r := b.Route(b.Input("z", graph.Rows(backend.Tok, 5, 6)), none(), 3, backend.RouteSoftmax, 1)
			b.GroupIn(b.Input("x", graph.Rows(backend.Tok, 5, 4)), b.Param("w", 10, 4), r.Chosen, 2, false) // of five of the six
		},
		"graph: assign: want ids to be an index, have T[5 4] of floats": func(b *graph.Builder) {
			b.Assign(b.Input("h", graph.Rows(backend.Tok, 5, 4)), 3, 0)
		},
		"graph: spread[T[5 4] [6]]: want x (N,D) and offsets (N+1)": func(b *graph.Builder) {
			b.Spread(b.Input("h", graph.Rows(backend.Tok, 5, 4)), b.Index("o", graph.Vec(6)), 5)
		},
	} {
		b := graph.New(backend.Float64)
		f(b)
		require.EqualError(t, b.Err(), want)
	}
}
