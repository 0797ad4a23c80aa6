package ref

import (
	"math"

	"rung/nn/backend/host"
)

// Span is the rows of sequence s: of queries (its tokens, or its one selected row) and of keys.
func Span[F host.Float](a *args[F], offs []int32, s int) (q0, q1, k0, k1 int) {
	k0, k1 = int(offs[s]), int(offs[s+1])
	if a.I[1] == 1 {
		return s, s + 1, k0, k1
	}
	return k0, k1, k0, k1
}

// A head is one head of one sequence.
type head[F host.Float] struct {
	q0, q1, k0, k1 int // rows of queries and of keys
	n, d           int // columns n·d to n·d + d
	scale          F   // of the scores
	drops          bool
	mask           mask[F]
}

// headOf is head n of sequence s.
func headOf[F host.Float](a *args[F], s, n int) head[F] {
	h := head[F]{n: n, d: a.Src[0].Cols / a.I[0]}
	h.q0, h.q1, h.k0, h.k1 = Span(a, a.Int[3], s)
	h.scale = F(1 / math.Sqrt(float64(h.d)))
	if keys := a.Int[4]; keys != nil && a.F[0] != 0 {
		h.drops, h.mask = true, newMask(a, keys[s], a.I[2]+n)
	}
	return h
}

// keep is 0 or 1/(1-rate) for query i and key j, counted inside the sequence.
func (h *head[F]) keep(i, j int) F {
	if !h.drops {
		return 1
	}
	return h.mask.factor(i<<16 | j)
}

// queries is the head's part of a matrix with a row for each query; keys of one with a row for each key.
func (h *head[F]) queries(m mat[F]) mat[F] { return h.part(m, h.q0, h.q1) }
func (h *head[F]) keys(m mat[F]) mat[F]    { return h.part(m, h.k0, h.k1) }

func (h *head[F]) part(m mat[F], lo, hi int) mat[F] {
	if lo == hi { // the offset may be the end
		return mat[F]{}
	}
	return mat[F]{D: m.D[lo*m.Ld+h.n*h.d:], Rows: hi - lo, Cols: h.d, Ld: m.Ld}
}

// attnColumns is the most keys that a sequence can have.
func attnColumns[F host.Float](a *args[F]) int { return a.In[1].Rows }

func attn[F host.Float](a *args[F], worker, lo, hi int) {
	for s := lo; s < hi; s++ {
		for n := range a.I[0] {
			attnHead(a, worker, headOf(a, s, n))
		}
	}
}

// attnHead takes a block of queries at a time: scores, probabilities in their place, sums.
func attnHead[F host.Float](a *args[F], worker int, h head[F]) {
	q, k, v := h.queries(a.Src[0]), h.keys(a.Src[1]), h.keys(a.Src[2])
	y, lse := a.Dst[0], a.Dst[1]
	for i := 0; i < q.Rows; i += blockRows {
		scores := blockOf(a, worker, attnColumns(a), 0, k.Rows)
		addProducts(scores, q, i, k)
		for r, p := range scores[:min(blockRows, q.Rows-i)] {
			l := h.probabilities(p)
			if !lse.Nil() {
				lse.Row(h.q0 + i + r)[h.n] = F(l)
			}
			if y.Nil() {
				continue
			}
			for j := range p {
				p[j] *= h.keep(i+r, j)
			}
			yr := h.queries(y).Row(i + r)
			clear(yr)
			addRows(yr, p, v)
		}
	}
}

// probabilities is the softmax of the scaled scores p, in place, and the logarithm of its denominator:
// 0 if there are none.
func (h *head[F]) probabilities(p []F) float64 {
	if len(p) == 0 {
		return 0
	}
	top, z := p[0], 0.0
	for _, v := range p {
		top = max(top, v)
	}
	for j, v := range p {
		e := math.Exp(float64((v - top) * h.scale))
		p[j], z = F(e), z+e
	}
	for j, v := range p {
		p[j] = F(float64(v) / z)
	}
	return float64(top*h.scale) + math.Log(z)
}

func attnGrad[F host.Float](a *args[F], worker, lo, hi int) {
	for s := lo; s < hi; s++ {
		for n := range a.I[0] {
			attnHeadGrad(a, worker, headOf(a, s, n))
		}
	}
}

// attnHeadGrad computes the probabilities again from the saved logarithm of their denominator.
func attnHeadGrad[F host.Float](a *args[F], worker int, h head[F]) {
	q, k, v := h.queries(a.Src[0]), h.keys(a.Src[1]), h.keys(a.Src[2])
	y, lse, dy := h.queries(a.Src[5]), a.Src[6], h.queries(a.Src[7])
	var grads [3]mat[F] // of q, k, v; empty if nobody reads them
	for i, part := range [...]func(mat[F]) mat[F]{h.queries, h.keys, h.keys} {
		if a.Dst[i].Nil() {
			continue
		}
		grads[i] = part(a.Dst[i])
		for j := range grads[i].Rows {
			clear(grads[i].Row(j))
		}
	}
	for i := 0; i < q.Rows; i += blockRows {
		n := min(blockRows, q.Rows-i)
		p, ds := blockOf(a, worker, 2*attnColumns(a), 0, k.Rows), blockOf(a, worker, 2*attnColumns(a), k.Rows, 2*k.Rows)
		addProducts(p, q, i, k)
		addProducts(ds, dy, i, v)
		for r := range n {
			delta, l := dotp(dy.Row(i+r), y.Row(i+r)), float64(lse.Row(h.q0 + i + r)[h.n])
			for j, s := range p[r] {
				e, keep := F(math.Exp(float64(s*h.scale)-l)), h.keep(i+r, j)
				p[r][j] = e * keep
				ds[r][j] = e * (keep*ds[r][j] - delta) * h.scale
			}
			if grads[0].Rows > 0 {
				addRows(grads[0].Row(i+r), ds[r], k)
			}
		}
		addOuter(grads[1], ds, q, i, n)
		addOuter(grads[2], p, dy, i, n)
	}
}
