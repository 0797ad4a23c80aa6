//go:build cgo && (amd64 || arm64) && unix

package cpu

// #include "kernels.h"
import "C"

import (
	"unsafe"

	"rung/nn/backend"
	"rung/nn/backend/host"
)

// tileRows is the rows of the greatest tile of a result that one piece of work computes, of tc columns: a block of rows of
// the left factor stays in the first cache while the panels of the right one go by from the second.
const tileRows = 168

// matNT is y_k = f(x w_kT + h_k u_kT + b_k): tiles of the result, over packed weights.
func (s isa) matNT() host.Kernel[float32] {
	packed := func(i int) bool { return i > 0 && (i-1)%4 != 1 && (i-1)%4 != 2 } // w and u
	return host.Kernel[float32]{
		Forms:   s.panels(packed, true),
		Scratch: s.partial,
		Phases: []host.Phase[float32]{{
			N: func(a *args) int {
				g := s.gridNT(a)
				return g.rowTiles * g.colTiles
			},
			Part: func(*args) int { return 4 * s.partialSize() },
			Record: func(a *args, lo, hi int) {
				g := s.gridNT(a)
				for t := lo; t < hi; t++ {
					s.tileNT(a, g, t)
				}
			},
		}},
	}
}

// matNN is dx = Σ dy_k w_k, times the derivative at pre.
func (s isa) matNN() host.Kernel[float32] {
	packed := func(i int) bool { return i > 0 && i%2 == 0 }
	return host.Kernel[float32]{
		Forms:   s.panels(packed, false),
		Scratch: s.partial,
		Phases: []host.Phase[float32]{{
			N: func(a *args) int {
				g := s.gridNN(a)
				return g.rowTiles * g.colTiles
			},
			Part: func(*args) int { return 4 * s.partialSize() },
			Record: func(a *args, lo, hi int) {
				g := s.gridNN(a)
				for t := lo; t < hi; t++ {
					s.tileNN(a, g, t)
				}
			},
		}},
	}
}

// panels packs the inputs that packed names: strips of nr columns of w, or of its transpose, as the
// registers take them.
func (s isa) panels(packed func(i int) bool, transposed bool) *host.Forms[float32] {
	dims := func(m mat) (n, k int) {
		if transposed {
			return m.Rows, m.Cols
		}
		return m.Cols, m.Rows
	}
	return &host.Forms[float32]{
		Size: func(a *args, i int) int {
			if !packed(i) {
				return 0
			}
			n, k := dims(a.Src[i])
			return up(n, s.nr) * s.words(k)
		},
		N: func(a *args, i int) int {
			n, _ := dims(a.Src[i])
			return ceil(n, s.nr)
		},
		Pack: func(a *args, i, lo, hi int) {
			w, to := a.Src[i], a.Form[i]
			n, k := dims(w)
			for p := lo; p < hi && k > 0; p++ {
				j := p * s.nr
				var from *C.float
				if transposed {
					from = at(w, j, 0)
				} else {
					from = at(w, 0, j)
				}
				productAt(s, a, C.RUNG_TASK_pack, 0, &C.struct_pack{
					panel: (*C.float)(&to[j*s.words(k)]), w: from, ld: C.long(w.Ld),
					n: C.long(min(s.nr, n-j)), k: C.long(k), transposed: flag(transposed),
				})
			}
		},
	}
}

// partial is the scratch in which each worker keeps the sums of a tile between terms.
func (s isa) partial(a *args) int { return 4 * a.Workers * s.partialSize() }

// partialSize is a worker's: the sums and, where they have to be rounded, the rows of a part of the depth.
func (s isa) partialSize() int {
	n := up(tileRows, s.mr) * up(s.tc, s.nr)
	if s.per > 1 {
		n += up(tileRows, s.mr)*s.kc + 16 // a vector
	}
	return n
}

// A grid is the tiles of a result. Its rows are in equal shares, each of which is tiled for itself: the last tile
// of a share is what is left.
type grid struct {
	rows, cols         int // of a tile
	rowTiles, colTiles int
	share, each        int // rows of a share, and its tiles over rows
}

// rowsOf is the first row of row tile t, and how many of the result's rows it has: none, perhaps.
func (g grid) rowsOf(t, rows int) (i, n int) {
	i = t/g.each*g.share + t%g.each*g.rows
	return i, min(i+g.rows, (t/g.each+1)*g.share, rows) - i
}

// gridOf makes tiles as large as is useful, but enough of them for the workers, each of which gets a share.
// Blocks of columns are tiled each for itself: tiles counts those of a width.
func (s isa) gridOf(a *args, rows int, tiles func(a *args, width int) int) grid {
	g := grid{rows: up(tileRows, s.mr), cols: up(s.tc, s.nr)}
	for {
		g.rowTiles, g.colTiles = ceil(rows, g.rows), tiles(a, g.cols)
		g.share, g.each = rows, max(1, g.rowTiles)
		switch {
		case a.Workers == 1 || rows == 0:
			return g
		case g.rowTiles*g.colTiles >= 4*a.Workers:
			g.share = up(ceil(rows, a.Workers), s.mr)
			g.each = ceil(g.share, g.rows)
			g.rowTiles = g.each * ceil(rows, g.share)
			return g
		case g.cols > 2*s.nr:
			g.cols = up(g.cols/2, s.nr)
		case min(g.rows, rows) > s.mr:
			g.rows = up(min(g.rows, rows)/2, s.mr)
		default:
			return g
		}
	}
}

func (s isa) gridNT(a *args) grid {
	return s.gridOf(a, a.Src[0].Rows, func(a *args, width int) (n int) {
		for k := range a.I[0] {
			n += ceil(a.Src[1+4*k].Rows, width)
		}
		return n
	})
}

func (s isa) gridNN(a *args) grid {
	return s.gridOf(a, a.Dst[0].Rows, func(a *args, width int) int { return ceil(a.Out[0].Cols, width) })
}

// tileNT computes tile t: it finds the block of columns that it lies in.
func (s isa) tileNT(a *args, g grid, t int) {
	x, y, pre := a.Src[0], a.Dst[0], a.Dst[1]
	i, rows := g.rowsOf(t/g.colTiles, x.Rows)
	if rows <= 0 {
		return
	}
	t %= g.colTiles
	k, col := 0, 0
	for n := ceil(a.Src[1].Rows, g.cols); t >= n; n = ceil(a.Src[1+4*k].Rows, g.cols) {
		col += a.Src[1+4*k].Rows
		t -= n
		k++
	}
	j := t * g.cols // within the block
	w, b, h, u := 1+4*k, a.Src[2+4*k], a.Src[3+4*k], 4+4*k
	c := C.struct_mat{
		m: C.long(rows), n: C.long(min(g.cols, a.Src[w].Rows-j)),
		y: at(y, i, col+j), ldy: C.long(y.Ld), pre: at(pre, i, col+j), ldpre: C.long(pre.Ld),
		gelu: flag(a.I[1] == backend.ActGELU), acc: flag(a.Out[0].Acc), first: 1,
	}
	if !b.Nil() {
		c.bias = at(b, 0, j)
	}
	c.last = flag(h.Nil())
	s.term(a, c, x, i, w, j, x.Cols)
	if !h.Nil() {
		c.first, c.last = 0, 1
		s.term(a, c, h, i, u, j, h.Cols)
	}
}

// tileNN computes tile t.
func (s isa) tileNN(a *args, g grid, t int) {
	dx, pre := a.Dst[0], a.Src[0]
	i, rows := g.rowsOf(t/g.colTiles, dx.Rows)
	if rows <= 0 {
		return
	}
	j := t % g.colTiles * g.cols
	c := C.struct_mat{
		m: C.long(rows), n: C.long(min(g.cols, dx.Cols-j)),
		y: at(dx, i, j), ldy: C.long(dx.Ld), acc: flag(a.Out[0].Acc),
	}
	if a.I[1] == backend.ActGELU {
		c.gate, c.ldgate = at(pre, i, j), C.long(pre.Ld)
	}
	for k := range a.I[0] {
		dy := a.Src[1+2*k]
		c.first, c.last = flag(k == 0), flag(k == a.I[0]-1)
		s.term(a, c, dy, i, 2+2*k, j, dy.Cols)
	}
}

// term adds the product of rows i of x and columns j of the packed input w, of depth k, to a tile.
func (s isa) term(a *args, c C.struct_mat, x mat, i, w, j, k int) {
	c.a, c.lda, c.k = at(x, i, 0), C.long(x.Ld), C.long(k)
	c.b = (*C.float)(&a.Form[w][j*s.words(k)])
	productAt(s, a, C.RUNG_TASK_mat, unsafe.Offsetof(c.part), &c)
}
