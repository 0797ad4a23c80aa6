package nntest

import (
	"math"

	"rung/nn/backend"
)

// gateMulCalls has groups for each expert and one for all, and what is not finite where a gate is 0.
func gateMulCalls(g *gen) (all []*call) {
	for k, s := range g.shapes() {
		rows, rank, experts := s[0], min(s[1], 33), min(s[2], 9)
		c := g.call([]backend.Axis{backend.Tok, backend.Seq}[k%2], rows)
		c.F[0] = []float64{2, -.5}[k%2]
		gates := g.mat(c, c.axis, experts)
		width := rank * experts
		if k%3 == 1 {
			width = rank
		}
		h := g.mat(c, c.axis, width)
		for i := range gates.v {
			if i%3 == 1 {
				gates.v[i] = 0
				if e := i % experts; width > rank && g.op == backend.GateMul && !g.exact {
					h.v[i/experts*width+e*rank] = []float64{math.Inf(1), math.NaN()}[k%2]
				}
			}
		}
		c.in, c.out = []operand{h, gates}, []operand{g.out(c, c.axis, rank*experts)}
		all = append(all, c)
	}
	return all
}

// groups is the number of columns of an expert, and the column of h for column j of the result.
func groups(h, gates operand, width int) (rank int, column func(j int) int) {
	rank = width / gates.cols
	return rank, func(j int) int {
		if h.cols == rank {
			return j % rank
		}
		return j
	}
}

func gateMulTruth(c *call) []grid {
	h, gates := c.in[0], c.in[1]
	rank, column := groups(h, gates, c.out[0].cols)
	return one(gridOf(h.rows, c.out[0].cols, func(i, j int) (v, m float64) {
		if gates.at(i, j/rank) == 0 {
			return 0, 0
		}
		v = c.F[0] * gates.at(i, j/rank) * h.at(i, column(j))
		return v, abs(v)
	}))
}

func gateMulGradCalls(g *gen) (all []*call) {
	for _, f := range gateMulCalls(g) {
		c := f.clone()
		dy := g.mat(c, c.axis, f.out[0].cols)
		c.op, c.in = g.op, append(c.in, dy)
		c.out = []operand{g.out(c, c.axis, f.in[0].cols), g.out(c, c.axis, f.in[1].cols)}
		f.op = backend.GateMul
		if !hasZero(f.in[1].v) || g.exact {
			c.derives(f, dy, 0)
		}
		all = append(all, c)
	}
	return all
}

func hasZero(v []float64) bool {
	for _, x := range v {
		if x == 0 {
			return true
		}
	}
	return false
}

func gateMulGradTruth(c *call) []grid {
	h, gates, dy := c.in[0], c.in[1], c.in[2]
	rank, column := groups(h, gates, dy.cols)
	dh, dg := zeros(h.rows, h.cols), zeros(h.rows, gates.cols)
	for i := range h.rows {
		for j := range dy.cols {
			d, e := c.F[0]*dy.at(i, j), j/rank
			dh.add(i*h.cols+column(j), d*gates.at(i, e), d*gates.at(i, e))
			dg.add(i*gates.cols+e, d*h.at(i, column(j)), d*h.at(i, column(j)))
		}
	}
	return []grid{dh, dg}
}

// choices are k different experts for each row, with probabilities that need not sum to 1.
func (g *gen) choices(c *call, experts, k int) (at, p operand) {
	f := g.call(c.axis, c.s.Count[c.axis])
	f.I = [4]int{k, backend.RouteSigmoid, 1}
	f.in = []operand{g.logits(f, experts), {}}
	f.out = []operand{{cols: 2 * experts}, {}}
	r := routeTruth(f)
	v := make([]float64, 0, len(f.in[0].v))
	for i := range f.in[0].rows {
		v = append(v, r[0].v[i*2*experts+experts:(i+1)*2*experts]...)
	}
	return g.of(c, c.axis, k, r[1].v), g.of(c, c.axis, experts, v)
}

func loadCalls(g *gen) (all []*call) {
	for k, s := range g.shapes() {
		experts := min(s[1], 65)
		c := g.call([]backend.Axis{backend.Tok, backend.Seq}[k%2], s[0])
		at, p := g.choices(c, experts, min(1+k%3, experts))
		if k%4 == 3 {
			p = operand{}
		} else if len(p.v) > 0 && experts > 1 {
			p.v[0] = 0
		}
		c.I[0] = k / 2 % 2
		c.in = []operand{at, p}
		c.out = []operand{{space: backend.Arena, rows: 1, cols: experts}, {space: backend.Arena, rows: 1, cols: 1}}
		all = append(all, c)
	}
	return all
}

func loadTruth(c *call) []grid {
	at, p, experts := c.in[0], c.in[1], c.out[0].cols
	if experts == 0 { // dead
		experts = 1 << 10
	}
	n, h := zeros(1, experts), zeros(1, 1)
	for _, e := range at.v {
		n.add(int(e), 1, 0)
	}
	for e := range n.v {
		if c.I[0] == 1 {
			n.add(e, -float64(len(at.v))/float64(experts), float64(len(at.v))/float64(experts))
		}
	}
	for i := 0; !p.dead() && i < p.rows; i++ {
		sum := 0.
		for _, v := range p.row(i) {
			sum += v
		}
		for _, v := range p.row(i) {
			if v > 0 {
				h.add(0, -v/sum*math.Log(v/sum)/float64(p.rows), 2/float64(p.rows))
			}
		}
	}
	return []grid{n, h}
}

func balanceCalls(g *gen) (all []*call) {
	for k, s := range g.shapes() {
		experts := min(s[1], 65)
		c := g.call([]backend.Axis{backend.Tok, backend.Seq}[k%2], s[0])
		at, x := g.choices(c, experts, min(1+k%3, experts))
		c.I[0], c.F[0] = k%3, []float64{1, .25}[k%2]
		c.in = []operand{x, at}
		c.out = []operand{{space: backend.Arena, rows: 1, cols: 1}, {space: backend.Arena, rows: 1, cols: experts}}
		all = append(all, c)
	}
	return all
}

func balanceTruth(c *call) []grid {
	x, at := c.in[0], c.in[1]
	n, e := float64(max(1, x.rows)), float64(x.cols)
	s, by := zeros(1, 1), zeros(1, x.cols)
	sums := make([]float64, x.cols)
	for i, v := range x.v {
		sums[i%x.cols] += v
	}
	if c.I[0] == backend.BalanceCV {
		if x.cols < 2 {
			return []grid{s, by}
		}
		mean, variance := 0., 0.
		for _, v := range sums {
			mean += v / e
		}
		for _, v := range sums {
			variance += (v - mean) * (v - mean) / (e - 1)
		}
		d := mean*mean + 1e-10
		s.add(0, c.F[0]*variance/d, c.F[0]*(variance/d+math.Sqrt(variance/d)))
		for j, v := range sums {
			by.add(j, c.F[0]*2*(v-mean)/(e-1)/d, c.F[0]*2*(abs(v)+mean)/(e-1)/d)
			by.add(j, -c.F[0]*variance*2*mean/e/(d*d), c.F[0]*variance*2*mean/e/(d*d))
		}
		return []grid{s, by}
	}
	for j := range sums {
		chosen := 0.
		for i := range at.rows {
			for k, v := range at.row(i) {
				if int(v) == j && (k == 0 || c.I[0] == backend.BalanceAll) {
					chosen++
				}
			}
		}
		s.add(0, c.F[0]*e*chosen/n*sums[j]/n, c.F[0]*e*chosen/n*sums[j]/n)
		by.add(j, c.F[0]*e*chosen/n/n, c.F[0]*e*chosen/n/n)
	}
	return []grid{s, by}
}

func broadcastCalls(g *gen) (all []*call) {
	for k, s := range g.shapes() {
		c := g.call([]backend.Axis{backend.Tok, backend.Seq}[k%2], s[0])
		v := operand{space: backend.Arena, rows: 1, cols: s[1], v: g.normal(s[1])}
		by := operand{space: backend.Arena, rows: 1, cols: 1, v: g.normal(1)}
		c.in, c.out = []operand{v, by}, []operand{g.out(c, c.axis, s[1])}
		all = append(all, c)
	}
	return all
}

func broadcastTruth(c *call) []grid {
	return one(gridOf(c.out[0].rows, c.out[0].cols, func(_, j int) (v, m float64) {
		v = c.in[0].v[j] * c.in[1].v[0]
		return v, abs(v)
	}))
}

func zLossCalls(g *gen) (all []*call) {
	for k, s := range g.shapes() {
		c := g.call([]backend.Axis{backend.Tok, backend.Seq}[k%2], s[0])
		c.F[0] = []float64{1, 1e-3}[k%2]
		z := g.mat(c, c.axis, min(s[1], 65))
		for i := range z.v {
			if k%3 == 2 && !g.exact {
				z.v[i] *= 50
			}
		}
		g.round(z.v)
		c.in, c.out = []operand{z}, []operand{{space: backend.Arena, rows: 1, cols: 1}}
		all = append(all, c)
	}
	return all
}

func zLossTruth(c *call) []grid {
	s := zeros(1, 1)
	for i := range c.in[0].rows {
		l, top := logSum(c.in[0].row(i), func(int) bool { return true })
		f := c.F[0] / float64(c.in[0].rows)
		s.add(0, f*l*l, f*(l*l+abs(l)*(1+abs(top))))
	}
	return one(s)
}

func zLossGradCalls(g *gen) (all []*call) {
	for _, f := range zLossCalls(g) {
		c := f.clone()
		seed := operand{space: backend.Arena, rows: 1, cols: 1, v: g.normal(1)}
		c.op, c.in, c.out = g.op, append(c.in, seed), []operand{g.out(c, c.axis, f.in[0].cols)}
		f.op = backend.ZLoss
		c.derives(f, seed, 0)
		all = append(all, c)
	}
	return all
}

func zLossGradTruth(c *call) []grid {
	z, s := c.in[0], c.in[1].v[0]
	return one(gridOf(z.rows, z.cols, func(i, j int) (v, m float64) {
		l, top := logSum(z.row(i), func(int) bool { return true })
		f := c.F[0] * 2 / float64(z.rows) * s
		p := math.Exp(z.at(i, j) - l)
		return f * l * p, abs(f) * p * (abs(l) + 1 + abs(top)) * (1 + math.Min(200, abs(z.at(i, j)-l)))
	}))
}
