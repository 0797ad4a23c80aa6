package lora

import (
	"fmt"

	"rung/nn"
	"rung/nn/graph"
)

// alloraLinear is LoRA without dropout and without α, whose rows learn at rates of their own (Huang and Balestriero
// 2024, "ALLoRA: Adaptive Learning Rate Mitigates LoRA Fatal Flaws", section 4.2): forward is
//
//	y = W x + b + B A x
//
// and in backward, for A and B alone, row i of the gradient of B A, which is that of output i, is multiplied by
//
//	1/√(|(B A)_i| + 1/η²)
//
// with the length of row i of B A, so that rows that are near zero learn η times as fast. The gradient that goes on
// to earlier layers is not touched. The rows are those of the product, as the paper's text and public code have
// them; PEFT has no ALLoRA. It is saved as plain LoRA with a scale of 1.
type alloraLinear struct {
	*Linear
	Eta float64
}

func (l *alloraLinear) shape() string { return fmt.Sprintf("%s allora %v", l.Path, l.Eta) }

func (l *alloraLinear) Forward(p *nn.Pass, x graph.E) graph.E {
	var bias graph.E
	if l.Base.B != nil {
		bias = p.Weight(l.Base.B)
	}
	return p.LinearScaled(x, p.Weight(l.Base.W), p.Weight(l.A), p.Weight(l.B), bias, l.Eta)
}
