package loss

import (
	"errors"
	"fmt"
	"math"

	"rung/nn"
	"rung/nn/graph"
)

// CE is the cross-entropy of a cross-encoder with several classes: ℓ = Σ_k -log softmax(logits_k)[y_k],
// where label y is the class.
type CE struct{}

// Name is "ce".
func (CE) Name() string { return "ce" }

// Scope is one unit.
func (CE) Scope() nn.Scope { return nn.Unit }

// Terms is the number of candidates.
func (CE) Terms(labels []float32) int { return len(labels) }

// CheckLabel wants a class.
func (CE) CheckLabel(y float32, classes int) error {
	if classes < 2 {
		return errors.New("ce wants a model of 2 classes or more")
	}
	if !(y >= 0 && float64(y) < float64(classes)) || float64(y) != math.Trunc(float64(y)) {
		return fmt.Errorf("ce wants a whole number from 0 to %d", classes-1)
	}
	return nil
}

// Loss is (B,1).
func (CE) Loss(p *nn.Pass, out nn.Outputs, t nn.Targets) graph.E {
	return p.RowSum(p.Gather(p.CE(out.Logits, t.Class), p.Slots()))
}
