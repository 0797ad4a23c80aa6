package loss

import (
	"errors"

	"rung/nn"
	"rung/nn/graph"
)

// Listwise is the cross-entropy of the softmax over a unit's candidates with its labels (ListNet's
// top-one loss, Cao et al. 2007, with labels as they are): ℓ = -Σ_k y_k log softmax(s)_k. With one
// positive among negatives it is the localised contrastive loss that rerankers are trained with.
type Listwise struct{}

// Name is "listwise".
func (Listwise) Name() string { return "listwise" }

// Scope is one unit.
func (Listwise) Scope() nn.Scope { return nn.Unit }

// Terms is 1 for a unit with a positive label, else 0.
func (Listwise) Terms(labels []float32) int {
	for _, y := range labels {
		if y > 0 {
			return 1
		}
	}
	return 0
}

// CheckLabel wants a gain: with a negative one the loss has no minimum.
func (Listwise) CheckLabel(y float32, _ int) error {
	if !(y >= 0) {
		return errors.New("listwise wants a number of 0 or more")
	}
	return nil
}

// Loss is (B,1).
func (Listwise) Loss(p *nn.Pass, out nn.Outputs, t nn.Targets) graph.E {
	logp := p.LogSoftmax(out.Scores, t.Mask) // (B,K), 0 where there is no candidate
	return p.Scale(p.RowSum(p.Mul(t.Labels, logp)), -1)
}
