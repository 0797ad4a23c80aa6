package lora

import (
	"math"

	"gonum.org/v1/gonum/mat"

	"rung/nn"
	"rung/nn/backend/philox"
)

// draw says how A and B start: draws are those of the seed and the path. PiSSA's, which reads W, is apart.
func (l *Linear) draw(init string, seed uint64) {
	switch in := float64(l.Base.In()); init {
	case InitUniform: // PEFT's kaiming_uniform with a = √5
		l.A.Init = l.A.Uniform(seed, 1/math.Sqrt(in))
	case InitGaussian:
		l.A.Init = l.A.Normal(seed, 1/float64(l.Rank()))
	case InitOrthogonal:
		l.A.Init = func(dst []float32) error { a, _ := l.orthogonal(seed); return set(dst, a) }
		l.B.Init = func(dst []float32) error { _, b := l.orthogonal(seed); return set(dst, b) }
	}
}

func set(dst []float32, v mat.Matrix) error {
	rows, cols := v.Dims()
	for i := range rows {
		for j := range cols {
			dst[i*cols+j] = float32(v.At(i, j))
		}
	}
	return nil
}

// orthogonal is A = Q₁ᵀ Xᵀ / 10 and B = Yᵀ Q₂ / 10, whose product is zero: Q₁ and Q₂ are every other row of an
// orthogonal matrix (R,R), X (in,R/2) and Y (R/2,out) are normal (PEFT's "orthogonal", after Datta 2024, "Rethinking
// LoRA initialisations"). Both matrices learn from the first step on.
func (l *Linear) orthogonal(seed uint64) (a, b *mat.Dense) {
	rank := l.Rank()
	var qr mat.QR
	qr.Factorize(normal(seed, l.Path+".lora_q", rank, rank))
	var q mat.Dense
	qr.QTo(&q)
	half := rank / 2
	odd, even := mat.NewDense(half, rank, nil), mat.NewDense(half, rank, nil)
	for i := range half {
		odd.SetRow(i, q.RawRowView(2*i))
		even.SetRow(i, q.RawRowView(2*i+1))
	}
	a, b = new(mat.Dense), new(mat.Dense)
	a.Mul(odd.T(), normal(seed, l.A.Path, half, l.Base.In()))
	b.Mul(normal(seed, l.B.Path, l.Base.Out(), half), even)
	a.Scale(.1, a)
	b.Scale(.1, b)
	return a, b
}

// normal is a matrix of draws from N(0,1), by the seed and a name.
func normal(seed uint64, name string, rows, cols int) *mat.Dense {
	v := make([]float64, rows*cols)
	philox.Normal(v, seed, name)
	return mat.NewDense(rows, cols, v)
}

// initial is the value that a parameter starts from.
func initial(p *nn.Param) ([]float32, error) {
	v := make([]float32, p.Size())
	if p.Init == nil {
		return v, nil
	}
	return v, p.Init(v)
}
