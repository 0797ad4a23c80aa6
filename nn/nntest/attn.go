package nntest

import (
	"math"

	"rung/nn/backend"
)

// attnRows is attention.
func attnRows() []row {
	return []row{
		{backend.Attn, 32, attnCalls, attnTruth, bySeq},
		{backend.AttnGrad, 64, attnGradCalls, attnGradTruth, apart},
	}
}

// attnCalls goes over lengths and heads; some have dropout, some one query a sequence, some scores of
// ±200.
func attnCalls(g *gen) (all []*call) {
	heads := [][2]int{{2, 3}, {1, 1}, {3, 8}, {2, 5}, {4, 16}, {2, 33}, {12, 32}, {1, 64}, {2, 32}}
	for k, lengths := range g.lengths() {
		for _, single := range []int{0, 1} {
			hd := heads[(k+single)%len(heads)]
			if g.size < Full && hd[0]*hd[1] > int(g.size) {
				hd = heads[0]
			}
			d := hd[0] * hd[1]
			c := g.packed(lengths)
			c.I = [4]int{hd[0], single, 7 * k}
			c.s.Seed, c.s.Step = 3+uint64(k)<<40, uint64(k)
			qa := backend.Tok
			if single == 1 {
				qa = backend.Seq
			}
			q := g.mat(c, qa, d)
			if k%3 == 2 && !g.exact {
				c.what = "scores of ±200, or of ±2000"
				for i := range q.v {
					q.v[i] *= []float64{100, 1000}[single]
				}
			}
			c.in = []operand{q, g.mat(c, backend.Tok, d), g.mat(c, backend.Tok, d), offsets(lengths), {}}
			switch (k + single) % 4 { // dropout; a rate without keys, and keys without a rate, are none
			case 0, 1:
				c.F[0], c.in[4] = []float64{.1, .4}[(k+single)%4], index(g.ints(len(lengths), -1<<31, 1<<31))
			case 2:
				c.F[0] = .5
			case 3:
				c.in[4] = index(g.ints(len(lengths), -1<<31, 1<<31))
			}
			c.out = []operand{g.out(c, qa, d), g.out(c, qa, hd[0])}
			all = append(all, c)
		}
	}
	return all
}

// A head is the dense matrices of one sequence and head: queries by keys.
type head struct {
	q0, k0, nq, nk int // first row, rows
	lo, hi         int // columns
	n              int // the head
	p, keep        [][]float64
	lse, cond      []float64 // by query; cond is how much rounding of the scores matters
}

// heads makes the probability matrices of a call on q, k (inputs 0 and 1) with offsets and keys
// (inputs 3 and 4), sequence by sequence.
func (c *call) heads(f func(h head)) {
	q, k, offs, keys := c.in[0], c.in[1], c.in[3], c.in[4]
	d := q.cols / c.I[0]
	for s := range offs.cols - 1 {
		from, to := offs.span(s)
		h := head{q0: from, k0: from, nq: to - from, nk: to - from}
		if c.I[1] == 1 {
			h.q0, h.nq = s, 1
		}
		for h.n = range c.I[0] {
			h.lo, h.hi = h.n*d, h.n*d+d
			h.p, h.keep, h.lse, h.cond = nil, nil, nil, nil
			for i := range h.nq {
				scores, keep := make([]float64, h.nk), make([]float64, h.nk)
				cond := 1.
				for j := range h.nk {
					v, m := inner(q.row(h.q0 + i)[h.lo:h.hi], k.row(h.k0 + j)[h.lo:h.hi])
					scores[j], cond = v/math.Sqrt(float64(d)), math.Max(cond, 1+m/math.Sqrt(float64(d)))
					keep[j] = 1
					if c.F[0] > 0 && !keys.dead() {
						keep[j] = 0
						if kept(c, s, keys.ints, c.I[2]+h.n, i*65536+j, c.F[0]) {
							keep[j] = 1 / (1 - c.F[0])
						}
					}
				}
				l, _ := logSum(scores, func(int) bool { return true })
				for j := range scores {
					scores[j] = math.Exp(scores[j] - l)
				}
				h.p, h.keep = append(h.p, scores), append(h.keep, keep)
				h.lse, h.cond = append(h.lse, l), append(h.cond, cond)
			}
			f(h)
		}
	}
}

func attnTruth(c *call) []grid {
	q, v := c.in[0], c.in[2]
	y, lse := zeros(q.rows, q.cols), zeros(q.rows, c.I[0])
	c.heads(func(h head) {
		for i := range h.nq {
			row := h.q0 + i
			lse.add(row*c.I[0]+h.n, h.lse[i], 0)
			if h.nk > 0 {
				lse.m[row*c.I[0]+h.n] = h.cond[i]
			}
			for j, p := range h.p[i] {
				p *= h.keep[i][j]
				for col := h.lo; col < h.hi; col++ {
					t := p * v.at(h.k0+j, col)
					y.add(row*q.cols+col, t, t*h.cond[i])
				}
			}
		}
	})
	return []grid{y, lse}
}

func attnGradCalls(g *gen) (all []*call) {
	for _, f := range attnCalls(g) {
		c := f.clone()
		r := attnTruth(f)
		q := f.in[0]
		dy := g.mat(c, q.axis, q.cols)
		c.op = backend.AttnGrad
		c.in = append(c.in, g.of(c, q.axis, q.cols, r[0].v), g.of(c, q.axis, c.I[0], r[1].v), dy)
		c.out = []operand{g.out(c, q.axis, q.cols), g.out(c, backend.Tok, q.cols), g.out(c, backend.Tok, q.cols)}
		f.op = backend.Attn
		c.derives(f, dy, 0, 1, 2)
		all = append(all, c)
	}
	return all
}

// attnGradTruth goes through the matrices: dP = dy vT, dS = P (dP keep - dy·y), dq = dS k / √d. P is of
// the saved denominators, and y is the saved one: both may have been rounded.
func attnGradTruth(c *call) []grid {
	q, k, v, y, lse, dy := c.in[0], c.in[1], c.in[2], c.in[5], c.in[6], c.in[7]
	dq, dk, dv := zeros(q.rows, q.cols), zeros(k.rows, k.cols), zeros(v.rows, v.cols)
	scale := 1 / math.Sqrt(float64(q.cols/c.I[0]))
	c.heads(func(h head) {
		for i := range h.nq {
			row := h.q0 + i
			sum, _ := inner(dy.row(row)[h.lo:h.hi], y.row(row)[h.lo:h.hi])
			sumM := 0.
			dp, dpm := make([]float64, h.nk), make([]float64, h.nk)
			for j, p := range h.p[i] {
				dp[j], dpm[j] = inner(dy.row(row)[h.lo:h.hi], v.row(h.k0 + j)[h.lo:h.hi])
				dp[j], dpm[j] = dp[j]*h.keep[i][j], dpm[j]*h.keep[i][j]
				sumM += p * dpm[j]
			}
			for j, p := range h.p[i] {
				p *= math.Exp(h.lse[i] - lse.at(row, h.n))
				ds, dsm := p*(dp[j]-sum)*scale, p*(dpm[j]+sumM)*scale*h.cond[i]
				for col := h.lo; col < h.hi; col++ {
					e, r := (h.k0+j)*k.cols+col, row*q.cols+col
					dv.add(e, p*h.keep[i][j]*dy.at(row, col), p*h.keep[i][j]*dy.at(row, col)*h.cond[i])
					dq.add(r, ds*k.at(h.k0+j, col), dsm*k.at(h.k0+j, col))
					dk.add(e, ds*q.at(row, col), dsm*q.at(row, col))
				}
			}
		}
	})
	return []grid{dq, dk, dv}
}
