package nntest

import (
	"rung/nn/backend"
	"rung/nn/backend/philox"
)

// poolRows is pooling of packed sequences.
func poolRows() []row {
	return []row{
		{backend.First, 1, poolCalls, firstTruth, bySeq},
		{backend.FirstGrad, 1, poolGradCalls(backend.First), firstGradTruth, bySeq},
		{backend.Mean, 16, poolCalls, meanTruth, bySeq},
		{backend.MeanGrad, 4, poolGradCalls(backend.Mean), meanGradTruth, bySeq},
		{backend.Max, 1, poolCalls, maxTruth, bySeq},
		{backend.MaxGrad, 1, poolGradCalls(backend.Max), maxGradTruth, bySeq},
	}
}

// poolCalls has columns that are all negative, and columns with equal greatest elements.
func poolCalls(g *gen) (all []*call) {
	dims := g.dims()
	for k, lengths := range g.lengths() {
		d := dims[(k+1)%len(dims)]
		c := g.packed(lengths)
		x := g.mat(c, backend.Tok, d)
		order := philox.Perm(len(x.v), 1, g.name())
		for i := range x.v {
			switch {
			case g.exact: // no two so close that a step of a difference changes their order
				x.v[i] = .1*float64(order[i]) - 2
			case i%d%3 == 1:
				x.v[i] -= 9
			case i%d%3 == 2:
				x.v[i] = float64(int(x.v[i]))
			}
		}
		g.round(x.v)
		c.in, c.out = []operand{x, offsets(lengths)}, []operand{g.out(c, backend.Seq, d)}
		if g.op == backend.Max || g.op == backend.MaxGrad {
			c.out = append(c.out, g.out(c, backend.Seq, d))
		}
		all = append(all, c)
	}
	return all
}

func poolGradCalls(forward backend.Op) func(g *gen) []*call {
	return func(g *gen) (all []*call) {
		for _, f := range poolCalls(g) {
			c := f.clone()
			d := f.in[0].cols
			dy := g.mat(c, backend.Seq, d)
			c.op, c.in = g.op, []operand{dy, f.in[1]}
			if forward == backend.Max {
				c.in = []operand{dy, g.of(c, backend.Seq, d, maxTruth(f)[1].v), f.in[1]}
			}
			c.out = []operand{g.out(c, backend.Tok, d)}
			f.op = forward
			c.derives(f, dy, 0)
			all = append(all, c)
		}
		return all
	}
}

// overSeqs computes a row for each sequence from its tokens' column j: f sees n values.
func overSeqs(x, offs operand, f func(n int, at func(i int) float64) (v, m float64)) grid {
	return gridOf(offs.cols-1, x.cols, func(s, j int) (v, m float64) {
		from, to := offs.span(s)
		if from == to {
			return 0, 0
		}
		return f(to-from, func(i int) float64 { return x.at(from+i, j) })
	})
}

// toTokens computes a row for each token: f sees the sequence, its length and the token's place there.
func toTokens(rows, cols int, offs operand, f func(s, n, place, j int) (v, m float64)) grid {
	seq := make([]int, rows)
	for s := range offs.cols - 1 {
		for from, to := offs.span(s); from < to; from++ {
			seq[from] = s
		}
	}
	return gridOf(rows, cols, func(i, j int) (v, m float64) {
		from, to := offs.span(seq[i])
		return f(seq[i], to-from, i-from, j)
	})
}

func firstTruth(c *call) []grid {
	return one(overSeqs(c.in[0], c.in[1], func(_ int, at func(int) float64) (v, m float64) { return at(0), 0 }))
}

func firstGradTruth(c *call) []grid {
	return one(toTokens(c.out[0].rows, c.out[0].cols, c.in[1], func(s, _, place, j int) (v, m float64) {
		if place > 0 {
			return 0, 0
		}
		return c.in[0].at(s, j), 0
	}))
}

func meanTruth(c *call) []grid {
	return one(overSeqs(c.in[0], c.in[1], func(n int, at func(int) float64) (v, m float64) {
		for i := range n {
			v, m = v+at(i), m+abs(at(i))
		}
		return v / float64(n), m / float64(n)
	}))
}

func meanGradTruth(c *call) []grid {
	return one(toTokens(c.out[0].rows, c.out[0].cols, c.in[1], func(s, n, _, j int) (v, m float64) {
		v = c.in[0].at(s, j) / float64(n)
		return v, abs(v)
	}))
}

func maxTruth(c *call) []grid {
	y := overSeqs(c.in[0], c.in[1], func(n int, at func(int) float64) (v, m float64) { return at(argMax(n, at)), 0 })
	return []grid{y, overSeqs(c.in[0], c.in[1], func(n int, at func(int) float64) (v, m float64) { return float64(argMax(n, at)), 0 })}
}

// argMax is the first place that no other exceeds.
func argMax(n int, at func(int) float64) int {
	for i := range n {
		greatest := true
		for k := range n {
			greatest = greatest && at(k) <= at(i)
		}
		if greatest {
			return i
		}
	}
	return 0
}

func maxGradTruth(c *call) []grid {
	return one(toTokens(c.out[0].rows, c.out[0].cols, c.in[2], func(s, _, place, j int) (v, m float64) {
		if int(c.in[1].at(s, j)) != place {
			return 0, 0
		}
		return c.in[0].at(s, j), 0
	}))
}
