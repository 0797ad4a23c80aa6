package graph

import (
	"fmt"

	"rung/nn/backend"
)

// Routing is what a router makes of rows: Gates (R,E), 0 for experts that are not chosen, Probs (R,C), the zero
// E where there are none, and Chosen (R,k), the numbers of the experts, best first, which has no gradient.
type Routing struct{ Gates, Probs, Chosen E }

// route chooses k experts of each row. Inputs: z [, bias]. Its value is gates and probabilities side by
// side, so that both have gradients. Saved: the choice.
type route struct{ k, how, each int }

// Route chooses k experts for each row of logits z (R,C), by backend.RouteSoftmax or RouteSigmoid. Each logit
// is that of each experts in a row, so that there are C·each of them. bias (C·each) is added to the
// scores; it may be the zero E. The gradient of a bias is no derivative: it is how many rows chose each
// expert, less the mean (Wang et al. 2024, loss-free balancing, whose update is against its sign).
func (b *Builder) Route(z, bias E, k, how, each int) Routing {
	o := route{k, how, each}
	in := []E{z}
	if bias.b != nil {
		in = append(in, bias)
	}
	y := b.Apply(o, in...)
	if b.err != nil {
		return Routing{E{b: b}, E{b: b}, E{b: b}}
	}
	c := z.Shape().Cols()
	return Routing{b.Cols(y, 0, c*each), b.Cols(y, c*each, c), b.Saved(y, 1)}
}

func (o route) Name() string { return "route" }

func (o route) Infer(in []Shape) ([]Shape, error) {
	z := in[0]
	experts := z.Cols() * o.each
	switch {
	case !z.rows(-1) || o.each < 1:
		return nil, fmt.Errorf("want rows of logits")
	case o.k < 1 || o.k > experts || experts > backend.MaxExperts:
		return nil, fmt.Errorf("want 1 to %d of at most %d experts, not %d", experts, backend.MaxExperts, o.k)
	case len(in) > 1 && !in[1].Equal(Vec(experts)):
		return nil, fmt.Errorf("want a bias for each of %d experts", experts)
	}
	return []Shape{z.withCols(experts + z.Cols()), z.withCols(o.k)}, nil
}

func (o route) numbers() [4]int { return [4]int{o.k, o.how, o.each} }

func (o route) Lower(l *Lowering, out, in []backend.Buf) {
	args := []backend.Buf{in[0], {}}
	copy(args, in)
	l.Call(backend.Route, out, args, o.numbers(), [4]float64{})
}

func (o route) Diff(b *Builder, n E, in []E, dy E) []E {
	args := append([]E{n, b.Saved(n, 1), dy}, in[1:]...)
	gs := []E{b.Apply(routeGrad{o, in[0].Shape()}, args...)}
	if len(in) > 1 {
		load := plain{name: "route.load", call: backend.Load, i: [4]int{1}, shape: of(in[1].Shape(), Mat(1, 1))}
		gs = append(gs, b.Apply(lackingProbs{load}, b.Saved(n, 1)))
	}
	return gs
}

// routeGrad has inputs y, at, dy [, bias].
type routeGrad struct {
	of route
	z  Shape
}

func (o routeGrad) Name() string                   { return "route.dz" }
func (o routeGrad) Infer([]Shape) ([]Shape, error) { return []Shape{o.z}, nil }

func (o routeGrad) Lower(l *Lowering, out, in []backend.Buf) {
	args := []backend.Buf{in[0], in[1], {}, in[2]}
	if len(in) > 3 {
		args[2] = in[3]
	}
	l.Call(backend.RouteGrad, out, args, o.of.numbers(), [4]float64{})
}

// lackingProbs is Load without probabilities.
type lackingProbs struct{ plain }

func (o lackingProbs) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(o.call, out, []backend.Buf{in[0], {}}, o.i, o.f)
}

// assign is routing by a number that each row comes with. Saved: the choice.
type assign struct{ experts, shared int }

// Assign gives each row to the expert of its number in ids (R), of the first E - shared, and to the last shared
// experts, all with gates of 1.
func (b *Builder) Assign(ids E, experts, shared int) Routing {
	y := b.Apply(assign{experts, shared}, b.index("assign", "ids", ids))
	return Routing{Gates: y, Chosen: b.Saved(y, 1)}
}

func (o assign) Name() string { return "assign" }

func (o assign) Infer(in []Shape) ([]Shape, error) {
	if in[0].Axis == backend.Fixed || len(in[0].Dims) != 1 || o.shared < 0 || o.experts <= o.shared {
		return nil, fmt.Errorf("want one number for each row, and experts that are not shared")
	}
	r := in[0].Dims[0]
	return []Shape{Rows(in[0].Axis, r, o.experts), Rows(in[0].Axis, r, 1+o.shared)}, nil
}

func (o assign) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(backend.Assign, out, in, [4]int{o.shared, o.experts}, [4]float64{})
}

// spread is the row of its sequence for each token.
type spread struct{ tokens int }

// Spread gives each of tokens its sequence's row of x (N,D), by offsets (N+1).
func (b *Builder) Spread(x, offsets E, tokens int) E {
	return b.Apply(spread{tokens}, x, b.index("spread", "offsets", offsets))
}

func (o spread) Name() string { return "spread" }

func (o spread) Infer(in []Shape) ([]Shape, error) {
	if x := in[0]; !x.rows(-1) || x.Axis != backend.Seq || !in[1].Equal(Vec(x.Dims[0]+1)) {
		return nil, fmt.Errorf("want x (N,D) and offsets (N+1)")
	}
	return []Shape{Rows(backend.Tok, o.tokens, in[0].Cols())}, nil
}

func (o spread) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(backend.Spread, out, in, [4]int{}, [4]float64{})
}

func (o spread) Diff(b *Builder, _ E, in []E, dy E) []E {
	return []E{b.Apply(plain{name: "spread.dx", call: backend.SpreadGrad, shape: of(in[0].Shape())}, dy, in[1]), {}}
}

// gateMul multiplies groups of columns by the gates of experts.
type gateMul struct {
	rank int
	by   float64
}

// GateMul is by g h for each expert: h (R,E·rank), or (R,rank) for all of them, g (R,E). The result is (R,E·rank),
// 0 where a gate is.
func (b *Builder) GateMul(h, g E, rank int, by float64) E { return b.Apply(gateMul{rank, by}, h, g) }

func (o gateMul) Name() string { return "gatemul" }
func (o gateMul) RowWise()     {}

func (o gateMul) Infer(in []Shape) ([]Shape, error) {
	h, g := in[0], in[1]
	if !g.rows(-1) || o.rank < 1 || !h.Equal(g.withCols(o.rank)) && !h.Equal(g.withCols(g.Cols()*o.rank)) {
		return nil, fmt.Errorf("want h of %d columns, for each expert or for all, and gates", o.rank)
	}
	return []Shape{g.withCols(g.Cols() * o.rank)}, nil
}

func (o gateMul) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(backend.GateMul, out, in, [4]int{}, [4]float64{o.by})
}

func (o gateMul) Diff(b *Builder, _ E, in []E, dy E) []E {
	d := b.Apply(gateMulGrad{o.by}, in[0], in[1], dy)
	return []E{d, b.Saved(d, 1)}
}

// gateMulGrad has two results, dh and dg. Either may be dead.
type gateMulGrad struct{ by float64 }

func (gateMulGrad) Name() string                      { return "gatemul.grad" }
func (gateMulGrad) Infer(in []Shape) ([]Shape, error) { return in[:2:2], nil }

func (o gateMulGrad) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(backend.GateMulGrad, out, in, [4]int{}, [4]float64{o.by})
}
