package ref

import (
	"math"

	"rung/nn/backend/host"
)

// tile is how many elements of a gradient are summed in one piece: large tensors are shared by
// workers, and the order of the sum does not depend on how.
const tile = 1 << 15

// sumSq writes partial sums to scratch, then adds those of each tensor in order.
func sumSq[F host.Float]() host.Kernel[F] {
	tiles := func(a *args[F]) (n int) {
		for _, b := range a.In {
			n += (b.Rows*b.Cols + tile - 1) / tile
		}
		return n
	}
	return host.Kernel[F]{
		Scratch: func(a *args[F]) int { return 8 * tiles(a) },
		Phases: []host.Phase[F]{
			{N: tiles, Run: func(a *args[F], lo, hi int) {
				sums, t := host.Elements[float64](a.Scratch), 0
				for _, g := range a.Src {
					size := g.Rows * g.Cols
					n := (size + tile - 1) / tile
					for k := max(lo-t, 0); k < min(hi-t, n); k++ {
						var s float64
						for i := k * tile; i < min((k+1)*tile, size); { // row by row: there may be gaps
							r := g.Row(i / g.Cols)[i%g.Cols:]
							r = r[:min(len(r), (k+1)*tile-i)]
							for _, v := range r {
								s += float64(v) * float64(v)
							}
							i += len(r)
						}
						sums[t+k] = s
					}
					t += n
				}
			}},
			{N: func(*args[F]) int { return 1 }, Run: func(a *args[F], _, _ int) {
				sums := host.Elements[float64](a.Scratch)
				for i, g := range a.Src {
					var s float64
					n := (g.Rows*g.Cols + tile - 1) / tile
					for _, v := range sums[:n] {
						s += v
					}
					sums = sums[n:]
					a.Dst[0].D[i] = F(math.Sqrt(s))
				}
			}},
		},
	}
}

// clip is torch's clip_grad_norm_: the factor min(1, clip/(norm + 1e-6)).
func clip[F host.Float](a *args[F], _, _ int) {
	var s float64
	for _, v := range a.Src[0].Row(0) {
		s += float64(v) * float64(v)
	}
	norm, f := math.Sqrt(s), 1.0
	if a.S.Clip > 0 {
		f = math.Min(1, a.S.Clip/(norm+1e-6))
	}
	if n := F(norm); n-n != 0 { // NaN or infinite, also where F cannot hold it
		f = math.NaN()
	}
	a.Dst[0].D[0], a.Dst[0].D[1] = F(f), F(norm)
}

// Updates round every product: F(xy) + z is no fused multiply-add, which a compiler makes of xy + z where the
// processor has one. They are the same bits everywhere.

// adamW is Loshchilov and Hutter's update as torch writes it: decay of the weight first, bias
// correction of both moments, ε outside the root.
func adamW[F host.Float](a *args[F], lo, hi int) {
	f := a.Src[1].D[0]
	if f != f {
		return
	}
	w, m, v, g := a.Dst[0].D, a.Dst[1].D, a.Dst[2].D, a.Src[0].D
	var top []F
	if len(a.Dst) > 3 {
		top = a.Dst[3].D
	}
	b1, b2, eps, decay, lr, t := a.F[0], a.F[1], a.F[2], a.F[3], a.S.LR[a.I[0]], float64(a.S.Step+1)
	step, root := F(lr/(1-math.Pow(b1, t))), F(math.Sqrt(1-math.Pow(b2, t)))
	for i := lo; i < hi; i++ {
		d := F(g[i] * f)
		if a.I[1] == 1 {
			d += F(F(decay) * w[i])
		} else {
			w[i] *= F(1 - lr*decay)
		}
		m[i] += F(F(1-b1) * (d - m[i]))
		v[i] = F(F(b2)*v[i]) + F(F(1-b2)*d*d)
		q := v[i]
		if top != nil {
			top[i] = max(top[i], q)
			q = top[i]
		}
		w[i] -= step * m[i] / (F(math.Sqrt(float64(q)))/root + F(eps))
	}
}

// sgd is stochastic gradient descent with momentum m = μ m + d, as torch writes it.
func sgd[F host.Float](a *args[F], lo, hi int) {
	f := a.Src[1].D[0]
	if f != f {
		return
	}
	w, m, g := a.Dst[0].D, a.Dst[1].D, a.Src[0].D
	mu, decay, lr := F(a.F[0]), F(a.F[3]), F(a.S.LR[a.I[0]])
	for i := lo; i < hi; i++ {
		d := F(g[i]*f) + F(decay*w[i])
		m[i] = F(mu*m[i]) + d
		if a.I[1] == 1 {
			d += F(mu * m[i])
		} else {
			d = m[i]
		}
		w[i] -= F(lr * d)
	}
}

// adagrad sums squares for ever: v += d², w -= lr d / (√v + ε).
func adagrad[F host.Float](a *args[F], lo, hi int) {
	f := a.Src[1].D[0]
	if f != f {
		return
	}
	w, v, g := a.Dst[0].D, a.Dst[1].D, a.Src[0].D
	for i := lo; i < hi; i++ {
		d := F(g[i]*f) + F(F(a.F[3])*w[i])
		v[i] += F(d * d)
		w[i] -= F(a.S.LR[a.I[0]]) * d / (F(math.Sqrt(float64(v[i]))) + F(a.F[2]))
	}
}

// shrink is the proximal step of λ |w| for the learning rate: weights that are small become 0.
func shrink[F host.Float](a *args[F], lo, hi int) {
	if f := a.Src[1].D[0]; f != f {
		return
	}
	w, by := a.Dst[0].D, F(a.S.LR[a.I[0]]*a.F[0])
	for i := lo; i < hi; i++ {
		switch v := w[i]; {
		case v > by:
			w[i] = v - by
		case v < -by:
			w[i] = v + by
		default:
			w[i] = 0
		}
	}
}

// signSGD moves each weight by F[0], against the sign of its gradient.
func signSGD[F host.Float](a *args[F], lo, hi int) {
	if f := a.Src[1].D[0]; f != f {
		return
	}
	w, g, by := a.Dst[0].D, a.Src[0].D, F(a.F[0])
	for i := lo; i < hi; i++ {
		switch d := g[i]; {
		case d > 0:
			w[i] -= by
		case d < 0:
			w[i] += by
		}
	}
}
