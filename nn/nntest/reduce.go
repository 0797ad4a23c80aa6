package nntest

import (
	"math"

	"rung/nn/backend"
)

// reduceRows is sums and softmax over the columns of a row.
func reduceRows() []row {
	return []row{
		{backend.RowSum, 16, rowSumCalls, rowSumTruth, byRow},
		{backend.RowSumGrad, 2, rowSumGradCalls, rowSumGradTruth, byRow},
		{backend.Softmax, 8, softmaxCalls, softmaxTruth, byRow},
		{backend.SoftmaxGrad, 16, softmaxGradCalls, softmaxGradTruth, byRow},
	}
}

func rowSumCalls(g *gen) []*call {
	return g.elements(func(c *call, _, _ int, x operand) {
		c.in, c.out[0] = []operand{x}, g.out(c, c.axis, 1)
	})
}

func rowSumTruth(c *call) []grid {
	s := zeros(c.in[0].rows, 1)
	for i := range c.in[0].rows {
		for _, v := range c.in[0].row(i) {
			s.add(i, v, v)
		}
	}
	return one(s)
}

func rowSumGradCalls(g *gen) []*call {
	return g.elements(func(c *call, _, cols int, x operand) {
		dy := g.mat(c, c.axis, 1)
		c.in, c.what = []operand{dy}, ""
		f := c.clone()
		f.op, f.in, f.out = backend.RowSum, []operand{x}, []operand{g.out(c, c.axis, 1)}
		c.derives(f, dy, 0)
	})
}

func rowSumGradTruth(c *call) []grid {
	return one(gridOf(c.out[0].rows, c.out[0].cols, func(i, _ int) (v, m float64) { v = c.in[0].at(i, 0); return v, abs(v) }))
}

// scored makes calls whose scores reach ±200, or are far from each other.
func (g *gen) scored(make1 func(c *call, k int, x operand)) (all []*call) {
	for k, s := range g.shapes() {
		c := g.call([]backend.Axis{backend.Unit, backend.Seq}[k%2], s[0])
		x := g.mat(c, c.axis, s[1])
		for i := range x.v {
			switch {
			case g.exact:
			case k%4 == 1:
				x.v[i] *= 200
			case k%4 == 2:
				x.v[i] = []float64{200, -200}[i%2]
			case k%4 == 3 && i%7 == 3:
				x.v[i] = []float64{1e30, -1e30}[i%2]
			}
		}
		g.round(x.v)
		make1(c, k, x)
		all = append(all, c)
	}
	return all
}

func softmaxCalls(g *gen) []*call {
	return g.scored(func(c *call, k int, x operand) {
		c.in = []operand{x, {}}
		c.out = []operand{g.out(c, c.axis, x.cols), g.out(c, c.axis, 1)}
		if k%3 == 2 {
			return
		}
		mask := g.mat(c, c.axis, x.cols)
		for i, v := range mask.v { // the first row keeps nothing, the second one column
			keep := v > -.5
			switch i / x.cols {
			case 0:
				keep = false
			case 1:
				keep = i%x.cols == x.cols-1
			}
			mask.v[i] = 0
			if keep {
				mask.v[i] = 1
			}
		}
		c.in[1] = mask
	})
}

// keptBy says whether a mask, which may be missing, keeps an element.
func keptBy(mask *operand, i, j int) bool { return mask.dead() || mask.at(i, j) != 0 }

// logSum is log Σ exp x over what keep keeps; exponents are taken from the greatest, which is returned too.
func logSum(x []float64, keep func(j int) bool) (l, top float64) {
	top = math.Inf(-1)
	for j, v := range x {
		if keep(j) && v > top {
			top = v
		}
	}
	if math.IsInf(top, -1) {
		return 0, 0
	}
	rest := -1. // of the sum, whose greatest term is 1
	for j, v := range x {
		if keep(j) {
			rest += math.Exp(v - top)
		}
	}
	return top + math.Log1p(math.Max(rest, 0)), top
}

func softmaxTruth(c *call) []grid {
	x, mask := c.in[0], &c.in[1]
	lse := gridOf(x.rows, 1, func(i, _ int) (v, m float64) {
		v, top := logSum(x.row(i), func(j int) bool { return keptBy(mask, i, j) })
		return v, 1 + abs(v) + abs(top)
	})
	return []grid{gridOf(x.rows, x.cols, func(i, j int) (v, m float64) {
		if !keptBy(mask, i, j) {
			return 0, 0
		}
		return x.at(i, j) - lse.v[i], abs(x.at(i, j)) + lse.m[i]
	}), lse}
}

func softmaxGradCalls(g *gen) (all []*call) {
	for _, f := range softmaxCalls(g) {
		c := g.call(f.axis, f.s.Count[f.axis])
		cols := f.in[0].cols
		dy := g.mat(c, c.axis, cols)
		c.in = []operand{g.saved(c, cols, softmaxTruth(f)[0]), f.in[1], dy}
		c.out = []operand{g.out(c, c.axis, cols)}
		f.op = backend.Softmax
		c.derives(f, dy, 0)
		all = append(all, c)
	}
	return all
}

// softmaxGradTruth sums the Jacobian, δ - softmax, column by column.
func softmaxGradTruth(c *call) []grid {
	y, mask, dy := c.in[0], &c.in[1], c.in[2]
	return one(gridOf(y.rows, y.cols, func(i, j int) (v, m float64) {
		if !keptBy(mask, i, j) {
			return 0, 0
		}
		p := math.Exp(y.at(i, j))
		for k := range y.cols {
			if keptBy(mask, i, k) {
				jac := -p
				if k == j {
					jac++
				}
				v, m = v+dy.at(i, k)*jac, m+abs(dy.at(i, k))*p*(1+math.Min(200, abs(y.at(i, j))))
			}
		}
		return v, m + abs(dy.at(i, j))
	}))
}
