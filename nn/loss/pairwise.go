package loss

import (
	"rung/nn"
	"rung/nn/backend"
	"rung/nn/graph"
)

// Pairwise is the logistic loss of every pair of candidates with different labels (Burges et al. 2005,
// RankNet):
//
//	ℓ = Σ_{y_i > y_j} log(1 + exp(-(s_i - s_j)))
type Pairwise struct{}

// Name is "pairwise".
func (Pairwise) Name() string { return "pairwise" }

// Scope is one unit.
func (Pairwise) Scope() nn.Scope { return nn.Unit }

// Terms is the number of ordered pairs.
func (Pairwise) Terms(labels []float32) int {
	n := 0
	for _, a := range labels {
		for _, b := range labels {
			if a > b {
				n++
			}
		}
	}
	return n
}

// Loss is (B,1).
func (Pairwise) Loss(p *nn.Pass, out nn.Outputs, t nn.Targets) graph.E {
	order := p.Unary(backend.Positive, p.Pairs(t.Labels)) // (B,K·K) 1 where y_i > y_j
	real := p.Mul(p.Outer(t.Mask), order)                 // and both are candidates
	return p.RowSum(p.Mul(real, p.Softplus(p.Scale(p.Pairs(out.Scores), -1))))
}
