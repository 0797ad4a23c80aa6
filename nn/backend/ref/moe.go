package ref

import (
	"math"

	"rung/nn/backend"
	"rung/nn/backend/host"
)

// route is gates, probabilities and choices of rows.
func route[F host.Float](a *args[F], lo, hi int) {
	z, bias, k, n := a.Src[0], a.Src[1], a.I[0], a.I[2]
	c := z.Cols
	var columns [2 * backend.MaxExperts]F
	var numbers [backend.MaxExperts]int
	var keys, repeated [backend.MaxExperts]F
	gates, chosen := columns[:c*n+c], numbers[:k]
	for i := lo; i < hi; i++ {
		zr, g, p := z.Row(i), gates[:c*n], gates[c*n:]
		probabilities(a.I[1], zr, p)
		clear(g)
		scores := keys[:c*n]
		for e := range scores {
			if scores[e] = p[e/n]; !bias.Nil() {
				scores[e] += bias.D[e]
			}
		}
		order := scores
		if bias.Nil() && n == 1 { // in the order of p, which may be the same where z is not
			order = zr
		} else if bias.Nil() {
			order = repeated[:c*n]
			for e := range order {
				order[e] = zr[e/n]
			}
		}
		choose(chosen, order)
		if a.I[1] == backend.RouteSoftmax {
			shareSoftmax(chosen, n, zr, g)
		} else {
			shareScores(chosen, scores, g)
		}
		if !a.Dst[0].Nil() {
			copy(a.Dst[0].Row(i), gates)
		}
		if !a.Dst[1].Nil() {
			for j, e := range chosen {
				a.Dst[1].Row(i)[j] = F(e)
			}
		}
	}
}

// probabilities is the softmax of z, or the sigmoid of each.
func probabilities[F host.Float](how int, z, p []F) {
	if how == backend.RouteSigmoid {
		for j, v := range z {
			p[j] = F(sigmoid(float64(v)))
		}
		return
	}
	l := logSumExp(z, every)
	for j, v := range z {
		p[j] = F(math.Exp(float64(v) - l))
	}
}

// choose finds the greatest scores, of equals the first.
func choose[F host.Float](chosen []int, scores []F) {
	for j := range chosen {
		best := -1
	next:
		for e, s := range scores {
			if best >= 0 && !(s > scores[best]) {
				continue
			}
			for _, o := range chosen[:j] {
				if o == e {
					continue next
				}
			}
			best = e
		}
		chosen[j] = best
	}
}

// shareSoftmax is the softmax over the logits of the chosen.
func shareSoftmax[F host.Float](chosen []int, n int, z, g []F) {
	top, sum := math.Inf(-1), 0.
	for _, e := range chosen {
		top = math.Max(top, float64(z[e/n]))
	}
	for _, e := range chosen {
		sum += math.Exp(float64(z[e/n]) - top)
	}
	for _, e := range chosen {
		g[e] = F(math.Exp(float64(z[e/n])-top) / sum)
	}
}

// leastSum is the sum of scores below which gates of a sigmoid are all 1.
const leastSum = 1e-12

// shareScores is k times each chosen score by their sum. Biases may pull that to 0: then all share alike.
func shareScores[F host.Float](chosen []int, scores, g []F) {
	var sum F
	for _, e := range chosen {
		sum += scores[e]
	}
	for _, e := range chosen {
		g[e] = 1
		if !(sum <= leastSum) {
			g[e] = F(len(chosen)) * scores[e] / sum
		}
	}
}

// routeGrad goes back through the gates of the chosen, and through the probabilities. The choice has no
// gradient.
func routeGrad[F host.Float](a *args[F], lo, hi int) {
	y, at, bias, dy, k, n := a.Src[0], a.Src[1], a.Src[2], a.Src[3], a.I[0], a.I[2]
	c := a.Out[0].Cols
	var columns [backend.MaxExperts]F
	dp := columns[:c]
	for i := lo; i < hi; i++ {
		g, p := y.Row(i)[:c*n], y.Row(i)[c*n:]
		dg := dy.Row(i)[:c*n]
		copy(dp, dy.Row(i)[c*n:])
		var mean, sum F // Σ g dg
		for _, e := range at.Row(i)[:k] {
			mean += g[int(e)] * dg[int(e)]
		}
		if a.I[1] == backend.RouteSigmoid {
			for _, e := range at.Row(i)[:k] {
				sum += p[int(e)/n]
				if !bias.Nil() {
					sum += bias.D[int(e)]
				}
			}
			for _, e := range at.Row(i)[:k] {
				if !(sum <= leastSum) {
					dp[int(e)/n] += (F(k)*dg[int(e)] - mean) / sum
				}
			}
			for j, d := range dp {
				a.Dst[0].Row(i)[j] = d * p[j] * (1 - p[j])
			}
			continue
		}
		for j, d := range dp {
			sum += p[j] * d
		}
		for j, d := range dp {
			dp[j] = p[j] * (d - sum)
		}
		for _, e := range at.Row(i)[:k] {
			dp[int(e)/n] += g[int(e)] * (dg[int(e)] - mean)
		}
		copy(a.Dst[0].Row(i), dp)
	}
}

// assigned is the rows of whatever result there is.
func assigned[F host.Float](a *args[F]) int { return max(a.Dst[0].Rows, a.Dst[1].Rows) }

// assign gives a row to the expert of its number and to the last I[0].
func assign[F host.Float](a *args[F], lo, hi int) {
	y, at, ids, shared, experts := a.Dst[0], a.Dst[1], a.Int[0], a.I[0], a.I[1]
	for i := lo; i < hi; i++ {
		if !y.Nil() {
			r := y.Row(i)
			clear(r)
			r[:experts-shared][ids[i]] = 1
			for j := experts - shared; j < experts; j++ {
				r[j] = 1
			}
		}
		if !at.Nil() {
			r := at.Row(i)
			r[0] = F(ids[i])
			for j := range shared {
				r[1+j] = F(experts - shared + j)
			}
		}
	}
}

func spread[F host.Float](a *args[F], lo, hi int) {
	y, x, offs := a.Dst[0], a.Src[0], a.Int[1]
	for s := lo; s < hi; s++ {
		for i := int(offs[s]); i < int(offs[s+1]); i++ {
			copy(y.Row(i), x.Row(s))
		}
	}
}

func spreadGrad[F host.Float](a *args[F], lo, hi int) {
	dx, dy, offs := a.Dst[0], a.Src[0], a.Int[1]
	for s := lo; s < hi; s++ {
		r := dx.Row(s)
		clear(r)
		for i := int(offs[s]); i < int(offs[s+1]); i++ {
			addRow(r, dy.Row(i))
		}
	}
}

// gateMul is F[0] g h by groups of columns, one for each expert.
func gateMul[F host.Float](a *args[F], lo, hi int) {
	y, h, g := a.Dst[0], a.Src[0], a.Src[1]
	r := y.Cols / g.Cols
	for i := lo; i < hi; i++ {
		for e, v := range g.Row(i) {
			to := y.Row(i)[e*r : (e+1)*r]
			if v == 0 {
				clear(to)
				continue
			}
			v *= F(a.F[0])
			for j, x := range groupOf(h, i, e, r) {
				to[j] = v * x
			}
		}
	}
}

// groupOf is the columns of an expert in row i, which are the same for all where there are only r.
func groupOf[F host.Float](h mat[F], i, e, r int) []F {
	if h.Cols == r {
		return h.Row(i)
	}
	return h.Row(i)[e*r : (e+1)*r]
}

func gateMulGrad[F host.Float](a *args[F], lo, hi int) {
	dh, dg, h, g, dy := a.Dst[0], a.Dst[1], a.Src[0], a.Src[1], a.Src[2]
	by, r := F(a.F[0]), dy.Cols/g.Cols
	for i := lo; i < hi; i++ {
		if !dh.Nil() && h.Cols == r {
			clear(dh.Row(i))
		}
		d := dy.Row(i)
		for e, v := range g.Row(i) {
			de, x := d[e*r:(e+1)*r], groupOf(h, i, e, r)
			if !dg.Nil() {
				var sum F
				for j, t := range de {
					sum += x[j] * t
				}
				dg.Row(i)[e] = by * sum
			}
			if dh.Nil() {
				continue
			}
			to := groupOf(dh, i, e, r)
			switch v *= by; {
			case h.Cols == r:
				axpy(v, de, to)
			case v == 0:
				clear(to)
			default:
				for j, t := range de {
					to[j] = v * t
				}
			}
		}
	}
}

// load counts choices, and measures how sure they are.
func load[F host.Float](a *args[F], _, _ int) {
	n, h, at, p := a.Dst[0], a.Dst[1], a.Src[0], a.Src[1]
	if !n.Nil() {
		to := n.Row(0)
		clear(to)
		for i := range at.Rows {
			for _, e := range at.Row(i) {
				to[int(e)]++
			}
		}
		for e := range to {
			if a.I[0] == 1 {
				to[e] -= F(at.Rows*at.Cols) / F(len(to))
			}
		}
	}
	if h.Nil() {
		return
	}
	var s float64
	for i := 0; !p.Nil() && i < p.Rows; i++ {
		s += entropy(p.Row(i))
	}
	h.Row(0)[0] = F(s / math.Max(1, float64(at.Rows)))
}

// entropy of p by its sum, in nats.
func entropy[F host.Float](p []F) (h float64) {
	var sum float64
	for _, v := range p {
		sum += float64(v)
	}
	for _, v := range p {
		if q := float64(v) / sum; q > 0 {
			h -= q * math.Log(q)
		}
	}
	return h
}

// balance is in float64: its sums are over all rows.
func balance[F host.Float](a *args[F], _, _ int) {
	s, c, x, at := a.Dst[0], a.Dst[1], a.Src[0], a.Src[1]
	experts := x.Cols
	var columns [3][backend.MaxExperts]float64
	sums, share, by := columns[0][:experts], columns[1][:experts], columns[2][:experts]
	for i := range x.Rows {
		for e, v := range x.Row(i) {
			sums[e] += float64(v)
		}
		if a.I[0] != backend.BalanceCV {
			for j, e := range at.Row(i) {
				if j == 0 || a.I[0] == backend.BalanceAll {
					share[int(e)]++
				}
			}
		}
	}
	total := Balanced(a.I[0], a.F[0], x.Rows, sums, share, by)
	if !s.Nil() {
		s.Row(0)[0] = F(total)
	}
	if !c.Nil() {
		for e, v := range by {
			c.Row(0)[e] = F(v)
		}
	}
}

// Balanced is what backend.Balance says of the sums of columns of so many rows, and of how many rows chose each
// expert; by (E) gets its derivative by any row.
func Balanced(how int, f float64, rows int, sums, chosen, by []float64) (total float64) {
	if how == backend.BalanceCV {
		return variation(sums, by, f)
	}
	n := math.Max(1, float64(rows))
	for e := range by {
		by[e] = f * float64(len(by)) * chosen[e] / n / n
		total += by[e] * sums[e]
	}
	return total
}

// variation is f times the variance of x by its squared mean, and its derivative by each element.
func variation(x, by []float64, f float64) float64 {
	n := float64(len(x))
	if n < 2 {
		return 0
	}
	var mean, v float64
	for _, t := range x {
		mean += t / n
	}
	for _, t := range x {
		v += (t - mean) * (t - mean) / (n - 1)
	}
	d := mean*mean + 1e-10 // as Mixture-of-Experts code in use has it
	for e, t := range x {
		by[e] = f * (2*(t-mean)/(n-1)/d - v/d/d*2*mean/n)
	}
	return f * v / d
}

func broadcast[F host.Float](a *args[F], lo, hi int) {
	v, s := a.Src[0].D, a.Src[1].D[0]
	for i := lo; i < hi; i++ {
		for j, y := 0, a.Dst[0].Row(i); j < len(y); j++ {
			y[j] = v[j] * s
		}
	}
}

func zLoss[F host.Float](a *args[F], _, _ int) {
	z := a.Src[0]
	var s float64
	for i := range z.Rows {
		l := logSumExp(z.Row(i), every)
		s += l * l
	}
	a.Dst[0].Row(0)[0] = F(a.F[0] * s / math.Max(1, float64(z.Rows)))
}

func zLossGrad[F host.Float](a *args[F], lo, hi int) {
	z, s := a.Src[0], a.Src[1].D[0]
	f := a.F[0] * 2 / math.Max(1, float64(z.Rows)) * float64(s)
	for i := lo; i < hi; i++ {
		l := logSumExp(z.Row(i), every)
		for j, v := range z.Row(i) {
			a.Dst[0].Row(i)[j] = F(f * l * math.Exp(float64(v)-l))
		}
	}
}
