package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn"
)

func small() nn.Config {
	return nn.Config{ModelType: "bert", Layers: 3, Hidden: 16, Heads: 2, FF: 64, Vocab: 50, Positions: 32, Types: 2, Embedding: 16, Eps: 1e-12, InitStd: .2}
}

// forward is the products of an encoder of which only first tokens are read, its pooler and one logit, in
// multiply-adds, for n sequences of l tokens.
func forward(c nn.Config, n, l int) float64 {
	t, d := float64(n*l), float64(c.Hidden)
	layer := 4*t*d*d + 2*t*d*float64(c.FF) + 2*t*float64(l)*d
	last := 2*t*d*d + float64(n)*(2*d*d+2*d*float64(c.FF)) + 2*t*d
	return float64(c.Layers-1)*layer + last + float64(n)*(d*d+d)
}

func TestRun(t *testing.T) {
	c := small()
	cases := []Case{
		{"full", "full", slices.Repeat([]int{20}, 12), 6},
		{"lora", "lora", []int{5, 9, 20, 20}, 4},
		{"score", "score", slices.Repeat([]int{20}, 6), 6},
	}
	r, err := Run(context.Background(), Options{Config: c, Cases: cases, Device: "auto", Rounds: 2})
	require.NoError(t, err)
	require.Len(t, r.Cases, 3)
	full, lora, score := r.Cases[0], r.Cases[1], r.Cases[2]
	require.Equal(t, []int{12, 240, 4, 54, 6, 120}, []int{full.Seqs, full.Tokens, lora.Seqs, lora.Tokens, score.Seqs, score.Tokens})
	require.InEpsilon(t, 2*forward(c, 6, 20)/1e9, score.GFLOP, 1e-9)
	// Two batches. Backward is the gradients of weights and of activations, each as much as forward, and the
	// scores of attention once more; the gradient of the embeddings' input is nobody's.
	require.InEpsilon(t, 2*3*2*forward(c, 6, 20)/1e9, full.GFLOP, .1)
	for _, x := range r.Cases {
		require.Positive(t, x.Seconds, x.Name)
	}
	steps := 0.0
	for _, o := range full.Operators {
		steps += o.Seconds
	}
	require.InEpsilon(t, full.Seconds, 2*steps, .9, "calls take about as long as the steps they make up")

	b, err := json.Marshal(r)
	require.NoError(t, err)
	again, err := Read(bytes.NewReader(b))
	require.NoError(t, err)
	require.Equal(t, r, again)
	_, err = Read(strings.NewReader(`{"device":1}`))
	require.ErrorContains(t, err, "not a report")

	var out strings.Builder
	require.NoError(t, r.Write(&out, true))
	require.Regexp(t, `(?m)^ *full +[0-9.]+ +[0-9]+ +[0-9.]+ .*$`, out.String())
	require.Contains(t, out.String(), "mattn 64×16")
	require.Contains(t, out.String(), "attn.grad (one query, per sequence)")

	slower := *again
	slower.Cases = slices.Clone(again.Cases)
	slower.Cases[0].Seconds /= 2
	out.Reset()
	require.NoError(t, r.Compare(&out, &slower))
	require.Regexp(t, `(?m)^full +2\.000$`, out.String())
	require.Regexp(t, `(?m)^score +1\.000$`, out.String())
}

// The lengths are those of question-sentence pairs: mean 39, median 37, 95% at most 67 tokens.
func TestNatural(t *testing.T) {
	l := natural(8, 32)
	require.True(t, slices.IsSorted(l))
	sum := 0
	for _, n := range l {
		sum += n
	}
	require.InDelta(t, 39.5, float64(sum)/float64(len(l)), 1)
	require.Equal(t, 37, l[len(l)/2])
	require.InDelta(t, 67, l[len(l)*95/100], 1)
}
