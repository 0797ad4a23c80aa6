//go:build cgo && (amd64 || arm64) && unix

package cpu

// #include "kernels.h"
import "C"

import (
	"unsafe"

	"rung/nn/backend"
	"rung/nn/backend/host"
)

// installGroups replaces the products of rows with their own experts.
func (s isa) installGroups(t *host.Kernels[float32]) {
	t[backend.GroupNT] = s.grouped(1, 2, s.groupNT)
	t[backend.GroupNN] = s.grouped(2, 3, s.groupNN)
	t[backend.GroupTN] = s.groupTN()
}

// groupSlots is about how many choices of experts a piece sorts.
const groupSlots = 512

// grouped is a kernel over pieces of rows, each of which it sorts by experts. Inputs w and at are a weight, which is
// transposed first if it is stored so, and the choices.
func (s isa) grouped(w, at int, run func(a *args, lo, hi int)) host.Kernel[float32] {
	rows := func(a *args) int { return max(1, groupSlots/a.In[at].Cols) }
	part := func(a *args) int {
		n := rows(a)
		return up(4*(backend.MaxExperts+1+2*n*a.In[at].Cols)+n, 64)
	}
	return host.Kernel[float32]{
		Scratch: func(a *args) int { return a.Workers * part(a) },
		Forms: &host.Forms[float32]{
			Size: func(a *args, i int) int {
				if i != w || a.I[0] == 0 {
					return 0
				}
				return a.In[w].Rows * a.In[w].Cols
			},
			N: func(*args, int) int { return 1 },
			Pack: func(a *args, i, _, _ int) {
				x := a.Src[i]
				task(s, a, C.RUNG_TASK_transpose, &C.struct_transpose{
					y: (*C.float)(&a.Form[i][0]), x: at0(x), rows: C.long(x.Rows), cols: C.long(x.Cols), ldx: C.long(x.Ld),
				})
			},
		},
		Phases: []host.Phase[float32]{{
			N:      func(a *args) int { return a.Dst[0].Rows },
			Grain:  rows,
			Part:   part,
			Record: run,
		}},
	}
}

// at0 is the address of a matrix.
func at0(m mat) *C.float { return at(m, 0, 0) }

// experts is the weight of all experts as rows, and how many of them there are.
func (s isa) experts(a *args, w, rank int) (p *C.float, ld, n int) {
	m := a.Src[w]
	if a.I[0] == 0 {
		return at0(m), m.Ld, m.Rows / rank
	}
	return (*C.float)(&a.Form[w][0]), m.Rows, m.Cols / rank
}

func (s isa) groupNT(a *args, lo, hi int) {
	h, x, at_ := a.Dst[0], a.Src[0], a.Src[2]
	rank := h.Cols / at_.Cols
	w, ldw, experts := s.experts(a, 1, rank)
	taskAt(s, a, C.RUNG_TASK_group, unsafe.Offsetof(C.struct_group{}.scratch), &C.struct_group{
		h: at(h, lo, 0), x: at(x, lo, 0), w: w, at: at(at_, lo, 0),
		rows: C.long(hi - lo), cols: C.long(x.Cols), k: C.long(at_.Cols), rank: C.long(rank), experts: C.long(experts),
		ldh: C.long(h.Ld), ldx: C.long(x.Ld), ldw: C.long(ldw), ldat: C.long(at_.Ld),
	})
}

func (s isa) groupNN(a *args, lo, hi int) {
	y, plus, h, at_ := a.Dst[0], a.Src[0], a.Src[1], a.Src[3]
	rank := h.Cols / at_.Cols
	w, ldw, experts := s.experts(a, 2, rank)
	taskAt(s, a, C.RUNG_TASK_group, unsafe.Offsetof(C.struct_group{}.scratch), &C.struct_group{
		y: at(y, lo, 0), plus: at(plus, lo, 0), h: at(h, lo, 0), w: w, at: at(at_, lo, 0),
		rows: C.long(hi - lo), cols: C.long(y.Cols), k: C.long(at_.Cols), rank: C.long(rank), experts: C.long(experts),
		ldy: C.long(y.Ld), ldplus: C.long(plus.Ld), ldh: C.long(h.Ld), ldw: C.long(ldw), ldat: C.long(at_.Ld),
		acc: flag(a.Out[0].Acc),
	})
}

// groupTN sorts all rows by experts, then sums by expert, columns and unit.
func (s isa) groupTN() host.Kernel[float32] {
	type shape struct{ k, rank, experts, tiles int }
	of := func(a *args) shape {
		k := a.In[2].Cols
		g := shape{k: k, rank: a.In[0].Cols / k, tiles: ceil(a.In[1].Cols, C.GROUP_COLS)}
		g.experts = a.Out[0].Rows
		if a.I[0] == 1 {
			g.experts = a.Out[0].Cols
		}
		g.experts /= g.rank
		return g
	}
	sums := func(a *args) int { return up(of(a).rank*C.GROUP_COLS, 16) } // elements of a worker's scratch
	lists := func(a *args) (start *C.int32_t, order *C.struct_slot) {
		x := host.Elements[int32](a.Scratch)[a.Workers*sums(a):]
		return (*C.int32_t)(&x[0]), (*C.struct_slot)(unsafe.Pointer(&x[backend.MaxExperts+1]))
	}
	return host.Kernel[float32]{
		Scratch: func(a *args) int {
			return 4 * (a.Workers*sums(a) + backend.MaxExperts + 1 + 2*a.In[2].Rows*a.In[2].Cols)
		},
		Phases: []host.Phase[float32]{
			{
				N: func(*args) int { return 1 },
				Record: func(a *args, _, _ int) {
					g, at_ := of(a), a.Src[2]
					start, order := lists(a)
					task(s, a, C.RUNG_TASK_group_sort, &C.struct_group_sort{
						at: at0(at_), start: start, order: order,
						rows: C.long(at_.Rows), k: C.long(g.k), experts: C.long(g.experts), ldat: C.long(at_.Ld),
					})
				},
			},
			{
				N: func(a *args) int {
					if seg := a.Segments(0, a.In[0].Axis, a.Src[0].Rows); seg.ByUnit() {
						return seg.N // all of a unit are one piece: there are many
					}
					return of(a).experts * of(a).tiles
				},
				Part: func(a *args) int { return 4 * sums(a) },
				Record: func(a *args, lo, hi int) {
					g, h, x := of(a), a.Src[0], a.Src[1]
					seg := a.Segments(0, a.In[0].Axis, h.Rows)
					start, order := lists(a)
					for p := lo; p < hi; p++ {
						u, e, n, col, end := 0, p/g.tiles, p/g.tiles+1, p%g.tiles*C.GROUP_COLS, (p%g.tiles+1)*C.GROUP_COLS
						if seg.ByUnit() {
							u, e, n, col, end = p, 0, g.experts, 0, x.Cols
						}
						dw, from, to := seg.At(u)
						ldq, ldc := dw.Ld, 1
						if a.I[0] == 1 {
							ldq, ldc = 1, dw.Ld
						}
						taskAt(s, a, C.RUNG_TASK_group_tn, unsafe.Offsetof(C.struct_group_tn{}.sums), &C.struct_group_tn{
							h: at0(h), x: at0(x), start: start, order: order, dw: at0(dw),
							expert: C.long(e), experts: C.long(n), rank: C.long(g.rank), from: C.long(from), to: C.long(to),
							col: C.long(col), end: C.long(min(end, x.Cols)),
							ldh: C.long(h.Ld), ldx: C.long(x.Ld), ldq: C.long(ldq), ldc: C.long(ldc), acc: flag(a.Out[0].Acc),
						})
					}
				},
			},
		},
	}
}
