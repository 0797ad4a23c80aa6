package graph

import (
	"fmt"

	"rung/nn/backend"
)

// A group is what grouped products have in common: w is (E·rank,C), or its transpose.
type group struct {
	rank       int
	transposed bool
}

func (o group) numbers() (n [4]int) {
	if o.transposed {
		n[0] = 1
	}
	return n
}

// columns is C of a weight, or an error if rows of x, choices and weight do not go together.
func (o group) columns(x, w, at Shape) (int, error) {
	if o.rank < 1 || len(w.Dims) != 2 || w.Axis != backend.Fixed || !at.rows(-1) || !x.Equal(at.withCols(x.Cols())) {
		return 0, fmt.Errorf("want rows and their choice of experts, and a weight of all experts")
	}
	ranks, c := w.Dims[0], w.Dims[1]
	if o.transposed {
		ranks, c = c, ranks
	}
	if ranks%o.rank != 0 {
		return 0, fmt.Errorf("want experts of rank %d, have %d rows for all", o.rank, ranks)
	}
	if experts := ranks / o.rank; experts > backend.MaxExperts {
		return 0, fmt.Errorf("want at most %d experts, have %d", backend.MaxExperts, experts)
	}
	return c, nil
}

// groupIn is the products with the chosen experts. Inputs: x, w, at.
type groupIn struct{ group }

// GroupIn is w_e x for each expert e that a row of x (R,C) goes to, side by side: (R,k·rank). chosen (R,k) is a
// Routing's, w (E·rank,C) that of all experts, or with transposed its transpose. Experts that are not chosen cost nothing.
func (b *Builder) GroupIn(x, w, chosen E, rank int, transposed bool) E {
	return b.chosen(chosen, b.Apply(groupIn{group{rank, transposed}}, x, w, chosen), func(experts int) bool {
		return w.Shape().Size() == experts*rank*x.Shape().Cols()
	})
}

// chosen is y, which reads a choice, or an error if that is none of a router over as many experts as fit: kernels do not look
// at its numbers.
func (b *Builder) chosen(at, y E, fit func(experts int) bool) E {
	if b.err != nil {
		return y
	}
	for {
		i := at.info()
		if o, ok := i.op.(pool); ok && o == poolFirst {
			at = i.in[0]
			continue
		}
		if _, ok := i.op.(spread); ok {
			at = i.in[0]
			continue
		}
		experts := 0
		if i.of.OK() && i.idx == 1 {
			switch o := i.of.info().op.(type) {
			case route:
				experts = i.of.info().in[0].Shape().Cols() * o.each
			case assign:
				experts = o.experts
			}
		}
		if experts == 0 || !fit(experts) {
			return b.fail("graph: a choice %v that is no router's over those experts", at.Shape())
		}
		return y
	}
}

func (o groupIn) Name() string { return "group" }
func (o groupIn) RowWise()     {}

func (o groupIn) Infer(in []Shape) ([]Shape, error) {
	c, err := o.columns(in[0], in[1], in[2])
	if err == nil && in[0].Cols() != c {
		err = fmt.Errorf("want rows of %d", c)
	}
	return []Shape{in[2].withCols(in[2].Cols() * o.rank)}, err
}

func (o groupIn) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(backend.GroupNT, out, in, o.numbers(), [4]float64{})
}

func (o groupIn) Diff(b *Builder, _ E, in []E, dy E) []E {
	return []E{b.Apply(groupOut{group: o.group}, dy, in[1], in[2]), b.Apply(groupDW{o.group, in[1].Shape()}, dy, in[0], in[2]), {}}
}

// groupOut is the sum of what the chosen experts make of their own rows. Inputs: h, w, at [, plus].
type groupOut struct {
	group
	plus bool
}

// GroupOut is plus + Σ_j w_eT h_j, (R,C), over the experts e that a row goes to, j-th of them: h (R,k·rank); others as in
// GroupIn.
func (b *Builder) GroupOut(plus, h, w, chosen E, rank int, transposed bool) E {
	return b.chosen(chosen, b.Apply(groupOut{group{rank, transposed}, true}, h, w, chosen, plus), func(experts int) bool {
		return w.Shape().Size() == experts*rank*plus.Shape().Cols()
	})
}

func (o groupOut) Name() string { return "group.sum" }
func (o groupOut) RowWise()     {}

func (o groupOut) Infer(in []Shape) ([]Shape, error) {
	c, err := o.columns(in[0], in[1], in[2])
	y := in[0].withCols(c)
	switch {
	case err != nil:
	case in[0].Cols() != in[2].Cols()*o.rank:
		err = fmt.Errorf("want rank %d for each of %d chosen experts", o.rank, in[2].Cols())
	case o.plus && !in[3].Equal(y):
		err = fmt.Errorf("want %v to add to", y)
	}
	return []Shape{y}, err
}

func (o groupOut) Lower(l *Lowering, out, in []backend.Buf) {
	args := []backend.Buf{{}, in[0], in[1], in[2]}
	if o.plus {
		args[0] = in[3]
	}
	l.Call(backend.GroupNN, out, args, o.numbers(), [4]float64{})
}

func (o groupOut) Diff(b *Builder, _ E, in []E, dy E) []E {
	return []E{
		b.Apply(groupIn{o.group}, dy, in[1], in[2]), b.Apply(groupDW{o.group, in[1].Shape()}, in[0], dy, in[2]), {}, dy,
	}[:len(in)]
}

// groupDW is the gradient of a weight of experts. Inputs: h, x, at.
type groupDW struct {
	group
	w Shape
}

func (groupDW) Name() string                     { return "group.dw" }
func (groupDW) Accumulates(int) bool             { return true }
func (o groupDW) Infer([]Shape) ([]Shape, error) { return []Shape{o.w}, nil }

func (o groupDW) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(backend.GroupTN, out, in, o.numbers(), [4]float64{})
}

// take picks the columns of the chosen experts.
type take struct{}

// Take is x_e for each expert e that a row of x (R,E) goes to: (R,k), by chosen (R,k) of a Routing.
func (b *Builder) Take(x, chosen E) E {
	return b.chosen(chosen, b.Apply(take{}, x, chosen), func(experts int) bool { return x.Shape().Cols() == experts })
}

func (take) Name() string { return "take" }
func (take) RowWise()     {}

func (take) Infer(in []Shape) ([]Shape, error) {
	if x, at := in[0], in[1]; !at.rows(-1) || !x.Equal(at.withCols(x.Cols())) {
		return nil, fmt.Errorf("want x (R,E) and the choice (R,k)")
	}
	return in[1:2:2], nil
}

func (take) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(backend.Take, out, in, [4]int{}, [4]float64{})
}

func (take) Diff(b *Builder, _ E, in []E, dy E) []E {
	return []E{b.Apply(plain{name: "take.dx", call: backend.TakeGrad, shape: of(in[0].Shape())}, in[1], dy), {}}
}
