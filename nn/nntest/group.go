package nntest

import (
	"rung/nn/backend"
)

// groupRows is products of rows with their own experts.
func groupRows() []row {
	return []row{
		{backend.GroupNT, 16, groupNTCalls, groupNTTruth, byRow},
		{backend.GroupNN, 16, groupNNCalls, groupNNTruth, byRow},
		{backend.GroupTN, 16, groupTNCalls, groupTNTruth, apart},
		{backend.Take, 0, takeCalls, takeTruth, byRow},
		{backend.TakeGrad, 0, takeGradCalls, takeGradTruth, byRow},
	}
}

// A group is the operands of a grouped product.
type group struct {
	c             *call
	h, x, w, at   operand
	rank, experts int
}

// grouped makes operands at many sizes: one and all experts chosen, experts that no row chose, weights either way.
func (g *gen) grouped() (all []group) {
	ranks, experts := []int{8, 1, 3, 4, 5, 16, 2, 9}, []int{4, 1, 8, 3, 33, 2, 9}
	for k, s := range g.products() {
		rank, e := ranks[k%len(ranks)], experts[k%len(experts)]
		if s[0]*s[1] > 1<<14 { // the greatest are of usual mixtures
			rank, e = 8, 8
		}
		c := g.call([]backend.Axis{backend.Tok, backend.Seq}[k%2], s[0])
		c.I[0] = k / 2 % 2
		n := []int{min(2, e), e, 1, min(3, e)}[k%4]
		at, _ := g.choices(c, e, min(n, 9))
		if k%3 == 2 && e > 1 { // nobody chooses the first expert, if that can be
			for i, v := range at.v {
				if v == 0 && at.cols == 1 {
					at.v[i] = float64(e - 1)
				}
			}
		}
		w := g.weight(e*rank, s[1])
		if c.I[0] == 1 {
			w = g.weight(s[1], e*rank)
		}
		all = append(all, group{c: c, h: g.mat(c, c.axis, at.cols*rank), x: g.mat(c, c.axis, s[1]), w: w, at: at, rank: rank, experts: e})
	}
	return all
}

// of is the number in w of row r and column c of what w says.
func (c *call) of(w operand, r, col int) int {
	if c.I[0] == 1 {
		r, col = col, r
	}
	return r*w.cols + col
}

func groupNTCalls(g *gen) (all []*call) {
	for _, x := range g.grouped() {
		x.c.in, x.c.out = []operand{x.x, x.w, x.at}, []operand{g.out(x.c, x.c.axis, x.h.cols)}
		all = append(all, x.c)
	}
	return all
}

func groupNTTruth(c *call) []grid {
	x, w, at := c.in[0], c.in[1], c.in[2]
	rank := c.out[0].cols / at.cols
	return one(gridOf(x.rows, c.out[0].cols, func(i, j int) (v, m float64) {
		row := int(at.at(i, j/rank))*rank + j%rank
		for col, a := range x.row(i) {
			b := w.v[c.of(w, row, col)]
			v, m = v+a*b, m+abs(a*b)
		}
		return v, m
	}))
}

// groupNNCalls is the gradients of groupNT by x; every other one adds them to something.
func groupNNCalls(g *gen) (all []*call) {
	for k, x := range g.grouped() {
		c, plus := x.c, operand{}
		if k%2 == 1 {
			plus = g.mat(c, c.axis, x.x.cols)
		}
		f := c.clone()
		f.op, f.in, f.out = backend.GroupNT, []operand{x.x, x.w, x.at}, []operand{g.out(c, c.axis, x.h.cols)}
		c.in, c.out = []operand{plus, x.h, x.w, x.at}, []operand{g.out(c, c.axis, x.x.cols)}
		if plus.dead() {
			c.derives(f, x.h, 0)
		}
		all = append(all, c)
	}
	return all
}

func groupNNTruth(c *call) []grid {
	plus, h, w, at := c.in[0], c.in[1], c.in[2], c.in[3]
	rank := h.cols / at.cols
	return one(gridOf(h.rows, c.out[0].cols, func(i, col int) (v, m float64) {
		if !plus.dead() {
			v, m = plus.at(i, col), abs(plus.at(i, col))
		}
		for j, a := range h.row(i) {
			b := w.v[c.of(w, int(at.at(i, j/rank))*rank+j%rank, col)]
			v, m = v+a*b, m+abs(a*b)
		}
		return v, m
	}))
}

func groupTNCalls(g *gen) (all []*call) {
	for _, x := range g.grouped() {
		c := x.c
		f := c.clone()
		f.op, f.in, f.out = backend.GroupNT, []operand{x.x, x.w, x.at}, []operand{g.out(c, c.axis, x.h.cols)}
		c.in, c.out = []operand{x.h, x.x, x.at}, []operand{g.grad(x.w.rows, x.w.cols)}
		c.derives(f, x.h, 1)
		all = append(all, c)
	}
	return all
}

func groupTNTruth(c *call) []grid {
	h, x, at, dw := c.in[0], c.in[1], c.in[2], c.out[0]
	rank, res := h.cols/at.cols, zeros(dw.rows, dw.cols)
	for i := range h.rows {
		for j, a := range h.row(i) {
			for col, b := range x.row(i) {
				res.add(c.of(dw, int(at.at(i, j/rank))*rank+j%rank, col), a*b, a*b)
			}
		}
	}
	return one(res)
}

func takeCalls(g *gen) (all []*call) {
	for k, s := range g.shapes() {
		e := min(s[1], 65)
		c := g.call([]backend.Axis{backend.Tok, backend.Seq}[k%2], s[0])
		at, _ := g.choices(c, e, min(1+k%3, e))
		c.in, c.out = []operand{g.mat(c, c.axis, e), at}, []operand{g.out(c, c.axis, at.cols)}
		all = append(all, c)
	}
	return all
}

func takeTruth(c *call) []grid {
	x, at := c.in[0], c.in[1]
	return one(gridOf(at.rows, at.cols, func(i, j int) (v, m float64) { return x.at(i, int(at.at(i, j))), 0 }))
}

func takeGradCalls(g *gen) (all []*call) {
	for _, f := range takeCalls(g) {
		c := f.clone()
		dy := g.mat(c, c.axis, f.out[0].cols)
		c.op, c.in, c.out = g.op, []operand{f.in[1], dy}, []operand{g.out(c, c.axis, f.in[0].cols)}
		f.op = backend.Take
		c.derives(f, dy, 0)
		all = append(all, c)
	}
	return all
}

func takeGradTruth(c *call) []grid {
	at, dy, res := c.in[0], c.in[1], zeros(c.in[0].rows, c.out[0].cols)
	for i := range at.rows {
		for j, e := range at.row(i) {
			res.add(i*c.out[0].cols+int(e), dy.at(i, j), 0)
		}
	}
	return one(res)
}
