package ref

import (
	"rung/nn/backend"
	"rung/nn/backend/host"
)

// matNT is y_k = f(x w_kT + h_k u_kT + b_k) for I[0] blocks of columns.
func matNT[F host.Float](a *args[F], lo, hi int) {
	y, pre, x := a.Dst[0], a.Dst[1], a.Src[0]
	for i := lo; i < hi; i++ {
		xr, j := x.Row(i), 0
		for k := range a.I[0] {
			w, b, h, u := a.Src[1+4*k], a.Src[2+4*k], a.Src[3+4*k], a.Src[4+4*k]
			var four [4]F // sums of four rows at a time: their chains of additions overlap
			for o := range w.Rows {
				if o%4 == 0 {
					four = dots(xr, w, o)
				}
				s := four[o%4]
				if !h.Nil() {
					s += dotp(h.Row(i), u.Row(o))
				}
				if !b.Nil() {
					s += b.D[o]
				}
				if !pre.Nil() {
					pre.D[i*pre.Ld+j] = s
				}
				if a.I[1] == backend.ActGELU {
					s = gelu(s)
				}
				if !y.Nil() {
					put(a, y.Row(i), j, s)
				}
				j++
			}
		}
	}
}

// matNN is dx = Σ dy_k w_k, times the derivative at pre.
func matNN[F host.Float](a *args[F], lo, hi int) {
	dx, pre := a.Dst[0], a.Src[0]
	for i := lo; i < hi; i++ {
		r := dx.Row(i)
		for j0 := 0; j0 < len(r); j0 += 64 {
			var sum [64]F
			part := sum[:min(64, len(r)-j0)]
			for k := range a.I[0] {
				w := a.Src[2+2*k]
				for o, d := range a.Src[1+2*k].Row(i) {
					axpy(d, w.Row(o)[j0:j0+len(part)], part)
				}
			}
			for j, v := range part {
				if a.I[1] == backend.ActGELU {
					v *= geluD(pre.Row(i)[j0+j])
				}
				put(a, r, j0+j, v)
			}
		}
	}
}

// matTN is dw = dyT x, by rows of the result, so that one worker sums each element.
func matTN[F host.Float](a *args[F], lo, hi int) {
	dy, x := a.Src[0], a.Src[1]
	seg := a.Segments(0, a.In[0].Axis, dy.Rows)
	for u := range seg.N {
		out, from, to := seg.At(u)
		for o := lo; o < hi; o++ {
			r := out.Row(o)
			if !a.Out[0].Acc {
				clear(r)
			}
			for i := from; i < to; i++ {
				axpy(dy.Row(i)[o], x.Row(i), r)
			}
		}
	}
}

func colSum[F host.Float](a *args[F], lo, hi int) {
	dy := a.Src[0]
	seg := a.Segments(0, a.In[0].Axis, dy.Rows)
	for u := range seg.N {
		out, from, to := seg.At(u)
		o := out.Row(0)[lo:hi]
		if !a.Out[0].Acc {
			clear(o)
		}
		for i := from; i < to; i++ {
			for j, v := range dy.Row(i)[lo:hi] {
				o[j] += v
			}
		}
	}
}

func embed[F host.Float](a *args[F], lo, hi int) {
	y := a.Dst[0]
	for i := lo; i < hi; i++ {
		r := y.Row(i)
		copy(r, a.Src[3].Row(int(a.Int[0][i])))
		for t := 1; t < 3 && !a.Src[3+t].Nil(); t++ {
			for j, v := range a.Src[3+t].Row(int(a.Int[t][i])) {
				r[j] += v
			}
		}
	}
}

// embedGrad is split by columns: rows of the table repeat.
func embedGrad[F host.Float](a *args[F], lo, hi int) {
	ids, dy := a.Int[0], a.Src[1]
	seg := a.Segments(0, a.In[1].Axis, dy.Rows)
	for u := range seg.N {
		out, from, to := seg.At(u)
		if !a.Out[0].Acc {
			for i := range out.Rows {
				clear(out.Row(i)[lo:hi])
			}
		}
		for i := from; i < to; i++ {
			o, d := out.Row(int(ids[i])), dy.Row(i)
			for j := lo; j < hi; j++ {
				o[j] += d[j]
			}
		}
	}
}

func dotp[F host.Float](x, y []F) (s F) {
	y = y[:len(x)]
	for i, v := range x {
		s += v * y[i]
	}
	return s
}

// dots is the products of x with rows o to o+4 of w, as many as there are.
func dots[F host.Float](x []F, w mat[F], o int) (s [4]F) {
	if o+4 > w.Rows {
		for i := o; i < w.Rows; i++ {
			s[i-o] = dotp(x, w.Row(i))
		}
		return s
	}
	a, b, c, d := w.Row(o)[:len(x)], w.Row(o + 1)[:len(x)], w.Row(o + 2)[:len(x)], w.Row(o + 3)[:len(x)]
	var p, q, r, t F
	for i, v := range x {
		p, q, r, t = p+v*a[i], q+v*b[i], r+v*c[i], t+v*d[i]
	}
	return [4]F{p, q, r, t}
}

func axpy[F host.Float](s F, x, y []F) {
	y = y[:len(x)]
	for i, v := range x {
		y[i] += s * v
	}
}
