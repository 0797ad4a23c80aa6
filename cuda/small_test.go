//go:build gpu && gpuemu

package cuda_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/cuda"
	"rung/cuda/emu"
	"rung/nn/backend"
	"rung/nn/backend/cpu"
	"rung/nn/graph"
	"rung/nn/loss"
	"rung/train"
)

// Whole training steps of a cross-encoder, full and through LoRA, are the CPU's: losses, gradient norms and weights. The
// emulator has no fault to find in them, and everything that was made is freed.
func TestSteps(t *testing.T) {
	for name, adapter := range map[string]bool{"full": false, "lora": true} {
		t.Run(name, func(t *testing.T) { sameSteps(t, adapter, "sgd") })
	}
}

func sameSteps(t *testing.T, adapter bool, optimizer string) {
	host, err := cpu.New()
	require.NoError(t, err)
	emu.Reset(emu.Defaults(), false)
	be, err := cuda.Open(0, cuda.FP32)
	require.NoError(t, err)
	want, weights := steps(t, host, tiny(t, adapter), optimizer)
	got, w := steps(t, be, tiny(t, adapter), optimizer)
	require.NoError(t, be.Close())
	alike(t, optimizer, want, got, weights, w)
	require.Empty(t, emu.Faults())
	require.Empty(t, emu.Leaks())
	t.Logf("%d steps, %d kernels", len(got), emu.Kernels())
}

// steps trains two steps of several micro-batches, and gives them and the weights after them.
func steps(t *testing.T, be backend.Backend, m numbered, optimizer string) (steps []train.Step, weights map[string][]float32) {
	t.Helper()
	c := train.Defaults()
	c.Backend, c.Epochs, c.Batch, c.Optimizer, c.LR, c.MicroTokens = be, 1, 2, optimizer, 1e-3, 64
	if optimizer == "sgd" {
		c.LR = .1
	}
	run, err := train.Start(context.Background(), m, loss.BCE{}, train.Data{Train: queries(4)}, c)
	require.NoError(t, err)
	defer func() { require.NoError(t, run.Close()) }()
	for s := range run.Steps() {
		s.Seconds = 0
		steps = append(steps, s)
	}
	require.NoError(t, run.Err())
	weights = map[string][]float32{}
	for _, p := range m.Params() {
		weights[p.Path], err = graph.ReadWeight[float32](run.Store(), p.Path)
		require.NoError(t, err)
	}
	return steps, weights
}
