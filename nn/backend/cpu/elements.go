//go:build cgo && (amd64 || arm64) && unix

package cpu

// #include "kernels.h"
import "C"

import (
	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/backend/philox"
)

// installElements replaces what works element by element.
func (s isa) installElements(t *host.Kernels[float32]) {
	for op, how := range map[backend.Op]C.int{
		backend.Add: C.RUNG_ADD, backend.Sub: C.RUNG_SUB, backend.Mul: C.RUNG_MUL, backend.Scale: C.RUNG_SCALE,
		backend.Fill: C.RUNG_FILL, backend.Unary: C.RUNG_UNARY, backend.UnaryGrad: C.RUNG_DERIVATIVE,
	} {
		t[op] = byRows(func(a *args, lo, hi int) { s.elements(a, how, lo, hi) })
	}
	t[backend.AddTo] = byRows(s.addTo)
	t[backend.Dropout] = byRows(s.dropout)
}

// elements computes rows lo to hi of the result from up to three inputs.
func (s isa) elements(a *args, how C.int, lo, hi int) {
	y := a.Dst[0]
	c := C.struct_elements{
		y: at(y, lo, 0), ldy: C.long(y.Ld), rows: C.long(hi - lo), cols: C.long(y.Cols),
		how: how, _func: C.int(a.I[0]), f: C.float(a.F[0]), acc: flag(a.Out[0].Acc),
	}
	for k, in := range a.Src {
		switch k {
		case 0:
			c.a, c.lda = at(in, lo, 0), C.long(in.Ld)
		case 1:
			c.b, c.ldb = at(in, lo, 0), C.long(in.Ld)
		case 2:
			c.c, c.ldc = at(in, lo, 0), C.long(in.Ld)
		}
	}
	task(s, a, C.RUNG_TASK_elements, &c)
}

// addTo is y += x.
func (s isa) addTo(a *args, lo, hi int) {
	y, x := a.Dst[0], a.Src[0]
	task(s, a, C.RUNG_TASK_elements, &C.struct_elements{
		y: at(y, lo, 0), ldy: C.long(y.Ld), a: at(y, lo, 0), lda: C.long(y.Ld), b: at(x, lo, 0), ldb: C.long(x.Ld),
		rows: C.long(hi - lo), cols: C.long(y.Cols), how: C.RUNG_ADD,
	})
}

func (s isa) mulCols(a *args, lo, hi int) {
	y, x := a.Dst[0], a.Src[0]
	task(s, a, C.RUNG_TASK_mul_cols, &C.struct_mul_cols{
		y: at(y, lo, 0), x: at(x, lo, 0), g: at(a.Src[1], 0, 0), c: at(a.Src[2], 0, 0), b: at(a.Src[3], 0, 0),
		rows: C.long(hi - lo), cols: C.long(y.Cols), ldy: C.long(y.Ld), ldx: C.long(x.Ld), acc: flag(a.Out[0].Acc),
	})
}

// mulSums is rows lo to hi of c Σ x dy.
func (s isa) mulSums(a *args, lo, hi int, dg mat) {
	x, dy := a.Src[0], a.Src[1]
	c := C.struct_mul_sums{
		dg: at(dg, 0, 0), c: at(a.Src[2], 0, 0), rows: C.long(hi - lo), cols: C.long(x.Cols), ldx: C.long(x.Ld), lddy: C.long(dy.Ld),
		acc: accumulates(a, 0, a.In[0].Axis),
	}
	if lo < hi {
		c.x, c.dy = at(x, lo, 0), at(dy, lo, 0)
	}
	task(s, a, C.RUNG_TASK_mul_sums, &c)
}

// dropOf is the dropout of a sequence's key at a site.
func dropOf(a *args, key int32, site int) C.struct_drop {
	d := C.struct_drop{
		seed: C.uint64_t(a.S.Seed), step: C.uint32_t(a.S.Step), key: C.uint32_t(key), site: C.uint32_t(site),
		cut: C.uint32_t(philox.Threshold(a.F[0])), on: 1,
	}
	if a.F[0] < 1 {
		d.keep = C.float(1 / (1 - a.F[0]))
	}
	return d
}

func (s isa) dropout(a *args, lo, hi int) {
	x, y := a.Src[0], a.Dst[0]
	c := C.struct_dropout{
		y: at(y, lo, 0), x: at(x, lo, 0), ldy: C.long(y.Ld), ldx: C.long(x.Ld), keys: ints(a.Int[1], 0),
		rows: C.long(hi - lo), cols: C.long(x.Cols), row: C.long(lo), acc: flag(a.Out[0].Acc), drop: dropOf(a, 0, a.I[0]),
	}
	if len(a.Int) > 2 && a.Int[2] != nil {
		c.seqs, c.pos = ints(a.Int[2], lo), ints(a.Int[3], lo)
	}
	task(s, a, C.RUNG_TASK_dropout, &c)
}
