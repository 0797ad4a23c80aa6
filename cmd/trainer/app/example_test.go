package app_test

import (
	"os"

	"rung/cmd/trainer/app"
	"rung/nn"
	"rung/nn/backend"
	"rung/nn/graph"
)

// Brier is the squared error of each candidate's probability.
type Brier struct{ Weight float64 }

func (Brier) Name() string               { return "brier" }
func (Brier) Scope() nn.Scope            { return nn.Unit }
func (Brier) Terms(labels []float32) int { return len(labels) }
func (o Brier) Loss(p *nn.Pass, out nn.Outputs, t nn.Targets) graph.E {
	miss := p.Unary(backend.Square, p.Sub(p.Unary(backend.Sigmoid, out.Scores), t.Labels)) // (B,K)
	return p.Scale(p.RowSum(p.Mul(miss, t.Mask)), o.Weight)
}

// A trainer with a loss of its own: configurations say loss: {name: brier, weight: 2}.
func Example() {
	r := app.Builtin()
	r.Losses["brier"] = app.Loss{Objective: Brier{Weight: 1}, About: "squared error of probabilities"}
	os.Exit(app.Main(r))
}
