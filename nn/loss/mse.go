package loss

import (
	"rung/nn"
	"rung/nn/backend"
	"rung/nn/graph"
)

// MSE is the squared error of each candidate's score: ℓ = Σ_k (s_k - y_k)².
type MSE struct{}

// Name is "mse".
func (MSE) Name() string { return "mse" }

// Scope is one unit.
func (MSE) Scope() nn.Scope { return nn.Unit }

// Terms is the number of candidates.
func (MSE) Terms(labels []float32) int { return len(labels) }

// Loss is (B,1).
func (MSE) Loss(p *nn.Pass, out nn.Outputs, t nn.Targets) graph.E {
	return masked(p, p.Unary(backend.Square, p.Sub(out.Scores, t.Labels)), t)
}
