package cpu_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/backend"
	"rung/nn/backend/cpu"
	"rung/nn/backend/host"
	"rung/nn/nntest"
)

// TestConformance holds every instruction set to the suite of all backends, which has calls of its own.
// Those of ref are tested where they are.
func TestConformance(t *testing.T) {
	for _, isa := range slices.Concat(cpu.ISAs()[1:], cpu.BF16()) {
		t.Run(isa, func(t *testing.T) {
			on := func(workers int) backend.Backend {
				pool := host.NewPool(workers)
				t.Cleanup(pool.Close)
				be, err := cpu.On(pool, isa)
				require.NoError(t, err)
				return be
			}
			nntest.TestBackend(t, on(2), nntest.Auto())
			nntest.TestWorkers(t, on, nntest.Auto())
		})
	}
}
