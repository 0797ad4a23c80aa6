package lora

import (
	"fmt"

	"rung/nn"
	"rung/nn/graph"
)

// An adapted layer is a linear layer with an adapter of some kind.
type adapted interface {
	nn.Layer
	own() []*nn.Param // what the adapter adds to the base's parameters
	// fold puts the adapter into the base's weight (out,in) and bias (out), nil where there is none.
	fold(v values, w, b []float64) error
	// shape is all that the layer's programs for scoring depend on but for the base and the dimensions of parameters.
	shape() string
}

// values reads a parameter.
type values func(p *nn.Param) ([]float64, error)

// both reads two parameters.
func (v values) both(p, q *nn.Param) (a, b []float64, err error) {
	if a, err = v(p); err == nil {
		b, err = v(q)
	}
	return a, b, err
}

// Linear is a linear layer with an adapter beside it (Hu et al. 2021, equation 3):
//
//	y = Base(x) + Scale B A dropout(x)
//
// x (rows,in), A (R,in), B (out,R). B starts at zero, so that a fresh adapter changes nothing.
type Linear struct {
	Path    string // of the module
	Base    *nn.Linear
	A, B    *nn.Param
	Scale   float64
	Dropout float64
}

// newLinear puts an adapter of the given rank beside base.
func newLinear(path string, base *nn.Linear, rank int, scale float64, c *Config, seed uint64) *Linear {
	l := &Linear{
		Path: path, Base: base, Scale: scale, Dropout: c.Dropout,
		A: &nn.Param{Path: path + ".lora_A.weight", Dims: []int{rank, base.In()}, Trainable: !c.FreezeA},
		B: &nn.Param{Path: path + ".lora_B.weight", Dims: []int{base.Out(), rank}, Trainable: true, Rate: c.LoRAPlus},
	}
	l.draw(c.Init, seed)
	return l
}

// Rank is R.
func (l *Linear) Rank() int { return l.A.Dims[0] }

// Params are those of the base, then A and B.
func (l *Linear) Params() []*nn.Param { return append(l.Base.Params(), l.own()...) }

func (l *Linear) own() []*nn.Param { return []*nn.Param{l.A, l.B} }

func (l *Linear) shape() string {
	return fmt.Sprintf("%s lora %v", l.Path, l.Scale)
}

// Forward applies the layer to rows x. What it adds is plain nodes, which rewriting joins with the
// base's matmul.
func (l *Linear) Forward(p *nn.Pass, x graph.E) graph.E {
	return p.Add(l.Base.Forward(p, x), l.delta(p, l.drop(p, x))) // (rows,out)
}

func (l *Linear) drop(p *nn.Pass, x graph.E) graph.E {
	return p.Dropout(x, l.Dropout, l.Path+".lora_dropout")
}

// delta is Scale B A x.
func (l *Linear) delta(p *nn.Pass, x graph.E) graph.E {
	h := p.Linear(x, p.Weight(l.A), graph.E{}) // (rows,R)
	return p.Linear(p.Scale(h, l.Scale), p.Weight(l.B), graph.E{})
}

// fold adds Scale B A to w.
func (l *Linear) fold(v values, w, _ []float64) error {
	a, b, err := v.both(l.A, l.B)
	if err != nil {
		return err
	}
	addProduct(w, b, a, l.Rank(), l.Scale)
	return nil
}

// addProduct adds s b a to w (out,in), b (out,rank), a (rank,in).
func addProduct(w, b, a []float64, rank int, s float64) {
	in := len(a) / rank
	sum := make([]float64, in)
	for o := range len(b) / rank {
		clear(sum)
		for r, f := range b[o*rank : (o+1)*rank] {
			for i, x := range a[r*in : (r+1)*in] {
				sum[i] += f * x
			}
		}
		for i, x := range sum {
			w[o*in+i] += s * x
		}
	}
}
