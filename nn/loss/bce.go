package loss

import (
	"errors"
	"fmt"
	"math"

	"rung/nn"
	"rung/nn/graph"
)

// BCE is the binary cross-entropy of each candidate's logit with its label in [0,1]:
//
//	ℓ = Σ_k log(1 + exp(s_k)) - y_k s_k
//
// With PosWeight w above 0 the positive term is multiplied by it, as torch's pos_weight:
// w y log(1 + exp(-s)) + (1-y) log(1 + exp(s)).
type BCE struct{ PosWeight float64 }

// Name is "bce".
func (BCE) Name() string { return "bce" }

// Scope is one unit.
func (BCE) Scope() nn.Scope { return nn.Unit }

// Terms is the number of candidates.
func (BCE) Terms(labels []float32) int { return len(labels) }

// CheckLabel wants a probability.
func (BCE) CheckLabel(y float32, _ int) error {
	if !(y >= 0 && y <= 1) {
		return errors.New("bce wants a number from 0 to 1")
	}
	return nil
}

// Loss is (B,1).
func (o BCE) Loss(p *nn.Pass, out nn.Outputs, t nn.Targets) graph.E {
	if !(o.PosWeight >= 0 && o.PosWeight <= math.MaxFloat32) {
		return p.Fail(fmt.Errorf("loss: bce: pos_weight is %v, want a positive number, or 0 for none", o.PosWeight))
	}
	l := p.BCE(out.Scores, t.Labels) // (B,K)
	if o.PosWeight > 0 && o.PosWeight != 1 {
		// log(1+exp(-s)) = softplus(s) - s is added w-1 times more where y is 1.
		pos := p.Mul(t.Labels, p.Softplus(p.Scale(out.Scores, -1)))
		l = p.Add(l, p.Scale(pos, o.PosWeight-1))
	}
	return masked(p, l, t)
}
