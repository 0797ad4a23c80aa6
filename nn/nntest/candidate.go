package nntest

import "rung/nn/backend"

// candidateRows is scores and vectors of sequences, as candidates of units.
func candidateRows() []row {
	return []row{
		{backend.Gather, 1, gatherCalls, gatherTruth, apart},
		{backend.GatherGrad, 16, gatherGradCalls, gatherGradTruth, apart},
		{backend.PairDot, 16, pairDotCalls, pairDotTruth, apart},
		{backend.PairDotGrad, 16, pairDotGradCalls, pairDotGradTruth, apart},
		{backend.Pairs, 2, pairsCalls, pairsTruth(func(x, y float64) float64 { return x - y }), byRow},
		{backend.Outer, 2, pairsCalls, pairsTruth(func(x, y float64) float64 { return x * y }), byRow},
		{backend.PairsGrad, 16, pairsGradCalls, pairsGradTruth, byRow},
	}
}

// ranked starts a call of b units with k slots each for n sequences. Slots are empty, or hold a
// sequence that other slots may hold too.
func (g *gen) ranked(b, k, n int) (*call, operand) {
	c := g.call(backend.Unit, b)
	c.s.Count[backend.Seq] = n
	slots := operand{axis: backend.Unit, space: backend.Index, rows: b, cols: k, ints: g.ints(b*k, -1, n)}
	for j := 0; j < k && b > 1; j++ { // a unit without candidates
		slots.ints[k+j] = -1
	}
	return c, slots
}

func gatherCalls(g *gen) (all []*call) {
	for _, s := range g.shapes() {
		c, slots := g.ranked(s[0], s[1], s[2])
		c.in = []operand{g.mat(c, backend.Seq, 1), slots}
		c.out = []operand{g.out(c, backend.Unit, s[1])}
		all = append(all, c)
	}
	return all
}

func gatherTruth(c *call) []grid {
	return one(gridOf(c.out[0].rows, c.out[0].cols, func(i, j int) (v, m float64) {
		if s := c.in[1].int(i, j); s >= 0 {
			return c.in[0].at(s, 0), 0
		}
		return 0, 0
	}))
}

func gatherGradCalls(g *gen) (all []*call) {
	for _, f := range gatherCalls(g) {
		c := f.clone()
		dy := g.mat(c, backend.Unit, f.in[1].cols)
		c.op, c.in, c.out = g.op, []operand{dy, f.in[1]}, []operand{g.out(c, backend.Seq, 1)}
		f.op = backend.Gather
		c.derives(f, dy, 0)
		all = append(all, c)
	}
	return all
}

func gatherGradTruth(c *call) []grid {
	dy, slots := c.in[0], c.in[1]
	return one(gridOf(c.out[0].rows, 1, func(n, _ int) (v, m float64) {
		for i, s := range slots.ints {
			if int(s) == n {
				v, m = v+dy.v[i], m+abs(dy.v[i])
			}
		}
		return v, m
	}))
}

func pairDotCalls(g *gen) (all []*call) {
	for k, s := range g.shapes() {
		b, cands, n := s[0], min(s[1], 33), min(s[2], 65)
		c, slots := g.ranked(min(b, 65), cands, n)
		d := []int{3, 1, 8, 33, 65}[k%5]
		if d > int(g.size) {
			d = 8
		}
		c.in = []operand{g.mat(c, backend.Seq, d), index(g.ints(min(b, 65), 0, n)), slots}
		c.out = []operand{g.out(c, backend.Unit, cands)}
		all = append(all, c)
	}
	return all
}

func pairDotTruth(c *call) []grid {
	return one(gridOf(c.out[0].rows, c.out[0].cols, func(i, j int) (v, m float64) {
		if s := c.in[2].int(i, j); s >= 0 {
			return inner(c.in[0].row(c.in[1].int(0, i)), c.in[0].row(s))
		}
		return 0, 0
	}))
}

func pairDotGradCalls(g *gen) (all []*call) {
	for _, f := range pairDotCalls(g) {
		c := f.clone()
		dy := g.mat(c, backend.Unit, f.in[2].cols)
		c.op, c.in, c.out = g.op, append(c.in, dy), []operand{g.out(c, backend.Seq, f.in[0].cols)}
		f.op = backend.PairDot
		c.derives(f, dy, 0)
		all = append(all, c)
	}
	return all
}

// pairDotGradTruth looks for every row at all pairs that it is in, as query and as candidate.
func pairDotGradTruth(c *call) []grid {
	e, queries, slots, dy := c.in[0], c.in[1], c.in[2], c.in[3]
	de := zeros(e.rows, e.cols)
	for n := range e.rows {
		for i := range slots.rows {
			for j := range slots.cols {
				s, q := slots.int(i, j), queries.int(0, i)
				for col := 0; col < e.cols && s >= 0; col++ {
					if n == q {
						v := dy.at(i, j) * e.at(s, col)
						de.add(n*e.cols+col, v, v)
					}
					if n == s {
						v := dy.at(i, j) * e.at(q, col)
						de.add(n*e.cols+col, v, v)
					}
				}
			}
		}
	}
	return one(de)
}

func pairsCalls(g *gen) (all []*call) {
	for _, s := range g.shapes() {
		c := g.call(backend.Unit, s[0])
		k := min(s[1], 33)
		c.in, c.out = []operand{g.mat(c, backend.Unit, k)}, []operand{g.out(c, backend.Unit, k*k)}
		all = append(all, c)
	}
	return all
}

// pairsTruth is f of all pairs of a unit's values.
func pairsTruth(f func(x, y float64) float64) func(c *call) []grid {
	return func(c *call) []grid {
		x := c.in[0]
		return one(gridOf(x.rows, x.cols*x.cols, func(i, j int) (v, m float64) {
			v = f(x.at(i, j/x.cols), x.at(i, j%x.cols))
			return v, abs(v)
		}))
	}
}

func pairsGradCalls(g *gen) (all []*call) {
	for _, f := range pairsCalls(g) {
		c := f.clone()
		dy := g.mat(c, backend.Unit, f.out[0].cols)
		c.op, c.in, c.out = g.op, []operand{dy}, []operand{g.out(c, backend.Unit, f.in[0].cols)}
		f.op = backend.Pairs
		c.derives(f, dy, 0)
		all = append(all, c)
	}
	return all
}

func pairsGradTruth(c *call) []grid {
	dx := zeros(c.out[0].rows, c.out[0].cols)
	n := c.out[0].cols
	for i := range c.out[0].rows {
		for e, v := range c.in[0].row(i) {
			dx.add(i*n+e/n, v, v)
			dx.add(i*n+e%n, -v, v)
		}
	}
	return one(dx)
}
