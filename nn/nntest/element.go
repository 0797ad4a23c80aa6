package nntest

import (
	"math"

	"rung/nn/backend"
	"rung/nn/backend/philox"
)

// elementRows is what is computed element by element.
func elementRows() []row {
	plus := func(x, y float64) float64 { return x + y }
	minus := func(x, y float64) float64 { return x - y }
	times := func(x, y float64) float64 { return x * y }
	return []row{
		{backend.Unary, 8, unaryCalls, unaryTruth, byRow},
		{backend.UnaryGrad, 8, unaryGradCalls, unaryGradTruth, byRow},
		{backend.Add, 2, binaryCalls, binaryTruth(plus), byRow},
		{backend.Sub, 2, binaryCalls, binaryTruth(minus), byRow},
		{backend.Mul, 2, binaryCalls, binaryTruth(times), byRow},
		{backend.Scale, 4, scaleCalls, scaleTruth, byRow},
		{backend.MulCols, 4, mulColsCalls, mulColsTruth, byRow},
		{backend.MulColsDG, 64, mulColsDGCalls, mulColsDGTruth, apart},
		{backend.Fill, 2, fillCalls, fillTruth, byRow},
		{backend.AddTo, 2, addToCalls, addToTruth, byRow},
		{backend.Dropout, 4, dropoutCalls, dropoutTruth, byRow},
		{backend.MulConst, 4, mulConstCalls, mulConstTruth, byRow},
	}
}

// extremes is zeros, denormals, what a badly scaled logit is, and numbers whose square overflows.
var extremes = []float64{0, math.Copysign(0, -1), 1e-40, -1e-40, 1e-6, -1e-6, 3, -3, 6, -6, 20, -20, 88, -87, 89, -104, 200, -200, 1e10, -1e10, 1e30, -1e30}

// mild leaves out extremes from whose square or exponential other results could not recover.
var mild = []float64{0, math.Copysign(0, -1), 1e-40, -1e-40, 1e-6, -1e-6, 3, -3, 20, -20, 89, -104, 200, -200, 1e10, -1e10}

// extreme is a matrix of a row or more that holds each of list, and then random numbers.
func (g *gen) extreme(c *call, axis backend.Axis, cols int, list []float64) operand {
	o := g.mat(c, axis, cols)
	copy(o.v, g.round(append([]float64(nil), list...)))
	return o
}

// elements makes calls at all shapes, the first of which holds extremes.
func (g *gen) elements(make1 func(c *call, k, cols int, x operand)) (all []*call) {
	for k, s := range g.shapes() {
		c := g.call([]backend.Axis{backend.Tok, backend.Seq, backend.Unit}[k%3], s[0])
		x := g.mat(c, c.axis, s[1])
		if k == 0 && !g.exact {
			c = g.call(backend.Tok, 4)
			x = g.extreme(c, backend.Tok, 9, extremes)
			c.what = "extremes"
		}
		c.out = []operand{g.out(c, c.axis, x.cols)}
		make1(c, k, x.cols, x)
		all = append(all, c)
	}
	return all
}

var funcs = []backend.Func{backend.GELU, backend.Tanh, backend.ReLU, backend.Sigmoid, backend.Softplus, backend.Exp, backend.Square, backend.Positive, backend.InvSqrt}

func unaryCalls(g *gen) (all []*call) {
	for _, f := range funcs {
		all = append(all, g.elements(func(c *call, _, _ int, x operand) {
			c.I[0] = int(f)
			c.in = []operand{x}
		})...)
	}
	return all
}

// function is the value, the derivative and their magnitudes.
func function(f backend.Func, x float64) (y, ym, d, dm float64) {
	switch f {
	case backend.GELU:
		y, d = x*phi(x), geluD(x)
		return y, abs(x), d, 1.2
	case backend.Tanh:
		y = math.Tanh(x)
		return y, 1, 1 - y*y, 1
	case backend.ReLU:
		if x > 0 {
			return x, x, 1, 1
		}
		return 0, 0, 0, 0
	case backend.Sigmoid:
		y = 1 / (1 + math.Exp(-x))
		return y, 1, y * (1 - y), 1
	case backend.Softplus:
		if x > 700 { // exp would overflow, and log(1+exp(x)) is x long before
			return x, x, 1, 1
		}
		y = math.Log1p(math.Exp(x))
		return y, 1 + y, 1 / (1 + math.Exp(-x)), 1
	case backend.Exp:
		y = math.Exp(x)
		return y, y * (1 + abs(x)), y, y
	case backend.Square:
		return x * x, x * x, 2 * x, abs(2 * x)
	case backend.InvSqrt:
		if x <= 0 {
			return 0, 0, 0, 0
		}
		y = 1 / math.Sqrt(x)
		return y, y, -y * y * y / 2, y * y * y
	}
	if x > 0 {
		return 1, 0, 0, 0
	}
	return 0, 0, 0, 0
}

func unaryTruth(c *call) []grid {
	return one(gridOf(c.out[0].rows, c.out[0].cols, func(i, j int) (v, m float64) {
		v, m, _, _ = function(backend.Func(c.I[0]), c.in[0].at(i, j))
		return v, m
	}))
}

// readsValue says whose derivative is computed from the value, not from the argument.
func readsValue(f backend.Func) bool {
	return f == backend.Tanh || f == backend.Sigmoid || f == backend.Exp || f == backend.InvSqrt
}

func unaryGradCalls(g *gen) (all []*call) {
	for _, fn := range funcs {
		if fn == backend.Positive {
			continue
		}
		all = append(all, g.elements(func(c *call, _, cols int, x operand) {
			c.I[0] = int(fn)
			if c.what != "" { // a gradient that overflows is no finite input
				x = g.extreme(c, c.axis, cols, mild)
			}
			if fn == backend.InvSqrt && g.exact { // differences see nothing at the pole
				for i, v := range x.v {
					x.v[i] = math.Copysign(.2+abs(v), v)
				}
			}
			f := c.clone()
			f.op, f.in = backend.Unary, []operand{x}
			dy := g.mat(c, c.axis, cols)
			c.in = []operand{x, {}, dy}
			if readsValue(fn) {
				y := make([]float64, len(x.v))
				for i, v := range x.v {
					y[i], _, _, _ = function(fn, math.Min(v, 80))
				}
				c.in[0], c.in[1] = operand{}, g.of(c, c.axis, cols, y)
			}
			c.derives(f, dy, 0)
		})...)
	}
	return all
}

func unaryGradTruth(c *call) []grid {
	return one(gridOf(c.out[0].rows, c.out[0].cols, func(i, j int) (v, m float64) {
		dy := c.in[2].at(i, j)
		switch f := backend.Func(c.I[0]); f {
		case backend.Tanh:
			y := c.in[1].at(i, j)
			return dy * (1 - y) * (1 + y), abs(dy)
		case backend.Sigmoid:
			y := c.in[1].at(i, j)
			return dy * (y - y*y), abs(dy)
		case backend.Exp:
			return dy * c.in[1].at(i, j), abs(dy * c.in[1].at(i, j))
		case backend.InvSqrt:
			y := c.in[1].at(i, j)
			return -dy * y * y * y / 2, abs(dy * y * y * y)
		default:
			_, _, d, dm := function(f, c.in[0].at(i, j))
			return dy * d, abs(dy) * dm
		}
	}))
}

func binaryCalls(g *gen) []*call {
	return g.elements(func(c *call, _, cols int, x operand) { c.in = []operand{x, g.mat(c, c.axis, cols)} })
}

func binaryTruth(f func(x, y float64) float64) func(*call) []grid {
	return func(c *call) []grid {
		return one(gridOf(c.out[0].rows, c.out[0].cols, func(i, j int) (v, m float64) {
			v = f(c.in[0].at(i, j), c.in[1].at(i, j))
			return v, abs(v)
		}))
	}
}

func scaleCalls(g *gen) []*call {
	return g.elements(func(c *call, k, _ int, x operand) {
		c.F[0] = []float64{-.1, 1, 3, 0}[k%4]
		c.in = []operand{x}
	})
}

func scaleTruth(c *call) []grid {
	return one(gridOf(c.out[0].rows, c.out[0].cols, func(i, j int) (v, m float64) {
		v = c.in[0].at(i, j) * c.F[0]
		return v, abs(v)
	}))
}

func fillCalls(g *gen) []*call {
	return g.elements(func(c *call, k, _ int, _ operand) { c.F[0] = []float64{.1, 0, -7}[k%3] })
}

func fillTruth(c *call) []grid {
	return one(gridOf(c.out[0].rows, c.out[0].cols, func(int, int) (v, m float64) { return c.F[0], abs(c.F[0]) }))
}

func addToCalls(g *gen) []*call {
	return g.elements(func(c *call, _, cols int, x operand) {
		c.in = []operand{x}
		c.out[0].v = g.normal(c.out[0].rows * cols)
	})
}

func addToTruth(c *call) []grid {
	return one(gridOf(c.out[0].rows, c.out[0].cols, func(i, j int) (v, m float64) {
		v = c.out[0].at(i, j) + c.in[0].at(i, j)
		return v, abs(v)
	}))
}

// mulConstCalls multiplies by a number in memory.
func mulConstCalls(g *gen) []*call {
	return g.elements(func(c *call, _, _ int, x operand) {
		s := operand{space: backend.Arena, rows: 1, cols: 1, v: g.normal(1)}
		c.in = []operand{x, s}
	})
}

func mulConstTruth(c *call) []grid {
	return one(gridOf(c.out[0].rows, c.out[0].cols, func(i, j int) (v, m float64) {
		v = c.in[0].at(i, j) * c.in[1].v[0]
		return v, abs(v)
	}))
}

// dropoutCalls is of token rows, each with a sequence and a position, or of rows that are sequences.
func dropoutCalls(g *gen) []*call {
	return g.elements(func(c *call, k, _ int, x operand) {
		c.F[0], c.I[0] = []float64{.1, .5, 0, .9, 1}[k%5], 3*k
		c.s.Seed, c.s.Step = 0x9e3779b97f4a7c15+uint64(k), uint64(1000*k)
		n := c.s.Count[c.axis]
		if k%2 == 0 {
			keys := index(g.ints(5, -1<<31, 1<<31))
			keys.perRow = false
			c.in = []operand{x, keys, index(g.ints(n, 0, 5)), index(g.ints(n, 0, 512))}
			return
		}
		c.in = []operand{x, index(g.ints(n, -1<<31, 1<<31)), {}, {}}
		if k%4 == 1 {
			c.in = c.in[:2]
		}
	})
}

func dropoutTruth(c *call) []grid {
	x, rate := c.in[0], c.F[0]
	return one(gridOf(x.rows, x.cols, func(i, j int) (v, m float64) {
		s, p := i, 0
		if len(c.in) > 2 && !c.in[2].dead() {
			s, p = c.in[2].int(0, i), c.in[3].int(0, i)
		}
		if !kept(c, s, c.in[1].ints, c.I[0], p*x.cols+j, rate) {
			return 0, 0
		}
		v = x.at(i, j) / (1 - rate)
		return v, abs(v)
	}))
}

// kept says whether dropout leaves an element of sequence s at a site. The random word as a fraction
// of 2^32 is at least the rate.
func kept(c *call, s int, keys []int32, site, element int, rate float64) bool {
	w := philox.Block(c.s.Seed, [4]uint32{uint32(element / 4), uint32(site), uint32(keys[s]), uint32(c.s.Step)})[element%4]
	return rate < 1 && float64(w) >= math.Floor(rate*(1<<32))
}

// mulColsCalls multiplies columns by one vector or by two, and adds a third.
func mulColsCalls(g *gen) []*call {
	return g.elements(func(c *call, k, cols int, x operand) {
		c.in = []operand{x, g.weight(1, cols), {}, {}}
		if k%4%2 == 1 {
			c.in[2] = operand{space: backend.Arena, rows: 1, cols: cols, v: g.normal(cols)}
		}
		if k%4 >= 2 {
			c.in[3] = g.weight(1, cols)
		}
	})
}

func mulColsTruth(c *call) []grid {
	return one(gridOf(c.out[0].rows, c.out[0].cols, func(i, j int) (v, m float64) {
		v = c.in[0].at(i, j) * c.in[1].at(0, j)
		if !c.in[2].dead() {
			v *= c.in[2].at(0, j)
		}
		m = abs(v)
		if !c.in[3].dead() {
			v, m = v+c.in[3].at(0, j), m+abs(c.in[3].at(0, j))
		}
		return v, m
	}))
}

func mulColsDGCalls(g *gen) (all []*call) {
	g.op = backend.MulCols
	forward := mulColsCalls(g)
	g.op = backend.MulColsDG
	for _, f := range forward {
		if f.what != "" { // sums of extremes overflow
			continue
		}
		c := g.call(f.axis, f.s.Count[f.axis])
		cols := f.in[0].cols
		dy := g.mat(c, c.axis, cols)
		c.in, c.out = []operand{f.in[0], dy, f.in[2]}, []operand{g.grad(1, cols)}
		c.derives(f, dy, 1)
		all = append(all, c)
	}
	return all
}

func mulColsDGTruth(c *call) []grid {
	s := zeros(1, c.in[0].cols)
	for i := range c.in[0].rows {
		for j := range c.in[0].cols {
			v := c.in[0].at(i, j) * c.in[1].at(i, j)
			if !c.in[2].dead() {
				v *= c.in[2].at(0, j)
			}
			s.add(j, v, v)
		}
	}
	return one(s)
}
