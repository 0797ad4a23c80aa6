package nntest

import (
	"math"

	"rung/nn/backend"
)

// lossRows is losses of logits.
func lossRows() []row {
	return []row{
		{backend.BCE, 8, bceCalls, bceTruth, byRow},
		{backend.BCEGrad, 8, bceGradCalls, bceGradTruth, byRow},
		{backend.CE, 8, ceCalls, ceTruth, byRow},
		{backend.CEGrad, 8, ceGradCalls, ceGradTruth, byRow},
		{backend.Dot, 16, dotCalls, dotTruth, apart},
	}
}

// bceCalls has labels 0 and 1, and soft ones.
func bceCalls(g *gen) []*call {
	return g.scored(func(c *call, k int, x operand) {
		y := g.mat(c, c.axis, x.cols)
		for i, v := range y.v {
			y.v[i] = math.Min(1, math.Max(0, v))
		}
		c.in, c.out = []operand{x, y}, []operand{g.out(c, c.axis, x.cols)}
	})
}

// bceTruth is -y log σ(x) - (1-y) log σ(-x).
func bceTruth(c *call) []grid {
	minusLog := func(x float64) float64 { // -log σ(x)
		if x < -700 {
			return -x
		}
		return math.Log1p(math.Exp(-x))
	}
	return one(gridOf(c.in[0].rows, c.in[0].cols, func(i, j int) (v, m float64) {
		x, y := c.in[0].at(i, j), c.in[1].at(i, j)
		v = y*minusLog(x) + (1-y)*minusLog(-x)
		return v, 1 + abs(x)
	}))
}

func bceGradCalls(g *gen) (all []*call) {
	for _, f := range bceCalls(g) {
		c := f.clone()
		dl := g.mat(c, c.axis, f.in[0].cols)
		c.op, c.in = g.op, append(c.in, dl)
		f.op = backend.BCE
		c.derives(f, dl, 0)
		all = append(all, c)
	}
	return all
}

func bceGradTruth(c *call) []grid {
	return one(gridOf(c.in[0].rows, c.in[0].cols, func(i, j int) (v, m float64) {
		d := c.in[2].at(i, j)
		return d * (1/(1+math.Exp(-c.in[0].at(i, j))) - c.in[1].at(i, j)), abs(d)
	}))
}

func ceCalls(g *gen) []*call {
	return g.scored(func(c *call, k int, x operand) {
		class := g.ints(x.rows, -1, x.cols)
		if len(class) > 1 {
			class[0], class[1] = int32(x.cols-1), -1
		}
		c.in = []operand{x, index(class)}
		c.out = []operand{g.out(c, c.axis, 1), g.out(c, c.axis, 1)}
	})
}

func ceTruth(c *call) []grid {
	x := c.in[0]
	lse := gridOf(x.rows, 1, func(i, _ int) (v, m float64) {
		v, top := logSum(x.row(i), func(int) bool { return true })
		return v, 1 + abs(v) + abs(top)
	})
	return []grid{gridOf(x.rows, 1, func(i, _ int) (v, m float64) {
		k := c.in[1].int(0, i)
		if k < 0 {
			return 0, 0
		}
		return lse.v[i] - x.at(i, k), lse.m[i] + abs(x.at(i, k))
	}), lse}
}

func ceGradCalls(g *gen) (all []*call) {
	for _, f := range ceCalls(g) {
		c := f.clone()
		dl := g.mat(c, c.axis, 1)
		c.op, c.in = g.op, []operand{f.in[0], g.saved(c, 1, ceTruth(f)[1]), f.in[1], dl}
		c.out = []operand{g.out(c, c.axis, f.in[0].cols)}
		f.op = backend.CE
		c.derives(f, dl, 0)
		all = append(all, c)
	}
	return all
}

// ceGradTruth is softmax minus the class. The softmax is that of x alone: lse may be rounded.
func ceGradTruth(c *call) []grid {
	x, lse, class, dl := c.in[0], c.in[1], c.in[2], c.in[3]
	return one(gridOf(x.rows, x.cols, func(i, j int) (v, m float64) {
		k := class.int(0, i)
		if k < 0 {
			return 0, 0
		}
		d := x.at(i, j) - lse.at(i, 0)
		v = math.Exp(d)
		m = 1 + v*math.Min(200, abs(d))
		if k == j {
			v--
		}
		return v * dl.at(i, 0), abs(dl.at(i, 0)) * m
	}))
}

// dotCalls has units that weigh nothing, whatever their loss is.
func dotCalls(g *gen) (all []*call) {
	for k, s := range g.shapes() {
		c := g.call(backend.Unit, s[0])
		w, l := g.mat(c, backend.Unit, 1), g.mat(c, backend.Unit, 1)
		for i := range w.v {
			if i%3 == 1 {
				w.v[i], l.v[i] = 0, []float64{math.Inf(1), math.NaN(), 1e30}[k%3]
			}
		}
		c.in, c.out = []operand{w, l}, []operand{{space: backend.Arena, rows: 1, cols: 1}}
		all = append(all, c)
	}
	return all
}

func dotTruth(c *call) []grid {
	s := zeros(1, 1)
	for i, w := range c.in[0].v {
		if w != 0 {
			s.add(0, w*c.in[1].v[i], w*c.in[1].v[i])
		}
	}
	return one(s)
}
