//go:build cgo && (amd64 || arm64) && unix

package cpu

// #include "kernels.h"
import "C"

import (
	"math"

	"rung/nn/backend"
	"rung/nn/backend/host"
)

// installUpdates replaces the updates of weights.
func (s isa) installUpdates(t *host.Kernels[float32]) {
	vector := func(run func(a *args, lo, hi int)) host.Kernel[float32] {
		return host.Kernel[float32]{Phases: []host.Phase[float32]{{
			N:     func(a *args) int { return a.Out[0].Cols },
			Grain: func(*args) int { return work },
			Record: func(a *args, lo, hi int) {
				if f := a.Src[1].D[0]; f == f { // NaN: the update changes nothing
					run(a, lo, hi)
				}
			},
		}}}
	}
	t[backend.AdamW] = vector(s.adamW)
	t[backend.AdamW].Marks = true
	t[backend.SGD] = vector(s.sgd)
	t[backend.Shrink] = vector(s.shrink)
	t[backend.SumSq] = s.sumSq()
}

// adamW is what package ref has, operation by operation.
func (s isa) adamW(a *args, lo, hi int) {
	b1, b2, eps, decay, lr, t := a.F[0], a.F[1], a.F[2], a.F[3], a.S.LR[a.I[0]], float64(a.S.Step+1)
	c := C.struct_adamw{
		w: at(a.Dst[0], 0, lo), m: at(a.Dst[1], 0, lo), v: at(a.Dst[2], 0, lo), g: at(a.Src[0], 0, lo), n: C.long(hi - lo),
		f: C.float(a.Src[1].D[0]), rest1: C.float(1 - b1), beta2: C.float(b2), rest2: C.float(1 - b2), eps: C.float(eps),
		step: C.float(lr / (1 - math.Pow(b1, t))), root: C.float(math.Sqrt(1 - math.Pow(b2, t))), shrink: 1,
	}
	if len(a.Dst) > 3 {
		c.top = at(a.Dst[3], 0, lo)
	}
	if a.I[1] == 1 {
		c.l2 = C.float(decay)
	} else {
		c.shrink = C.float(1 - lr*decay)
	}
	if g, m := a.InPages[0], a.OutPages[1]; g.Used != nil && m.Used != nil && g.Skew == m.Skew && c.l2 == 0 && eps > 0 {
		g, m := g.From(lo), m.From(lo)
		c.g_used, c.m_used, c.skew = (*C.uint8_t)(&g.Used[0]), (*C.uint8_t)(&m.Used[0]), C.long(g.Skew)
	} else {
		m.Use(lo, hi-lo)
	}
	task(s, a, C.RUNG_TASK_adamw, &c)
}

func (s isa) sgd(a *args, lo, hi int) {
	task(s, a, C.RUNG_TASK_sgd, &C.struct_sgd{
		w: at(a.Dst[0], 0, lo), m: at(a.Dst[1], 0, lo), g: at(a.Src[0], 0, lo), n: C.long(hi - lo),
		f: C.float(a.Src[1].D[0]), momentum: C.float(a.F[0]), decay: C.float(a.F[3]), lr: C.float(a.S.LR[a.I[0]]),
		nesterov: flag(a.I[1] == 1),
	})
}

func (s isa) shrink(a *args, lo, hi int) {
	task(s, a, C.RUNG_TASK_shrink, &C.struct_shrink{w: at(a.Dst[0], 0, lo), n: C.long(hi - lo), by: C.float(a.S.LR[a.I[0]] * a.F[0])})
}

// squareTile is how many elements of a gradient are summed in one piece, so that the order of the
// sum does not depend on the workers.
const squareTile = 1 << 15

// sumSq writes the sums of tiles to scratch, then adds those of each tensor in order.
func (s isa) sumSq() host.Kernel[float32] {
	tiles := func(a *args) (n int) {
		for _, b := range a.In {
			n += ceil(b.Rows*b.Cols, squareTile)
		}
		return n
	}
	return host.Kernel[float32]{
		Scratch: func(a *args) int { return 8 * tiles(a) },
		Phases: []host.Phase[float32]{
			{N: tiles, Record: func(a *args, lo, hi int) {
				sums, t := host.Elements[float64](a.Scratch), 0
				for i, g := range a.Src {
					size := g.Rows * g.Cols
					n := ceil(size, squareTile)
					for k := max(lo-t, 0); k < min(hi-t, n); k++ {
						from := k * squareTile
						c := C.struct_squares{
							x: at(g, 0, 0), from: C.long(from), n: C.long(min(squareTile, size-from)), cols: C.long(g.Cols), ld: C.long(g.Ld),
							sum: (*C.double)(&sums[t+k]),
						}
						if p := a.InPages[i]; p.Used != nil && g.Rows == 1 {
							c.used, c.skew = (*C.uint8_t)(&p.Used[0]), C.long(p.Skew)
						}
						task(s, a, C.RUNG_TASK_squares, &c)
					}
					t += n
				}
			}},
			{N: func(*args) int { return 1 }, Run: func(a *args, _, _ int) {
				sums := host.Elements[float64](a.Scratch)
				for i, g := range a.Src {
					var sum float64
					n := ceil(g.Rows*g.Cols, squareTile)
					for _, v := range sums[:n] {
						sum += v
					}
					sums = sums[n:]
					a.Dst[0].D[i] = float32(math.Sqrt(sum))
				}
			}},
		},
	}
}
