//go:build gpu && gpuemu

package cuda_test

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rung/cuda"
	"rung/cuda/emu"
	"rung/nn/backend"
	"rung/nn/graph"
	"rung/nn/loss"
	"rung/train"
)

// planned is a run of one step: its plan, loss, and the weights' bits after it. Seen is told of each launch, by single
// kernels.
func planned(t *testing.T, be *cuda.Backend, micro int, seen backend.Watch) (train.Plan, float64, map[string][]uint32) {
	t.Helper()
	c := train.Defaults()
	c.Backend, c.Steps, c.Batch, c.LR, c.MicroTokens = be, 1, 6, 1e-3, micro
	m := tiny(t, false)
	run, err := train.Start(context.Background(), m, loss.BCE{}, train.Data{Train: queries(6)}, c)
	require.NoError(t, err)
	plan := run.Plan()
	if seen != nil {
		be.Watch(seen)
		require.True(t, run.Trace(func(*backend.Call, backend.Work, time.Duration) {}))
	}
	var did []float64
	for s := range run.Steps() {
		did = append(did, s.Loss)
	}
	require.NoError(t, run.Err())
	require.Len(t, did, 1)
	bits := map[string][]uint32{}
	for _, p := range m.Params() {
		v, err := graph.ReadWeight[float32](run.Store(), p.Path)
		require.NoError(t, err)
		for _, x := range v {
			bits[p.Path] = append(bits[p.Path], math.Float32bits(x))
		}
	}
	require.NoError(t, run.Close())
	return plan, did[0], bits
}

// emulated opens an emulated device.
func emulated(t *testing.T, change func(c *emu.Config)) *cuda.Backend {
	t.Helper()
	c := emu.Defaults()
	change(&c)
	emu.Reset(c, false)
	t.Cleanup(func() { emu.Reset(emu.Defaults(), false) })
	be, err := cuda.Open(0, cuda.FP32)
	require.NoError(t, err)
	return be
}

// Before the first step micro-batches become as small as the device's memory wants: because the plan does not fit into
// it, or because it is not there after all. The steps are those of a run that was told to take so small ones.
func TestLittleMemory(t *testing.T) {
	ample := emulated(t, func(*emu.Config) {})
	whole, _, _ := planned(t, ample, 0, nil)
	allocations := emu.Calls()["cuMemAlloc_v2"]
	half, loss, bits := planned(t, ample, 88, nil) // the longest unit: less there is not
	require.Less(t, half.MicroTokens, whole.MicroTokens)
	require.Less(t, half.Bytes, whole.Bytes)
	require.NoError(t, ample.Close())

	for what, change := range map[string]func(c *emu.Config){
		// weights and moments are there already when it is planned, and a fifth of the rest is left free
		"planned": func(c *emu.Config) {
			kept := whole.Weights + whole.Gradients + whole.Moments
			c.Memory = kept + (half.Bytes-kept+whole.Bytes-kept)/2*5/4
		},
		// the arena is the largest
		"taken by another": func(c *emu.Config) {
			c.Fail = []emu.Failure{{Call: "cuMemAlloc_v2", Nth: first(t, allocations), Result: 2}}
		},
	} {
		t.Run(what, func(t *testing.T) {
			be := emulated(t, change)
			p, l, b := planned(t, be, 0, nil)
			require.Equal(t, half, p)
			require.Equal(t, math.Float64bits(loss), math.Float64bits(l))
			require.Equal(t, bits, b)
			require.NoError(t, be.Close())
			require.Empty(t, emu.Faults())
			require.Empty(t, emu.Leaks())
		})
	}
}

// first is the first allocation of a run's own memory: before are weights, gradients, two moments, norms, and the
// optimizer's program.
func first(t *testing.T, all int) int {
	const before = 6
	require.Greater(t, all, before)
	return before + 1
}

// What is recorded without a driver is what a device with as many multiprocessors is given, launch by launch, and its
// memory is what the plan says.
func TestRecord(t *testing.T) {
	list := func(to *[]string) backend.Watch {
		return func(l *backend.Launch, s *backend.Scalars, _ time.Duration) {
			if l.Kernel == "memset" { // the driver's own, which only the record has
				return
			}
			w := l.Work(&backend.Sizes{Count: s.Count})
			*to = append(*to, fmt.Sprint(l.Kernel, l.Grid, l.Block, l.Shared, l.Unit, w))
		}
	}
	var want, got []string
	be := emulated(t, func(*emu.Config) {})
	plan, _, _ := planned(t, be, 60, list(&want))
	info := be.Info()
	require.NoError(t, be.Close())
	before := emu.Calls()
	on := cuda.Record(info, cuda.FP32)
	recorded, loss, _ := planned(t, on, 60, list(&got))
	require.Equal(t, plan, recorded)
	require.Zero(t, loss)
	require.Greater(t, len(want), 100)
	require.Equal(t, want, got)
	require.Equal(t, before, emu.Calls())
	free, err := on.Available()
	require.NoError(t, err)
	require.Equal(t, info.Memory, free, "all is freed")
	_, err = on.Reserve(info.Memory + 1)
	require.ErrorIs(t, err, backend.ErrMemory)
}
