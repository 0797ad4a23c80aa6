package lora

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
)

// module combines the adapters of one module. The result has a scale of 1.
func (c *Combination) module(lows []low, weights []float64) (low, error) {
	in, out := lows[0].a.RawMatrix().Cols, lows[0].b.RawMatrix().Rows
	for _, l := range lows {
		if l.a.RawMatrix().Cols != in || l.b.RawMatrix().Rows != out {
			return low{}, fmt.Errorf("it is (%d,%d) in one adapter and (%d,%d) in another: their bases differ", out, in, l.b.RawMatrix().Rows, l.a.RawMatrix().Cols)
		}
	}
	switch c.Method {
	case Cat:
		return cat(lows, weights), nil
	case SVD:
		rank := c.Rank
		if rank == 0 {
			for _, l := range lows {
				rank = max(rank, l.a.RawMatrix().Rows)
			}
		}
		return truncated(cat(lows, weights), min(rank, in, out))
	}
	for _, l := range lows {
		if l.a.RawMatrix().Rows != lows[0].a.RawMatrix().Rows {
			return low{}, fmt.Errorf("ranks %d and %d: %s wants equal ones, %s and %s do not", lows[0].a.RawMatrix().Rows, l.a.RawMatrix().Rows, c.Method, Cat, SVD)
		}
	}
	return c.summed(lows, weights), nil
}

// cat is [weight Scale A; …] and [B, …].
func cat(lows []low, weights []float64) low {
	var a, b mat.Dense
	for i, l := range lows {
		var scaled mat.Dense
		scaled.Scale(weights[i]*l.scale, l.a)
		if i == 0 {
			a.CloneFrom(&scaled)
			b.CloneFrom(l.b)
			continue
		}
		var na, nb mat.Dense
		na.Stack(&a, &scaled)
		nb.Augment(&b, l.b)
		a, b = na, nb
	}
	return low{&a, &b, 1}
}

// truncated is the best approximation of rank rank to b a (Eckart and Young 1936): QR of both factors, then the
// decomposition of the small matrix between. As in PEFT the singular values are with B.
func truncated(l low, rank int) (low, error) {
	k, in := l.a.Dims()
	out := l.b.RawMatrix().Rows
	qb, rb := thinQR(l.b)
	qa, ra := thinQR(mat.DenseCopyOf(l.a.T()))
	var core mat.Dense
	core.Mul(rb, ra.T())
	var svd mat.SVD
	if !svd.Factorize(&core, mat.SVDThin) {
		return low{}, fmt.Errorf("no singular value decomposition: is an adapter's weight not finite?")
	}
	values := svd.Values(nil)
	var u, v mat.Dense
	svd.UTo(&u)
	svd.VTo(&v)
	a, b := mat.NewDense(rank, in, nil), mat.NewDense(out, rank, nil)
	for r := range min(rank, len(values), k) {
		var col, row mat.VecDense
		col.MulVec(qb, u.ColView(r))
		col.ScaleVec(values[r], &col)
		row.MulVec(qa, v.ColView(r))
		b.SetCol(r, col.RawVector().Data)
		a.SetRow(r, row.RawVector().Data)
	}
	return low{a, b, 1}, nil
}

// thinQR is q (m,k) with orthonormal columns and r (k,n) whose product is x (m,n), k the smaller of m and n.
func thinQR(x *mat.Dense) (q, r mat.Matrix) {
	m, n := x.Dims()
	if m < n { // already as small as it gets
		one := mat.NewDense(m, m, nil)
		for i := range m {
			one.Set(i, i, 1)
		}
		return one, x
	}
	var qr mat.QR
	qr.Factorize(x)
	var full, upper mat.Dense
	qr.QTo(&full)
	qr.RTo(&upper)
	return full.Slice(0, m, 0, n), upper.Slice(0, n, 0, n)
}

// summed is the sums of A and of B, by what each adapter is worth; of TIES after trimming, over what agrees.
func (c *Combination) summed(lows []low, weights []float64) low {
	as, bs := make([][]float64, len(lows)), make([][]float64, len(lows))
	wa, wb := make([]float64, len(lows)), make([]float64, len(lows))
	for i, l := range lows {
		as[i], bs[i] = flat(l.a), flat(l.b)
		wb[i] = math.Sqrt(math.Abs(weights[i] * l.scale))
		wa[i] = math.Copysign(wb[i], weights[i]*l.scale)
	}
	sum := weighted
	if c.Method == TIES {
		sum = func(xs [][]float64, w []float64) []float64 { return ties(xs, w, c.Density) }
	}
	rank, in := lows[0].a.Dims()
	return low{mat.NewDense(rank, in, sum(as, wa)), mat.NewDense(lows[0].b.RawMatrix().Rows, rank, sum(bs, wb)), 1}
}

func weighted(xs [][]float64, w []float64) []float64 {
	out := make([]float64, len(xs[0]))
	for k, x := range xs {
		for i, v := range x {
			out[i] += w[k] * v
		}
	}
	return out
}

// ties is Yadav et al. 2023, "TIES-Merging", algorithm 1, on each of A and B as PEFT has it: of each adapter the
// greatest elements are kept, the sign of an element is that of the sum of what is kept, and the result is the mean of
// the weighted elements that have it. Of equal elements the first is kept.
func ties(xs [][]float64, w []float64, density float64) []float64 {
	n := len(xs[0])
	trimmed := make([][]float64, len(xs))
	for k, x := range xs {
		trimmed[k] = trim(x, density)
	}
	out := make([]float64, n)
	for i := range out {
		var sum, of float64
		for _, x := range trimmed {
			sum += x[i]
		}
		count := 0
		for k, x := range trimmed {
			if x[i] != 0 && (x[i] > 0) == (sum >= 0) {
				of += w[k] * x[i]
				count++
			}
		}
		if count > 0 {
			out[i] = of / float64(count)
		}
	}
	return out
}

// trim keeps the density part of x that is greatest.
func trim(x []float64, density float64) []float64 {
	if density >= 1 {
		return x
	}
	order := make([]int, len(x))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(math.Abs(x[j]), math.Abs(x[i])) })
	out := make([]float64, len(x))
	for _, i := range order[:int(density*float64(len(x)))] {
		out[i] = x[i]
	}
	return out
}
