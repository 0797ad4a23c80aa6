package ref

import (
	"rung/nn/backend/host"
)

// weightOf is element (r,c) of a weight (E·r,C), or of one that is stored transposed.
func weightOf[F host.Float](w mat[F], transposed, r, c int) *F {
	if transposed == 1 {
		r, c = c, r
	}
	return &w.D[r*w.Ld+c]
}

// groupNT is h_j = w_at[j] x.
func groupNT[F host.Float](a *args[F], lo, hi int) {
	h, x, w, at := a.Dst[0], a.Src[0], a.Src[1], a.Src[2]
	r := h.Cols / at.Cols
	for i := lo; i < hi; i++ {
		for j, e := range at.Row(i) {
			for q := range r {
				var sum F
				for c, v := range x.Row(i) {
					sum += v * *weightOf(w, a.I[0], int(e)*r+q, c)
				}
				h.Row(i)[j*r+q] = sum
			}
		}
	}
}

// groupNN is y = plus + Σ_j w_at[j]T h_j.
func groupNN[F host.Float](a *args[F], lo, hi int) {
	y, plus, h, w, at := a.Dst[0], a.Src[0], a.Src[1], a.Src[2], a.Src[3]
	r := h.Cols / at.Cols
	for i := lo; i < hi; i++ {
		for c := range y.Row(i) {
			var sum F
			if !plus.Nil() {
				sum = plus.Row(i)[c]
			}
			for j, e := range at.Row(i) {
				for q, v := range h.Row(i)[j*r : (j+1)*r] {
					sum += v * *weightOf(w, a.I[0], int(e)*r+q, c)
				}
			}
			if a.Out[0].Acc {
				sum += y.Row(i)[c]
			}
			y.Row(i)[c] = sum
		}
	}
}

// expertsOf is the experts of a weight's gradient.
func expertsOf[F host.Float](a *args[F]) int {
	ranks := a.Out[0].Rows
	if a.I[0] == 1 {
		ranks = a.Out[0].Cols
	}
	return ranks * a.In[2].Cols / a.In[0].Cols
}

// groupTN is dw_e = Σ h_jT x, by experts.
func groupTN[F host.Float](a *args[F], lo, hi int) {
	h, x, at := a.Src[0], a.Src[1], a.Src[2]
	r := h.Cols / at.Cols
	seg := a.Segments(0, a.In[0].Axis, h.Rows)
	for u := range seg.N {
		dw, from, to := seg.At(u)
		for row := lo * r; row < hi*r && !a.Out[0].Acc; row++ {
			for c := range x.Cols {
				*weightOf(dw, a.I[0], row, c) = 0
			}
		}
		for i := from; i < to; i++ {
			for j, e := range at.Row(i) {
				if int(e) < lo || int(e) >= hi {
					continue
				}
				for q, v := range h.Row(i)[j*r : (j+1)*r] {
					for c, d := range x.Row(i) {
						*weightOf(dw, a.I[0], int(e)*r+q, c) += v * d
					}
				}
			}
		}
	}
}

func take[F host.Float](a *args[F], lo, hi int) {
	for i := lo; i < hi; i++ {
		for j, e := range a.Src[1].Row(i) {
			a.Dst[0].Row(i)[j] = a.Src[0].Row(i)[int(e)]
		}
	}
}

func takeGrad[F host.Float](a *args[F], lo, hi int) {
	for i := lo; i < hi; i++ {
		r := a.Dst[0].Row(i)
		clear(r)
		for j, e := range a.Src[0].Row(i) {
			r[int(e)] = a.Src[1].Row(i)[j]
		}
	}
}
