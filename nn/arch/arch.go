// Package arch is the architectures of rankers, one file each: how texts become token sequences, what
// the graph computes from them, and what a saved directory holds.
//
// The dimension letters are those of package nn.
package arch

import (
	"rung/nn"
	"rung/nn/graph"
)

// A head is a sequence classifier: from the first token's hidden state (N,D) to logits (N,C).
type head struct {
	dense, out           nn.Layer
	densePath, outPath   string
	act                  func(p *nn.Pass, x graph.E) graph.E
	dropBefore, dropRate float64
}

func tanh(p *nn.Pass, x graph.E) graph.E { return p.Tanh(x) }
func gelu(p *nn.Pass, x graph.E) graph.E { return p.GELU(x) }

// newHead makes the classifier of Transformers' <Model>ForSequenceClassification for c.
func newHead(c nn.Config, prefix string, labels int) *head {
	h := &head{dropRate: c.HeadDrop}
	switch c.ModelType {
	case "distilbert":
		h.densePath, h.outPath, h.act = "pre_classifier", "classifier", relu
	case "electra":
		h.densePath, h.outPath, h.act, h.dropBefore = "classifier.dense", "classifier.out_proj", gelu, c.HeadDrop
	default:
		h.densePath, h.outPath, h.act = prefix+"pooler.dense", "classifier", tanh
	}
	h.dense, h.out = nn.NewLinear(h.densePath, c.Hidden, c.Hidden, true), nn.NewLinear(h.outPath, c.Hidden, labels, true)
	return h
}

// forward is logits (N,C) of the first token's hidden state x (N,D).
func (h *head) forward(p *nn.Pass, x graph.E) graph.E {
	x = p.Dropout(x, h.dropBefore, h.densePath+".before")
	x = h.act(p, h.dense.Forward(p, x))
	return h.out.Forward(p, p.Dropout(x, h.dropRate, h.outPath))
}

func (h *head) params() []*nn.Param { return append(h.dense.Params(), h.out.Params()...) }

func (h *head) slots() []nn.Slot {
	return []nn.Slot{{Path: h.densePath, Layer: &h.dense}, {Path: h.outPath, Layer: &h.out}}
}
