package lora

import (
	"fmt"
	"math"
	"sync"

	"gonum.org/v1/gonum/mat"

	"rung/nn"
)

// A pissa is the start of an adapter from the singular value decomposition W = U S V of its base (Meng et al. 2024,
// "PiSSA: Principal Singular Values and Singular Vectors Adaptation", equations 2 to 4): of the R greatest singular
// values,
//
//	A₀ = √(S/Scale) V (R,in)    B₀ = U √(S/Scale) (out,R)
//
// and while it is trained the base's weight is what they leave, W - Scale B₀ A₀. So the adapter begins with what
// matters most in W, and the model computes what it did before. Saved is plain LoRA of rank 2R on the untouched base,
//
//	[B, -B₀] [A; A₀]
//
// which is PEFT's own conversion, and opens anywhere.
type pissa struct {
	l      *Linear
	was    func(dst []float32) error // of W
	start  func() (factors, error)   // computed once
	weight *nn.Param
}

// factors are A₀ and B₀, as float32 has them: what is trained starts from exactly what is taken out of W.
type factors struct{ a, b []float32 }

func newPiSSA(l *Linear) *pissa {
	p := &pissa{l: l, weight: l.Base.W, was: l.Base.W.Init}
	p.start = sync.OnceValues(p.decompose)
	l.A.Init = func(dst []float32) error { f, err := p.start(); copy(dst, f.a); return err }
	l.B.Init = func(dst []float32) error { f, err := p.start(); copy(dst, f.b); return err }
	return p
}

// install makes the base's weight start as what is left of it.
func (p *pissa) install() { p.weight.Init = p.residual }

// original reads W as it was.
func (p *pissa) original() ([]float64, error) {
	v := make([]float32, p.weight.Size())
	if p.was != nil {
		if err := p.was(v); err != nil {
			return nil, err
		}
	}
	return widen(v), nil
}

func (p *pissa) residual(dst []float32) error {
	w, err := p.original()
	if err != nil {
		return err
	}
	f, err := p.start()
	if err != nil {
		return err
	}
	addProduct(w, widen(f.b), widen(f.a), p.l.Rank(), -p.l.Scale)
	copy(dst, narrow(w))
	return nil
}

func (p *pissa) decompose() (factors, error) {
	var f factors
	w, err := p.original()
	if err != nil {
		return f, err
	}
	out, in, rank := p.l.Base.Out(), p.l.Base.In(), p.l.Rank()
	u, s, v, ok := topSVD(mat.NewDense(out, in, w), rank)
	if !ok || p.l.Scale < 0 {
		return f, fmt.Errorf("lora: %q: no singular value decomposition of scale %v: is a weight not finite?", p.l.Base.W.Path, p.l.Scale)
	}
	f.a, f.b = make([]float32, rank*in), make([]float32, out*rank)
	for r := range rank {
		root := math.Sqrt(s[r] / p.l.Scale)
		for j := range in {
			f.a[r*in+j] = float32(root * v.At(j, r))
		}
		for i := range out {
			f.b[i*rank+r] = float32(root * u.At(i, r))
		}
	}
	return f, nil
}

// topSVD is the rank greatest singular values of w (out,in), in descending order, and their vectors: u (out,rank),
// v (in,rank). Those of a singular value of zero, which no product reads, are zero. It decomposes w wᵀ or wᵀ w,
// whichever is smaller, so that the values are good to √ε of the greatest: more than float32 holds.
func topSVD(w *mat.Dense, rank int) (u *mat.Dense, s []float64, v *mat.Dense, ok bool) {
	out, in := w.Dims()
	if out > in {
		v, s, u, ok = topSVD(mat.DenseCopyOf(w.T()), rank)
		return u, s, v, ok
	}
	var gram mat.SymDense
	gram.SymOuterK(1, w) // (out,out)
	for i := range out {
		if d := gram.At(i, i); d-d != 0 {
			return nil, nil, nil, false
		}
	}
	var eig mat.EigenSym
	if !eig.Factorize(&gram, true) {
		return nil, nil, nil, false
	}
	values := eig.Values(nil) // ascending
	var vectors mat.Dense
	eig.VectorsTo(&vectors)
	s, u, v = make([]float64, rank), mat.NewDense(out, rank, nil), mat.NewDense(in, rank, nil)
	floor := 1e-14 * values[out-1]
	for r := range rank {
		k := out - 1 - r
		if k < 0 || values[k] <= floor {
			continue
		}
		s[r] = math.Sqrt(values[k])
		column := mat.NewVecDense(out, nil)
		column.CopyVec(vectors.ColView(k))
		sign := 1.
		for i, most := 0, 0.; i < out; i++ { // the greatest element is positive: a choice that a rounding does not turn
			if x := column.AtVec(i); math.Abs(x) > most {
				most, sign = math.Abs(x), math.Copysign(1, x)
			}
		}
		column.ScaleVec(sign, column)
		u.SetCol(r, column.RawVector().Data)
		var row mat.VecDense
		row.MulVec(w.T(), column)
		row.ScaleVec(1/s[r], &row)
		v.SetCol(r, row.RawVector().Data)
	}
	return u, s, v, true
}

// converted is A and B of the plain adapter of rank 2R.
func (p *pissa) converted(v values) (a, b []float64, rank int, err error) {
	if a, err = v(p.l.A); err != nil {
		return nil, nil, 0, err
	}
	now, err := v(p.l.B)
	if err != nil {
		return nil, nil, 0, err
	}
	f, err := p.start()
	if err != nil {
		return nil, nil, 0, err
	}
	rank = p.l.Rank()
	a = append(a[:len(a):len(a)], widen(f.a)...)
	for o := range p.l.Base.Out() {
		b = append(b, now[o*rank:(o+1)*rank]...)
		for _, x := range f.b[o*rank : (o+1)*rank] {
			b = append(b, -float64(x))
		}
	}
	return a, b, 2 * rank, nil
}
