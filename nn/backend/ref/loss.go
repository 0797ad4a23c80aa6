package ref

import (
	"math"

	"rung/nn/backend/host"
)

// softmax is the log softmax of a row over the columns that the mask keeps; elsewhere it is 0. A row
// that keeps nothing is 0.
func softmax[F host.Float](a *args[F], lo, hi int) {
	y, lse, x, mask := a.Dst[0], a.Dst[1], a.Src[0], a.Src[1]
	for i := lo; i < hi; i++ {
		xr := x.Row(i)
		keep := func(j int) bool { return mask.Nil() || mask.Row(i)[j] != 0 }
		l := logSumExp(xr, keep)
		if !lse.Nil() {
			lse.Row(i)[0] = F(l)
		}
		if y.Nil() {
			continue
		}
		for j, v := range xr {
			y.Row(i)[j] = 0
			if keep(j) {
				y.Row(i)[j] = F(float64(v) - l)
			}
		}
	}
}

// logSumExp is log Σ exp(x) over what keep keeps, 0 if that is nothing.
func logSumExp[F host.Float](x []F, keep func(int) bool) float64 {
	top := math.Inf(-1)
	for j, v := range x {
		if keep(j) {
			top = math.Max(top, float64(v))
		}
	}
	if math.IsInf(top, -1) {
		return 0
	}
	var s float64
	for j, v := range x {
		if keep(j) {
			s += math.Exp(float64(v) - top)
		}
	}
	return top + math.Log(s)
}

// softmaxGrad is dx = dy - softmax Σ dy over what the mask keeps.
func softmaxGrad[F host.Float](a *args[F], lo, hi int) {
	dx, y, mask, dy := a.Dst[0], a.Src[0], a.Src[1], a.Src[2]
	for i := lo; i < hi; i++ {
		yr, dr, or := y.Row(i), dy.Row(i), dx.Row(i)
		var s F
		for j, d := range dr {
			if mask.Nil() || mask.Row(i)[j] != 0 {
				s += d
			}
		}
		for j, d := range dr {
			var g F
			if mask.Nil() || mask.Row(i)[j] != 0 {
				g = d - F(math.Exp(float64(yr[j])))*s
			}
			put(a, or, j, g)
		}
	}
}

func bce[F host.Float](a *args[F], lo, hi int) {
	for i := lo; i < hi; i++ {
		l, y := a.Dst[0].Row(i), a.Src[1].Row(i)
		for j, v := range a.Src[0].Row(i) {
			put(a, l, j, F(softplus(float64(v))-float64(v)*float64(y[j])))
		}
	}
}

func bceGrad[F host.Float](a *args[F], lo, hi int) {
	for i := lo; i < hi; i++ {
		dx, y, dl := a.Dst[0].Row(i), a.Src[1].Row(i), a.Src[2].Row(i)
		for j, v := range a.Src[0].Row(i) {
			put(a, dx, j, dl[j]*F(sigmoid(float64(v))-float64(y[j])))
		}
	}
}

func every(int) bool { return true }

func ce[F host.Float](a *args[F], lo, hi int) {
	l, lse, x, class := a.Dst[0], a.Dst[1], a.Src[0], a.Int[1]
	for i := lo; i < hi; i++ {
		z := logSumExp(x.Row(i), every)
		if !lse.Nil() {
			lse.Row(i)[0] = F(z)
		}
		if l.Nil() {
			continue
		}
		l.Row(i)[0] = 0
		if c := class[i]; c >= 0 {
			l.Row(i)[0] = F(z - float64(x.Row(i)[c]))
		}
	}
}

func ceGrad[F host.Float](a *args[F], lo, hi int) {
	dx, x, lse, class, dl := a.Dst[0], a.Src[0], a.Src[1], a.Int[2], a.Src[3]
	for i := lo; i < hi; i++ {
		or, c := dx.Row(i), class[i]
		for j, v := range x.Row(i) {
			var g float64
			if c >= 0 {
				g = math.Exp(float64(v) - float64(lse.Row(i)[0]))
				if int(c) == j {
					g--
				}
			}
			put(a, or, j, dl.Row(i)[0]*F(g))
		}
	}
}

// gather is a table of scores: y[b,k] = x[slot], 0 where there is none.
func gather[F host.Float](a *args[F], lo, hi int) {
	y, x, slots := a.Dst[0], a.Src[0], a.Int[1]
	for i := lo; i < hi; i++ {
		for j, yr := 0, y.Row(i); j < len(yr); j++ {
			yr[j] = 0
			if s := slots[i*a.In[1].Ld+j]; s >= 0 {
				yr[j] = x.Row(int(s))[0]
			}
		}
	}
}

func gatherGrad[F host.Float](a *args[F], _, _ int) {
	dx, dy, slots := a.Dst[0], a.Src[0], a.Int[1]
	for i := range dx.Rows {
		dx.Row(i)[0] = 0
	}
	for i := range dy.Rows {
		for j, d := range dy.Row(i) {
			if s := slots[i*a.In[1].Ld+j]; s >= 0 {
				dx.Row(int(s))[0] += d
			}
		}
	}
}

func pairDot[F host.Float](a *args[F], lo, hi int) {
	y, e, queries, slots := a.Dst[0], a.Src[0], a.Int[1], a.Int[2]
	for i := lo; i < hi; i++ {
		for j, yr := 0, y.Row(i); j < len(yr); j++ {
			yr[j] = 0
			if s := slots[i*a.In[2].Ld+j]; s >= 0 {
				yr[j] = dotp(e.Row(int(queries[i])), e.Row(int(s)))
			}
		}
	}
}

// pairDotGrad is split by columns: a query meets many passages.
func pairDotGrad[F host.Float](a *args[F], lo, hi int) {
	de, e, queries, slots, dy := a.Dst[0], a.Src[0], a.Int[1], a.Int[2], a.Src[3]
	for i := range de.Rows {
		clear(de.Row(i)[lo:hi])
	}
	for i := range dy.Rows {
		for j, d := range dy.Row(i) {
			if s := slots[i*a.In[2].Ld+j]; s >= 0 {
				q := int(queries[i])
				axpy(d, e.Row(int(s))[lo:hi], de.Row(q)[lo:hi])
				axpy(d, e.Row(q)[lo:hi], de.Row(int(s))[lo:hi])
			}
		}
	}
}

func pairs[F host.Float](f func(u, v F) F) func(a *args[F], lo, hi int) {
	return func(a *args[F], lo, hi int) {
		for i := lo; i < hi; i++ {
			x, y := a.Src[0].Row(i), a.Dst[0].Row(i)
			for j, u := range x {
				for k, v := range x {
					put(a, y, j*len(x)+k, f(u, v))
				}
			}
		}
	}
}

func pairsGrad[F host.Float](a *args[F], lo, hi int) {
	for i := lo; i < hi; i++ {
		dx, dy := a.Dst[0].Row(i), a.Src[0].Row(i)
		n := len(dx)
		for j := range dx {
			var s F
			for k := range n {
				s += dy[j*n+k] - dy[k*n+j]
			}
			put(a, dx, j, s)
		}
	}
}
