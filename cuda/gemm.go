//go:build gpu

package cuda

import (
	"fmt"
	"math"

	"rung/nn/backend"
)

// A tile is the rows and columns of a result that a block computes, and its threads. Kernels are named by
// the columns.
type tile struct{ rows, cols, block int }

// tile returns that of a number of columns.
func (e *encoder) tile(cols int) tile {
	t := map[int]tile{128: {128, 128, 256}, 96: {128, 96, 256}, 64: {64, 64, 128}}[cols]
	if e.be.precision == FP32 {
		t.block = 256
	}
	return t
}

// tileFor is the greatest tile of which there are enough for the device. Tiles of 96 columns are as many as
// there are multiprocessors, or nearly, where 4096 rows of 384 are computed; tensor cores do not gain by
// them, with so few warps to wait for memory.
func (e *encoder) tileFor(rows int, cols ...int) tile {
	count := func(t tile) (n int) {
		for _, c := range cols {
			n += ceil(rows, t.rows) * ceil(c, t.cols)
		}
		return n
	}
	if t := e.tile(128); count(t) >= e.be.info.SMs {
		return t
	}
	if t := e.tile(96); e.be.precision == FP32 && count(t) >= e.be.info.SMs*3/4 {
		return t
	}
	return e.tile(64)
}

// launchOf is the launch of a layout: nt, nn or tn.
func (e *encoder) launchOf(layout string, t tile, g *gemm) launch {
	const depth, stages = 32, 3
	byRow, byCol := func(n int) int { return n * (depth + 4) }, func(n int) int { return depth * (n + 8) }
	stage := map[string]int{"nt": byRow(t.rows) + byRow(t.cols), "nn": byRow(t.rows) + byCol(t.cols), "tn": byCol(t.rows) + byCol(t.cols)}[layout]
	return launch{
		kernel: fmt.Sprintf("%v_%s_%d", e.be.precision, layout, t.cols), block: t.block, shared: stages * stage * elem, gemm: g,
	}
}

// aligned reports that rows of m can be read 16 bytes at a time.
func (m *mat) aligned() bool { return m.p%16 == 0 && (m.rows <= 1 || m.ld%4 == 0) }

// fours reports that elements of m can be read and written four at a time, from every fourth column on.
func (m *mat) fours() bool { return m.dead() || m.aligned() }

func segmentOf(a, b *mat, k int32) segment {
	s := segment{a: a.p, b: b.p, lda: a.ld, ldb: b.ld, k: k}
	if a.aligned() {
		s.vec |= 1
	}
	if b.aligned() {
		s.vec |= 2
	}
	return s
}

func flag(b bool) int32 {
	if b {
		return 1
	}
	return 0
}

// The products of a program: by the library where it may be given them.
func (e *encoder) matNT(r *resolved) error { return e.firstOf(r, e.libraryNT, e.ownNT) }
func (e *encoder) matNN(r *resolved) error { return e.firstOf(r, e.libraryNN, e.ownNN) }
func (e *encoder) matTN(r *resolved) error { return e.firstOf(r, e.libraryTN, e.ownTN) }

func (e *encoder) firstOf(r *resolved, library func(*resolved) (bool, error), own func(*resolved) error) error {
	if done, err := library(r); done || err != nil {
		return err
	}
	return own(r)
}

// operand is input k, which may be beyond those that fit the arguments of other kernels.
func (e *encoder) operand(r *resolved, k int) (mat, error) { return e.mat(r.In[k]) }

// ownNT launches as many blocks of columns at once as fit the arguments.
func (e *encoder) ownNT(r *resolved) error {
	x := r.a.in[0]
	for from := 0; from < r.I[0]; {
		first := from
		g := &gemm{rows: x.rows, axis: x.axis, act: flag(r.I[1] == backend.ActGELU), acc: r.a.acc & 1}
		g.y, g.ldy, g.pre, g.ldpre = r.a.out[0].p, r.a.out[0].ld, r.a.out[1].p, r.a.out[1].ld
		wide := r.a.out[0].fours() && r.a.out[1].fours()
		col := int32(0)
		for k := range from {
			col += int32(r.In[1+4*k].Rows)
		}
		var widths []int
		var blocks [][2]segment // x w and h u
		for ; from < r.I[0] && len(blocks) < len(g.n); from++ {
			var m [4]mat
			for i := range m {
				var err error
				if m[i], err = e.operand(r, 1+4*from+i); err != nil {
					return err
				}
			}
			w, bias, h, u := &m[0], &m[1], &m[2], &m[3]
			i := len(blocks)
			g.col[i], g.n[i], g.bias[i] = col, w.rows, bias.p
			wide = wide && col%4 == 0
			col += w.rows
			b := [2]segment{segmentOf(&x, w, x.cols)}
			if !h.dead() && h.cols > 0 {
				b[1] = segmentOf(h, u, h.cols)
				g.segments = 2
			}
			blocks, widths = append(blocks, b), append(widths, int(w.rows))
		}
		g.blocks, g.segments, g.wide = int32(len(blocks)), max(g.segments, 1), flag(wide)
		t := e.tileFor(int(x.rows), widths...)
		for i, b := range blocks {
			g.tile[i+1] = g.tile[i] + int32(ceil(widths[i], t.cols))
			copy(g.seg[int32(i)*g.segments:], b[:g.segments])
		}
		part := *r.Call
		if part.I[0] = from - first; part.I[0] < r.I[0] {
			part.In = append([]backend.Buf{r.In[0]}, r.In[1+4*first:1+4*from]...)
			part.Out = nil
			for _, o := range r.Out {
				part.Out = append(part.Out, o.ColsOf(int(g.col[0]), int(col-g.col[0])))
			}
		}
		l := e.launchOf("nt", t, g)
		l.does = []backend.Call{part}
		l.grid = [3]int{int(g.tile[len(blocks)]), ceil(int(x.rows), t.rows), 1}
		e.add(r.Node, l)
	}
	return nil
}

// ownNN adds up pairs in one launch.
func (e *encoder) ownNN(r *resolved) error {
	dx, pre := r.a.out[0], r.a.in[0]
	g := &gemm{
		y: dx.p, ldy: dx.ld, gate: pre.p, ldgate: pre.ld, rows: dx.rows, axis: dx.axis,
		act: flag(r.I[1] == backend.ActGELU), acc: r.a.acc & 1, wide: flag(dx.fours() && pre.fours()), blocks: 1,
	}
	if r.I[0] > len(g.seg) {
		return fmt.Errorf("%d products are more than the %d that a kernel adds up", r.I[0], len(g.seg))
	}
	g.n[0] = dx.cols
	for k := range r.I[0] {
		dy, err := e.operand(r, 1+2*k)
		if err != nil {
			return err
		}
		w, err := e.operand(r, 2+2*k)
		if err != nil {
			return err
		}
		if dy.cols > 0 {
			g.seg[g.segments] = segmentOf(&dy, &w, dy.cols)
			g.segments++
		}
	}
	t := e.tileFor(int(dx.rows), int(dx.cols))
	g.tile[1] = int32(ceil(int(dx.cols), t.cols))
	l := e.launchOf("nn", t, g)
	l.grid = [3]int{int(g.tile[1]), ceil(int(dx.rows), t.rows), 1}
	e.add(r.Node, l)
	return nil
}

// splitK is how many rows a part of a split product should have at least.
const splitK = 256

// A group is weight gradients that become one launch: products of matrices whose rows are the same, each
// with the sum of the columns of its dy if that follows. They read nothing that they write.
type group struct {
	node     string
	call     int // the last that joined
	axis     backend.Axis
	rows     int
	products []gradient
}

// gradient is one product.
type gradient struct {
	dy, x, dw, db mat
	of            backend.Buf // dy
	acc           int32
	does          []backend.Call // the product and, if it is there, the sum, which reads nothing more
}

// joins reports that a call is a gradient that may join others: one for all units, which only gradients that
// were not in the group are added to.
func (e *encoder) joins(c *backend.Call) bool {
	g := &e.group
	switch {
	case e.bind.PerUnit > 0 || c.Out[0].Space != backend.Grad:
		return false
	case c.Op == backend.ColSum:
		n := len(g.products)
		return n > 0 && g.products[n-1].db.dead() && g.products[n-1].of == c.In[0]
	case c.Op != backend.MatTN:
		return false
	}
	return len(g.products) == 0 || len(g.products) < len(gemm{}.n) && g.axis == c.In[0].Axis && g.rows == c.In[0].Rows
}

// join adds a call that may.
func (e *encoder) join(r *resolved) error {
	g, out := &e.group, r.a.out[0]
	for k := range g.products {
		if p := &g.products[k]; p.dw.p == out.p || p.db.p == out.p { // twice the same: in order
			if err := e.flush(); err != nil {
				return err
			}
			break
		}
	}
	if r.Op == backend.ColSum {
		if len(g.products) == 0 {
			return sumRows("colsum", 1)(e, r)
		}
		p := &g.products[len(g.products)-1]
		p.db, p.acc = out, p.acc|r.a.acc<<1
		p.does = append(p.does, writes(r.Out...))
	} else {
		g.node, g.axis, g.rows = r.Node, r.In[0].Axis, r.In[0].Rows
		g.products = append(g.products, gradient{dy: r.a.in[0], x: r.a.in[1], dw: out, of: r.In[0], acc: r.a.acc & 1, does: []backend.Call{*r.Call}})
	}
	g.call = e.at
	return nil
}

// ownTN launches one product, whose units may be kept apart.
func (e *encoder) ownTN(r *resolved) error {
	units, stride, most, err := e.apart(r.Call, 0, r.In[0].Axis)
	if err != nil {
		return err
	}
	p := gradient{dy: r.a.in[0], x: r.a.in[1], dw: r.a.out[0], acc: r.a.acc & 1, does: []backend.Call{*r.Call}}
	return e.sums(r.Node, []gradient{p}, units, stride, most)
}

// sums launches products: of each unit, or split in parts that a second kernel adds up, so that small
// results fill the device too.
func (e *encoder) sums(node string, products []gradient, units uint64, stride int64, most int) error {
	g := &gemm{rows: products[0].dy.rows, axis: products[0].dy.axis, splits: 1, segments: 1, blocks: int32(len(products))}
	t, wide, total := e.tile(128), stride%4 == 0, 0
	for _, p := range products {
		if p.dw.rows < 96 || p.dw.cols < 96 {
			t = e.tile(64)
		}
		wide = wide && p.dw.fours()
	}
	split := true // rows of partial sums are whole float4s, too
	for k := range products {
		p := &products[k]
		g.seg[k] = segmentOf(&p.dy, &p.x, 0) // k is the rows
		g.out[k], g.sum[k], g.m[k], g.n[k], g.ld[k], g.accs[k] = p.dw.p, p.db.p, p.dw.rows, p.dw.cols, p.dw.ld, p.acc
		g.tile[k+1] = g.tile[k] + int32(ceil(int(p.dw.rows), t.rows)*ceil(int(p.dw.cols), t.cols))
		g.col[k] = int32(total)
		split = split && p.dw.cols%4 == 0
		total += (int(p.dw.rows)*int(p.dw.cols) + int(p.dw.rows) + 3) &^ 3
		if total > math.MaxInt32-threads {
			return fmt.Errorf("%dx%d elements are more than a kernel counts", p.dw.rows, p.dw.cols)
		}
	}
	tiles, parts := int(g.tile[len(products)]), 1
	if units != 0 {
		g.units, g.stride, g.most = units, stride, int32(most)
		parts = min(most, atOnce)
	} else if tiles > 0 {
		parts = max(1, min(e.be.info.SMs/tiles, int(g.rows)/splitK, mostParts))
		g.splits = int32(parts)
	}
	g.total, g.wide = int32(total), flag(wide)
	if g.splits > 1 {
		g.wide = flag(split)
		e.need(parts * total)
	}
	l := e.launchOf("tn", t, g)
	l.grid, l.scratch = [3]int{tiles, 1, parts}, g.splits > 1
	var all, out []backend.Call
	for k := range products {
		for i := range products[k].does {
			c := &products[k].does[i]
			if out = append(out, writes(c.Out...)); g.splits > 1 {
				all = append(all, reads(c))
			} else {
				all = append(all, *c)
			}
		}
	}
	l.does = all
	if g.splits > 1 {
		l.moves = parts * total
	}
	e.add(node, l)
	if g.splits > 1 {
		e.add(node, launch{
			kernel: "gemm_sum", grid: [3]int{ceil(total, threads), 1, 1}, block: threads, gemm: g, scratch: true, does: out, moves: parts * total,
		})
	}
	return nil
}
