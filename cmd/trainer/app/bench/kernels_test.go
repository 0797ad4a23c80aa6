//go:build gpu

package bench

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn"
	"rung/nn/device"
)

// The products of a step are those of the shapes, whatever the device and its precision: forward, and twice as much
// backward, less the gradient of what nobody trains.
func TestKernels(t *testing.T) {
	if _, err := device.GPUs(); err == nil {
		t.Skip("a device is there: measuring takes a while")
	}
	for name, c := range map[string]nn.Config{"minilm": MiniLM(), "bert-base": BERTBase()} {
		for _, on := range []string{"cuda", "cuda:0/tf32", "cuda:0/bf16"} {
			r, err := Kernels(context.Background(), KernelOptions{Config: c, Kind: "full", Device: on, Sequences: 32, Length: 128})
			require.NoError(t, err)
			require.NotEmpty(t, r.Without)
			require.Len(t, r.Steps, 2)
			for _, s := range r.Steps {
				var gflop, gbyte float64
				for _, k := range s.Kernels {
					gflop, gbyte = gflop+k.GFLOP, gbyte+k.GByte
					for i, v := range k.Roofline {
						card := Cards()[0]
						if s.SMs == 132 {
							card = Cards()[1+i]
						}
						require.GreaterOrEqual(t, v*(1+1e-9), k.GByte*1e9/card.Bandwidth, k.Name)
						require.GreaterOrEqual(t, v*(1+1e-9), k.GFLOP*1e9/card.Peak[k.Unit], k.Name)
					}
				}
				// attention computes its scores, and products of values, again: once in each of two kernels
				require.InEpsilon(t, 3*2*forward(c, 32, 128)/1e9, gflop, .06, "%s on %s", name, on)
				m := s.Memory
				require.EqualValues(t, 2*m.Weights, m.Moments)
				require.Equal(t, m.Weights, m.Gradients)
				require.Greater(t, gbyte*1e9, float64(7*m.Weights), "the update alone moves as much")
			}
			var out strings.Builder
			require.NoError(t, r.Write(&out))
			require.Contains(t, out.String(), "(estimated)")
		}
	}
	_, err := Kernels(context.Background(), KernelOptions{Config: small(), Kind: "full", Device: "cpu", Sequences: 1, Length: 1})
	require.ErrorIs(t, err, device.ErrUnknown)
}
