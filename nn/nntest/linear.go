package nntest

import (
	"math"

	"rung/nn/backend"
)

// linearRows is embedding and matrix products.
func linearRows() []row {
	return []row{
		{backend.Embed, 4, embedCalls, embedTruth, byRow},
		{backend.EmbedGrad, 16, embedGradCalls, embedGradTruth, apart},
		{backend.MatNT, 16, matNTCalls, matNTTruth, byRow},
		{backend.MatNN, 16, matNNCalls, matNNTruth, byRow},
		{backend.MatTN, 16, matTNCalls, matTNTruth, apart},
		{backend.ColSum, 16, colSumCalls, colSumTruth, apart},
	}
}

func embedCalls(g *gen) (all []*call) {
	for k, s := range g.products() {
		r, d, v := s[0], s[1], s[2]
		c := g.call(backend.Tok, r)
		ids := g.ints(r, 0, v)
		if r > 1 {
			ids[0], ids[1] = int32(v-1), 0
		}
		c.out = []operand{g.out(c, backend.Tok, d)}
		c.in = []operand{index(ids), index(g.ints(r, 0, 5)), index(g.ints(r, 0, 2)), g.weight(v, d), g.weight(5, d), g.weight(2, d)}
		if k%4 == 3 { // an encoder without types
			c.in[2], c.in[5] = operand{}, operand{}
		}
		all = append(all, c)
	}
	return all
}

func embedTruth(c *call) []grid {
	return one(gridOf(c.out[0].rows, c.out[0].cols, func(i, j int) (v, m float64) {
		for t := range 3 {
			if c.in[t].dead() {
				continue
			}
			w := c.in[3+t].at(c.in[t].int(0, i), j)
			v, m = v+w, m+abs(w)
		}
		return v, m
	}))
}

func embedGradCalls(g *gen) (all []*call) {
	for k, f := range embedCalls(g) {
		c, t := g.call(backend.Tok, f.s.Count[backend.Tok]), k%3 // of one of the tables
		if f.in[t].dead() {
			t = 0
		}
		dy := g.mat(c, backend.Tok, f.in[3].cols)
		c.out = []operand{g.grad(f.in[3+t].rows, dy.cols)}
		c.in = []operand{f.in[t], dy}
		f.op = backend.Embed
		c.derives(f, dy, 3+t)
		all = append(all, c)
	}
	return all
}

func embedGradTruth(c *call) []grid {
	return one(gridOf(c.out[0].rows, c.out[0].cols, func(i, j int) (v, m float64) {
		for r := range c.in[1].rows {
			if c.in[0].int(0, r) == i {
				v, m = v+c.in[1].at(r, j), m+abs(c.in[1].at(r, j))
			}
		}
		return v, m
	}))
}

// matNTCalls has one to three blocks of different widths, each with or without bias and low-rank term.
func matNTCalls(g *gen) (all []*call) {
	for k, s := range g.products() {
		r, o, in := s[0], s[1], s[2]
		c := g.call([]backend.Axis{backend.Tok, backend.Seq, backend.Unit}[k%3], r)
		c.I = [4]int{1 + k%3, k / 2 % 2}
		x := g.mat(c, c.axis, in)
		c.in = []operand{x}
		sum := 0
		for b := range c.I[0] {
			n := max(1, o-b*o/3)
			sum += n
			block := []operand{g.weight(n, in), {}, {}, {}}
			if (k+b)%2 == 0 {
				block[1] = g.weight(1, n)
			}
			if (k+b)%3 != 1 {
				rank := []int{1, 4, 8, 3}[(k+b)%4]
				block[2], block[3] = g.mat(c, c.axis, rank), g.weight(n, rank)
			}
			c.in = append(c.in, block...)
		}
		c.out = []operand{g.out(c, c.axis, sum), {}}
		if c.I[1] == backend.ActGELU {
			c.out[1] = g.out(c, c.axis, sum)
		}
		all = append(all, c)
	}
	if g.size > Small {
		all = append(all, g.plain(backend.Identity), g.plain(backend.ActGELU))
	}
	return all
}

// plain is a product of tokens without low-rank terms, of two blocks wider than a backend's tiles.
func (g *gen) plain(act int) *call {
	c := g.call(backend.Tok, 67)
	c.I = [4]int{2, act}
	c.out = []operand{g.out(c, c.axis, 168), {}}
	c.in = []operand{g.mat(c, c.axis, 68), g.weight(96, 68), g.weight(1, 96), {}, {}, g.weight(72, 68), {}, {}, {}}
	if act == backend.ActGELU {
		c.out[1] = g.out(c, c.axis, 168)
	}
	return c
}

// inner is x·y, and the sum of the magnitudes of its terms.
func inner(x, y []float64) (v, m float64) {
	for i, a := range x {
		v, m = v+a*y[i], m+abs(a*y[i])
	}
	return v, m
}

func matNTTruth(c *call) []grid {
	x, cols, rows := c.in[0], c.out[0].cols+c.out[1].cols, c.in[0].rows
	if !c.out[0].dead() {
		cols = c.out[0].cols
	}
	pre := gridOf(rows, cols, func(i, j int) (v, m float64) {
		k := 0
		for ; j >= c.in[1+4*k].rows; k++ {
			j -= c.in[1+4*k].rows
		}
		w, b, h, u := c.in[1+4*k], c.in[2+4*k], c.in[3+4*k], c.in[4+4*k]
		v, m = inner(x.row(i), w.row(j))
		if !b.dead() {
			v, m = v+b.at(0, j), m+abs(b.at(0, j))
		}
		if !h.dead() {
			lv, lm := inner(h.row(i), u.row(j))
			v, m = v+lv, m+lm
		}
		return v, m
	})
	if c.I[1] == backend.Identity {
		return []grid{pre, {}}
	}
	y := gridOf(rows, cols, func(i, j int) (v, m float64) {
		e := i*cols + j
		return pre.v[e] * phi(pre.v[e]), 1.2*pre.m[e] + abs(pre.v[e])
	})
	return []grid{y, pre}
}

// phi is the distribution function of N(0,1), and phiD its density.
func phi(x float64) float64  { return math.Erfc(-x/math.Sqrt2) / 2 }
func phiD(x float64) float64 { return math.Exp(-x*x/2) / math.Sqrt(2*math.Pi) }

// geluD is the derivative of x Φ(x). The density is 0 where x² overflows.
func geluD(x float64) float64 { return phi(x) + x*phiD(x) }

func matNNCalls(g *gen) (all []*call) {
	for k, s := range g.products() {
		r, in, o := s[0], s[1], s[2]
		c := g.call([]backend.Axis{backend.Tok, backend.Seq, backend.Unit}[k%3], r)
		c.I = [4]int{1 + k%3, k / 2 % 2}
		pre := operand{}
		if c.I[1] == backend.ActGELU {
			pre = g.mat(c, c.axis, in)
		}
		c.out, c.in = []operand{g.out(c, c.axis, in)}, []operand{pre}
		for b := range c.I[0] {
			n := max(1, o-b*o/3)
			c.in = append(c.in, g.mat(c, c.axis, n), g.weight(n, in))
		}
		g.matNNLoss(c)
		all = append(all, c)
	}
	return all
}

// matNNLoss is Σ dy y of a product y = x w whose x is GELU(pre), or given.
func (g *gen) matNNLoss(c *call) {
	f := c.clone()
	f.op, f.I[1] = backend.MatNT, backend.Identity
	x := g.mat(c, c.axis, c.out[0].cols)
	f.in, f.out = []operand{x}, []operand{{}, {}}
	var widths []int
	sum := 0
	for b := range c.I[0] {
		f.in = append(f.in, c.in[2+2*b], operand{}, operand{}, operand{})
		widths = append(widths, c.in[2+2*b].rows)
		sum += widths[b]
	}
	f.out[0] = g.out(c, c.axis, sum)
	var seed []float64
	for i := range x.rows {
		for b := range widths {
			seed = append(seed, c.in[1+2*b].row(i)...)
		}
	}
	c.wrt = [][]float64{x.v}
	act := g.call(c.axis, x.rows)
	if c.I[1] == backend.ActGELU {
		act.op, act.I[0] = backend.Unary, int(backend.GELU)
		act.in, act.out = []operand{c.in[0]}, []operand{g.out(c, c.axis, x.cols)}
		c.wrt[0] = c.in[0].v
	}
	c.loss = func(run func(*call) [][]float64) float64 {
		if c.I[1] == backend.ActGELU {
			f.in[0].v = run(act)[0]
		}
		return weighed(run(f)[0], seed)
	}
}

func matNNTruth(c *call) []grid {
	dx := zeros(c.out[0].rows, c.out[0].cols)
	for i := range c.out[0].rows {
		for b := range c.I[0] {
			dy, w := c.in[1+2*b], c.in[2+2*b]
			for o := range dy.cols {
				d := dy.at(i, o)
				for j, v := range w.row(o) {
					dx.add(i*w.cols+j, d*v, d*v)
				}
			}
		}
	}
	if c.I[1] == backend.ActGELU {
		for i, x := range c.in[0].v {
			dx.v[i], dx.m[i] = dx.v[i]*geluD(x), dx.m[i]*1.2
		}
	}
	return one(dx)
}

func matTNCalls(g *gen) (all []*call) {
	for k, s := range g.products() {
		r, in, o := s[0], s[1], s[2]
		c := g.call([]backend.Axis{backend.Tok, backend.Seq, backend.Unit}[k%3], r)
		dy, x, w := g.mat(c, c.axis, o), g.mat(c, c.axis, in), g.weight(o, in)
		c.out, c.in = []operand{g.grad(o, in)}, []operand{dy, x}
		f := g.product(x, w, operand{})
		f.s, f.axis = c.s, c.axis
		c.derives(f, dy, 1)
		all = append(all, c)
	}
	return all
}

// product is the call x wT + b.
func (g *gen) product(x, w, b operand) *call {
	f := g.call(x.axis, x.rows)
	f.op, f.I[0] = backend.MatNT, 1
	f.in = []operand{x, w, b, {}, {}}
	f.out = []operand{g.out(f, x.axis, w.rows), {}}
	return f
}

func matTNTruth(c *call) []grid {
	dy, x := c.in[0], c.in[1]
	dw := zeros(dy.cols, x.cols)
	for i := range dy.rows {
		for o, d := range dy.row(i) {
			for j, v := range x.row(i) {
				dw.add(o*x.cols+j, d*v, d*v)
			}
		}
	}
	return one(dw)
}

func colSumCalls(g *gen) (all []*call) {
	for k, s := range g.products() {
		c := g.call([]backend.Axis{backend.Tok, backend.Seq, backend.Unit}[k%3], s[0])
		dy := g.mat(c, c.axis, s[1])
		c.out, c.in = []operand{g.grad(1, s[1])}, []operand{dy}
		c.derives(g.product(g.mat(c, c.axis, 2), g.weight(s[1], 2), g.weight(1, s[1])), dy, 2)
		all = append(all, c)
	}
	return all
}

func colSumTruth(c *call) []grid {
	return one(gridOf(1, c.in[0].cols, func(_, j int) (v, m float64) {
		for i := range c.in[0].rows {
			v, m = v+c.in[0].at(i, j), m+abs(c.in[0].at(i, j))
		}
		return v, m
	}))
}
