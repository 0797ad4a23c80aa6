//go:build gpu

package cuda_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rung/cuda"
	"rung/nn/nntest"
)

// open returns the backend on device 0, or skips the test where there is none.
func open(t testing.TB, p cuda.Precision) *cuda.Backend {
	t.Helper()
	devices, err := cuda.Devices()
	if err != nil {
		t.Skip(err)
	}
	if len(devices) == 0 {
		t.Skip("no CUDA device")
	}
	be, err := cuda.Open(0, p)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, be.Close()) })
	return be
}

// TestConformance holds the backend to the suite of all backends.
func TestConformance(t *testing.T) {
	nntest.TestBackend(t, open(t, cuda.FP32), nntest.Auto())
}
