package nntest

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"rung/nn/backend"
	"rung/nn/backend/philox"
)

// A gen makes calls of one operation, the same ones every time.
type gen struct {
	op    backend.Op
	size  Size
	draws int  // so far: names the next
	exact bool // values need not be single precision: no backend but float64 will see them
	brief bool // values have eight significant bits
}

func newGen(op backend.Op, size Size) *gen { return &gen{op: op, size: size} }

// on gives a backend that rounds the factors of matrix products, to bf16 or less roughly, factors that stay as they
// are: its products are held to the bound of one that does not round.
func (g *gen) on(be backend.Backend) *gen {
	r, ok := be.(interface{ Exact() bool })
	g.brief = ok && !r.Exact() && slices.Contains([]backend.Op{backend.MatNT, backend.MatNN, backend.MatTN}, g.op)
	return g
}

// all is the calls of a row with their variants: every one of the first calls, which are small; one
// of each later call.
func (g *gen) all(r row) []*call {
	var all []*call
	for i, c := range r.calls(g) {
		all = append(all, c)
		v := g.variants(c)
		if i >= 6 && len(v) > 1 {
			v = v[i%len(v):][:1]
		}
		all = append(all, v...)
	}
	return all
}

// variants is what else the contract allows: results that nobody reads, results that are added to what
// is there, gradients kept apart by units.
func (g *gen) variants(c *call) (all []*call) {
	n := len(c.out)
	for dead := range 1<<n - 1 {
		if dead&mustLive(c) != 0 {
			continue
		}
		for _, acc := range []bool{false, true} {
			for _, units := range []bool{false, true} {
				if !acc && !units && dead == 0 {
					continue // c itself
				}
				if d := g.variant(c, dead, acc, units); d != nil {
					all = append(all, d)
				}
			}
		}
	}
	return all
}

// mustLive is the set of results that cannot be dead, or are already.
func mustLive(c *call) (set int) {
	for k, o := range c.out {
		if o.dead() || len(c.out) == 1 || o.v != nil {
			set |= 1 << k
		}
	}
	return set
}

func (g *gen) variant(c *call, dead int, acc, units bool) *call {
	d := c.clone()
	if units {
		if !reduces(c.op) {
			return nil
		}
		d.units = bounds(c.s.Count[c.axis], c.axis)
		d.s.Count[backend.Unit] = len(d.units) - 1
		d.loss = nil
	}
	adds := false
	for k := range d.out {
		o := &d.out[k]
		if dead>>k&1 == 1 {
			*o = operand{}
		}
		if !acc || o.dead() || !c.op.Accumulates(k) {
			continue
		}
		o.acc, adds = true, true
		n := o.rows * o.cols
		if units {
			n *= len(d.units) - 1
		}
		o.v = g.normal(n)
	}
	if acc && !adds || allDead(d.out) {
		return nil
	}
	return d
}

func allDead(out []operand) bool {
	return !slices.ContainsFunc(out, func(o operand) bool { return !o.dead() })
}

// bounds splits n rows among units, some of them empty.
func bounds(n int, axis backend.Axis) []int32 {
	if axis == backend.Unit {
		b := make([]int32, n+1)
		for i := range b {
			b[i] = int32(i)
		}
		return b
	}
	return []int32{0, 0, int32(n / 3), int32(n / 3), int32(n)}
}

// reduces says which operations sum rows into a weight's gradient, and so can keep units apart.
func reduces(op backend.Op) bool {
	return slices.Contains([]backend.Op{backend.EmbedGrad, backend.MatTN, backend.GroupTN, backend.ColSum, backend.MulColsDG, backend.NormDG}, op)
}

func isGrad(op backend.Op) bool {
	return strings.HasSuffix(op.String(), ".grad") || slices.Contains([]backend.Op{backend.MatNN, backend.MatTN, backend.GroupTN, backend.ColSum, backend.MulColsDG, backend.NormDX, backend.NormDG}, op)
}

// dims is the numbers of rows and columns that calls are made of: 1, odd ones, one past usual tiles.
func (g *gen) dims() []int { return g.upTo(3, 1, 7, 15, 17, 33, 65, 129, 384) }

func (g *gen) upTo(list ...int) []int {
	return slices.DeleteFunc(list, func(n int) bool { return n > int(g.size) })
}

// shapes is rows, columns and something else: one whose rows are whole vectors, where they are aligned.
func (g *gen) shapes() [][3]int {
	d := g.dims()
	all := [][3]int{{2, 3, 4}, {5, 1, 2}, {0, 3, 2}, {3, 16, 8}}
	for i := range d {
		all = append(all, [3]int{d[i], d[(i+1)%len(d)], d[(i+3)%len(d)]})
	}
	return all
}

// products is shapes, and greater ones for matrix products.
func (g *gen) products() [][3]int {
	all := g.shapes()
	if g.size > Small { // one of three has tokens as rows
		all = append(all, [3]int{70, 96, 200}, [3]int{64, 64, 64}, [3]int{66, 128, 80})
	}
	if g.size >= Full {
		all = append(all, [3]int{512, 384, 48}, [3]int{70, 96, 384})
	}
	return all
}

// lengths is packed sequences by their lengths: empty ones at the start, in the middle, at the end.
func (g *gen) lengths() [][]int {
	all := [][]int{{2, 3}, {0, 3, 0, 4, 0}, {1}, {}, {0, 0}, {6, 14, 16, 32, 64, 7, 15}, {17, 1, 33, 0, 65}, {128, 0, 384}, {512}}
	var out [][]int
	for _, l := range all {
		l = slices.Clone(l)
		for i := range l {
			l[i] = min(l[i], int(g.size))
		}
		out = append(out, l)
	}
	return out
}

func total(lengths []int) (n int) {
	for _, l := range lengths {
		n += l
	}
	return n
}

// normal is n draws from N(0,1), in single precision.
func (g *gen) normal(n int) []float64 {
	v := make([]float64, n)
	philox.Normal(v, 1, g.name())
	return g.round(v)
}

func (g *gen) name() string {
	g.draws++
	return fmt.Sprintf("%v/%d", g.op, g.draws)
}

// round rounds v to single precision, so that all backends compute from the same numbers.
func (g *gen) round(v []float64) []float64 {
	for i := range v {
		if g.brief { // towards zero
			v[i] = float64(math.Float32frombits(math.Float32bits(float32(v[i])) &^ 0xffff))
		} else if !g.exact {
			v[i] = float64(float32(v[i]))
		}
	}
	return v
}

// ints is n draws from lo to hi-1.
func (g *gen) ints(n, lo, hi int) []int32 {
	v, name := make([]int32, n), g.name()
	for i := range v {
		v[i] = int32(lo) + int32(philox.Uint64(1, name, uint64(i))%uint64(hi-lo))
	}
	return v
}

// call starts a call whose rows count axis. Memory has a few rows more than are real, or none.
func (g *gen) call(axis backend.Axis, rows int) *call {
	g.draws++
	c := &call{op: g.op, axis: axis, spare: g.draws % 4}
	c.s.Count[axis] = rows
	return c
}

// packed starts a call on sequences of given lengths.
func (g *gen) packed(lengths []int) *call {
	c := g.call(backend.Seq, len(lengths))
	c.s.Count[backend.Tok] = total(lengths)
	return c
}

// mat is an input with as many rows as are real on axis.
func (g *gen) mat(c *call, axis backend.Axis, cols int) operand {
	return g.of(c, axis, cols, g.normal(c.s.Count[axis]*cols))
}

func (g *gen) of(c *call, axis backend.Axis, cols int, v []float64) operand {
	space := backend.Arena
	if g.draws%3 == 0 {
		space = backend.Input
	}
	return operand{axis: axis, space: space, rows: c.s.Count[axis], cols: cols, v: g.round(v)}
}

// weight is a parameter.
func (g *gen) weight(rows, cols int) operand {
	return operand{space: backend.Weight, rows: rows, cols: cols, v: g.normal(rows * cols)}
}

// out is a result with as many rows as are real on axis; grad is the gradient of a parameter.
func (g *gen) out(c *call, axis backend.Axis, cols int) operand {
	return operand{axis: axis, space: backend.Arena, rows: c.s.Count[axis], cols: cols}
}

func (g *gen) grad(rows, cols int) operand {
	return operand{space: backend.Grad, rows: rows, cols: cols}
}

// index is a vector of indexes, one for each row of the call.
func index(v []int32) operand {
	return operand{space: backend.Index, rows: 1, cols: len(v), ints: v, perRow: true}
}

// offsets is the bounds of packed sequences.
func offsets(lengths []int) operand {
	v := []int32{0}
	for i, l := range lengths {
		v = append(v, v[i]+int32(l))
	}
	return operand{space: backend.Index, rows: 1, cols: len(v), ints: v, offsets: true}
}

// weighed is Σ seed y: a number whose gradient by y is seed.
func weighed(y, seed []float64) (s float64) {
	for i, v := range y {
		s += v * seed[i]
	}
	return s
}

// derives says that c is the gradient of result 0 of forward, seeded with seed; wrt names the inputs
// of forward that the results of c are the derivatives by.
func (c *call) derives(forward *call, seed operand, wrt ...int) {
	c.loss = func(run func(*call) [][]float64) float64 { return weighed(run(forward)[0], seed.v) }
	for _, i := range wrt {
		c.wrt = append(c.wrt, forward.in[i].v)
	}
}
