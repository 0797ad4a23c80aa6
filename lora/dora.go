package lora

import (
	"fmt"
	"math"

	"rung/nn"
	"rung/nn/graph"
)

// doraLinear learns lengths and directions of the rows of W apart (Liu et al. 2024, "DoRA: Weight-Decomposed
// Low-Rank Adaptation", equation 5):
//
//	y = M/|W + Scale B A| (W x + Scale B A x) + b
//
// with the length of each row, which is a constant in backward (section 4.3). M (out) starts as the lengths of the
// rows of W, so that a fresh adapter changes nothing. The bias stands outside. With dropout, as PEFT has it, x keeps
// its way through W, and what the adapter changes reads what is left:
//
//	y = W x + b + (M/|…| - 1) W dropout(x) + M/|…| Scale B A dropout(x)
type doraLinear struct {
	*Linear
	M *nn.Param
}

func newDoRA(l *Linear) *doraLinear {
	d := &doraLinear{l, &nn.Param{Path: l.Path + ".lora_magnitude_vector", Dims: []int{l.Base.Out()}, Trainable: true}}
	w := *l.Base.W // as it is before it is trained
	d.M.Init = func(dst []float32) error {
		v := make([]float32, w.Size())
		if w.Init != nil {
			if err := w.Init(v); err != nil {
				return err
			}
		}
		for i, n := range lengths(widen(v), len(dst)) {
			dst[i] = float32(n)
		}
		return nil
	}
	return d
}

// lengths are those of the rows of w.
func lengths(w []float64, rows int) []float64 {
	n := make([]float64, rows)
	in := len(w) / rows
	for i := range n {
		for _, x := range w[i*in : (i+1)*in] {
			n[i] += x * x
		}
		n[i] = math.Sqrt(n[i])
	}
	return n
}

func (d *doraLinear) Params() []*nn.Param { return append(d.Base.Params(), d.own()...) }
func (d *doraLinear) own() []*nn.Param    { return append(d.Linear.own(), d.M) }
func (d *doraLinear) shape() string       { return fmt.Sprintf("%s dora %v", d.Path, d.Scale) }

func (d *doraLinear) Forward(p *nn.Pass, x graph.E) graph.E {
	w := p.Weight(d.Base.W)
	var bias graph.E
	if d.Base.B != nil {
		bias = p.Weight(d.Base.B)
	}
	c := p.InvNorm(p.Add(w, p.Product(p.Scale(p.Weight(d.B), d.Scale), p.Weight(d.A)))) // (out,1)
	left := d.drop(p, x)
	scaled := func(bias graph.E) graph.E {
		return p.MulCols(p.Add(p.Linear(left, w, graph.E{}), d.delta(p, left)), p.Weight(d.M), c, bias)
	}
	if left == x {
		return scaled(bias) // (rows,out)
	}
	lost := p.Sub(p.Linear(x, w, bias), p.Linear(left, w, graph.E{}))
	return p.Add(lost, scaled(graph.E{}))
}

func (d *doraLinear) fold(v values, w, b []float64) error {
	m, err := v(d.M)
	if err == nil {
		err = d.Linear.fold(v, w, b)
	}
	if err != nil {
		return err
	}
	in := len(w) / len(m)
	for i, n := range lengths(w, len(m)) {
		f := m[i] / max(n, 1e-12)
		for j := range in {
			w[i*in+j] *= f
		}
	}
	return nil
}
