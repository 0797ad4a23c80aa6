//go:build cgo && (amd64 || arm64) && unix

package cpu

// #include "kernels.h"
import "C"

import (
	"math"
	"unsafe"

	"rung/nn/backend"
	"rung/nn/backend/host"
)

// As in attention.h: keys of a block, and scores of one.
const (
	attnKeys   = 512
	attnScores = 48 * attnKeys
)

// attn is attention by sequences and groups of their heads.
func (s isa) attn() host.Kernel[float32] {
	size := func(a *args) int {
		d := a.In[0].Cols / a.I[0]
		return attnKeys*(d+up(d, s.nr)) + attnScores + 2*attnScores/s.nr + 16
	}
	return host.Kernel[float32]{
		Scratch: func(a *args) int { return 4 * a.Workers * size(a) },
		Phases: []host.Phase[float32]{{
			N:      func(a *args) int { return sequences(a) * ceil(a.I[0], headsOf(a)) },
			Part:   func(a *args) int { return 4 * size(a) },
			Record: byHeads(s.attnHeads),
		}},
	}
}

// attnGrad is its gradients, by the same pieces.
func (s isa) attnGrad() host.Kernel[float32] {
	size := func(a *args) int {
		d := a.In[0].Cols / a.I[0]
		return attnKeys*(2*d+up(d, s.nr)) + 2*attnScores + 2*attnScores/s.nr*up(d, s.nr) + 16
	}
	return host.Kernel[float32]{
		Scratch: func(a *args) int { return 4 * a.Workers * size(a) },
		Phases: []host.Phase[float32]{{
			N:      func(a *args) int { return sequences(a) * ceil(a.I[0], headsOf(a)) },
			Part:   func(a *args) int { return 4 * size(a) },
			Record: byHeads(s.attnGradHeads),
		}},
	}
}

// sequences is how many the offsets describe.
func sequences(a *args) int { return min(a.In[3].Cols-1, a.S.Count[backend.Seq]) }

// headsOf is how many heads of a sequence are one piece: all, if there are sequences enough for the workers.
func headsOf(a *args) int {
	pieces := 8 * a.Workers
	return max(1, min(a.I[0], a.I[0]*sequences(a)/pieces))
}

// byHeads calls run for each piece: heads from head on of sequence n.
func byHeads(run func(a *args, n, head, heads int)) func(a *args, lo, hi int) {
	return func(a *args, lo, hi int) {
		heads := headsOf(a)
		groups := ceil(a.I[0], heads)
		for p := lo; p < hi; p++ {
			h := p % groups * heads
			run(a, p/groups, h, min(heads, a.I[0]-h))
		}
	}
}

// span is the rows of sequence n: of queries (its tokens, or its one selected row) and of keys.
func span(a *args, n int) (q0, q1, k0, k1 int) {
	k0, k1 = int(a.Int[3][n]), int(a.Int[3][n+1])
	if a.I[1] == 1 {
		return n, n + 1, k0, k1
	}
	return k0, k1, k0, k1
}

// drop is the dropout of the probabilities of heads from head on: each is a site of its own.
func drop(a *args, n, head int) C.struct_drop {
	if a.Int[4] == nil || a.F[0] == 0 {
		return C.struct_drop{}
	}
	return dropOf(a, a.Int[4][n], a.I[2]+head)
}

func (s isa) attnHeads(a *args, n, head, heads int) {
	y, lse, q, k, v := a.Dst[0], a.Dst[1], a.Src[0], a.Src[1], a.Src[2]
	q0, q1, k0, k1 := span(a, n)
	d := q.Cols / a.I[0]
	j := head * d
	if k0 == k1 { // at most one query, and its offset may be the capacity
		for i := q0; i < q1; i++ {
			if !y.Nil() {
				clear(y.Row(i)[j : j+heads*d])
			}
			if !lse.Nil() {
				clear(lse.Row(i)[head : head+heads])
			}
		}
		return
	}
	taskAt(s, a, C.RUNG_TASK_attn, unsafe.Offsetof(C.struct_attn{}.scratch), &C.struct_attn{
		q: at(q, q0, j), k: at(k, k0, j), v: at(v, k0, j), y: at(y, q0, j), lse: at(lse, q0, head),
		heads: C.long(heads), rows: C.long(q1 - q0), keys: C.long(k1 - k0), d: C.long(d),
		ldq: C.long(q.Ld), ldk: C.long(k.Ld), ldv: C.long(v.Ld), ldy: C.long(y.Ld), ldlse: C.long(lse.Ld),
		scale: scaleOf(d), drop: drop(a, n, head),
	})
}

func (s isa) attnGradHeads(a *args, n, head, heads int) {
	dq, dk, dv := a.Dst[0], a.Dst[1], a.Dst[2]
	q, k, v, y, lse, dy := a.Src[0], a.Src[1], a.Src[2], a.Src[5], a.Src[6], a.Src[7]
	q0, q1, k0, k1 := span(a, n)
	d := q.Cols / a.I[0]
	j := head * d
	if k0 == k1 {
		for i := q0; i < q1 && !dq.Nil(); i++ {
			clear(dq.Row(i)[j : j+heads*d])
		}
		return
	}
	taskAt(s, a, C.RUNG_TASK_attn_grad, unsafe.Offsetof(C.struct_attn_grad{}.scratch), &C.struct_attn_grad{
		q: at(q, q0, j), k: at(k, k0, j), v: at(v, k0, j), y: at(y, q0, j), lse: at(lse, q0, head), dy: at(dy, q0, j),
		dq: at(dq, q0, j), dk: at(dk, k0, j), dv: at(dv, k0, j),
		heads: C.long(heads), rows: C.long(q1 - q0), keys: C.long(k1 - k0), d: C.long(d),
		ldq: C.long(q.Ld), ldk: C.long(k.Ld), ldv: C.long(v.Ld), ldy: C.long(y.Ld), ldlse: C.long(lse.Ld),
		lddy: C.long(dy.Ld), lddq: C.long(dq.Ld), lddk: C.long(dk.Ld), lddv: C.long(dv.Ld),
		scale: scaleOf(d), drop: drop(a, n, head),
	})
}

func scaleOf(d int) C.float { return C.float(1 / math.Sqrt(float64(d))) }
