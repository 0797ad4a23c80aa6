package lora

import (
	"rung/nn"
	"rung/nn/graph"
)

// ia3Linear scales activations (Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than
// In-Context Learning", section 3.3): each output, bias included, or with Inner each input of a feed-forward layer,
//
//	y = L (W x + b)    or    y = W (L x) + b
//
// L (out,1) or (1,in), PEFT's ia3_l, starts at ones.
type ia3Linear struct {
	Path  string
	Base  *nn.Linear
	L     *nn.Param
	Inner bool
}

func newIA3(path string, base *nn.Linear, inner bool) *ia3Linear {
	dims := []int{base.Out(), 1}
	if inner {
		dims = []int{1, base.In()}
	}
	return &ia3Linear{path, base, &nn.Param{Path: path + ".ia3_l", Dims: dims, Trainable: true, Init: nn.Ones}, inner}
}

func (l *ia3Linear) Params() []*nn.Param { return append(l.Base.Params(), l.L) }
func (l *ia3Linear) own() []*nn.Param    { return []*nn.Param{l.L} }
func (l *ia3Linear) shape() string       { return l.Path + " ia3" } // L's dimensions say the rest

func (l *ia3Linear) Forward(p *nn.Pass, x graph.E) graph.E {
	if l.Inner {
		return l.Base.Forward(p, p.MulCols(x, p.Weight(l.L), graph.E{}, graph.E{}))
	}
	return p.MulCols(l.Base.Forward(p, x), p.Weight(l.L), graph.E{}, graph.E{})
}

func (l *ia3Linear) fold(v values, w, b []float64) error {
	s, err := v(l.L)
	if err != nil {
		return err
	}
	in := l.Base.In()
	for i := range w {
		if l.Inner {
			w[i] *= s[i%in]
		} else {
			w[i] *= s[i/in]
		}
	}
	if !l.Inner {
		for i := range b {
			b[i] *= s[i]
		}
	}
	return nil
}
