package nntest

import (
	"fmt"
	"slices"
	"strings"

	"rung/nn/backend"
)

// An operand is a matrix of a call with its values: rows (the real ones) x cols, without gaps. How it
// lies in memory is decided when the call runs.
type operand struct {
	axis       backend.Axis
	space      backend.Space // None: dead
	rows, cols int
	v          []float64 // nil: a result with nothing in it
	ints       []int32   // of an index, in place of v
	acc        bool
	perRow     bool // an index with a value for each row of the call
	offsets    bool // an index with the bounds of sequences
}

func (o *operand) dead() bool            { return o.space == backend.None }
func (o *operand) row(i int) []float64   { return o.v[i*o.cols : (i+1)*o.cols] }
func (o *operand) at(i, j int) float64   { return o.v[i*o.cols+j] }
func (o *operand) int(i, j int) int      { return int(o.ints[i*o.cols+j]) }
func (o *operand) span(s int) (a, b int) { return int(o.ints[s]), int(o.ints[s+1]) }

// A call is a kernel on operands.
type call struct {
	op      backend.Op
	what    string // what is particular about it
	out, in []operand
	I       [4]int
	F       [4]float64
	s       backend.Scalars
	axis    backend.Axis // of the rows that a row reduction sums, or that are computed one by one
	spare   int          // rows that memory has beyond the real ones
	units   []int32      // first row of each unit, and the end: gradients are kept apart
	version *uint64      // of the weights

	// Of a gradient: the number that it is the derivative of, from forward calls that run runs, and
	// what each result is the derivative by.
	loss func(run func(*call) [][]float64) float64
	wrt  [][]float64
}

func (c *call) String() string {
	var b strings.Builder
	fmt.Fprint(&b, c.op)
	for i, group := range [][]operand{c.out, c.in} {
		fmt.Fprint(&b, [...]string{" ", " from "}[i])
		for k, o := range group {
			if k > 0 {
				b.WriteByte(',')
			}
			if o.dead() {
				b.WriteByte('-')
				continue
			}
			fmt.Fprintf(&b, "%dx%d", o.rows, o.cols)
			if o.acc {
				b.WriteByte('+')
			}
		}
	}
	fmt.Fprintf(&b, " I%v F%v", c.I, c.F)
	if c.units != nil {
		fmt.Fprintf(&b, " units %v", c.units)
	}
	if c.what != "" {
		fmt.Fprintf(&b, " (%s)", c.what)
	}
	return b.String()
}

// clone copies a call; values are shared.
func (c *call) clone() *call {
	d := *c
	d.out, d.in = slices.Clone(c.out), slices.Clone(c.in)
	return &d
}

// pick is the call on some of its rows, in the order given.
func (c *call) pick(rows []int) *call {
	d := c.clone()
	d.units, d.loss, d.wrt = nil, nil, nil
	d.s.Count[c.axis] = len(rows)
	for _, list := range [][]operand{d.out, d.in} {
		for k := range list {
			list[k].pick(c.axis, rows)
		}
	}
	return d
}

func (o *operand) pick(axis backend.Axis, rows []int) {
	switch {
	case o.dead():
	case o.perRow:
		x := o.ints
		o.cols, o.ints = len(rows), make([]int32, len(rows))
		for i, r := range rows {
			o.ints[i] = x[r]
		}
	case o.axis == axis && axis != backend.Fixed:
		x := *o
		o.rows, o.v = len(rows), nil
		for _, r := range rows {
			if x.v != nil {
				o.v = append(o.v, x.row(r)...)
			}
		}
		if x.v != nil && o.v == nil {
			o.v = []float64{}
		}
	}
}

// pickSeqs is the call on some of its sequences, in the order given, and the token rows of them.
func (c *call) pickSeqs(seqs []int) (d *call, tokens []int) {
	offs := []int32{0}
	for _, o := range c.in {
		for i := 0; o.offsets && i < len(seqs); i++ {
			from, to := o.span(seqs[i])
			for r := from; r < to; r++ {
				tokens = append(tokens, r)
			}
			offs = append(offs, int32(len(tokens)))
		}
	}
	d = c.clone()
	d.units, d.loss, d.wrt = nil, nil, nil
	d.s.Count[backend.Tok], d.s.Count[backend.Seq] = len(tokens), len(seqs)
	for _, list := range [][]operand{d.out, d.in} {
		for k := range list {
			o := &list[k]
			if !o.perRow {
				o.pick(backend.Tok, tokens)
			}
			o.pick(backend.Seq, seqs)
			if o.offsets {
				o.ints, o.cols = offs, len(offs)
			}
		}
	}
	return d, tokens
}

// truthOf is what the results of c are by r's formula, an accumulating result with what it adds to.
// Gradients that are kept apart are the gradients of each unit's rows.
func (c *call) truthOf(r row) []grid {
	if c.units == nil {
		return c.added(r.truth(c))
	}
	all := make([]grid, len(c.out))
	for u := range len(c.units) - 1 {
		var rows []int
		for i := c.units[u]; i < c.units[u+1]; i++ {
			rows = append(rows, int(i))
		}
		for k, g := range r.truth(c.pick(rows)) {
			all[k].v, all[k].m = append(all[k].v, g.v...), append(all[k].m, g.m...)
		}
	}
	return c.added(all)
}

func (c *call) added(g []grid) []grid {
	for k, o := range c.out {
		if !o.acc || o.dead() {
			continue
		}
		for i, v := range o.v {
			g[k].m[i] += abs(v) + abs(g[k].v[i])
			g[k].v[i] += v
		}
	}
	return g
}
