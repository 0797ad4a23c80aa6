package nntest

import (
	"math"

	"rung/nn/backend"
	"rung/nn/backend/philox"
)

// moeRows is mixtures of experts.
func moeRows() []row {
	return []row{
		{backend.Route, 16, routeCalls, routeTruth, byRow},
		{backend.RouteGrad, 32, routeGradCalls, routeGradTruth, byRow},
		{backend.Assign, 0, assignCalls, assignTruth, byRow},
		{backend.Spread, 0, spreadCalls, spreadTruth, bySeq},
		{backend.SpreadGrad, 16, spreadGradCalls, spreadGradTruth, bySeq},
		{backend.GateMul, 4, gateMulCalls, gateMulTruth, byRow},
		{backend.GateMulGrad, 32, gateMulGradCalls, gateMulGradTruth, byRow},
		{backend.Load, 32, loadCalls, loadTruth, apart},
		{backend.Balance, 32, balanceCalls, balanceTruth, apart},
		{backend.Broadcast, 2, broadcastCalls, broadcastTruth, byRow},
		{backend.ZLoss, 32, zLossCalls, zLossTruth, apart},
		{backend.ZLossGrad, 32, zLossGradCalls, zLossGradTruth, apart},
	}
}

// logits are rows with equal elements among them, and none so near to another that rounding changes their
// order; with g.exact no two are near.
func (g *gen) logits(c *call, cols int) operand {
	z := g.mat(c, c.axis, cols)
	order := philox.Perm(len(z.v), 1, g.name())
	for i, v := range z.v {
		if g.exact {
			z.v[i] = .3 * float64(order[i]%(4*cols)) / float64(cols)
			z.v[i] += .01 * float64(order[i]) / float64(len(z.v))
			continue
		}
		z.v[i] = math.Max(-2, math.Min(2, math.Round(v*8)/8))
	}
	return z
}

// routeCalls has every way to route, one and all experts, biases, and logits that differ by more than exp bears.
func routeCalls(g *gen) (all []*call) {
	for k, s := range g.shapes() {
		rows, cols := s[0], min(s[1], backend.MaxExperts/2)
		c := g.call([]backend.Axis{backend.Tok, backend.Seq}[k%2], rows)
		how, each := k%2, 1
		if how == backend.RouteSigmoid {
			each = 1 + k/2%2
		}
		experts := cols * each
		c.I = [4]int{[]int{min(2, experts), experts, 1, min(3, experts)}[k%4], how, each}
		z := g.logits(c, cols)
		if k%5 == 4 && how == backend.RouteSoftmax && !g.exact {
			for i := range z.v {
				z.v[i] *= 100
			}
		}
		bias := operand{}
		if k%3 == 1 && k%5 != 4 {
			bias = g.weight(1, experts)
			for e := range bias.v {
				bias.v[e] = float64((e*7+k)%3) / 2
			}
		}
		c.in = []operand{z, bias}
		c.out = []operand{g.out(c, c.axis, experts+cols), g.out(c, c.axis, c.I[0])}
		all = append(all, c)
	}
	return all
}

// routed is what a row's router does: probabilities, scores and the chosen, best first.
func routed(c *call, i int) (p, score []float64, chosen []int) {
	z, bias, n := c.in[0].row(i), c.in[1], c.I[2]
	l, _ := logSum(z, func(int) bool { return true })
	for _, v := range z {
		if c.I[1] == backend.RouteSigmoid {
			p = append(p, 1/(1+math.Exp(-v)))
		} else {
			p = append(p, math.Exp(v-l))
		}
	}
	order := make([]float64, len(p)*n)
	for e := range order {
		score = append(score, p[e/n])
		order[e] = p[e/n]
		if bias.dead() {
			order[e] = z[e/n]
		} else if !bias.dead() {
			score[e] += bias.v[e]
			order[e] = score[e]
		}
	}
	for range c.I[0] {
		best := argMax(len(order), func(e int) float64 { return order[e] })
		chosen = append(chosen, best)
		order[best] = math.Inf(-1)
	}
	return p, score, chosen
}

// gatesOf are the gates of a row: the share of each chosen in the sum over them.
func gatesOf(c *call, z []float64, score []float64, chosen []int) map[int]float64 {
	g, sum := map[int]float64{}, 0.
	weight := func(e int) float64 {
		if c.I[1] == backend.RouteSigmoid {
			return score[e] * float64(c.I[0])
		}
		return math.Exp(z[e/c.I[2]] - z[chosen[0]/c.I[2]])
	}
	for _, e := range chosen {
		if c.I[1] == backend.RouteSigmoid {
			sum += score[e]
		} else {
			sum += weight(e)
		}
	}
	for _, e := range chosen {
		g[e] = weight(e) / sum
	}
	return g
}

func routeTruth(c *call) []grid {
	z, cols, experts := c.in[0], c.in[0].cols, c.in[0].cols*c.I[2]
	y, at := zeros(z.rows, experts+cols), zeros(z.rows, c.I[0])
	for i := range z.rows {
		p, score, chosen := routed(c, i)
		for e, g := range gatesOf(c, z.row(i), score, chosen) {
			m := float64(c.I[0]) * (1 + abs(z.at(i, e/c.I[2])-z.at(i, chosen[0]/c.I[2])))
			y.v[i*(experts+cols)+e], y.m[i*(experts+cols)+e] = g, m
		}
		top := abs(z.at(i, chosen[0]/c.I[2]))
		for j, v := range p {
			y.v[i*(experts+cols)+experts+j], y.m[i*(experts+cols)+experts+j] = v, v*(1+abs(z.at(i, j))+top)+v
		}
		for j, e := range chosen {
			at.v[i*c.I[0]+j] = float64(e)
		}
	}
	return []grid{y, at}
}

func routeGradCalls(g *gen) (all []*call) {
	for k, f := range routeCalls(g) {
		c, r := f.clone(), routeTruth(f)
		width := f.out[0].cols
		dy := g.mat(c, c.axis, width)
		c.op = g.op
		c.in = []operand{g.saved(c, width, r[0]), g.saved(c, c.I[0], r[1]), f.in[1], dy}
		c.out = []operand{g.out(c, c.axis, f.in[0].cols)}
		f.op = backend.Route
		if k%4 != 1 || c.I[1] == backend.RouteSigmoid {
			c.derives(f, dy, 0)
		}
		all = append(all, c)
	}
	return all
}

// routeGradTruth is the product with the derivatives of gates and probabilities, element by element.
func routeGradTruth(c *call) []grid {
	y, at, bias, dy := c.in[0], c.in[1], c.in[2], c.in[3]
	cols, n, k := c.out[0].cols, c.I[2], c.I[0]
	experts := cols * n
	same := func(i, j int) float64 {
		if i == j {
			return 1
		}
		return 0
	}
	return one(gridOf(y.rows, cols, func(i, j int) (v, m float64) {
		g, p, dg, dp := y.row(i)[:experts], y.row(i)[experts:], dy.row(i)[:experts], dy.row(i)[experts:]
		add := func(d, by float64) { v, m = v+d*by, m+abs(d)*(abs(by)+p[j]) }
		sum := 0.
		for _, e := range at.row(i) {
			sum += p[int(e)/n]
			if !bias.dead() {
				sum += bias.v[int(e)]
			}
		}
		if c.I[1] == backend.RouteSigmoid {
			slope := p[j] * (1 - p[j])
			add(dp[j], slope)
			for _, e := range at.row(i) { // g_e = k s_e / sum
				for _, f := range at.row(i) {
					by := -g[int(e)] / sum
					if e == f {
						by += float64(k) / sum
					}
					add(dg[int(e)], by*slope*same(int(f)/n, j))
				}
			}
			return v, m * (1 + 1/sum)
		}
		for l := range p {
			add(dp[l], p[l]*(same(l, j)-p[j]))
		}
		for _, e := range at.row(i) {
			for _, f := range at.row(i) {
				add(dg[int(e)], g[int(e)]*(same(int(e), int(f))-g[int(f)])*same(int(f)/n, j))
			}
		}
		return v, m
	}))
}

func assignCalls(g *gen) (all []*call) {
	for k, s := range g.shapes() {
		rows, own, shared := s[0], min(s[1], 65), k%3
		c := g.call([]backend.Axis{backend.Tok, backend.Seq}[k%2], rows)
		c.I = [4]int{shared, own + shared}
		c.in = []operand{index(g.ints(rows, 0, own))}
		c.out = []operand{g.out(c, c.axis, own+shared), g.out(c, c.axis, 1+shared)}
		all = append(all, c)
	}
	return all
}

func assignTruth(c *call) []grid {
	shared, experts := c.I[0], c.I[1]
	rows := c.in[0].cols
	return []grid{
		gridOf(rows, experts, func(i, j int) (v, m float64) {
			if j == c.in[0].int(0, i) || j >= experts-shared {
				return 1, 0
			}
			return 0, 0
		}),
		gridOf(rows, 1+shared, func(i, j int) (v, m float64) {
			if j == 0 {
				return float64(c.in[0].int(0, i)), 0
			}
			return float64(experts - shared + j - 1), 0
		}),
	}
}

func spreadCalls(g *gen) (all []*call) {
	dims := g.dims()
	for k, lengths := range g.lengths() {
		c := g.packed(lengths)
		c.in = []operand{g.mat(c, backend.Seq, dims[k%len(dims)]), offsets(lengths)}
		c.out = []operand{g.out(c, backend.Tok, dims[k%len(dims)])}
		all = append(all, c)
	}
	return all
}

func spreadTruth(c *call) []grid {
	return one(toTokens(c.out[0].rows, c.out[0].cols, c.in[1], func(s, _, _, j int) (v, m float64) { return c.in[0].at(s, j), 0 }))
}

func spreadGradCalls(g *gen) (all []*call) {
	for _, f := range spreadCalls(g) {
		c := f.clone()
		dy := g.mat(c, backend.Tok, f.in[0].cols)
		c.op, c.in, c.out = g.op, []operand{dy, f.in[1]}, []operand{g.out(c, backend.Seq, f.in[0].cols)}
		f.op = backend.Spread
		c.derives(f, dy, 0)
		all = append(all, c)
	}
	return all
}

func spreadGradTruth(c *call) []grid {
	return one(overSeqs(c.in[0], c.in[1], func(n int, at func(int) float64) (v, m float64) {
		for i := range n {
			v, m = v+at(i), m+abs(at(i))
		}
		return v, m
	}))
}
