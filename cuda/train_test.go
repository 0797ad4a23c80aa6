//go:build gpu

package cuda_test

import (
	"context"
	"fmt"
	"iter"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/cuda"
	"rung/data"
	"rung/lora"
	"rung/nn"
	"rung/nn/arch"
	"rung/nn/backend"
	"rung/nn/backend/cpu"
	"rung/nn/backend/philox"
	"rung/nn/graph"
	"rung/nn/loss"
	"rung/nn/nntest"
	"rung/train"
)

// numbered is a cross-encoder whose texts are numbers: how many tokens.
type numbered struct{ *arch.Cross }

// tiny is a cross-encoder of two layers, with dropout everywhere.
func tiny(t testing.TB, adapter bool) numbered {
	if adapter {
		return sized(t, 32, 48, "query", "value", "dense")
	}
	return sized(t, 32, 48)
}

// sized is tiny of another width, with adapters of these layers.
func sized(t testing.TB, hidden, ff int, targets ...string) numbered {
	c := nn.Config{ModelType: "bert", Layers: 2, Hidden: hidden, Heads: 2, FF: ff, Vocab: 50, Positions: 40, Types: 2, Embedding: hidden, Eps: 1e-12, Dropout: .1, AttnDrop: .1, HeadDrop: .1, InitStd: .2}
	m := numbered{arch.NewCross(c, 1)}
	for _, p := range m.Params() {
		if p.Init == nil {
			p.Init = p.Normal(3, .2)
		}
	}
	if len(targets) > 0 {
		_, err := lora.Apply(m.Cross, lora.Config{Rank: 4, Alpha: 8, Targets: targets}, 1)
		require.NoError(t, err)
	}
	return m
}

func (m numbered) Encode(e *data.Encoded, x data.Example) error {
	u := data.Unit{ID: x.ID, Query: data.None}
	for i, c := range x.Candidates {
		n, err := strconv.Atoi(c.Text)
		if err != nil {
			return err
		}
		ids := make([]int32, n)
		for k := range ids {
			ids[k] = int32(philox.Uint64(1, x.ID+c.ID, uint64(k)) % 50)
		}
		u.Seqs = append(u.Seqs, e.Add(x.ID, int32(i), ids, n/3))
		u.IDs, u.Labels = append(u.IDs, c.ID), append(u.Labels, c.Label)
	}
	e.Units = append(e.Units, u)
	return nil
}

// queries have one to four candidates of 3 to 39 tokens: every micro-batch has other counts.
func queries(n int) iter.Seq2[data.Example, error] {
	return func(yield func(data.Example, error) bool) {
		for i := range n {
			x := data.Example{ID: fmt.Sprint("q", i), Query: "q"}
			for c := range 1 + i%4 {
				x.Candidates = append(x.Candidates, data.Candidate{ID: fmt.Sprint("d", c), Text: strconv.Itoa(3 + (i*7+c*11)%37), Label: float32((i + c) % 2)})
			}
			if !yield(x, nil) {
				return
			}
		}
	}
}

// trained is the steps of a run and the weights after it.
func trained(t testing.TB, be backend.Backend, adapter bool, optimizer string) ([]train.Step, map[string][]float32) {
	t.Helper()
	c := train.Defaults()
	c.Backend, c.Epochs, c.Batch, c.LR, c.Optimizer, c.MicroTokens = be, 2, 8, 1e-3, optimizer, 130
	if optimizer == "sgd" {
		c.LR = .1
	}
	m := tiny(t, adapter)
	run, err := train.Start(context.Background(), m, loss.BCE{}, train.Data{Train: queries(24)}, c)
	require.NoError(t, err)
	defer func() { require.NoError(t, run.Close()) }()
	var steps []train.Step
	for s := range run.Steps() {
		s.Seconds = 0
		steps = append(steps, s)
	}
	require.NoError(t, run.Err())
	w := map[string][]float32{}
	for _, p := range m.Params() {
		w[p.Path], err = graph.ReadWeight[float32](run.Store(), p.Path)
		require.NoError(t, err)
	}
	return steps, w
}

// Whole training runs on the device and on the CPU: every loss and gradient norm, and the weights at the
// end; and twice on the device, which gives the same bits.
func TestTrainsAsTheCPU(t *testing.T) {
	be := open(t, cuda.FP32)
	host, err := cpu.New()
	require.NoError(t, err)
	for _, adapter := range []bool{false, true} {
		for _, optimizer := range []string{"adamw", "sgd", "adagrad"} {
			t.Run(fmt.Sprintf("lora=%v/%s", adapter, optimizer), func(t *testing.T) {
				want, weights := trained(t, host, adapter, optimizer)
				got, w := trained(t, be, adapter, optimizer)
				alike(t, optimizer, want, got, weights, w)
				again, w2 := trained(t, be, adapter, optimizer)
				require.Equal(t, got, again)
				for path, v := range w {
					for i := range v {
						require.Equal(t, math.Float32bits(v[i]), math.Float32bits(w2[path][i]), path)
					}
				}
			})
		}
	}
}

// Lower precisions train as well: losses are near those of float32.
func TestTrainsOnTensorCores(t *testing.T) {
	host, err := cpu.New()
	require.NoError(t, err)
	want, _ := trained(t, host, false, "sgd")
	for p, tol := range map[cuda.Precision]float64{cuda.TF32: .01, cuda.BF16: .05} {
		t.Run(p.String(), func(t *testing.T) {
			got, _ := trained(t, open(t, p), false, "sgd")
			for i := range want {
				require.InEpsilon(t, want[i].Loss, got[i].Loss, tol, "loss of step %d", i)
			}
		})
	}
}

// alike demands the losses, norms and weights of another backend.
func alike(t *testing.T, optimizer string, want, got []train.Step, weights, w map[string][]float32) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		require.InEpsilon(t, want[i].Loss, got[i].Loss, 1e-5, "loss of step %d", i)
		require.InEpsilon(t, want[i].GradNorm, got[i].GradNorm, 1e-4, "gradient norm of step %d", i)
		require.Equal(t, want[i].Tokens, got[i].Tokens)
	}
	for path, v := range weights {
		if strings.HasSuffix(path, "key.bias") && optimizer != "sgd" {
			// softmax does not change with it: its gradient is rounding errors, which these divide by their own size
			for i := range v {
				require.InDelta(t, v[i], w[path][i], float64(2*len(want))*1e-3, path)
			}
			continue
		}
		require.Less(t, nntest.Rel(w[path], v), 1e-4, path)
	}
}
