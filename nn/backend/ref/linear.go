package ref

import (
	"rung/nn/backend"
	"rung/nn/backend/host"
)

// matNT is y_k = f(x w_kT + h_k u_kT + b_k) for I[0] blocks of columns.
func matNT[F host.Float](a *args[F], worker, lo, hi int) {
	y, pre, x, n := a.Dst[0], a.Dst[1], a.Src[0], columns(a)
	for i := lo; i < hi; i += blockRows {
		sums := blockOf(a, worker, n, 0, n)
		rest := sums // from the first column of a block on
		for k := range a.I[0] {
			w, b, h, u := a.Src[1+4*k], a.Src[2+4*k], a.Src[3+4*k], a.Src[4+4*k]
			addProducts(rest, x, i, w)
			if !h.Nil() {
				addProducts(rest, h, i, u)
			}
			for r := range rest {
				if !b.Nil() {
					addRow(rest[r][:w.Rows], b.D)
				}
				rest[r] = rest[r][w.Rows:]
			}
		}
		for r, s := range sums[:min(blockRows, hi-i)] {
			if !pre.Nil() {
				copy(pre.Row(i+r), s)
			}
			if y.Nil() {
				continue
			}
			if a.I[1] == backend.ActGELU {
				for j, v := range s {
					s[j] = gelu(v)
				}
			}
			putRow(a, y.Row(i+r), s)
		}
	}
}

// columns is those of the results of matNT.
func columns[F host.Float](a *args[F]) int { return max(a.Out[0].Cols, a.Out[len(a.Out)-1].Cols) }

// matNN is dx = Σ dy_k w_k, times the derivative at pre. It reads the weights transposed.
func matNN[F host.Float](a *args[F], worker, lo, hi int) {
	dx, pre := a.Dst[0], a.Src[0]
	for i := lo; i < hi; i += blockRows {
		sums := blockOf(a, worker, dx.Cols, 0, dx.Cols)
		for k := range a.I[0] {
			dy, w := a.Src[1+2*k], a.Src[2+2*k]
			addProducts(sums, dy, i, mat[F]{D: a.Form[2+2*k], Rows: w.Cols, Cols: w.Rows, Ld: w.Rows})
		}
		for r, s := range sums[:min(blockRows, hi-i)] {
			if a.I[1] == backend.ActGELU {
				for j, v := range pre.Row(i + r) {
					s[j] *= geluD(v)
				}
			}
			putRow(a, dx.Row(i+r), s)
		}
	}
}

// transposed is the form of the weights of matNN.
func transposed[F host.Float]() *host.Forms[F] {
	return &host.Forms[F]{
		Size: func(a *args[F], i int) int {
			if i == 0 || i%2 == 1 { // pre, dy
				return 0
			}
			return a.In[i].Rows * a.In[i].Cols
		},
		N: func(a *args[F], i int) int { return a.In[i].Cols },
		Pack: func(a *args[F], i, lo, hi int) {
			w, t := a.Src[i], a.Form[i]
			for j := lo; j < hi; j++ {
				for o := range w.Rows {
					t[j*w.Rows+o] = w.D[o*w.Ld+j]
				}
			}
		},
	}
}

// matTN is dw = dyT x, by rows of the result, so that one worker sums each element.
func matTN[F host.Float](a *args[F], lo, hi int) {
	dy, x := a.Src[0], a.Src[1]
	seg := a.Segments(0, a.In[0].Axis, dy.Rows)
	for u := range seg.N {
		out, from, to := seg.At(u)
		for o := lo; o < hi && !a.Out[0].Acc; o++ {
			clear(out.Row(o))
		}
		out.D, out.Rows = out.D[lo*out.Ld:], hi-lo
		for i := from; i < to; i += blockRows {
			var p block[F]
			n := min(blockRows, to-i)
			for r := range n {
				p[r] = dy.Row(i + r)[lo:hi]
			}
			addOuter(out, p, x, i, n)
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
