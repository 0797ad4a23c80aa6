package ref

import (
	"math"

	"rung/nn/backend/host"
)

// first copies the first token row of every sequence; that of an empty one is 0.
func first[F host.Float](a *args[F], lo, hi int) {
	y, x, offs := a.Dst[0], a.Src[0], a.Int[1]
	for s := lo; s < hi; s++ {
		if offs[s] == offs[s+1] { // the offset may equal the capacity
			clear(y.Row(s))
			continue
		}
		copy(y.Row(s), x.Row(int(offs[s])))
	}
}

func firstGrad[F host.Float](a *args[F], lo, hi int) {
	dx, dy, offs := a.Dst[0], a.Src[0], a.Int[1]
	for s := lo; s < hi; s++ {
		for i := int(offs[s]); i < int(offs[s+1]); i++ {
			if i == int(offs[s]) {
				copy(dx.Row(i), dy.Row(s))
			} else {
				clear(dx.Row(i))
			}
		}
	}
}

func mean[F host.Float](a *args[F], lo, hi int) {
	y, x, offs := a.Dst[0], a.Src[0], a.Int[1]
	for s := lo; s < hi; s++ {
		yr, k := y.Row(s), 1/F(max(1, offs[s+1]-offs[s]))
		clear(yr)
		for i := int(offs[s]); i < int(offs[s+1]); i++ {
			axpy(k, x.Row(i), yr)
		}
	}
}

func meanGrad[F host.Float](a *args[F], lo, hi int) {
	dx, dy, offs := a.Dst[0], a.Src[0], a.Int[1]
	for s := lo; s < hi; s++ {
		k := 1 / F(max(1, offs[s+1]-offs[s]))
		for i := int(offs[s]); i < int(offs[s+1]); i++ {
			for j, v := range dy.Row(s) {
				dx.Row(i)[j] = v * k
			}
		}
	}
}

// maxPool takes the greatest of each column, the first of equals; of an empty sequence it is 0.
func maxPool[F host.Float](a *args[F], lo, hi int) {
	y, at, x, offs := a.Dst[0], a.Dst[1], a.Src[0], a.Int[1]
	for s := lo; s < hi; s++ {
		for j := range x.Cols {
			var best, row F
			for i := int(offs[s]); i < int(offs[s+1]); i++ {
				if v := x.Row(i)[j]; i == int(offs[s]) || v > best {
					best, row = v, F(i-int(offs[s]))
				}
			}
			if !y.Nil() {
				y.Row(s)[j] = best
			}
			if !at.Nil() {
				at.Row(s)[j] = row
			}
		}
	}
}

func maxGrad[F host.Float](a *args[F], lo, hi int) {
	dx, dy, at, offs := a.Dst[0], a.Src[0], a.Src[1], a.Int[2]
	for s := lo; s < hi; s++ {
		for i := int(offs[s]); i < int(offs[s+1]); i++ {
			for j, d := range dy.Row(s) {
				dx.Row(i)[j] = 0
				if int(at.Row(s)[j]) == i-int(offs[s]) {
					dx.Row(i)[j] = d
				}
			}
		}
	}
}

// Span is the rows of sequence s: of queries (its tokens, or its one selected row) and of keys.
func Span[F host.Float](a *args[F], offs []int32, s int) (q0, q1, k0, k1 int) {
	k0, k1 = int(offs[s]), int(offs[s+1])
	if a.I[1] == 1 {
		return s, s + 1, k0, k1
	}
	return k0, k1, k0, k1
}

// A dropper is the dropout of one sequence's attention probabilities. The element of a pair is
// query<<16 | key; each head is a site of its own.
type dropper[F host.Float] struct {
	on bool
	mask[F]
}

func dropperOf[F host.Float](a *args[F], s int) dropper[F] {
	keys := a.Int[4]
	if keys == nil || a.F[0] == 0 {
		return dropper[F]{}
	}
	return dropper[F]{true, newMask(a, keys[s], a.I[2])}
}

// at is 0 or 1/(1-rate) for head h, query i and key j, counted inside the sequence.
func (d *dropper[F]) at(h, i, j int) F {
	if !d.on {
		return 1
	}
	m := d.mask
	m.site += uint32(h)
	if m.drops(i<<16 | j) {
		return 0
	}
	return m.scale
}

// attn goes over a row's keys three times: maximum, denominator, sum. No row of probabilities
// is kept.
func attn[F host.Float](a *args[F], lo, hi int) {
	y, lse, q, k, v, offs, h := a.Dst[0], a.Dst[1], a.Src[0], a.Src[1], a.Src[2], a.Int[3], a.I[0]
	d := q.Cols / h
	sc := F(1 / math.Sqrt(float64(d)))
	for s := lo; s < hi; s++ {
		drop := dropperOf(a, s)
		q0, q1, k0, k1 := Span(a, offs, s)
		for i := q0; i < q1; i++ {
			for n := range h {
				qr := q.Row(i)[n*d : n*d+d]
				top, z := math.Inf(-1), 0.0
				for j := k0; j < k1; j++ {
					top = math.Max(top, float64(sc*dotp(qr, k.Row(j)[n*d:n*d+d])))
				}
				for j := k0; j < k1; j++ {
					z += math.Exp(float64(sc*dotp(qr, k.Row(j)[n*d:n*d+d])) - top)
				}
				l := 0.0
				if k0 < k1 {
					l = top + math.Log(z)
				}
				if !lse.Nil() {
					lse.Row(i)[n] = F(l)
				}
				if y.Nil() {
					continue
				}
				yr := y.Row(i)[n*d : n*d+d]
				clear(yr)
				for j := k0; j < k1; j++ {
					p := F(math.Exp(float64(sc*dotp(qr, k.Row(j)[n*d:n*d+d])) - l))
					axpy(p*drop.at(n, i-q0, j-k0), v.Row(j)[n*d:n*d+d], yr)
				}
			}
		}
	}
}

// attnGrad computes the probabilities again from the saved logarithm of their denominator.
func attnGrad[F host.Float](a *args[F], lo, hi int) {
	dq, dk, dv := a.Dst[0], a.Dst[1], a.Dst[2]
	q, k, v, offs := a.Src[0], a.Src[1], a.Src[2], a.Int[3]
	y, lse, dy, h := a.Src[5], a.Src[6], a.Src[7], a.I[0]
	d := q.Cols / h
	sc := F(1 / math.Sqrt(float64(d)))
	for s := lo; s < hi; s++ {
		drop := dropperOf(a, s)
		q0, q1, k0, k1 := Span(a, offs, s)
		for _, m := range [...]mat[F]{dk, dv} {
			for j := k0; j < k1 && !m.Nil(); j++ {
				clear(m.Row(j))
			}
		}
		for i := q0; i < q1; i++ {
			if !dq.Nil() {
				clear(dq.Row(i))
			}
			for n := range h {
				lo, hi := n*d, n*d+d
				qr, dr := q.Row(i)[lo:hi], dy.Row(i)[lo:hi]
				delta, l := dotp(dr, y.Row(i)[lo:hi]), float64(lse.Row(i)[n])
				for j := k0; j < k1; j++ {
					p := F(math.Exp(float64(sc*dotp(qr, k.Row(j)[lo:hi])) - l))
					keep := drop.at(n, i-q0, j-k0)
					ds := p * (keep*dotp(dr, v.Row(j)[lo:hi]) - delta) * sc
					if !dv.Nil() {
						axpy(p*keep, dr, dv.Row(j)[lo:hi])
					}
					if !dq.Nil() {
						axpy(ds, k.Row(j)[lo:hi], dq.Row(i)[lo:hi])
					}
					if !dk.Nil() {
						axpy(ds, qr, dk.Row(j)[lo:hi])
					}
				}
			}
		}
	}
}
