package ref

import (
	"math"

	"rung/nn/backend/host"
)

// rowNorm is the norm of each row, its squares summed in float64.
func rowNorm[F host.Float](a *args[F], lo, hi int) {
	for i := lo; i < hi; i++ {
		var s [4]float64 // partial sums: one would wait for each addition
		x := a.Src[0].Row(i)
		for ; len(x) >= 4; x = x[4:] {
			for k, v := range x[:4] {
				s[k] += float64(v) * float64(v)
			}
		}
		for k, v := range x {
			s[k] += float64(v) * float64(v)
		}
		a.Dst[0].Row(i)[0] = F(math.Sqrt(s[0] + s[1] + (s[2] + s[3])))
	}
}

// clipRows is the factor of each unit: min(1, C/|s|), or of each of its n tensors min(1, C/(√n s)). One whose norm is
// not finite is left out, so that no unit contributes more than C whatever its gradient.
func clipRows[F host.Float](a *args[F], lo, hi int) {
	most := a.F[0]
	if a.I[0] == 1 {
		most /= math.Sqrt(float64(a.Src[0].Cols))
	}
	factor := func(norm float64) F {
		switch {
		case !(norm < math.Inf(1)):
			return 0
		case norm > most:
			return F(most / norm)
		}
		return 1
	}
	for i := lo; i < hi; i++ {
		s, f := a.Src[0].Row(i), a.Dst[0].Row(i)
		var all float64
		for k, v := range s {
			f[k] = factor(float64(v))
			all += float64(v) * float64(v)
		}
		for k := range f {
			if a.I[0] != 1 {
				f[k] = factor(math.Sqrt(all))
			}
		}
	}
}

// sumRows adds rows times their factors, front to back.
func sumRows[F host.Float](a *args[F], lo, hi int) {
	y := a.Dst[0].Row(0)[lo:hi]
	if !a.Out[0].Acc {
		clear(y)
	}
	for i := range a.Src[0].Rows {
		f := a.Src[1].Row(i)[0]
		if f == 0 {
			continue
		}
		x := a.Src[0].Row(i)[lo:hi]
		for j := range y {
			y[j] += F(f * x[j])
		}
	}
}
