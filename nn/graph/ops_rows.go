package graph

import (
	"fmt"

	"rung/nn/backend"
)

// plain is an operator that is one backend call with its results and inputs as they are: what most
// gradients need.
type plain struct {
	name  string
	call  backend.Op
	i     [4]int
	f     [4]float64
	shape func(in []Shape) ([]Shape, error)
	acc   int // results from here on may be added to what is there; 0: none
}

func (o plain) Name() string                             { return o.name }
func (o plain) Infer(in []Shape) ([]Shape, error)        { return o.shape(in) }
func (o plain) Lower(l *Lowering, out, in []backend.Buf) { l.Call(o.call, out, in, o.i, o.f) }
func (o plain) Accumulates(i int) bool                   { return o.acc > 0 && i >= o.acc }

// likeFirst: one result, of the shape of the first input.
func likeFirst(in []Shape) ([]Shape, error) { return in[:1:1], nil }

// alike: one result, and all inputs have its shape: rows of values, or a weight's.
func alike(in []Shape) ([]Shape, error) {
	for _, s := range in {
		if !s.Equal(in[0]) {
			return nil, fmt.Errorf("shapes differ")
		}
		if s.Axis != backend.Fixed && !s.rows(-1) {
			return nil, fmt.Errorf("want rows of values")
		}
	}
	return in[:1:1], nil
}

// of is a shape that is known when the operator is made.
func of(s ...Shape) func([]Shape) ([]Shape, error) {
	return func([]Shape) ([]Shape, error) { return s, nil }
}

// elementwise is an operator of two inputs of one shape.
type elementwise struct{ call backend.Op }

// Add is x + y.
func (b *Builder) Add(x, y E) E { return b.Apply(elementwise{backend.Add}, x, y) }

// Sub is x - y.
func (b *Builder) Sub(x, y E) E { return b.Apply(elementwise{backend.Sub}, x, y) }

// Mul is x y, element by element.
func (b *Builder) Mul(x, y E) E { return b.Apply(elementwise{backend.Mul}, x, y) }

func (o elementwise) Name() string                      { return o.call.String() }
func (o elementwise) RowWise()                          {}
func (o elementwise) Infer(in []Shape) ([]Shape, error) { return alike(in) }

func (o elementwise) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(o.call, out, in, [4]int{}, [4]float64{})
}

func (o elementwise) Diff(b *Builder, _ E, in []E, dy E) []E {
	switch o.call {
	case backend.Sub:
		return []E{dy, b.Scale(dy, -1)}
	case backend.Mul:
		return []E{b.Mul(dy, in[1]), b.Mul(dy, in[0])}
	}
	return []E{dy, dy}
}

// scale is x times a number.
type scale struct{ by float64 }

// Scale is x times s.
func (b *Builder) Scale(x E, s float64) E { return b.Apply(scale{s}, x) }

func (o scale) Name() string                      { return "scale" }
func (o scale) RowWise()                          {}
func (o scale) Infer(in []Shape) ([]Shape, error) { return alike(in) }

func (o scale) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(backend.Scale, out, in, [4]int{}, [4]float64{o.by})
}
func (o scale) Diff(b *Builder, _ E, _ []E, dy E) []E { return []E{b.Scale(dy, o.by)} }

// unary is a function of each element.
type unary struct{ f backend.Func }

// Unary applies f to each element of x.
func (b *Builder) Unary(f backend.Func, x E) E {
	if f < 0 || f >= backend.NumFuncs {
		return b.fail("graph: unary: no function has the number %d", f)
	}
	return b.Apply(unary{f}, x)
}

// GELU is x Φ(x), by the error function.
func (b *Builder) GELU(x E) E { return b.Unary(backend.GELU, x) }

// Tanh is the hyperbolic tangent.
func (b *Builder) Tanh(x E) E { return b.Unary(backend.Tanh, x) }

// Softplus is log(1 + exp(x)).
func (b *Builder) Softplus(x E) E { return b.Unary(backend.Softplus, x) }

func (o unary) Name() string {
	return [...]string{"gelu", "tanh", "relu", "sigmoid", "softplus", "exp", "square", "positive", "invsqrt"}[o.f]
}
func (o unary) RowWise()                          {}
func (o unary) Infer(in []Shape) ([]Shape, error) { return alike(in) }

func (o unary) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(backend.Unary, out, in, [4]int{int(o.f)}, [4]float64{})
}

func (o unary) Diff(b *Builder, n E, in []E, dy E) []E {
	switch o.f {
	case backend.Positive: // flat everywhere it has a derivative
		return []E{b.Scale(dy, 0)}
	case backend.Tanh, backend.Sigmoid, backend.Exp, backend.InvSqrt:
		return []E{b.Apply(unaryGrad(o), n, dy)}
	}
	return []E{b.Apply(unaryGrad(o), in[0], dy)}
}

// unaryGrad is dy f'. Its first input is x, or y where the derivative reads that.
type unaryGrad struct{ f backend.Func }

func (o unaryGrad) Name() string                      { return unary(o).Name() + ".dx" }
func (o unaryGrad) Infer(in []Shape) ([]Shape, error) { return likeFirst(in) }

func (o unaryGrad) Lower(l *Lowering, out, in []backend.Buf) {
	args := []backend.Buf{in[0], {}, in[1]}
	switch o.f {
	case backend.Tanh, backend.Sigmoid, backend.Exp, backend.InvSqrt:
		args = []backend.Buf{{}, in[0], in[1]}
	}
	l.Call(backend.UnaryGrad, out, args, [4]int{int(o.f)}, [4]float64{})
}

// norm is LayerNorm of x, or of x + res. Inputs: x, [res,] g, b. Saved: mean, 1/std and, with res,
// the sum.
type norm struct {
	res bool
	eps float64
}

// LayerNorm normalises rows of x (R,D): (x - mean)/√(var + eps) g + bias, g and bias (D).
func (b *Builder) LayerNorm(x, g, bias E, eps float64) E {
	return b.Apply(norm{false, eps}, x, g, bias)
}

func (o norm) Name() string { return "layernorm" }
func (o norm) RowWise()     {}

func (o norm) Infer(in []Shape) ([]Shape, error) {
	x, gb := in[0], in[len(in)-2:]
	if !x.rows(-1) || !gb[0].Equal(Vec(x.Cols())) || !gb[1].Equal(gb[0]) || o.res && !in[1].Equal(x) {
		return nil, fmt.Errorf("want x (rows,d), weight and bias (d)")
	}
	r := []Shape{x, x.withCols(1), x.withCols(1)}
	if o.res {
		r = append(r, x)
	}
	return r, nil
}

func (o norm) Lower(l *Lowering, out, in []backend.Buf) {
	var res, sum backend.Buf
	if o.res {
		res, sum = in[1], out[3]
	}
	l.Call(backend.Norm, []backend.Buf{out[0], out[1], out[2], sum},
		[]backend.Buf{in[0], res, in[len(in)-2], in[len(in)-1]}, [4]int{}, [4]float64{o.eps})
}

func (o norm) Diff(b *Builder, n E, in []E, dy E) []E {
	s := in[0]
	if o.res {
		s = b.Saved(n, 3)
	}
	d := b.Apply(normGrad{}, s, b.Saved(n, 1), b.Saved(n, 2), in[len(in)-2], dy)
	gs := []E{d, d, b.Saved(d, 1), b.Saved(d, 2)}
	if !o.res {
		gs = gs[1:]
	}
	return gs
}

// normGrad has three results: dx, dg, db. Any of them may be dead.
type normGrad struct{}

func (normGrad) Name() string           { return "layernorm.grad" }
func (normGrad) Accumulates(i int) bool { return i > 0 }

func (normGrad) Infer(in []Shape) ([]Shape, error) { return []Shape{in[0], in[3], in[3]}, nil }

func (normGrad) Lower(l *Lowering, out, in []backend.Buf) {
	if !out[1].Dead() || !out[2].Dead() {
		l.Call(backend.NormDG, out[1:], []backend.Buf{in[0], in[1], in[2], in[4]}, [4]int{}, [4]float64{})
	}
	if !out[0].Dead() {
		l.Call(backend.NormDX, out[:1], in, [4]int{}, [4]float64{})
	}
}

// normalize is x / max(|x|, eps) by rows. Saved: 1/|x|.
type normalize struct{ eps float64 }

// Normalize scales the rows of x to length 1, as torch's normalize does (eps 1e-12).
func (b *Builder) Normalize(x E) E { return b.Apply(normalize{1e-12}, x) }

func (o normalize) Name() string { return "normalize" }
func (o normalize) RowWise()     {}

func (o normalize) Infer(in []Shape) ([]Shape, error) {
	if !in[0].rows(-1) {
		return nil, fmt.Errorf("want rows of values")
	}
	return []Shape{in[0], in[0].withCols(1)}, nil
}

func (o normalize) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(backend.Normalize, out, in, [4]int{}, [4]float64{o.eps})
}

func (o normalize) Diff(b *Builder, n E, _ []E, dy E) []E {
	return []E{b.Apply(plain{name: "normalize.dx", call: backend.NormalizeGrad, shape: likeFirst, f: [4]float64{o.eps}}, n, b.Saved(n, 1), dy)}
}

// rowSum is the sum of each row.
type rowSum struct{}

// RowSum is the sum of each row of x: (R,C) to (R,1).
func (b *Builder) RowSum(x E) E { return b.Apply(rowSum{}, x) }

func (rowSum) Name() string { return "rowsum" }
func (rowSum) RowWise()     {}

func (rowSum) Infer(in []Shape) ([]Shape, error) {
	if !in[0].rows(-1) {
		return nil, fmt.Errorf("want rows of values")
	}
	return []Shape{in[0].withCols(1)}, nil
}

func (rowSum) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(backend.RowSum, out, in, [4]int{}, [4]float64{})
}

func (rowSum) Diff(b *Builder, _ E, in []E, dy E) []E {
	return []E{b.Apply(plain{name: "rowsum.dx", call: backend.RowSumGrad, shape: of(in[0].Shape())}, dy)}
}

// logSoftmax is the logarithm of the softmax of each row. Inputs: x [, mask]. Saved: log Σ exp.
type logSoftmax struct{ masked bool }

// LogSoftmax is x - log Σ exp(x) by rows (R,C), over the columns where mask (R,C) is not 0; mask may
// be the zero E. Where the mask is 0 the result is 0.
func (b *Builder) LogSoftmax(x, mask E) E {
	if mask.b == nil {
		return b.Apply(logSoftmax{}, x)
	}
	return b.Apply(logSoftmax{true}, x, mask)
}

func (o logSoftmax) Name() string { return "logsoftmax" }

func (o logSoftmax) Infer(in []Shape) ([]Shape, error) {
	if x := in[0]; !x.rows(-1) || !in[len(in)-1].Equal(x) {
		return nil, fmt.Errorf("want rows of values, and a mask of their shape")
	}
	return []Shape{in[0], in[0].withCols(1)}, nil
}

func (o logSoftmax) Lower(l *Lowering, out, in []backend.Buf) {
	args := []backend.Buf{in[0], {}}
	copy(args, in)
	l.Call(backend.Softmax, out, args, [4]int{}, [4]float64{})
}

func (o logSoftmax) Diff(b *Builder, n E, in []E, dy E) []E {
	gs := make([]E, len(in))
	gs[0] = b.Apply(logSoftmaxGrad(o), append([]E{n, dy}, in[1:]...)...)
	return gs
}

type logSoftmaxGrad struct{ masked bool }

func (logSoftmaxGrad) Name() string                      { return "logsoftmax.dx" }
func (logSoftmaxGrad) Infer(in []Shape) ([]Shape, error) { return likeFirst(in) }

func (o logSoftmaxGrad) Lower(l *Lowering, out, in []backend.Buf) {
	args := []backend.Buf{in[0], {}, in[1]}
	if o.masked {
		args[1] = in[2]
	}
	l.Call(backend.SoftmaxGrad, out, args, [4]int{}, [4]float64{})
}
