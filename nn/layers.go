package nn

import "rung/nn/graph"

// Linear is y = x wT + b: x (R,in), w (out,in), b (out).
type Linear struct {
	Path string
	W, B *Param // B is nil without a bias
}

// NewLinear returns a layer whose parameters are path.weight and, with bias, path.bias.
func NewLinear(path string, in, out int, bias bool) *Linear {
	l := &Linear{Path: path, W: &Param{Path: path + ".weight", Dims: []int{out, in}, Trainable: true}}
	if bias {
		l.B = &Param{Path: path + ".bias", Dims: []int{out}, Trainable: true}
	}
	return l
}

// In is the width of rows.
func (l *Linear) In() int { return l.W.Dims[1] }

// Out is the width of the result.
func (l *Linear) Out() int { return l.W.Dims[0] }

// Params are the weight and the bias.
func (l *Linear) Params() []*Param {
	if l.B == nil {
		return []*Param{l.W}
	}
	return []*Param{l.W, l.B}
}

// Forward applies the layer to rows x.
func (l *Linear) Forward(p *Pass, x graph.E) graph.E {
	if l.B == nil {
		return p.Linear(x, p.Weight(l.W), graph.E{})
	}
	return p.Linear(x, p.Weight(l.W), p.Weight(l.B)) // (R,out)
}

// LayerNorm normalises rows.
type LayerNorm struct {
	W, B *Param
	Eps  float64
}

// NewLayerNorm returns a layer over rows of d values.
func NewLayerNorm(path string, d int, eps float64) *LayerNorm {
	l := &LayerNorm{
		W:   &Param{Path: path + ".weight", Dims: []int{d}, Trainable: true, Init: Ones},
		B:   &Param{Path: path + ".bias", Dims: []int{d}, Trainable: true},
		Eps: eps,
	}
	return l
}

// Params are the weight and the bias.
func (l *LayerNorm) Params() []*Param { return []*Param{l.W, l.B} }

// Forward applies the layer to rows x (R,D).
func (l *LayerNorm) Forward(p *Pass, x graph.E) graph.E {
	return p.LayerNorm(x, p.Weight(l.W), p.Weight(l.B), l.Eps)
}
