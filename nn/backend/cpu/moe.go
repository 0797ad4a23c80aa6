//go:build cgo && (amd64 || arm64) && unix

package cpu

// #include "kernels.h"
import "C"

import (
	"unsafe"

	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/backend/ref"
)

// installMixtures replaces what mixtures of experts have for themselves. Assign, which writes what it reads, is
// ref's.
func (s isa) installMixtures(t *host.Kernels[float32]) {
	t[backend.Route] = inLanes(func(a *args) int { return 2*a.In[0].Cols + 4*a.In[0].Cols*a.I[2] }, s.route)
	t[backend.RouteGrad] = byRows(s.routeGrad)
	t[backend.GateMul] = byRows(s.gateMul)
	t[backend.GateMulGrad] = host.Kernel[float32]{Phases: []host.Phase[float32]{{
		N:      func(a *args) int { return a.Src[2].Rows },
		Grain:  func(a *args) int { return max(1, work/a.In[2].Cols) },
		Record: s.gateMulGrad,
	}}}
	t[backend.Load] = s.load()
	t[backend.Balance] = s.balance()
	t[backend.Broadcast] = byRows(s.broadcast)
	t[backend.ZLoss] = s.zLoss()
	t[backend.ZLossGrad] = inLanes(columnsOf, s.zLossGrad)
}

// laneBytes is the bytes of a vector, of any instruction set, whose lanes are rows.
const laneBytes = 64

// columnsOf is a vector for each column of input 0.
func columnsOf(a *args) int { return a.In[0].Cols }

// inLanes is a kernel of one phase over the rows of input 0, with a worker's scratch of so many vectors.
func inLanes(vectors func(a *args) int, run func(a *args, lo, hi int)) host.Kernel[float32] {
	return host.Kernel[float32]{
		Scratch: func(a *args) int { return laneBytes * a.Workers * vectors(a) },
		Phases: []host.Phase[float32]{{
			N:      func(a *args) int { return a.Src[0].Rows },
			Grain:  func(*args) int { return sumRows },
			Part:   func(a *args) int { return laneBytes * vectors(a) },
			Record: run,
		}},
	}
}

func (s isa) route(a *args, lo, hi int) {
	y, where, z := a.Dst[0], a.Dst[1], a.Src[0]
	taskAt(s, a, C.RUNG_TASK_route, unsafe.Offsetof(C.struct_route{}.lanes), &C.struct_route{
		y: at(y, lo, 0), at: at(where, lo, 0), z: at(z, lo, 0), bias: at(a.Src[1], 0, 0),
		rows: C.long(hi - lo), cols: C.long(z.Cols), ldy: C.long(y.Ld), ldat: C.long(where.Ld), ldz: C.long(z.Ld),
		k: C.int(a.I[0]), each: C.int(a.I[2]), sigmoid: flag(a.I[1] == backend.RouteSigmoid),
	})
}

func (s isa) routeGrad(a *args, lo, hi int) {
	dz, y, where, dy := a.Dst[0], a.Src[0], a.Src[1], a.Src[3]
	task(s, a, C.RUNG_TASK_route_grad, &C.struct_route_grad{
		dz: at(dz, lo, 0), y: at(y, lo, 0), at: at(where, lo, 0), bias: at(a.Src[2], 0, 0), dy: at(dy, lo, 0),
		rows: C.long(hi - lo), cols: C.long(dz.Cols), lddz: C.long(dz.Ld), ldy: C.long(y.Ld), ldat: C.long(where.Ld), lddy: C.long(dy.Ld),
		k: C.int(a.I[0]), each: C.int(a.I[2]), sigmoid: flag(a.I[1] == backend.RouteSigmoid),
	})
}

func (s isa) gateMul(a *args, lo, hi int) {
	y, h, g := a.Dst[0], a.Src[0], a.Src[1]
	task(s, a, C.RUNG_TASK_gate_mul, &C.struct_gate_mul{
		y: at(y, lo, 0), h: at(h, lo, 0), g: at(g, lo, 0),
		rows: C.long(hi - lo), experts: C.long(g.Cols), rank: C.long(y.Cols / g.Cols), ldy: C.long(y.Ld), ldh: C.long(h.Ld), ldg: C.long(g.Ld),
		by: C.float(a.F[0]), shared: flag(h.Cols < y.Cols),
	})
}

func (s isa) gateMulGrad(a *args, lo, hi int) {
	dh, dg, h, g, dy := a.Dst[0], a.Dst[1], a.Src[0], a.Src[1], a.Src[2]
	task(s, a, C.RUNG_TASK_gate_mul_grad, &C.struct_gate_mul_grad{
		dh: at(dh, lo, 0), dg: at(dg, lo, 0), h: at(h, lo, 0), g: at(g, lo, 0), dy: at(dy, lo, 0),
		rows: C.long(hi - lo), experts: C.long(g.Cols), rank: C.long(dy.Cols / g.Cols),
		lddh: C.long(dh.Ld), lddg: C.long(dg.Ld), ldh: C.long(h.Ld), ldg: C.long(g.Ld), lddy: C.long(dy.Ld),
		by: C.float(a.F[0]), shared: flag(h.Cols < dy.Cols),
	})
}

// broadcast multiplies v as a row that is the same again and again.
func (s isa) broadcast(a *args, lo, hi int) {
	y := a.Dst[0]
	task(s, a, C.RUNG_TASK_elements, &C.struct_elements{
		y: at(y, lo, 0), ldy: C.long(y.Ld), a: at(a.Src[0], 0, 0), rows: C.long(hi - lo), cols: C.long(y.Cols),
		how: C.RUNG_SCALE, f: C.float(a.Src[1].D[0]),
	})
}

// inParts is a kernel that sums n float64 of rows of input 0, sumRows of them at a time as in columnSums: record
// has a task write the sums of rows lo to hi, with scratch of so many vectors, and end gets the total.
func inParts(n, vectors func(a *args) int, record func(a *args, lo, hi int, sums []float64), end func(a *args, sums []float64)) host.Kernel[float32] {
	own := func(a *args) int { return laneBytes * vectors(a) }
	part := func(a *args, p int) []float64 {
		return host.Elements[float64](a.Scratch[own(a)*a.Workers:])[p*n(a) : (p+1)*n(a)]
	}
	return host.Kernel[float32]{
		Scratch: func(a *args) int { return own(a)*a.Workers + 8*n(a)*max(1, ceil(a.In[0].Rows, sumRows)) },
		Phases: []host.Phase[float32]{
			{
				N:    func(a *args) int { return ceil(a.Src[0].Rows, sumRows) },
				Part: own,
				Record: func(a *args, lo, hi int) {
					for p := lo; p < hi; p++ {
						record(a, p*sumRows, min((p+1)*sumRows, a.Src[0].Rows), part(a, p))
					}
				},
			},
			{N: func(*args) int { return 1 }, Run: func(a *args, _, _ int) {
				total := part(a, 0)
				if a.Src[0].Rows == 0 {
					clear(total)
				}
				for p := 1; p < ceil(a.Src[0].Rows, sumRows); p++ {
					for i, v := range part(a, p) {
						total[i] += v
					}
				}
				end(a, total)
			}},
		},
	}
}

// load sums up choices and, last, the entropy.
func (s isa) load() host.Kernel[float32] {
	experts := func(a *args) int { return a.Out[0].Cols }
	return inParts(func(a *args) int { return experts(a) + 1 }, func(a *args) int { return a.In[1].Cols },
		func(a *args, lo, hi int, sums []float64) {
			where, p := a.Src[0], a.Src[1]
			c := C.struct_tally{
				at: at(where, lo, 0), x: at(p, lo, 0), rows: C.long(hi - lo), k: C.long(where.Cols), experts: C.long(experts(a)),
				cols: C.long(p.Cols), ldat: C.long(where.Ld), ldx: C.long(p.Ld),
			}
			if !a.Dst[0].Nil() {
				c.chosen = doubles(sums)
			}
			if sums[experts(a)] = 0; !a.Dst[1].Nil() && !p.Nil() {
				c.entropy = doubles(sums[experts(a):])
			}
			taskAt(s, a, C.RUNG_TASK_tally, unsafe.Offsetof(c.lanes), &c)
		},
		func(a *args, sums []float64) {
			where, mean := a.Src[0], float32(0)
			if a.I[0] == 1 {
				mean = float32(where.Rows*where.Cols) / float32(experts(a))
			}
			if n := a.Dst[0]; !n.Nil() {
				for e := range n.Row(0) {
					n.Row(0)[e] = float32(sums[e]) - mean
				}
			}
			if h := a.Dst[1]; !h.Nil() {
				h.Row(0)[0] = float32(sums[experts(a)] / float64(max(1, where.Rows)))
			}
		})
}

// balance sums up columns and, after them, choices.
func (s isa) balance() host.Kernel[float32] {
	none := func(*args) int { return 0 }
	return inParts(func(a *args) int { return 2 * a.In[0].Cols }, none,
		func(a *args, lo, hi int, sums []float64) {
			x, where := a.Src[0], a.Src[1]
			c := C.struct_tally{
				sums: doubles(sums), x: at(x, lo, 0), rows: C.long(hi - lo), experts: C.long(x.Cols), cols: C.long(x.Cols), ldx: C.long(x.Ld),
			}
			if a.I[0] != backend.BalanceCV {
				c.chosen, c.at, c.k, c.ldat = doubles(sums[x.Cols:]), at(where, lo, 0), C.long(where.Cols), C.long(where.Ld)
			}
			if a.I[0] == backend.BalanceFirst {
				c.k = min(1, c.k)
			}
			task(s, a, C.RUNG_TASK_tally, &c)
		},
		func(a *args, sums []float64) {
			var derivative [backend.MaxExperts]float64
			experts := a.In[0].Cols
			by := derivative[:experts]
			total := ref.Balanced(a.I[0], a.F[0], a.Src[0].Rows, sums[:experts], sums[experts:], by)
			if y := a.Dst[0]; !y.Nil() {
				y.Row(0)[0] = float32(total)
			}
			if c := a.Dst[1]; !c.Nil() {
				for e, v := range by {
					c.Row(0)[e] = float32(v)
				}
			}
		})
}

func (s isa) zLoss() host.Kernel[float32] {
	return inParts(func(*args) int { return 1 }, columnsOf,
		func(a *args, lo, hi int, sums []float64) {
			z := a.Src[0]
			taskAt(s, a, C.RUNG_TASK_z_loss, unsafe.Offsetof(C.struct_z_loss{}.lanes), &C.struct_z_loss{
				sum: doubles(sums), z: at(z, lo, 0), rows: C.long(hi - lo), cols: C.long(z.Cols), ldz: C.long(z.Ld),
			})
		},
		func(a *args, sums []float64) {
			a.Dst[0].Row(0)[0] = float32(a.F[0] * sums[0] / float64(max(1, a.Src[0].Rows)))
		})
}

func (s isa) zLossGrad(a *args, lo, hi int) {
	dz, z := a.Dst[0], a.Src[0]
	taskAt(s, a, C.RUNG_TASK_z_loss, unsafe.Offsetof(C.struct_z_loss{}.lanes), &C.struct_z_loss{
		dz: at(dz, lo, 0), z: at(z, lo, 0), rows: C.long(hi - lo), cols: C.long(z.Cols), lddz: C.long(dz.Ld), ldz: C.long(z.Ld),
		f: C.float(a.F[0] * 2 / float64(max(1, z.Rows)) * float64(a.Src[1].D[0])),
	})
}

func doubles(x []float64) *C.double { return (*C.double)(&x[0]) }
