package arch

import (
	"rung/nn"
	"rung/nn/backend"
	"rung/nn/graph"
)

// Cross is a cross-encoder: query and passage in one sequence, scored from its first token, as
// Transformers' BertForSequenceClassification (Nogueira and Cho 2019, monoBERT).
type Cross struct {
	Encoder *nn.Encoder
	Labels  int // C: 1 for a score, more for classes
	head    *head
}

// NewCross makes the layers of a cross-encoder; every value is drawn or zero until a checkpoint gives it.
func NewCross(c nn.Config, labels int) *Cross {
	prefix := c.ModelType + "."
	return &Cross{Encoder: nn.NewEncoder(c, prefix), Labels: labels, head: newHead(c, prefix, labels)}
}

// Forward computes logits (N,C) and, with one label, scores (B,K).
func (m *Cross) Forward(p *nn.Pass) nn.Outputs {
	x := p.First(m.Encoder.Forward(p), p.Offsets) // (N,D)
	o := nn.Outputs{Logits: m.head.forward(p, x)} // (N,C)
	if m.Labels == 1 {
		o.Scores = p.Gather(o.Logits, p.Slots()) // (B,K)
	}
	return o
}

// Params are all parameters.
func (m *Cross) Params() []*nn.Param { return append(m.Encoder.Params(), m.head.params()...) }

// Slots are the layers that an adapter may wrap.
func (m *Cross) Slots() []nn.Slot { return append(m.Encoder.Slots(), m.head.slots()...) }

func relu(p *nn.Pass, x graph.E) graph.E { return p.Unary(backend.ReLU, x) }
