package graph

import (
	"fmt"

	"rung/nn/backend"
)

// Operators of adapters: products with vectors that are the same in every row, and functions of weights.

// vector is a buffer of C values that stands as (C) or as (C,1) or (1,C) without gaps, as one row of them.
func vector(b backend.Buf) backend.Buf {
	if b.Cols == 1 && b.Ld == 1 {
		b.Cols, b.Ld, b.Rows = b.Rows, b.Rows, 1
	}
	return b
}

// isVector reports that s is n values of a weight.
func isVector(s Shape, n int) bool { return s.Axis == backend.Fixed && s.Size() == n }

// mulCols is x g [c] [+ bias]. Inputs: x, g, then c and bias where they are.
type mulCols struct{ c, bias bool }

// MulCols is x g c + bias, with vectors that are the same in every row: x (R,C), g (C), (C,1) or (1,C), c and
// bias so or the zero E. c is a constant: it has no gradient.
func (b *Builder) MulCols(x, g, c, bias E) E {
	in := []E{x, g}
	for _, e := range []E{c, bias} {
		if e.b != nil {
			in = append(in, e)
		}
	}
	return b.Apply(mulCols{c.b != nil, bias.b != nil}, in...)
}

func (o mulCols) Name() string { return "mulcols" }
func (o mulCols) RowWise()     {}

func (o mulCols) Infer(in []Shape) ([]Shape, error) {
	if !in[0].rows(-1) {
		return nil, fmt.Errorf("want x to be rows of values")
	}
	for _, s := range in[1:] {
		if !isVector(s, in[0].Cols()) {
			return nil, fmt.Errorf("want vectors of %d", in[0].Cols())
		}
	}
	return in[:1:1], nil
}

func (o mulCols) Lower(l *Lowering, out, in []backend.Buf) {
	args := []backend.Buf{in[0], vector(in[1]), {}, {}}
	rest := in[2:]
	if o.c {
		args[2], rest = vector(rest[0]), rest[1:]
	}
	if o.bias {
		args[3] = vector(rest[0])
	}
	l.Call(backend.MulCols, out, args, [4]int{}, [4]float64{})
}

func (o mulCols) Diff(b *Builder, _ E, in []E, dy E) []E {
	gs := make([]E, len(in))
	var c E
	dg := []E{in[0], dy}
	if o.c {
		c = in[2]
		dg = append(dg, c)
	}
	gs[0] = b.MulCols(dy, in[1], c, E{})
	gs[1] = b.Apply(mulColsDG{in[1].Shape()}, dg...)
	if o.bias {
		gs[len(in)-1] = b.Apply(colSum{}, dy)
	}
	return gs
}

// mulColsDG is dg = c Σ x dy over rows, in the shape of g.
type mulColsDG struct{ g Shape }

func (mulColsDG) Name() string                     { return "mulcols.dg" }
func (mulColsDG) Accumulates(int) bool             { return true }
func (o mulColsDG) Infer([]Shape) ([]Shape, error) { return []Shape{o.g}, nil }

func (o mulColsDG) Lower(l *Lowering, out, in []backend.Buf) {
	args := []backend.Buf{in[0], in[1], {}}
	if len(in) > 2 {
		args[2] = vector(in[2])
	}
	l.Call(backend.MulColsDG, []backend.Buf{vector(out[0])}, args, [4]int{}, [4]float64{})
}

// Product is u a of two weights u (O,r) and a (r,I), a constant (O,I): it has no gradient.
func (b *Builder) Product(u, a E) E { return b.Apply(product{}, u, a) }

type product struct{}

func (product) Name() string { return "product" }

func (product) Infer(in []Shape) ([]Shape, error) {
	u, a := in[0], in[1]
	if u.Axis != backend.Fixed || a.Axis != backend.Fixed || len(u.Dims) != 2 || len(a.Dims) != 2 || u.Dims[1] != a.Dims[0] {
		return nil, fmt.Errorf("want weights (out,r) and (r,in)")
	}
	return []Shape{Mat(u.Dims[0], a.Dims[1])}, nil
}

func (product) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(backend.MatNN, out, []backend.Buf{{}, in[0], in[1]}, [4]int{1}, [4]float64{})
}

// InvNorm is 1/|row| of each row of a weight w (O,I), a constant (O,1): it has no gradient. A row of zeros
// counts as one of 1e-12.
func (b *Builder) InvNorm(w E) E { return b.Saved(b.Apply(rowNorm{}, w), 1) }

type rowNorm struct{}

func (rowNorm) Name() string { return "rownorm" }

func (rowNorm) Infer(in []Shape) ([]Shape, error) {
	if in[0].Axis != backend.Fixed || len(in[0].Dims) != 2 {
		return nil, fmt.Errorf("want a weight (out,in)")
	}
	return []Shape{in[0], Mat(in[0].Dims[0], 1)}, nil
}

func (rowNorm) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(backend.Normalize, out, in, [4]int{}, [4]float64{1e-12})
}

// Constant is a weight's shape filled with v: it has no gradient. like is a weight of that shape, which is not read.
func (b *Builder) Constant(like E, v float64) E { return b.Apply(constant{v}, like) }

type constant struct{ v float64 }

func (constant) Name() string                      { return "constant" }
func (constant) Infer(in []Shape) ([]Shape, error) { return likeFirst(in) }

func (o constant) Lower(l *Lowering, out, _ []backend.Buf) {
	l.Call(backend.Fill, out, nil, [4]int{}, [4]float64{o.v})
}

// linearScaled is a linear layer with a low-rank term whose weights learn at rates of their own by output. Inputs: x,
// w, a, u, h = x aT and, with bias, that.
type linearScaled struct {
	eta  float64
	bias bool
}

// LinearScaled is y = x wT + (x aT) uT + bias, x (R,I), w (O,I), a (r,I), u (O,r), bias (O) or the zero E. The
// gradients of a and u are those of dy times 1/√(|row| + 1/eta²), column by column, with the length of the row of u a;
// that of x is the one of dy (Huang and Balestriero 2024, ALLoRA, section 4.2).
func (b *Builder) LinearScaled(x, w, a, u, bias E, eta float64) E {
	in := []E{x, w, a, u, b.Apply(projected{}, x, a)}
	if bias.b != nil {
		in = append(in, bias)
	}
	return b.Apply(linearScaled{eta, bias.b != nil}, in...)
}

// projected is x aT, whose gradient its consumer knows.
type projected struct{}

func (projected) Name() string { return "projected" }
func (projected) RowWise()     {}

func (projected) Infer(in []Shape) ([]Shape, error) { return linear{blocks: []block{{}}}.Infer(in) }

func (projected) Lower(l *Lowering, out, in []backend.Buf) {
	linear{blocks: []block{{}}}.Lower(l, out, in)
}

func (o linearScaled) Name() string { return "linear.scaled" }
func (o linearScaled) RowWise()     {}

// plain is the Linear with a low-rank term that it is in forward, and that one's inputs.
func (o linearScaled) plain() linear { return linear{blocks: []block{{bias: o.bias, low: true}}} }

func rearranged[T any](o linearScaled, in []T) []T {
	if o.bias {
		return []T{in[0], in[1], in[5], in[4], in[3]}
	}
	return []T{in[0], in[1], in[4], in[3]}
}

func (o linearScaled) Infer(in []Shape) ([]Shape, error) { return o.plain().Infer(rearranged(o, in)) }

func (o linearScaled) Lower(l *Lowering, out, in []backend.Buf) {
	o.plain().Lower(l, out, rearranged(o, in))
}

func (o linearScaled) Diff(b *Builder, _ E, in []E, dy E) []E {
	x, w, a, u, h := in[0], in[1], in[2], in[3], in[4]
	root := b.Unary(backend.InvSqrt, b.InvNorm(b.Product(u, a))) // (O,1) √|row|
	c := b.Unary(backend.InvSqrt, b.Add(b.Unary(backend.Square, root), b.Constant(root, 1/(o.eta*o.eta))))
	scaled := b.MulCols(dy, c, E{}, E{})
	gs := make([]E, len(in))
	gs[0] = b.Apply(linearDX{}, dy, w, b.Apply(linearDX{}, dy, u), a)
	gs[1] = b.Apply(linearDW{}, dy, x)
	gs[2] = b.Apply(linearDW{}, b.Apply(linearDX{}, scaled, u), x)
	gs[3] = b.Apply(linearDW{}, scaled, h)
	if o.bias {
		gs[5] = b.Apply(colSum{}, dy)
	}
	return gs
}
