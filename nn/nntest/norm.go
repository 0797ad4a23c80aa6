package nntest

import (
	"math"

	"rung/nn/backend"
)

// normRows is layer norm and the unit length of rows.
func normRows() []row {
	return []row{
		{backend.Norm, 64, normCalls, normTruth, byRow},
		{backend.NormDX, 16, normDXCalls, normDXTruth, byRow},
		{backend.NormDG, 16, normDGCalls, normDGTruth, apart},
		{backend.Normalize, 8, normalizeCalls, normalizeTruth, byRow},
		{backend.NormalizeGrad, 16, normalizeGradCalls, normalizeGradTruth, byRow},
	}
}

func normCalls(g *gen) (all []*call) {
	for k, s := range g.shapes() {
		r, d := s[0], s[1]
		c := g.call([]backend.Axis{backend.Tok, backend.Seq}[k%2], r)
		c.F[0] = []float64{1e-12, 1e-5}[k%2]
		x := g.mat(c, c.axis, d)
		for i := range x.rows {
			for j := range d {
				switch { // a row far from 0, a constant one, a tiny one
				case k%3 == 1 && i%4 == 1:
					x.v[i*d+j] += 1000
				case k%3 == 1 && i%4 == 2 && !g.exact:
					x.v[i*d+j] = .1
				case k%3 == 1 && i%4 == 3:
					x.v[i*d+j] *= 1e-8
				}
			}
		}
		g.round(x.v)
		c.in = []operand{x, {}, g.weight(1, d), g.weight(1, d)}
		if k%2 == 0 {
			c.in[1] = g.mat(c, c.axis, d)
		}
		c.out = []operand{g.out(c, c.axis, d), g.out(c, c.axis, 1), g.out(c, c.axis, 1), g.out(c, c.axis, d)}
		all = append(all, c)
	}
	return all
}

// normTruth is in two passes. What x + res loses to rounding counts by the deviation: a row of great
// numbers that differ little is known badly.
func normTruth(c *call) []grid {
	x, res, g, b := c.in[0], c.in[1], c.in[2], c.in[3]
	d := float64(x.cols)
	sum := gridOf(x.rows, x.cols, func(i, j int) (v, m float64) {
		v = x.at(i, j)
		if !res.dead() {
			return v + res.at(i, j), abs(v) + abs(res.at(i, j))
		}
		return v, 0
	})
	mean, rstd, cond := zeros(x.rows, 1), zeros(x.rows, 1), make([]float64, x.rows)
	for i := range x.rows {
		row := sum.v[i*x.cols : (i+1)*x.cols]
		variance, top := 0., 0.
		for _, v := range row {
			mean.add(i, v/d, v/d)
			top = math.Max(top, abs(v))
		}
		for _, v := range row {
			variance += (v - mean.v[i]) * (v - mean.v[i]) / d
		}
		rstd.v[i] = 1 / math.Sqrt(variance+c.F[0])
		cond[i] = 1 + top*rstd.v[i]
		rstd.m[i] = rstd.v[i] * cond[i]
	}
	y := gridOf(x.rows, x.cols, func(i, j int) (v, m float64) {
		h := (sum.v[i*x.cols+j] - mean.v[i]) * rstd.v[i]
		return h*g.at(0, j) + b.at(0, j), cond[i]*(1+abs(h))*abs(g.at(0, j)) + abs(b.at(0, j))
	})
	return []grid{y, mean, rstd, sum}
}

// saved turns a result of the formula into an input.
func (g *gen) saved(c *call, cols int, r grid) operand { return g.of(c, c.axis, cols, r.v) }

func normDXCalls(g *gen) (all []*call) {
	for _, f := range normCalls(g) {
		c := g.call(f.axis, f.s.Count[f.axis])
		r, d := normTruth(f), f.in[0].cols
		dy := g.mat(c, c.axis, d)
		c.in = []operand{g.saved(c, d, r[3]), g.saved(c, 1, r[1]), g.saved(c, 1, r[2]), f.in[2], dy}
		c.out = []operand{g.out(c, c.axis, d)}
		f.op = backend.Norm
		if f.in[0].rows < 4 { // a row whose deviation is as small as a step has no differences
			c.derives(f, dy, 0)
		}
		all = append(all, c)
	}
	return all
}

// normDXTruth is equation by equation: the derivative of h = (s-mean) rstd by s, applied to t = dy g.
func normDXTruth(c *call) []grid {
	s, mean, rstd, g, dy := c.in[0], c.in[1], c.in[2], c.in[3], c.in[4]
	d := float64(s.cols)
	hat := func(i, j int) float64 { return (s.at(i, j) - mean.at(i, 0)) * rstd.at(i, 0) }
	return one(gridOf(s.rows, s.cols, func(i, j int) (v, m float64) {
		for k := range s.cols {
			t := dy.at(i, k) * g.at(0, k)
			jac := -1/d - hat(i, j)*hat(i, k)/d
			mag := 1/d + abs(hat(i, j)*hat(i, k))/d
			if k == j {
				jac, mag = jac+1, mag+1
			}
			v, m = v+t*jac*rstd.at(i, 0), m+abs(t)*mag*rstd.at(i, 0)
		}
		return v, m
	}))
}

func normDGCalls(g *gen) (all []*call) {
	for _, f := range normCalls(g) {
		c := g.call(f.axis, f.s.Count[f.axis])
		r, d := normTruth(f), f.in[0].cols
		dy := g.mat(c, c.axis, d)
		c.in = []operand{g.saved(c, d, r[3]), g.saved(c, 1, r[1]), g.saved(c, 1, r[2]), dy}
		c.out = []operand{g.grad(1, d), g.grad(1, d)}
		f.op = backend.Norm
		c.derives(f, dy, 2, 3)
		all = append(all, c)
	}
	return all
}

func normDGTruth(c *call) []grid {
	s, mean, rstd, dy := c.in[0], c.in[1], c.in[2], c.in[3]
	dg, db := zeros(1, s.cols), zeros(1, s.cols)
	for i := range s.rows {
		for j := range s.cols {
			v := dy.at(i, j)
			db.add(j, v, v)
			v *= (s.at(i, j) - mean.at(i, 0)) * rstd.at(i, 0)
			dg.add(j, v, v)
		}
	}
	return []grid{dg, db}
}

func normalizeCalls(g *gen) (all []*call) {
	for k, s := range g.shapes() {
		c := g.call([]backend.Axis{backend.Seq, backend.Tok}[k%2], s[0])
		c.F[0] = []float64{1e-12, .5}[k%2]
		x := g.mat(c, c.axis, s[1])
		for i := range x.v {
			switch r := i / x.cols; { // rows of zeros, shorter than eps, long
			case k%3 == 0 && r%4 == 1:
				x.v[i] = 0
			case k%2 == 1 && r%2 == 1:
				x.v[i] *= .01 / math.Sqrt(float64(x.cols))
			case k%3 == 1 && r%4 == 3:
				x.v[i] *= 1e15
			}
		}
		g.round(x.v)
		c.in, c.out = []operand{x}, []operand{g.out(c, c.axis, s[1]), g.out(c, c.axis, 1)}
		all = append(all, c)
	}
	return all
}

func normalizeTruth(c *call) []grid {
	x := c.in[0]
	r := gridOf(x.rows, 1, func(i, _ int) (v, m float64) {
		top, sum := c.F[0], 0. // squares are taken of fractions, lest they overflow
		for _, v := range x.row(i) {
			top = math.Max(top, abs(v))
		}
		for _, v := range x.row(i) {
			sum += v / top * (v / top)
		}
		v = 1 / math.Max(top*math.Sqrt(sum), c.F[0])
		return v, v
	})
	return []grid{gridOf(x.rows, x.cols, func(i, j int) (v, m float64) { v = x.at(i, j) * r.v[i]; return v, abs(v) }), r}
}

func normalizeGradCalls(g *gen) (all []*call) {
	for k, f := range normalizeCalls(g) {
		c := g.call(f.axis, f.s.Count[f.axis])
		c.F[0] = f.F[0]
		r, d := normalizeTruth(f), f.in[0].cols
		dy := g.mat(c, c.axis, d)
		c.in = []operand{g.saved(c, d, r[0]), g.saved(c, 1, r[1]), dy}
		c.out = []operand{g.out(c, c.axis, d)}
		f.op = backend.Normalize
		if k%2 == 1 { // eps is greater than a step of the differences
			c.derives(f, dy, 0)
		}
		all = append(all, c)
	}
	return all
}

func normalizeGradTruth(c *call) []grid {
	y, rnorm, dy := c.in[0], c.in[1], c.in[2]
	along, alongM := make([]float64, y.rows), make([]float64, y.rows) // dy along y
	for i := range y.rows {
		if l, _ := inner(y.row(i), y.row(i)); l > 1-1e-5 { // else shorter than eps: y = x / eps
			along[i], alongM[i] = inner(y.row(i), dy.row(i))
		}
	}
	return one(gridOf(y.rows, y.cols, func(i, j int) (v, m float64) {
		s, sm := along[i], alongM[i]
		r := rnorm.at(i, 0)
		return r * (dy.at(i, j) - y.at(i, j)*s), r * (abs(dy.at(i, j)) + abs(y.at(i, j))*sm)
	}))
}
