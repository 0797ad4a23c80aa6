//go:build cgo && (amd64 || arm64) && unix

package cpu

// #include "kernels.h"
import "C"

import (
	"fmt"
	"unsafe"

	"rung/nn/backend"
	"rung/nn/backend/host"
)

// installRows replaces what works on rows.
func (s isa) installRows(t *host.Kernels[float32]) {
	t[backend.Norm] = s.norm()
	t[backend.NormDX] = byRows(s.normDX)
	t[backend.NormDG] = s.columnSums(2, 0, func(a *args, lo, hi int, dg, db mat) { s.normSums(a, lo, hi, dg, db) })
	t[backend.ColSum] = s.columnSums(1, 0, func(a *args, lo, hi int, db, _ mat) { s.sums(a, lo, hi, db) })
	t[backend.MulCols] = byRows(s.mulCols)
	t[backend.MulColsDG] = s.columnSums(1, 0, func(a *args, lo, hi int, dg, _ mat) { s.mulSums(a, lo, hi, dg) })
	t[backend.Embed] = byRows(s.embed)
	t[backend.EmbedGrad] = s.embedGrad()
	t[backend.Mean] = byRows(func(a *args, lo, hi int) { s.sumSequences(a, lo, hi, true) })
	t[backend.MeanGrad] = bySequences(1, func(a *args, lo, hi int) { s.toSequences(a, lo, hi, true) })
	t[backend.SpreadGrad] = byRows(func(a *args, lo, hi int) { s.sumSequences(a, lo, hi, false) })
	t[backend.Spread] = bySequences(1, func(a *args, lo, hi int) { s.toSequences(a, lo, hi, false) })
	t[backend.Max] = s.max()
	t[backend.MaxGrad] = bySequences(2, s.maxGrad)
}

// norm goes over rows twice; a worker keeps a row where its result is dead.
func (s isa) norm() host.Kernel[float32] {
	return host.Kernel[float32]{
		Scratch: func(a *args) int { return 4 * a.Workers * a.In[0].Cols },
		Phases: []host.Phase[float32]{{
			N:      func(a *args) int { return a.Src[0].Rows },
			Grain:  func(a *args) int { return max(1, work/a.In[0].Cols) },
			Part:   func(a *args) int { return 4 * a.In[0].Cols },
			Record: s.normRows,
		}},
	}
}

func (s isa) normRows(a *args, lo, hi int) {
	y, mean, rstd, sum, x, res := a.Dst[0], a.Dst[1], a.Dst[2], a.Dst[3], a.Src[0], a.Src[1]
	taskAt(s, a, C.RUNG_TASK_norm, unsafe.Offsetof(C.struct_norm{}.row), &C.struct_norm{
		y: at(y, lo, 0), mean: at(mean, lo, 0), rstd: at(rstd, lo, 0), sum: at(sum, lo, 0),
		x: at(x, lo, 0), res: at(res, lo, 0), g: at(a.Src[2], 0, 0), b: at(a.Src[3], 0, 0),
		rows: C.long(hi - lo), cols: C.long(x.Cols), ldy: C.long(y.Ld), ldmean: C.long(mean.Ld), ldrstd: C.long(rstd.Ld),
		ldsum: C.long(sum.Ld), ldx: C.long(x.Ld), ldres: C.long(res.Ld), eps: C.double(a.F[0]),
	})
}

func (s isa) normDX(a *args, lo, hi int) {
	dx, x, mean, rstd, dy := a.Dst[0], a.Src[0], a.Src[1], a.Src[2], a.Src[4]
	task(s, a, C.RUNG_TASK_norm_dx, &C.struct_norm_dx{
		dx: at(dx, lo, 0), s: at(x, lo, 0), mean: at(mean, lo, 0), rstd: at(rstd, lo, 0), g: at(a.Src[3], 0, 0), dy: at(dy, lo, 0),
		rows: C.long(hi - lo), cols: C.long(dx.Cols), lddx: C.long(dx.Ld), lds: C.long(x.Ld),
		ldmean: C.long(mean.Ld), ldrstd: C.long(rstd.Ld), lddy: C.long(dy.Ld), acc: flag(a.Out[0].Acc),
	})
}

// sumRows is the rows of a part of a sum over rows. Parts are added in order: neither their number nor
// their bounds depend on the workers.
const sumRows = 128

// columnSums is sums of rows of input in into n results of one row: by unit, or by parts of the rows
// into scratch, which a second phase adds.
func (s isa) columnSums(n, in int, run func(a *args, lo, hi int, x, y mat)) host.Kernel[float32] {
	segments := func(a *args) host.Segments[float32] {
		k := 0
		if a.Out[0].Dead() && n > 1 {
			k = 1
		}
		return a.Segments(k, a.In[in].Axis, a.Src[in].Rows)
	}
	partial := func(a *args, k, p int) mat {
		cols := a.In[in].Cols
		if a.Out[k].Dead() {
			return mat{}
		}
		return mat{D: host.Elements[float32](a.Scratch)[(k*ceil(a.In[in].Rows, sumRows)+p)*cols:], Rows: 1, Cols: cols, Ld: cols}
	}
	return host.Kernel[float32]{
		Scratch: func(a *args) int { return 4 * n * ceil(a.In[in].Rows, sumRows) * a.In[in].Cols },
		Phases: []host.Phase[float32]{
			{
				N: func(a *args) int {
					if seg := segments(a); seg.ByUnit() {
						return seg.N
					}
					return ceil(a.Src[in].Rows, sumRows)
				},
				Record: func(a *args, lo, hi int) {
					seg := segments(a)
					for p := lo; p < hi; p++ {
						if !seg.ByUnit() {
							x, y := partial(a, 0, p), mat{}
							if n > 1 {
								y = partial(a, 1, p)
							}
							run(a, p*sumRows, min((p+1)*sumRows, a.Src[in].Rows), x, y)
							continue
						}
						var out [2]mat
						from, to := 0, 0
						for k := range n {
							if !a.Out[k].Dead() {
								seg := a.Segments(k, a.In[in].Axis, a.Src[in].Rows)
								out[k], from, to = seg.At(p)
							}
						}
						run(a, from, to, out[0], out[1])
					}
				},
			},
			{
				N: func(a *args) int {
					if seg := segments(a); seg.ByUnit() {
						return 0
					}
					return n
				},
				Record: func(a *args, lo, hi int) {
					for k := lo; k < hi; k++ {
						if !a.Out[k].Dead() {
							s.addSums(a, k, ceil(a.Src[in].Rows, sumRows), partial(a, k, 0))
						}
					}
				},
			},
		},
	}
}

// addSums adds the parts of result k.
func (s isa) addSums(a *args, k, parts int, first mat) {
	out := a.Dst[k]
	var old *C.float
	if a.Out[k].Acc {
		old = at(out, 0, 0)
	}
	if parts == 0 {
		if !a.Out[k].Acc {
			clear(out.Row(0))
		}
		return
	}
	task(s, a, C.RUNG_TASK_add_parts, &C.struct_add_parts{
		y: at(out, 0, 0), old: old, x: at(first, 0, 0), n: C.long(out.Cols), parts: C.long(parts), stride: C.long(first.Cols),
	})
}

// accumulates reports that rows are added to what result k holds: not where it is scratch.
func accumulates(a *args, k int, axis backend.Axis) C.int {
	seg := a.Segments(k, axis, 0)
	return flag(a.Out[k].Acc && seg.ByUnit())
}

// normSums is rows lo to hi of dg and db.
func (s isa) normSums(a *args, lo, hi int, dg, db mat) {
	x, mean, rstd, dy := a.Src[0], a.Src[1], a.Src[2], a.Src[3]
	c := C.struct_column_sums{
		dg: at(dg, 0, 0), db: at(db, 0, 0), rows: C.long(hi - lo), cols: C.long(x.Cols),
		lddy: C.long(dy.Ld), lds: C.long(x.Ld), ldmean: C.long(mean.Ld), ldrstd: C.long(rstd.Ld),
		acc_dg: accumulates(a, 0, a.In[0].Axis), acc_db: accumulates(a, 1, a.In[0].Axis),
	}
	if lo < hi {
		c.dy, c.s, c.mean, c.rstd = at(dy, lo, 0), at(x, lo, 0), at(mean, lo, 0), at(rstd, lo, 0)
	}
	task(s, a, C.RUNG_TASK_column_sums, &c)
}

// sums is the sum of rows lo to hi.
func (s isa) sums(a *args, lo, hi int, db mat) {
	dy := a.Src[0]
	c := C.struct_column_sums{db: at(db, 0, 0), rows: C.long(hi - lo), cols: C.long(dy.Cols), lddy: C.long(dy.Ld), acc_db: accumulates(a, 0, a.In[0].Axis)}
	if lo < hi {
		c.dy = at(dy, lo, 0)
	}
	task(s, a, C.RUNG_TASK_column_sums, &c)
}

// inTable panics if an id is none: the executor makes that the error of the call.
func inTable(a *args, what string, ids []int32, rows int) {
	for i, id := range ids {
		if uint(id) >= uint(rows) {
			panic(fmt.Sprintf("%s %d at row %d of %s: the table has %d rows", what, id, i, a.Node, rows))
		}
	}
}

func (s isa) embed(a *args, lo, hi int) {
	y, w, p, t := a.Dst[0], a.Src[3], a.Src[4], a.Src[5]
	inTable(a, "id", a.Int[0][lo:hi], w.Rows)
	inTable(a, "position", a.Int[1][lo:hi], p.Rows)
	c := C.struct_embed{
		y: at(y, lo, 0), word: at(w, 0, 0), position: at(p, 0, 0), _type: at(t, 0, 0),
		ids: ints(a.Int[0], lo), pos: ints(a.Int[1], lo),
		rows: C.long(hi - lo), cols: C.long(y.Cols), ldy: C.long(y.Ld), ldword: C.long(w.Ld), ldposition: C.long(p.Ld), ldtype: C.long(t.Ld),
	}
	if !t.Nil() {
		inTable(a, "type", a.Int[2][lo:hi], t.Rows)
		c.types = ints(a.Int[2], lo)
	}
	task(s, a, C.RUNG_TASK_embed, &c)
}

func ints(x []int32, i int) *C.int32_t { return (*C.int32_t)(&x[i]) }

// embedCols is the columns of a table's gradient that one worker sums: ids repeat, so that rows
// cannot be split.
const embedCols = 64

// embedGrad clears the table where it is not added to, then adds rows.
func (s isa) embedGrad() host.Kernel[float32] {
	return host.Kernel[float32]{Marks: true, Phases: []host.Phase[float32]{
		{
			N: func(a *args) int {
				if a.Out[0].Acc {
					return 0
				}
				return a.Out[0].Rows
			},
			Grain: func(a *args) int { return max(1, work/a.Out[0].Cols) },
			Run: func(a *args, lo, hi int) {
				seg := a.Segments(0, a.In[1].Axis, a.Src[1].Rows)
				for u := range seg.N {
					out, _, _ := seg.At(u)
					for i := lo; i < hi; i++ {
						clear(out.Row(i))
					}
				}
			},
		},
		{
			N: func(a *args) int { return ceil(a.Out[0].Cols, embedCols) },
			Record: func(a *args, lo, hi int) {
				dy, j, end := a.Src[1], lo*embedCols, min(hi*embedCols, a.Out[0].Cols)
				seg := a.Segments(0, a.In[1].Axis, dy.Rows)
				for u := range seg.N {
					out, from, to := seg.At(u)
					if from == to {
						continue
					}
					inTable(a, "id", a.Int[0][from:to], out.Rows)
					if lo == 0 {
						for _, id := range a.Int[0][from:to] { // tracked memory has no units
							a.OutPages[0].Use(int(id)*out.Ld, out.Cols)
						}
					}
					task(s, a, C.RUNG_TASK_embed_grad, &C.struct_embed_grad{
						table: at(out, 0, j), dy: at(dy, from, j), ids: ints(a.Int[0], from),
						rows: C.long(to - from), cols: C.long(end - j), ldtable: C.long(out.Ld), lddy: C.long(dy.Ld),
					})
				}
			},
		},
	}}
}

// bySequences is a kernel of one phase over the sequences that offsets, input in, describe.
func bySequences(in int, run func(a *args, lo, hi int)) host.Kernel[float32] {
	return host.Kernel[float32]{Phases: []host.Phase[float32]{{
		N:      func(a *args) int { return min(a.In[in].Cols-1, a.S.Count[backend.Seq]) },
		Record: run,
	}}}
}

// part is what a row counts in what is made of n: 1/n in a mean.
func part(n int, mean bool) C.float {
	if mean {
		return 1 / C.float(n)
	}
	return 1
}

// sumSequences is the sums or means of the rows of sequences.
func (s isa) sumSequences(a *args, lo, hi int, mean bool) {
	y, x, offs := a.Dst[0], a.Src[0], a.Int[1]
	for n := lo; n < hi; n++ {
		from, to := int(offs[n]), int(offs[n+1])
		if from == to { // the offset may be the capacity
			clear(y.Row(n))
			continue
		}
		task(s, a, C.RUNG_TASK_sum_rows, &C.struct_sum_rows{
			y: at(y, n, 0), x: at(x, from, 0), rows: C.long(to - from), cols: C.long(x.Cols), ldx: C.long(x.Ld), f: part(to-from, mean),
		})
	}
}

// toSequences gives each row of a sequence the sequence's own, or its part of it.
func (s isa) toSequences(a *args, lo, hi int, mean bool) {
	dx, dy, offs := a.Dst[0], a.Src[0], a.Int[1]
	for n := lo; n < hi; n++ {
		from, to := int(offs[n]), int(offs[n+1])
		if from == to {
			continue
		}
		task(s, a, C.RUNG_TASK_elements, &C.struct_elements{ // the row of dy, again and again
			y: at(dx, from, 0), ldy: C.long(dx.Ld), a: at(dy, n, 0), rows: C.long(to - from), cols: C.long(dx.Cols),
			how: C.RUNG_SCALE, f: part(to-from, mean),
		})
	}
}

// maxCols is the columns of a piece: the widest matrices are scores of a vocabulary.
const maxCols = 2048

func (s isa) max() host.Kernel[float32] {
	return host.Kernel[float32]{Phases: []host.Phase[float32]{{
		N: func(a *args) int {
			return min(a.In[1].Cols-1, a.S.Count[backend.Seq]) * ceil(a.In[0].Cols, maxCols)
		},
		Record: func(a *args, lo, hi int) {
			y, where, x, offs := a.Dst[0], a.Dst[1], a.Src[0], a.Int[1]
			pieces := ceil(x.Cols, maxCols)
			for p := lo; p < hi; p++ {
				n, j := p/pieces, p%pieces*maxCols
				from, to, cols := int(offs[n]), int(offs[n+1]), min(maxCols, x.Cols-j)
				if from == to {
					for _, m := range [...]mat{y, where} {
						if !m.Nil() {
							clear(m.Row(n)[j : j+cols])
						}
					}
					continue
				}
				task(s, a, C.RUNG_TASK_max_rows, &C.struct_max_rows{
					y: at(y, n, j), at: at(where, n, j), x: at(x, from, j), rows: C.long(to - from), cols: C.long(cols), ldx: C.long(x.Ld),
				})
			}
		},
	}}}
}

func (s isa) maxGrad(a *args, lo, hi int) {
	dx, dy, where, offs := a.Dst[0], a.Src[0], a.Src[1], a.Int[2]
	for n := lo; n < hi; n++ {
		from, to := int(offs[n]), int(offs[n+1])
		if from == to {
			continue
		}
		task(s, a, C.RUNG_TASK_max_grad, &C.struct_max_grad{
			dx: at(dx, from, 0), dy: at(dy, n, 0), at: at(where, n, 0), rows: C.long(to - from), cols: C.long(dx.Cols), lddx: C.long(dx.Ld),
		})
	}
}
