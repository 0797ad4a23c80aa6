//go:build gpu

package cuda

import (
	"fmt"
	"math"

	"rung/nn/backend"
)

// A tile is the rows and columns of a result that a block computes.
type tile struct{ size, block int }

// tileFor is the greater tile if that fills the device, else the smaller.
func (e *encoder) tileFor(rows int, cols ...int) tile {
	n := 0
	for _, c := range cols {
		n += ceil(rows, 128) * ceil(c, 128)
	}
	if n >= e.be.info.SMs {
		return tile{128, 256}
	}
	if e.be.precision == FP32 {
		return tile{64, 256}
	}
	return tile{64, 128}
}

// launchOf is the launch of a layout: nt, nn or tn.
func (e *encoder) launchOf(layout string, t tile, g *gemm) launch {
	const depth, stages = 32, 3
	byRow, byCol := t.size*(depth+4), depth*(t.size+8)
	stage := map[string]int{"nt": 2 * byRow, "nn": byRow + byCol, "tn": 2 * byCol}[layout]
	return launch{
		kernel: fmt.Sprintf("%v_%s_%d", e.be.precision, layout, t.size), block: t.block, shared: stages * stage * elem, gemm: g,
	}
}

// aligned reports that rows of m can be read 16 bytes at a time.
func (m *mat) aligned() bool { return m.p%16 == 0 && (m.rows <= 1 || m.ld%4 == 0) }

// paired reports that elements of m can be written two at a time, from even columns on.
func (m *mat) paired() bool { return m.dead() || m.p%8 == 0 && (m.rows <= 1 || m.ld%2 == 0) }

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

// operand is input k, which may be beyond those that fit the arguments of other kernels.
func (e *encoder) operand(r *resolved, k int) (mat, error) { return e.mat(r.In[k]) }

// matNT launches as many blocks of columns at once as fit the arguments.
func (e *encoder) matNT(r *resolved) error {
	x := r.a.in[0]
	for from := 0; from < r.I[0]; {
		g := &gemm{rows: x.rows, axis: x.axis, act: flag(r.I[1] == backend.ActGELU), acc: r.a.acc & 1}
		g.y, g.ldy, g.pre, g.ldpre = r.a.out[0].p, r.a.out[0].ld, r.a.out[1].p, r.a.out[1].ld
		pairs := r.a.out[0].paired() && r.a.out[1].paired()
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
			pairs = pairs && col%2 == 0
			col += w.rows
			b := [2]segment{segmentOf(&x, w, x.cols)}
			if !h.dead() && h.cols > 0 {
				b[1] = segmentOf(h, u, h.cols)
				g.segments = 2
			}
			blocks, widths = append(blocks, b), append(widths, int(w.rows))
		}
		g.blocks, g.segments, g.pairs = int32(len(blocks)), max(g.segments, 1), flag(pairs)
		t := e.tileFor(int(x.rows), widths...)
		for i, b := range blocks {
			g.tile[i+1] = g.tile[i] + int32(ceil(widths[i], t.size))
			copy(g.seg[int32(i)*g.segments:], b[:g.segments])
		}
		l := e.launchOf("nt", t, g)
		l.grid = [3]int{int(g.tile[len(blocks)]), ceil(int(x.rows), t.size), 1}
		e.add(r.Node, l)
	}
	return nil
}

// matNN adds up pairs in one launch.
func (e *encoder) matNN(r *resolved) error {
	dx, pre := r.a.out[0], r.a.in[0]
	g := &gemm{
		y: dx.p, ldy: dx.ld, gate: pre.p, ldgate: pre.ld, rows: dx.rows, axis: dx.axis,
		act: flag(r.I[1] == backend.ActGELU), acc: r.a.acc & 1, pairs: flag(dx.paired()), blocks: 1,
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
	g.tile[1] = int32(ceil(int(dx.cols), t.size))
	l := e.launchOf("nn", t, g)
	l.grid = [3]int{int(g.tile[1]), ceil(int(dx.rows), t.size), 1}
	e.add(r.Node, l)
	return nil
}

// splitK is how many rows a part of a split product should have at least.
const splitK = 256

// matTN sums over rows: of each unit, or split in parts that a second kernel adds up, so that a small
// result fills the device too.
func (e *encoder) matTN(r *resolved) error {
	dw, dy, x := r.a.out[0], r.a.in[0], r.a.in[1]
	g := &gemm{y: dw.p, ldy: dw.ld, rows: dy.rows, axis: dy.axis, m: dw.rows, acc: r.a.acc & 1, segments: 1, splits: 1}
	g.n[0] = dw.cols
	g.seg[0] = segmentOf(&dy, &x, 0) // k is the rows
	units, stride, most, err := e.apart(r.Call, 0, r.In[0].Axis)
	if err != nil {
		return err
	}
	t := e.tileFor(int(dw.rows), int(dw.cols))
	if t.size == 64 && dw.rows >= 128 && dw.cols >= 128 {
		t = tile{128, 256} // the parts fill the device
	}
	cols, rows := ceil(int(dw.cols), t.size), ceil(int(dw.rows), t.size)
	parts := 1
	if units != 0 {
		g.units, g.stride, g.most = units, stride, int32(most)
		parts = min(most, atOnce)
	} else if tiles := cols * rows; tiles > 0 {
		parts = max(1, min(e.be.info.SMs/tiles, int(dy.rows)/splitK, mostParts))
		g.splits = int32(parts)
	}
	paired := dw.paired()
	if g.splits > 1 {
		paired = dw.cols%2 == 0
		e.need(parts * int(dw.rows) * int(dw.cols))
	}
	g.pairs = flag(paired)
	l := e.launchOf("tn", t, g)
	l.grid, l.scratch = [3]int{cols, rows, parts}, g.splits > 1
	e.add(r.Node, l)
	if g.splits > 1 {
		size := int(dw.rows) * int(dw.cols)
		if size > math.MaxUint32-threads {
			return fmt.Errorf("%dx%d elements are more than a kernel counts", dw.rows, dw.cols)
		}
		sum := r.a
		sum.splits = g.splits
		e.add(r.Node, launch{kernel: "sum_products", grid: [3]int{ceil(size, threads), 1, 1}, block: threads, args: &sum, scratch: true})
	}
	return nil
}
