//go:build gpu && gpuemu

package cuda_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/cuda"
	"rung/cuda/emu"
	"rung/nn/loss"
	"rung/train"
)

// step opens a device, trains one step of a tiny cross-encoder, and returns the first error.
func step(t *testing.T) error {
	be, err := cuda.Open(0, cuda.FP32)
	if err != nil {
		return err
	}
	c := train.Defaults()
	c.Backend, c.Epochs, c.Batch, c.LR, c.MicroTokens = be, 1, 2, 1e-3, 130
	run, err := train.Start(context.Background(), tiny(t, false), loss.BCE{}, train.Data{Train: queries(2)}, c)
	if err != nil {
		return err
	}
	for range run.Steps() {
	}
	err = run.Err()
	_ = run.Close() // fails too, where the device does
	_ = be.Close()
	return err
}

// What goes wrong in the driver is one error that names the call, and the kernel and operator where there are.
func TestFaults(t *testing.T) {
	for what, test := range map[string]struct {
		change func(c *emu.Config)
		sync   bool
		says   []string
	}{
		"no device":        {func(c *emu.Config) { c.Devices = 0 }, false, []string{"no device 0"}},
		"capability":       {func(c *emu.Config) { c.Capability = 75 }, false, []string{"compute capability 7.5", "8.0 or later"}},
		"old driver":       {func(c *emu.Config) { c.Version = 11040 }, false, []string{"cuModuleLoadData", "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"}},
		"little memory":    {func(c *emu.Config) { c.Memory = 16 << 10 }, false, []string{"16384"}},
		"first allocation": {func(c *emu.Config) { c.Fail = []emu.Failure{{Call: "cuMemAlloc_v2", Nth: 1, Result: 2}} }, false, []string{"cuMemAlloc_v2", "CUDA_ERROR_OUT_OF_MEMORY"}},
		"pinned memory":    {func(c *emu.Config) { c.Fail = []emu.Failure{{Call: "cuMemHostAlloc", Nth: 1, Result: 2}} }, false, []string{"cuMemHostAlloc", "CUDA_ERROR_OUT_OF_MEMORY"}},
		"context":          {func(c *emu.Config) { c.Fail = []emu.Failure{{Call: "cuDevicePrimaryCtxRetain", Nth: 1, Result: 999}} }, false, []string{"cuDevicePrimaryCtxRetain", "CUDA_ERROR_UNKNOWN"}},
		"launch refused":   {func(c *emu.Config) { c.Fail = []emu.Failure{{Call: "cuLaunchKernel", Nth: 5, Result: 701}} }, false, []string{"cuLaunchKernel", "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "kernel"}},
		"graph":            {func(c *emu.Config) { c.Fail = []emu.Failure{{Call: "cuGraphInstantiateWithFlags", Nth: 1, Result: 2}} }, false, []string{"cuGraphInstantiateWithFlags"}},
		"kernel":           {func(c *emu.Config) { c.FailKernel = 20 }, false, []string{"CUDA_ERROR_LAUNCH_FAILED"}},
		"kernel, waited":   {func(c *emu.Config) { c.FailKernel = 20 }, true, []string{"CUDA_ERROR_LAUNCH_FAILED", "kernel"}},
		"device lost":      {func(c *emu.Config) { c.LoseKernel = 20 }, false, []string{"CUDA_ERROR_UNKNOWN"}},
	} {
		t.Run(what, func(t *testing.T) {
			defer emu.Reset(emu.Defaults(), false)
			c := emu.Defaults()
			test.change(&c)
			emu.Reset(c, true)
			if test.sync {
				t.Setenv(cuda.Variable, "sync")
			}
			err := step(t)
			require.Error(t, err)
			t.Log(err)
			require.NotContains(t, err.Error(), "\n")
			for _, says := range test.says {
				require.ErrorContains(t, err, says)
			}
		})
	}
	require.NoError(t, step(t))
}
