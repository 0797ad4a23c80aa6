package nntest

import (
	"math"

	"rung/nn/backend"
)

// updateRows is the norm of the gradient, and what changes weights.
func updateRows() []row {
	return []row{
		{backend.SumSq, 4, sumSqCalls, sumSqTruth, apart},
		{backend.Clip, 4, clipCalls, clipTruth, apart},
		{backend.AdamW, 16, adamWCalls, adamWTruth, apart},
		{backend.SGD, 8, sgdCalls, sgdTruth, apart},
		{backend.Adagrad, 8, adagradCalls, adagradTruth, apart},
		{backend.Shrink, 4, shrinkCalls, shrinkTruth, apart},
		{backend.SignSGD, 4, signCalls, signTruth, apart},
	}
}

func sumSqCalls(g *gen) (all []*call) {
	shapes := g.shapes()
	for k := range shapes {
		c := g.call(backend.Fixed, 0)
		n := 1 + k%4
		for i := range n {
			s := shapes[(k+3*i)%len(shapes)]
			x := g.weight(max(1, s[0]), s[1])
			x.space = backend.Grad
			if i == 2 {
				x.v[0] = 1e18 // its square is out of range where its norm is not
			}
			c.in = append(c.in, x)
		}
		c.out = []operand{{space: backend.Arena, rows: 1, cols: n}}
		all = append(all, c)
	}
	return all
}

func sumSqTruth(c *call) []grid {
	return one(gridOf(1, len(c.in), func(_, j int) (v, m float64) {
		for _, x := range c.in[j].v {
			v = math.Hypot(v, x)
		}
		return v, v
	}))
}

func clipCalls(g *gen) (all []*call) {
	for _, limit := range []float64{0, 1, .3, 1e6} {
		for _, bad := range []float64{0, 1e-20, 1e25, math.Inf(1), math.NaN()} {
			c := g.call(backend.Fixed, 0)
			c.s.Clip = limit
			n := 1 + g.draws%7
			s := operand{space: backend.Arena, rows: 1, cols: n, v: g.normal(n)}
			for i, v := range s.v {
				s.v[i] = abs(v)
			}
			s.v[len(s.v)-1] = bad
			g.round(s.v)
			c.in, c.out = []operand{s}, []operand{{space: backend.Arena, rows: 1, cols: 2}}
			all = append(all, c)
		}
	}
	return all
}

func clipTruth(c *call) []grid {
	norm := 0.
	for _, v := range c.in[0].v {
		norm += v * v
	}
	norm = math.Sqrt(norm)
	f := 1.
	if most := c.s.Clip; most > 0 && norm > most-1e-6 {
		f = most / (norm + 1e-6)
	}
	if math.IsNaN(norm) || math.IsInf(norm, 0) {
		f = math.NaN()
	}
	return one(grid{[]float64{f, norm}, []float64{1, norm}})
}

// updates makes calls on weights of all sizes: out is weights and moments, in gradient and factor. The
// first step starts from empty moments; a factor of NaN changes nothing.
func (g *gen) updates(moments []backend.Space, make1 func(c *call, k int)) (all []*call) {
	for k, n := range g.upTo(1, 3, 7, 17, 33, 65, 384, 512) {
		for v := range 4 {
			c := g.call(backend.Fixed, 0)
			c.s.Step, c.I[0] = []uint64{0, 1, 2, 5000}[v], k%8
			c.s.LR = [8]float64{9, 9, 9, 9, 9, 9, 9, 9} // of other groups
			c.s.LR[k%8] = .01
			w := g.weight(1, n)
			x := g.weight(1, n)
			x.space = backend.Grad
			for i := range w.v {
				if i%2 == 1 { // small weights show what the update loses
					w.v[i] *= 1e-4
				}
				if i%5 == 3 {
					x.v[i] = 0
				}
			}
			c.out = []operand{w}
			for _, s := range moments {
				m := operand{space: s, rows: 1, cols: n, v: g.normal(n)}
				for i, v := range m.v {
					if s == backend.Moment2 {
						m.v[i] = v * v
					}
					if c.s.Step == 0 {
						m.v[i] = 0
					}
				}
				c.out = append(c.out, m)
			}
			f := operand{space: backend.Arena, rows: 1, cols: 2, v: g.round([]float64{[]float64{1, .3, math.NaN(), .7}[v], 3})}
			c.in = []operand{x, f}
			make1(c, k+v)
			for i := range c.out {
				g.round(c.out[i].v)
			}
			g.round(w.v)
			all = append(all, c)
		}
	}
	return all
}

func adamWCalls(g *gen) (all []*call) {
	for _, spaces := range [][]backend.Space{{backend.Moment1, backend.Moment2}, {backend.Moment1, backend.Moment2, backend.Moment2}} {
		all = append(all, g.updates(spaces, func(c *call, k int) {
			c.F = [...][4]float64{{.9, .999, 1e-8, .01}, {.8, .95, 1e-6, 0}}[k%2]
			c.I[1] = k / 2 % 2
		})...)
	}
	return all
}

// textbook computes results from their old values, element by element. f changes x, the results'
// values at an element, by the gradient d there; dm is the magnitude of d with decay, and f returns
// that of each change.
func textbook(c *call, f func(x []float64, d, dm float64) [4]float64) []grid {
	all := make([]grid, len(c.out))
	for k, o := range c.out {
		all[k] = gridOf(1, o.cols, func(_, j int) (v, m float64) { return o.v[j], 0 })
	}
	factor := c.in[1].v[0]
	if math.IsNaN(factor) {
		return all
	}
	x := make([]float64, len(c.out))
	for j, d := range c.in[0].v {
		for k := range x {
			x[k] = all[k].v[j]
		}
		d *= factor
		change := f(x, d, abs(d)+abs(c.F[3]*x[0]))
		for k := range x {
			all[k].m[j] = abs(all[k].v[j]) + change[k]
			all[k].v[j] = x[k]
		}
	}
	return all
}

// adamWTruth is algorithm 2 of Loshchilov and Hutter (ICLR 2019), with the bias corrections written out;
// with I[1] = 1 that of Kingma and Ba on a penalised loss; with a fourth result AMSGrad.
func adamWTruth(c *call) []grid {
	b1, b2, eps, decay := c.F[0], c.F[1], c.F[2], c.F[3]
	lr, t := c.s.LR[c.I[0]], float64(c.s.Step)+1
	return textbook(c, func(x []float64, d, dm float64) [4]float64 {
		grow := 0.
		if c.I[1] == 1 {
			d += decay * x[0]
		} else {
			grow = decay
		}
		x[1] = b1*x[1] + (1-b1)*d
		x[2] = b2*x[2] + (1-b2)*d*d
		v := x[2]
		if len(x) > 3 {
			x[3] = math.Max(x[3], v)
			v = x[3]
		}
		m := x[1] / (1 - math.Pow(b1, t))
		step := lr * m / (math.Sqrt(v/(1-math.Pow(b2, t))) + eps)
		x[0] = x[0]*(1-lr*grow) - step
		// An update has the size of lr however small the moment is.
		return [4]float64{2*lr + abs(step), (1 - b1) * dm, (1 - b2) * dm * dm, x[2] + dm*dm}
	})
}

func sgdCalls(g *gen) []*call {
	return g.updates([]backend.Space{backend.Moment1}, func(c *call, k int) {
		c.F = [...][4]float64{{.9, 0, 0, .01}, {0, 0, 0, 0}, {.5, 0, 0, .1}}[k%3]
		c.I[1] = k % 2
	})
}

// sgdTruth is v = μ v + d and w = w - lr v, or Nesterov's w = w - lr (d + μ v).
func sgdTruth(c *call) []grid {
	mu, lr := c.F[0], c.s.LR[c.I[0]]
	return textbook(c, func(x []float64, d, dm float64) [4]float64 {
		d += c.F[3] * x[0]
		x[1] = mu*x[1] + d
		step := lr * x[1]
		if c.I[1] == 1 {
			step = lr*d + lr*mu*x[1]
		}
		x[0] -= step
		return [4]float64{lr * (dm + abs(x[1])), dm}
	})
}

func adagradCalls(g *gen) []*call {
	return g.updates([]backend.Space{backend.Moment2}, func(c *call, k int) {
		c.F = [4]float64{0, 0, 1e-10, []float64{0, .1}[k%2]}
	})
}

// adagradTruth is Duchi, Hazan and Singer's diagonal update (JMLR 2011).
func adagradTruth(c *call) []grid {
	return textbook(c, func(x []float64, d, dm float64) [4]float64 {
		d += c.F[3] * x[0]
		x[1] += d * d
		step := c.s.LR[c.I[0]] * d / (math.Sqrt(x[1]) + c.F[2])
		x[0] -= step
		return [4]float64{2 * c.s.LR[c.I[0]], dm * dm}
	})
}

// shrinkCalls has weights at the threshold, and on both sides of it.
func shrinkCalls(g *gen) []*call {
	return g.updates(nil, func(c *call, k int) {
		c.F[0] = []float64{1, 0, 30}[k%3]
		c.in[0] = operand{}
		w := c.out[0].v
		by := c.s.LR[c.I[0]] * c.F[0]
		for i := range w {
			switch i % 6 {
			case 1:
				w[i] = 0
			case 2:
				w[i] = by / 2
			case 4:
				w[i] = -by / 2
			}
		}
	})
}

// shrinkTruth is the soft threshold of Donoho and Johnstone (1994).
func shrinkTruth(c *call) []grid {
	by := c.s.LR[c.I[0]] * c.F[0]
	return one(gridOf(1, c.out[0].cols, func(_, j int) (v, m float64) {
		v = c.out[0].v[j]
		if math.IsNaN(c.in[1].v[0]) {
			return v, 0
		}
		return math.Copysign(math.Max(abs(v)-by, 0), v), abs(v) + by
	}))
}

func signCalls(g *gen) []*call {
	return g.updates(nil, func(c *call, k int) {
		c.F[0] = []float64{1e-3, .5}[k%2]
	})
}

func signTruth(c *call) []grid {
	return textbook(c, func(x []float64, d, _ float64) [4]float64 {
		if d != 0 {
			x[0] -= math.Copysign(c.F[0], d)
		}
		return [4]float64{c.F[0]}
	})
}
