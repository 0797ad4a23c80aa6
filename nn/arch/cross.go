package arch

import (
	"context"
	"fmt"

	"rung/data"
	"rung/data/token"
	"rung/nn"
	"rung/nn/backend"
	"rung/nn/graph"
)

// Cross is a cross-encoder: query and passage in one sequence, scored from its first token, as
// Transformers' BertForSequenceClassification (Nogueira and Cho 2019, monoBERT).
type Cross struct {
	Text
	Encoder *nn.Encoder
	Labels  int // C: 1 for a score, more for classes

	head      *head
	transform Transform
}

// NewCross makes the layers of a cross-encoder; every value is drawn or zero until a checkpoint gives it.
func NewCross(c nn.Config, labels int) *Cross {
	prefix := c.ModelType + "."
	return &Cross{Encoder: nn.NewEncoder(c, prefix), Labels: labels, head: newHead(c, prefix, labels), transform: defaultTransform(labels)}
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

// Transform is the sigmoid for one label, unless the directory says otherwise.
func (m *Cross) Transform() Transform { return m.transform }

// Encode appends one sequence a candidate, [CLS] query [SEP] passage [SEP], and their unit. What is
// longer than MaxLength is cut from the longer text first, and counted.
func (m *Cross) Encode(e *data.Encoded, x data.Example) error {
	u := data.Unit{ID: x.ID, User: x.User, Query: data.None}
	var enc token.Encoding
	var err error
	if u.Domain, err = m.domain(x.Domain); err != nil {
		return fmt.Errorf("arch: %w", err)
	}
	for i, c := range x.Candidates {
		if err := m.Tokenizer.Pair(&enc, x.Query, c.Text, m.MaxLength, token.LongestFirst); err != nil {
			return fmt.Errorf("arch: candidate %q: %w", c.ID, err)
		}
		e.Truncated += enc.Truncated
		u.Seqs = append(u.Seqs, e.Add(x.ID, int32(i), enc.IDs, m.firstType(enc.Types)))
		u.IDs, u.Labels = append(u.IDs, c.ID), append(u.Labels, c.Label)
	}
	e.Units = append(e.Units, u)
	return nil
}

// firstType is the number of tokens of type 0. An encoder with one type knows no other.
func (m *Cross) firstType(types []int32) int {
	n := 0
	for n < len(types) && (types[n] == 0 || m.Encoder.Config.Types < 2) {
		n++
	}
	return n
}

// pairsAtOnce bounds the memory of encoded pairs.
const pairsAtOnce = 4096

// ScorePairs returns the logits (C) of each pair.
func (m *Cross) ScorePairs(ctx context.Context, s *Scorer, pairs []Pair) ([][]float32, error) {
	out := make([][]float32, 0, len(pairs))
	for from := 0; from < len(pairs); from += pairsAtOnce {
		var e data.Encoded
		for _, p := range pairs[from:min(from+pairsAtOnce, len(pairs))] {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if err := m.Encode(&e, data.Example{Query: p.Query, Candidates: []data.Candidate{{Text: p.Passage}}, Domain: p.Domain}); err != nil {
				return nil, err
			}
		}
		logits, err := s.Logits(ctx, &e)
		if err != nil {
			return nil, err
		}
		out = append(out, logits...)
	}
	return out, nil
}

// Fingerprint is the SHA-256 of configuration, lengths, tokenizer, parameters and starting weights.
func (m *Cross) Fingerprint() string {
	return m.fingerprint(m.Params(), CrossEncoder, m.Encoder.Config, m.Labels)
}

func relu(p *nn.Pass, x graph.E) graph.E { return p.Unary(backend.ReLU, x) }
