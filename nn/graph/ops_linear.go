package graph

import (
	"fmt"
	"slices"

	"rung/nn/backend"
)

// linear is y_k = f(x w_kT + h_k u_kT + b_k) for blocks of columns side by side. Inputs: x, then each
// block's w, b and h, u where it has them. Saved with gelu: the pre-activation.
type linear struct {
	blocks []block
	gelu   bool
}

// block says which inputs a block of columns has besides its weight.
type block struct{ bias, low bool }

// part is the inputs of a block, by position.
type part struct{ w, b, h, u int }

func (o linear) parts() []part {
	ps, at := make([]part, len(o.blocks)), 1
	next := func(has bool) int {
		if !has {
			return -1
		}
		at++
		return at - 1
	}
	for k, bl := range o.blocks {
		ps[k] = part{next(true), next(bl.bias), next(bl.low), next(bl.low)}
	}
	return ps
}

// Linear is y = x wT + b: x (R,I), w (O,I), b (O) or the zero E.
func (b *Builder) Linear(x, w, bias E) E {
	if bias.b == nil {
		return b.Apply(linear{blocks: []block{{}}}, x, w)
	}
	return b.Apply(linear{blocks: []block{{bias: true}}}, x, w, bias)
}

func (o linear) Name() string { return "linear" }
func (o linear) RowWise()     {}

func (o linear) Infer(in []Shape) ([]Shape, error) {
	x, cols := in[0], 0
	if !x.rows(-1) {
		return nil, fmt.Errorf("want x to be rows of values")
	}
	for _, p := range o.parts() {
		w := in[p.w]
		if len(w.Dims) != 2 || w.Axis != backend.Fixed || w.Dims[1] != x.Cols() {
			return nil, fmt.Errorf("want x (rows,in) and w (out,in)")
		}
		if p.b > 0 && !in[p.b].Equal(Vec(w.Dims[0])) {
			return nil, fmt.Errorf("want a bias of %d", w.Dims[0])
		}
		if p.h > 0 && (!in[p.h].Equal(x.withCols(in[p.h].Cols())) || !in[p.u].Equal(Mat(w.Dims[0], in[p.h].Cols()))) {
			return nil, fmt.Errorf("want a low-rank term (rows,r) by (%d,r)", w.Dims[0])
		}
		cols += w.Dims[0]
	}
	y := x.withCols(cols)
	if o.gelu {
		return []Shape{y, y}, nil
	}
	return []Shape{y}, nil
}

func (o linear) Lower(l *Lowering, out, in []backend.Buf) {
	args := []backend.Buf{in[0]}
	pick := func(i int) {
		if i < 0 {
			args = append(args, backend.Buf{})
		} else {
			args = append(args, in[i])
		}
	}
	for _, p := range o.parts() {
		pick(p.w)
		pick(p.b)
		pick(p.h)
		pick(p.u)
	}
	res, act := []backend.Buf{out[0], {}}, backend.Identity
	if o.gelu {
		res[1], act = out[1], backend.ActGELU
	}
	l.Call(backend.MatNT, res, args, [4]int{len(o.blocks), act}, [4]float64{})
}

func (o linear) Diff(b *Builder, n E, in []E, dy E) []E {
	if o.gelu {
		dy = b.throughGELU(b.Saved(n, 1), dy)
	}
	gs := make([]E, len(in))
	var back []E
	j := 0
	for _, p := range o.parts() {
		width := in[p.w].Shape().Dims[0]
		d := b.Cols(dy, j, width)
		back = append(back, d, in[p.w])
		gs[p.w] = b.Apply(linearDW{}, d, in[0])
		if p.b > 0 {
			gs[p.b] = b.Apply(colSum{}, d)
		}
		if p.h > 0 {
			gs[p.h] = b.Apply(linearDX{}, d, in[p.u])
			gs[p.u] = b.Apply(linearDW{}, d, in[p.h])
		}
		j += width
	}
	gs[0] = b.Apply(linearDX{}, back...)
	return gs
}

// throughGELU is dy gelu'(pre). Where dy comes straight from a matmul that has only just been built
// for this, the product is that matmul's epilogue; the plain one is pruned if nobody else reads it.
func (b *Builder) throughGELU(pre, dy E) E {
	if b.err == nil {
		if dy.info().op == Operator(linearDX{}) {
			return b.Apply(linearDX{gelu: true}, append([]E{pre}, dy.info().in...)...)
		}
	}
	return b.Apply(unaryGrad{backend.GELU}, pre, dy)
}

// linearDX is dx = Σ dy_k w_k over pairs of inputs dy, w; times gelu'(pre) for a first input pre, or added to a
// first input sum.
type linearDX struct{ gelu, plus bool }

func (o linearDX) Name() string { return "linear.dx" }

func (o linearDX) Infer(in []Shape) ([]Shape, error) {
	pairs := in
	if o.gelu || o.plus {
		pairs = in[1:]
	}
	return []Shape{pairs[0].withCols(pairs[1].Cols())}, nil
}

func (o linearDX) Lower(l *Lowering, out, in []backend.Buf) {
	act, args := backend.Identity, slices.Clone(in)
	switch {
	case o.gelu:
		act = backend.ActGELU
	case o.plus:
		y := out[0]
		if in[0] != y { // else the sum is where the product goes
			l.Call(backend.Scale, []backend.Buf{y}, []backend.Buf{in[0]}, [4]int{}, [4]float64{1})
		}
		y.Acc = true
		out, args[0] = []backend.Buf{y}, backend.Buf{}
	default:
		args = slices.Concat([]backend.Buf{{}}, in)
	}
	l.Call(backend.MatNN, out, args, [4]int{len(args) / 2, act}, [4]float64{})
}

// linearDW is dw = dyT x.
type linearDW struct{}

func (linearDW) Name() string         { return "linear.dw" }
func (linearDW) Accumulates(int) bool { return true }

func (linearDW) Infer(in []Shape) ([]Shape, error) {
	return []Shape{Mat(in[0].Cols(), in[1].Cols())}, nil
}

func (linearDW) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(backend.MatTN, out, in, [4]int{}, [4]float64{})
}

// colSum is db = Σ dy over rows.
type colSum struct{}

func (colSum) Name() string                      { return "linear.db" }
func (colSum) Accumulates(int) bool              { return true }
func (colSum) Infer(in []Shape) ([]Shape, error) { return []Shape{Vec(in[0].Cols())}, nil }

func (colSum) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(backend.ColSum, out, in, [4]int{}, [4]float64{})
}
