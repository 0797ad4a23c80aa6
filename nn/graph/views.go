package graph

import (
	"slices"

	G "gorgonia.org/gorgonia"

	"rung/nn/backend"
)

// Cols returns columns j to j+n of e: a view that costs nothing and has a gradient. Gorgonia's
// SymDiff cannot say it (one output, one gradient), so VJP collects the gradients of all views of a
// node into one pack, whose pieces their producers write in place.
func (b *Builder) Cols(e E, j, n int) E {
	if b.err != nil {
		return E{b: b}
	}
	if !b.owns(e) {
		return b.fail("graph: columns of no node of this graph")
	}
	s := e.Shape()
	if j < 0 || n < 1 || len(s.Dims) != 2 || n > s.Cols()-j || e.info().space == backend.Index {
		return b.fail("graph: columns %d to %d of %v", j, j+n, s)
	}
	if n == s.Cols() {
		return e
	}
	s = s.withCols(n)
	return b.apply(&info{in: []E{e}, out: []Shape{s}, of: e, col: j}, "cols", s, G.Nodes{e.n})
}

// piece is the gradient of columns from j on.
type piece struct {
	j  int
	dy E
}

// pack puts the gradients of a node's views side by side.
func (b *Builder) pack(ps []piece, s Shape) E {
	slices.SortStableFunc(ps, func(x, y piece) int { return x.j - y.j })
	o := packCols{width: s.Cols()}
	var in []E
	end := 0
	for _, p := range ps {
		if n := len(in); n > 0 && o.at[n-1] == p.j && in[n-1].Shape().Equal(p.dy.Shape()) {
			in[n-1] = b.Add(in[n-1], p.dy)
			continue
		}
		if p.j < end {
			return b.fail("graph: views that overlap at column %d have no gradient", p.j)
		}
		o.at, in, end = append(o.at, p.j), append(in, p.dy), p.j+p.dy.Shape().Cols()
	}
	return b.Apply(o, in...)
}

// packCols is its inputs side by side, at columns at; the columns of no input are zero.
type packCols struct {
	at    []int
	width int
}

func (o packCols) Name() string                      { return "pack" }
func (o packCols) Infer(in []Shape) ([]Shape, error) { return []Shape{in[0].withCols(o.width)}, nil }

func (o packCols) Lower(l *Lowering, out, in []backend.Buf) {
	zero := func(j, n int) {
		if n > 0 {
			l.Call(backend.Fill, []backend.Buf{out[0].ColsOf(j, n)}, nil, [4]int{}, [4]float64{})
		}
	}
	end := 0
	for k, b := range in {
		zero(end, o.at[k]-end)
		if to := out[0].ColsOf(o.at[k], b.Cols); to != b { // else its producer wrote it here
			l.Call(backend.Scale, []backend.Buf{to}, []backend.Buf{b}, [4]int{}, [4]float64{1})
		}
		end = o.at[k] + b.Cols
	}
	zero(end, o.width-end)
}

// elide gives each pack its memory early, so that the producer of a piece writes it there; other
// readers of the piece read it there.
func (c *compiler) elide() {
	at, whole := map[result]int{}, c.ofStock()
	for t, n := range c.b.nodes {
		i := c.b.info[n]
		if !c.live[n] {
			continue
		}
		for k := range i.out {
			at[result{n, k}] = t
		}
		o, ok := i.op.(packCols)
		if !ok {
			continue
		}
		r := result{n, 0}
		from, pack := t, c.temp(i.out[0], t, max(t, c.last[r]))
		c.placed[r] = pack
		for k, e := range i.in {
			p := resultOf(e)
			_, taken := c.placed[p]
			if !taken && !whole[p] && len(c.sink[p]) == 0 && c.b.info[p.n].op != nil && e.info().col < 0 {
				c.placed[p] = pack.ColsOf(o.at[k], e.Shape().Cols())
				from = min(from, at[p])
				c.temps[pack.ID].to = max(c.temps[pack.ID].to, c.last[p])
			}
		}
		c.temps[pack.ID].from = from
	}
}

// alias gives the sum that a matmul adds to the memory of the result, where nobody reads it afterwards.
func (c *compiler) alias() {
	whole := c.ofStock()
	for t, n := range slices.Backward(c.b.nodes) {
		i := c.b.info[n]
		if o, ok := i.op.(linearDX); !ok || !o.plus || !c.live[n] {
			continue
		}
		r, sum := result{n, 0}, i.in[0]
		p := resultOf(sum)
		_, taken := c.placed[p]
		read := slices.ContainsFunc(i.in[1:], func(e E) bool { return resultOf(e) == p })
		if taken || read || whole[p] || len(c.sink[p]) > 0 || c.last[p] != t || sum.info().col >= 0 || c.b.info[p.n].op == nil {
			continue
		}
		if _, ok := c.placed[r]; !ok {
			c.placed[r] = c.temp(i.out[0], t, max(t, c.last[r]))
		}
		c.placed[p] = c.placed[r]
		from := &c.temps[c.placed[r].ID].from
		*from = min(*from, c.b.info[p.n].at)
	}
}

// ofStock is what stock operators read and write: they know no row stride.
func (c *compiler) ofStock() map[result]bool {
	m := map[result]bool{}
	for n := range c.live {
		i := c.b.info[n]
		if _, ok := i.op.(stock); !ok {
			continue
		}
		m[result{n, 0}] = true
		for _, e := range i.in {
			m[resultOf(e)] = true
		}
	}
	return m
}
