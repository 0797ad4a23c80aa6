package ref

import (
	"math"

	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/backend/philox"
)

// put stores v, or adds it where the result says so.
func put[F host.Float](a *args[F], y []F, j int, v F) {
	if a.Out[0].Acc {
		v += y[j]
	}
	y[j] = v
}

// putRow stores a row, or adds it.
func putRow[F host.Float](a *args[F], y, row []F) {
	if a.Out[0].Acc {
		addRow(y, row)
	} else {
		copy(y, row)
	}
}

func addRow[F host.Float](y, x []F) {
	x = x[:len(y)]
	for j := range y {
		y[j] += x[j]
	}
}

func binary[F host.Float](f func(x, y F) F) func(a *args[F], lo, hi int) {
	return func(a *args[F], lo, hi int) {
		for i := lo; i < hi; i++ {
			z, y := a.Dst[0].Row(i), a.Src[1].Row(i)
			for j, v := range a.Src[0].Row(i) {
				put(a, z, j, f(v, y[j]))
			}
		}
	}
}

func scale[F host.Float](a *args[F], lo, hi int) {
	for i := lo; i < hi; i++ {
		y := a.Dst[0].Row(i)
		for j, v := range a.Src[0].Row(i) {
			put(a, y, j, v*F(a.F[0]))
		}
	}
}

// mulCols multiplies every row by g, and by c, and adds b.
func mulCols[F host.Float](a *args[F], lo, hi int) {
	g, c, b := a.Src[1].D, a.Src[2], a.Src[3]
	for i := lo; i < hi; i++ {
		y := a.Dst[0].Row(i)
		for j, v := range a.Src[0].Row(i) {
			v *= g[j]
			if !c.Nil() {
				v *= c.D[j]
			}
			if !b.Nil() {
				v += b.D[j]
			}
			put(a, y, j, v)
		}
	}
}

func mulColsDG[F host.Float](a *args[F], lo, hi int) {
	x, dy, c := a.Src[0], a.Src[1], a.Src[2]
	seg := a.Segments(0, a.In[0].Axis, x.Rows)
	for u := range seg.N {
		out, from, to := seg.At(u)
		o := out.Row(0)
		for j := lo; j < hi; j++ {
			var s F
			for i := from; i < to; i++ {
				s += x.Row(i)[j] * dy.Row(i)[j]
			}
			if !c.Nil() {
				s *= c.D[j]
			}
			put(a, o, j, s)
		}
	}
}

func fill[F host.Float](a *args[F], lo, hi int) {
	for i := lo; i < hi; i++ {
		y := a.Dst[0].Row(i)
		for j := range y {
			put(a, y, j, F(a.F[0]))
		}
	}
}

func addTo[F host.Float](a *args[F], lo, hi int) {
	for i := lo; i < hi; i++ {
		y := a.Dst[0].Row(i)
		for j, v := range a.Src[0].Row(i) {
			y[j] += v
		}
	}
}

func mulConst[F host.Float](a *args[F], lo, hi int) {
	s := a.Src[1].D[0]
	for i := lo; i < hi; i++ {
		y := a.Dst[0].Row(i)
		for j, v := range a.Src[0].Row(i) {
			put(a, y, j, v*s)
		}
	}
}

func dot[F host.Float](a *args[F], _, _ int) {
	w, l := a.Src[0], a.Src[1]
	var s F
	for i := range w.Rows {
		if v := w.Row(i)[0]; v != 0 { // an unused unit weighs 0, whatever its loss
			s += v * l.Row(i)[0]
		}
	}
	put(a, a.Dst[0].Row(0), 0, s)
}

func unary[F host.Float](a *args[F], lo, hi int) {
	f := backend.Func(a.I[0])
	for i := lo; i < hi; i++ {
		y := a.Dst[0].Row(i)
		for j, v := range a.Src[0].Row(i) {
			x := float64(v)
			var r float64
			switch f {
			case backend.GELU:
				r = float64(gelu(v))
			case backend.Tanh:
				r = math.Tanh(x)
			case backend.ReLU:
				r = math.Max(x, 0)
			case backend.Sigmoid:
				r = sigmoid(x)
			case backend.Softplus:
				r = softplus(x)
			case backend.Exp:
				r = math.Exp(x)
			case backend.Square:
				r = x * x
			case backend.Positive:
				if x > 0 {
					r = 1
				}
			case backend.InvSqrt:
				if x > 0 {
					r = 1 / math.Sqrt(x)
				}
			}
			put(a, y, j, F(r))
		}
	}
}

func unaryGrad[F host.Float](a *args[F], lo, hi int) {
	f := backend.Func(a.I[0])
	x, y, dy := a.Src[0], a.Src[1], a.Src[2]
	for i := lo; i < hi; i++ {
		dx := a.Dst[0].Row(i)
		var xr, yr []F
		if !x.Nil() {
			xr = x.Row(i)
		}
		if !y.Nil() {
			yr = y.Row(i)
		}
		for j, d := range dy.Row(i) {
			var g F
			switch f {
			case backend.GELU:
				g = geluD(xr[j])
			case backend.Tanh:
				g = 1 - yr[j]*yr[j]
			case backend.ReLU:
				if xr[j] > 0 {
					g = 1
				}
			case backend.Sigmoid:
				g = yr[j] * (1 - yr[j])
			case backend.Softplus:
				g = F(sigmoid(float64(xr[j])))
			case backend.Exp:
				g = yr[j]
			case backend.Square:
				g = 2 * xr[j]
			case backend.InvSqrt:
				g = -yr[j] * yr[j] * yr[j] / 2
			}
			put(a, dx, j, d*g)
		}
	}
}

// dropout keeps an element with probability 1-rate and scales it by 1/(1-rate). It is its own
// gradient.
func dropout[F host.Float](a *args[F], lo, hi int) {
	keys := a.Int[1]
	var seqs, pos []int32
	if len(a.Int) > 2 {
		seqs, pos = a.Int[2], a.Int[3]
	}
	for i := lo; i < hi; i++ {
		s, p := i, 0
		if seqs != nil {
			s, p = int(seqs[i]), int(pos[i])
		}
		x, y := a.Src[0].Row(i), a.Dst[0].Row(i)
		m := newMask(a, keys[s], a.I[0])
		for j, v := range x {
			f := m.factor(p*len(x) + j)
			if f == 0 { // whatever v is
				v = 0
			}
			put(a, y, j, v*f)
		}
	}
}

// A mask is the dropout of one sequence at one site.
type mask[F host.Float] struct {
	seed, step     uint64
	cut, key, site uint32
	scale          F // of what is kept

	four  uint32 // the last elements asked for, of a block of random words
	words [4]uint32
}

func newMask[F host.Float](a *args[F], key int32, site int) mask[F] {
	m := mask[F]{seed: a.S.Seed, step: a.S.Step, cut: philox.Threshold(a.F[0]), key: uint32(key), site: uint32(site)}
	if a.F[0] < 1 {
		m.scale = F(1 / (1 - a.F[0]))
	}
	m.words = philox.Words(m.seed, m.step, m.key, m.site, m.four)
	return m
}

// factor is what dropout multiplies an element by. Neighbours share a block of random words.
func (m *mask[F]) factor(element int) F {
	e := uint32(element)
	if e>>2 != m.four {
		m.four = e >> 2
		m.words = philox.Words(m.seed, m.step, m.key, m.site, m.four)
	}
	if m.words[e&3] < m.cut {
		return 0
	}
	return m.scale
}

// norm is in two passes over x + res, which scratch holds: any result may be dead.
func norm[F host.Float](a *args[F], lo, hi int) {
	y, mu, rs, sum := a.Dst[0], a.Dst[1], a.Dst[2], a.Dst[3]
	x, res, g, b := a.Src[0], a.Src[1], a.Src[2].D, a.Src[3].D
	for i := lo; i < hi; i++ {
		yr := host.Elements[F](a.Scratch)[i*x.Cols : (i+1)*x.Cols]
		copy(yr, x.Row(i))
		if !res.Nil() {
			for j, v := range res.Row(i) {
				yr[j] += v
			}
		}
		if !sum.Nil() {
			copy(sum.Row(i), yr)
		}
		var s, q F
		for _, v := range yr {
			s += v
		}
		s /= F(len(yr))
		for _, v := range yr {
			q += (v - s) * (v - s)
		}
		r := F(1 / math.Sqrt(float64(q)/float64(len(yr))+a.F[0]))
		if !y.Nil() {
			out := y.Row(i)
			for j, v := range yr {
				out[j] = (v-s)*r*g[j] + b[j]
			}
		}
		if !mu.Nil() {
			mu.Row(i)[0] = s
		}
		if !rs.Nil() {
			rs.Row(i)[0] = r
		}
	}
}

func normDX[F host.Float](a *args[F], lo, hi int) {
	dx, s, mu, rs, g, dy := a.Dst[0], a.Src[0], a.Src[1], a.Src[2], a.Src[3].D, a.Src[4]
	for i := lo; i < hi; i++ {
		sr, dr, or, u, r := s.Row(i), dy.Row(i), dx.Row(i), mu.Row(i)[0], rs.Row(i)[0]
		var p, q F
		for j, v := range sr {
			t := dr[j] * g[j]
			p += t
			q += t * (v - u) * r
		}
		p, q = p/F(len(sr)), q/F(len(sr))
		for j, v := range sr {
			put(a, or, j, r*(dr[j]*g[j]-p-(v-u)*r*q))
		}
	}
}

func normDG[F host.Float](a *args[F], lo, hi int) {
	s, mu, rs, dy := a.Src[0], a.Src[1], a.Src[2], a.Src[3]
	for k := range 2 {
		if a.Out[k].Dead() {
			continue
		}
		seg := a.Segments(k, a.In[0].Axis, s.Rows)
		for u := range seg.N {
			out, from, to := seg.At(u)
			o := out.Row(0)
			if !a.Out[k].Acc {
				clear(o[lo:hi])
			}
			for i := from; i < to; i++ {
				dr, sr := dy.Row(i), s.Row(i)
				for j := lo; j < hi; j++ {
					if k == 0 {
						o[j] += dr[j] * (sr[j] - mu.Row(i)[0]) * rs.Row(i)[0]
					} else {
						o[j] += dr[j]
					}
				}
			}
		}
	}
}

func normalize[F host.Float](a *args[F], lo, hi int) {
	y, rn, x := a.Dst[0], a.Dst[1], a.Src[0]
	for i := lo; i < hi; i++ {
		var q float64
		for _, v := range x.Row(i) {
			q += float64(v) * float64(v)
		}
		r := F(1 / math.Max(math.Sqrt(q), a.F[0]))
		if !rn.Nil() {
			rn.Row(i)[0] = r
		}
		if y.Nil() {
			continue
		}
		yr := y.Row(i)
		for j, v := range x.Row(i) {
			yr[j] = v * r
		}
	}
}

// normalizeGrad is dx = (dy - y (y·dy)) / |x|, or dy / eps where x is shorter than eps.
func normalizeGrad[F host.Float](a *args[F], lo, hi int) {
	dx, y, rn, dy := a.Dst[0], a.Src[0], a.Src[1], a.Src[2]
	for i := lo; i < hi; i++ {
		yr, dr, or, r := y.Row(i), dy.Row(i), dx.Row(i), rn.Row(i)[0]
		s := dotp(yr, dr)
		if float64(r)*a.F[0] > 1-1e-6 { // 1/eps, but for rounding
			s = 0
		}
		for j, d := range dr {
			put(a, or, j, (d-yr[j]*s)*r)
		}
	}
}

func rowSum[F host.Float](a *args[F], lo, hi int) {
	for i := lo; i < hi; i++ {
		var s F
		for _, v := range a.Src[0].Row(i) {
			s += v
		}
		put(a, a.Dst[0].Row(i), 0, s)
	}
}

func rowSumGrad[F host.Float](a *args[F], lo, hi int) {
	for i := lo; i < hi; i++ {
		dx, d := a.Dst[0].Row(i), a.Src[0].Row(i)[0]
		for j := range dx {
			put(a, dx, j, d)
		}
	}
}
