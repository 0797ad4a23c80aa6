package lora

import (
	"math"

	"rung/nn"
	"rung/nn/graph"
)

// Linear is a linear layer with an adapter beside it (Hu et al. 2021, equation 3):
//
//	y = Base(x) + Scale B A dropout(x)
//
// x (rows,in), A (R,in), B (out,R). B starts at zero, so that a fresh adapter changes nothing.
type Linear struct {
	Path    string // of the module
	Base    nn.Layer
	A, B    *nn.Param
	Scale   float64
	Dropout float64
}

// newLinear puts an adapter of the given rank beside base. A is drawn from U(-1/√in, 1/√in), which is
// PEFT's kaiming_uniform with a = √5, by the seed and its path.
func newLinear(path string, base *nn.Linear, rank int, scale, dropout float64, seed uint64) *Linear {
	l := &Linear{
		Path: path, Base: base, Scale: scale, Dropout: dropout,
		A: &nn.Param{Path: path + ".lora_A.weight", Dims: []int{rank, base.In()}, Trainable: true},
		B: &nn.Param{Path: path + ".lora_B.weight", Dims: []int{base.Out(), rank}, Trainable: true},
	}
	l.A.Init = l.A.Uniform(seed, 1/math.Sqrt(float64(base.In())))
	return l
}

// Rank is R.
func (l *Linear) Rank() int { return l.A.Dims[0] }

// Params are those of the base, then A and B.
func (l *Linear) Params() []*nn.Param { return append(l.Base.Params(), l.A, l.B) }

// Forward applies the layer to rows x. What it adds is plain nodes, which rewriting joins with the
// base's matmul.
func (l *Linear) Forward(p *nn.Pass, x graph.E) graph.E {
	y := l.Base.Forward(p, x)                                                                // (rows,out)
	h := p.Linear(p.Dropout(x, l.Dropout, l.Path+".lora_dropout"), p.Weight(l.A), graph.E{}) // (rows,R)
	return p.Add(y, p.Linear(p.Scale(h, l.Scale), p.Weight(l.B), graph.E{}))
}
