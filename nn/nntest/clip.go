package nntest

import (
	"math"

	"rung/nn/backend"
)

// clipRows is what clips the gradients of units.
func clipRows() []row {
	return []row{
		{backend.RowNorm, 4, rowNormCalls, rowNormTruth, byRow},
		{backend.ClipRows, 4, clipRowsCalls, clipRowsTruth, byRow},
		{backend.SumRows, 8, sumRowsCalls, sumRowsTruth, apart},
	}
}

// oddNorms are those that clipping has to get right: nothing, below the smallest normal number, such whose square is
// out of range, and what is no number.
var oddNorms = []float64{0, 1e-42, 1e-30, 1e25, 3e38, math.Inf(1), math.NaN()}

func rowNormCalls(g *gen) (all []*call) {
	for k, s := range g.shapes() {
		c := g.call(backend.Unit, s[0])
		x := g.mat(c, c.axis, s[1])
		for i := range x.v {
			switch {
			case i/x.cols%3 == 1:
				x.v[i] = 0 // but for one element
			case i/x.cols%3 == 2:
				x.v[i] *= 1e18 // squares out of range, the norm is not
			}
		}
		for i := range x.rows {
			if i%3 == 1 {
				x.v[i*x.cols+(i+k)%x.cols] = oddNorms[(i/3+k)%len(oddNorms)]
			}
		}
		g.round(x.v)
		c.in, c.out = []operand{x}, []operand{g.out(c, c.axis, 1)}
		all = append(all, c)
	}
	return all
}

func rowNormTruth(c *call) []grid {
	return one(gridOf(c.out[0].rows, 1, func(i, _ int) (v, m float64) {
		bad := false
		for _, x := range c.in[0].row(i) {
			bad = bad || math.IsNaN(x)
			v = math.Hypot(v, x)
		}
		if bad {
			v = math.NaN() // also beside an infinite one
		}
		return v, v
	}))
}

func clipRowsCalls(g *gen) (all []*call) {
	for k, s := range g.shapes() {
		for each := range 2 {
			c := g.call(backend.Unit, s[0])
			c.F[0], c.I[0] = []float64{1, .3, 1e-6, 1e6}[k%4], each
			x := g.mat(c, c.axis, s[1])
			for i := range x.v {
				x.v[i] = abs(x.v[i])
				if i%11 == 5 {
					x.v[i] = oddNorms[(i/11+k)%len(oddNorms)]
				}
			}
			g.round(x.v)
			c.in, c.out = []operand{x}, []operand{g.out(c, c.axis, x.cols)}
			all = append(all, c)
		}
	}
	return all
}

func clipRowsTruth(c *call) []grid {
	most, x := c.F[0], &c.in[0]
	if c.I[0] == 1 {
		most /= math.Sqrt(float64(x.cols))
	}
	return one(gridOf(x.rows, x.cols, func(i, j int) (v, m float64) {
		norm := x.at(i, j)
		if c.I[0] != 1 {
			norm = 0
			for _, s := range x.row(i) {
				norm = math.Sqrt(norm*norm + s*s)
			}
		}
		switch {
		case math.IsNaN(norm) || math.IsInf(norm, 0):
			return 0, 0
		case norm == 0:
			return 1, 1
		}
		v = math.Min(1, most/norm)
		return v, v
	}))
}

func sumRowsCalls(g *gen) (all []*call) {
	for k, s := range g.shapes() {
		c := g.call(backend.Unit, s[0])
		x, f := g.mat(c, c.axis, s[1]), g.mat(c, c.axis, 1)
		for i := range f.v {
			if (i+k)%3 == 0 {
				f.v[i] = 0
				x.row(i)[i%x.cols] = []float64{math.NaN(), math.Inf(1), 1}[i/3%3]
			}
		}
		c.in = []operand{x, f}
		c.out = []operand{{space: backend.Arena, rows: 1, cols: s[1]}}
		all = append(all, c)
	}
	return all
}

func sumRowsTruth(c *call) []grid {
	x, f := &c.in[0], &c.in[1]
	return one(gridOf(1, x.cols, func(_, j int) (v, m float64) {
		for i := range x.rows {
			if w := f.at(i, 0); w != 0 {
				v += w * x.at(i, j)
				m += abs(w * x.at(i, j))
			}
		}
		return v, m
	}))
}
