package arch

import (
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn"
	"rung/nn/backend"
	"rung/nn/graph"
	"rung/nn/nntest/archtest"
)

// Each encoder drops where Transformers does, with the rate that its configuration has for the place.
func TestDropoutSites(t *testing.T) {
	const probabilities, hidden, head = .1, .2, .3
	for kind, sites := range map[string]map[string]float64{
		"bert": {
			"bert.embeddings": hidden, "bert.encoder.layer.%d.attention.probabilities": probabilities,
			"bert.encoder.layer.%d.attention.output.dense": hidden, "bert.encoder.layer.%d.output.dense": hidden, "classifier": head,
		},
		"distilbert": { // which drops nothing after out_lin
			"distilbert.embeddings": hidden, "distilbert.transformer.layer.%d.attention.probabilities": probabilities,
			"distilbert.transformer.layer.%d.ffn.lin2": hidden, "classifier": head,
		},
		"electra": {
			"electra.embeddings": hidden, "electra.encoder.layer.%d.attention.probabilities": probabilities,
			"electra.encoder.layer.%d.attention.output.dense": hidden, "electra.encoder.layer.%d.output.dense": hidden,
			"classifier.dense.before": head, "classifier.out_proj": head,
		},
	} {
		s := archtest.Tiny()
		s.ModelType, s.Labels = kind, 1
		s.Config = map[string]any{
			"attention_probs_dropout_prob": probabilities, "attention_dropout": probabilities,
			"hidden_dropout_prob": hidden, "dropout": hidden, "classifier_dropout": head, "seq_classif_dropout": head,
		}
		m, err := OpenCross(context.Background(), archtest.Write(t, t.TempDir(), s), Options{})
		require.NoError(t, err)
		defer m.Close()
		p, err := nn.Compile(m, nn.Plan{Dims: graph.Dims{T: 8, N: 2, B: 2, K: 1}, Dropout: true})
		require.NoError(t, err)
		got := map[uint32][]float64{}
		for _, call := range p.Calls {
			switch call.Op {
			case backend.Dropout:
				got[uint32(call.I[0])] = append(got[uint32(call.I[0])], call.F[0])
			case backend.Attn:
				got[uint32(call.I[2])] = append(got[uint32(call.I[2])], call.F[0])
			}
		}
		want := map[uint32][]float64{}
		for path, rate := range sites {
			for l := range s.Layers {
				want[nn.Site(strings.Replace(path, "%d", strconv.Itoa(l), 1))] = []float64{rate}
			}
		}
		require.Equal(t, want, got, kind)
	}
}
