//go:build cgo && (amd64 || arm64) && unix

package cpu

// #include "kernels.h"
import "C"

import (
	"unsafe"

	"rung/nn/backend/host"
)

// The greatest tile of a weight's gradient. It is larger than a tile of a matmul over rows, because
// both factors are packed for it. More workers have smaller ones: that changes no bit.
const (
	gradRows = 384
	gradCols = 384
)

// A tnGrid is the tiles of one gradient and the parts of its rows.
type tnGrid struct{ o, i, down, across, units, parts int }

// tnGrid splits a gradient until each worker has a tile, and no further: half a tile packs more than half.
func (s isa) tnGrid(a *args) tnGrid {
	dw, rows := a.Dst[0], a.Src[0].Rows
	g := tnGrid{o: up(min(gradRows, dw.Rows), s.mr), i: up(min(gradCols, dw.Cols), s.nr), parts: 1}
	seg := a.Segments(0, a.In[0].Axis, rows)
	g.units = seg.N
	if !seg.ByUnit() {
		g.parts = tnParts(dw.Rows, dw.Cols, rows)
	}
	for {
		g.down, g.across = ceil(dw.Rows, g.o), ceil(dw.Cols, g.i)
		switch {
		case a.Workers == 1 || g.down*g.across*g.units*g.parts >= a.Workers:
			return g
		case g.i >= g.o && g.i > 96:
			g.i = up(g.i/2, s.nr)
		case g.o > 96:
			g.o = up(g.o/2, s.mr)
		default:
			return g
		}
	}
}

// tnParts is how many parts rows are split in where the result has few tiles; their sums are added in
// order. It depends on the shape alone. A small result has more: it costs little to keep one for each.
func tnParts(o, i, rows int) int {
	if o*i <= 1<<14 {
		return max(1, min(32, rows/256))
	}
	return max(1, min(ceil(8, ceil(o, gradRows)*ceil(i, gradCols)), rows/1024))
}

// packedSize is a worker's scratch: rows of both factors, and what the last store runs over.
func (s isa) packedSize() int {
	return s.kt*(up(gradCols, s.nr)+up(gradRows, s.mr)) + 64
}

// matTN is dw = dyT x, by tiles of the result and, where that is small, parts of the rows.
func (s isa) matTN() host.Kernel[float32] {
	return host.Kernel[float32]{
		Scratch: func(a *args) int {
			dw := a.Out[0]
			return 4 * (a.Workers*s.packedSize() + tnParts(dw.Rows, dw.Cols, a.In[0].Rows)*dw.Rows*dw.Cols)
		},
		Phases: []host.Phase[float32]{
			{
				N: func(a *args) int {
					g := s.tnGrid(a)
					return g.down * g.across * g.units * g.parts
				},
				Part: func(*args) int { return 4 * s.packedSize() },
				Record: func(a *args, lo, hi int) {
					g := s.tnGrid(a)
					for t := lo; t < hi; t++ {
						s.tileTN(a, g, t)
					}
				},
			},
			{
				N: func(a *args) int { // rows of the result that have parts to be added
					if s.tnGrid(a).parts == 1 {
						return 0
					}
					return a.Dst[0].Rows
				},
				Grain:  func(*args) int { return 8 },
				Record: s.addParts,
			},
		},
	}
}

// tileTN computes tile t of one unit, or of one part of the rows.
func (s isa) tileTN(a *args, g tnGrid, t int) {
	dy, x := a.Src[0], a.Src[1]
	o, i, rest := t%g.down*g.o, t/g.down%g.across*g.i, t/(g.down*g.across)
	unit, p := rest/g.parts, rest%g.parts
	seg := a.Segments(0, a.In[0].Axis, dy.Rows)
	dw, from, to := seg.At(unit)
	acc := a.Out[0].Acc
	if g.parts > 1 {
		dw, acc = s.partTN(a, p), false
		from, to = p*dy.Rows/g.parts, (p+1)*dy.Rows/g.parts
	}
	c := C.struct_mat_tn{
		dw: at(dw, o, i), lddw: C.long(dw.Ld), lddy: C.long(dy.Ld), ldx: C.long(x.Ld),
		m: C.long(min(g.o, dw.Rows-o)), n: C.long(min(g.i, dw.Cols-i)), rows: C.long(to - from), acc: flag(acc),
	}
	if to > from { // the first row of an empty unit may be the capacity
		c.dy, c.x = at(dy, from, o), at(x, from, i)
	}
	productAt(s, a, C.RUNG_TASK_mat_tn, unsafe.Offsetof(c.packed), &c)
}

// partTN is the sum of part p of the rows, in scratch.
func (s isa) partTN(a *args, p int) mat {
	rows, cols := a.Dst[0].Rows, a.Dst[0].Cols
	all := host.Elements[float32](a.Scratch)[a.Workers*s.packedSize():]
	return mat{D: all[p*rows*cols:], Rows: rows, Cols: cols, Ld: cols}
}

func (s isa) addParts(a *args, lo, hi int) {
	parts := s.tnGrid(a).parts
	for r := lo; r < hi; r++ {
		dw := a.Dst[0]
		var old *C.float
		if a.Out[0].Acc {
			old = at(dw, r, 0)
		}
		task(s, a, C.RUNG_TASK_add_parts, &C.struct_add_parts{
			y: at(dw, r, 0), old: old, x: at(s.partTN(a, 0), r, 0),
			n: C.long(dw.Cols), parts: C.long(parts), stride: C.long(dw.Rows * dw.Cols),
		})
	}
}
