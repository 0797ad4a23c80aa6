//go:build gpu && gpuemu

package cuda_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/cuda"
	"rung/cuda/emu"
	"rung/lora"
	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/loss"
	"rung/train"
)

// A step waits for the device twice, however many micro-batches and experts it has: for their losses and loads, once all are
// launched, and after the update for the norm of the gradients.
func TestWaitsOfAStep(t *testing.T) {
	for name, setting := range map[string]string{"plain": "", "cublaslt": "cublaslt", "mixture": ""} {
		t.Run(name, func(t *testing.T) {
			emu.Reset(emu.Defaults(), false)
			t.Setenv(cuda.Variable, setting)
			be, err := cuda.Open(0, cuda.FP32)
			require.NoError(t, err)
			c := train.Defaults()
			c.Backend, c.Epochs, c.Batch, c.LR, c.MicroTokens = be, 1, 6, 1e-3, 88
			m := sized(t, 64, 96)
			if name == "mixture" {
				experts := lora.MixtureDefaults()
				experts.Rank, experts.Targets, experts.Mixture.ZLoss = 4, []string{"query", "value"}, .01
				_, err := lora.Apply(m.Cross, experts, 1)
				require.NoError(t, err)
			}
			run, err := train.Start(context.Background(), m, loss.BCE{}, train.Data{Train: queries(12)}, c)
			require.NoError(t, err)
			n, launched := 0, emu.Calls()
			for s := range run.Steps() {
				n++
				require.Equal(t, name == "mixture", s.Experts != nil)
				now := emu.Calls()
				waits := 0
				for _, call := range []string{"cuStreamSynchronize", "cuCtxSynchronize", "cuEventSynchronize", "cuMemcpyDtoH_v2", "cuMemcpyHtoD_v2", "cuMemAlloc_v2", "cuMemFree_v2"} {
					waits += now[call] - launched[call]
				}
				require.Equal(t, 2, waits, "step %d", n)
				require.Greater(t, now["cuMemcpyDtoHAsync_v2"]-launched["cuMemcpyDtoHAsync_v2"], 2, "losses of several micro-batches, and the norms")
				launched = now
			}
			require.NoError(t, run.Err())
			require.Positive(t, n)
			require.NoError(t, run.Close())
			require.NoError(t, be.Close())
			require.Empty(t, emu.Faults())
			require.Empty(t, emu.Leaks())
		})
	}
}

// What is read later is what stood there when it was asked for, in whatever order it is wanted, and also where there is no
// room left to keep it.
func TestReadLater(t *testing.T) {
	be := emulated(t, func(*emu.Config) {})
	m, err := be.Reserve(1 << 12)
	require.NoError(t, err)
	later := m.(backend.Later)
	const n = 40 // of 4 KiB each: more than there is room for
	got := make([][]float32, n)
	wait := make([]func() error, n)
	for round := range 2 {
		for i := range got {
			fill := make([]float32, 1024)
			for k := range fill {
				fill[k] = float32(round*n + i)
			}
			require.NoError(t, m.WriteAt(host.Bytes(fill), 0))
			got[i] = make([]float32, 1024)
			wait[i], err = later.ReadLater(host.Bytes(got[i]), 0)
			require.NoError(t, err)
		}
		for k := range got {
			i := n - 1 - k
			require.NoError(t, wait[i]())
			require.Equal(t, float32(round*n+i), got[i][0])
			require.Equal(t, float32(round*n+i), got[i][1023])
		}
	}
	_, err = later.ReadLater(make([]byte, 8), 1<<12-4)
	require.ErrorContains(t, err, "of a block of")
	require.NoError(t, m.Free())
	require.NoError(t, be.Close())
	require.Empty(t, emu.Faults())
}
