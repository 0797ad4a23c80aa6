package ref

import (
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
