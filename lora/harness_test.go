package lora

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn"
	"rung/nn/arch"
	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/graph"
	"rung/nn/loss"
	"rung/nn/nntest/golden"
)

// small is a BERT of two layers for tests that need no reference data.
const small = `{"model_type":"bert","hidden_size":8,"num_hidden_layers":2,"num_attention_heads":2,"intermediate_size":12,
	"vocab_size":20,"max_position_embeddings":10,"type_vocab_size":2,"hidden_act":"gelu","layer_norm_eps":1e-12,
	"hidden_dropout_prob":0.1,"attention_probs_dropout_prob":0.1}`

// smallCross is a cross-encoder with random weights.
func smallCross(t testing.TB) *arch.Cross {
	t.Helper()
	c, err := nn.ParseConfig([]byte(small))
	require.NoError(t, err)
	m := arch.NewCross(c, 1)
	for _, p := range m.Params() {
		if !strings.Contains(p.Path, "LayerNorm.weight") {
			p.Init = p.Normal(3, .3)
		}
	}
	return m
}

// embedder is an encoder of single texts: no classifier.
type embedder struct{ *nn.Encoder }

func (m embedder) Forward(p *nn.Pass) nn.Outputs {
	return nn.Outputs{Embed: nn.Mean.Forward(p, m.Encoder.Forward(p))}
}

// smallBatch is three sequences for smallCross.
func smallBatch() (b golden.Batch) {
	b.Add([]int32{1, 5, 9, 2, 7}, []int32{0, 0, 0, 1, 1}, 1)
	b.Add([]int32{3, 4, 19}, []int32{0, 1, 1}, 0)
	b.Add([]int32{8, 8, 0, 11, 6, 13, 2}, []int32{0, 0, 0, 0, 1, 1, 1}, 1)
	return b
}

// start compiles m for b, with a little spare capacity, and fills the inputs.
func start[F host.Float](t testing.TB, be backend.Backend, m nn.Model, pl nn.Plan, b golden.Batch, stores ...*graph.Store) *golden.Job[F] {
	t.Helper()
	j := golden.Start[F](t, be, m, pl, b, 3, 1, stores...)
	j.Scalars.Seed = 17
	return j
}

// scores are the scores of m on b.
func scores[F host.Float](t testing.TB, m nn.Model, b golden.Batch, stores ...*graph.Store) []F {
	t.Helper()
	j := start[F](t, stores[0].Backend(), m, nn.Plan{}, b, stores...)
	return j.Result(t, nn.OutScores, len(b.Labels))
}

// bce trains on the labels of the batch.
var bce = nn.Plan{Objective: loss.BCE{}}

// peftName is PEFT's name of a parameter while it is in a model, from that in its file.
func peftName(a *Adapter, p *nn.Param) string {
	name := a.names()[p]
	module, last := moduleOf(name), name[strings.LastIndexByte(name, '.'):]
	switch {
	case last == ".lora_magnitude_vector":
		return name + ".default.weight"
	case last == ".ia3_l":
		return name + ".default"
	case strings.Contains(name, ".lora_"):
		return module + ".default" + last
	case strings.HasSuffix(module, ".base_layer"):
		return name
	}
	return module + ".modules_to_save.default" + last
}
