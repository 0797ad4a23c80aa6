package device_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/backend"
	"rung/nn/device"
)

func TestOpen(t *testing.T) {
	for _, name := range []string{"cpu", "ref", "auto", ""} {
		be, err := device.Open(name)
		require.NoError(t, err)
		require.NotEmpty(t, be.Name())
	}
	for _, name := range []string{"tpu", "gpu:0", "CPU", "cpu:1"} {
		_, err := device.Open(name)
		require.ErrorIs(t, err, device.ErrUnknown, name)
	}
	_, err := device.Open("cuda:4096") // no such device, no driver, or not built in
	require.ErrorContains(t, err, "device: ")
}

// Without the tag gpu there is no encoder to record with.
func TestRecord(t *testing.T) {
	_, err := device.Record("cpu", 1, 1)
	require.ErrorIs(t, err, device.ErrUnknown)
	be, err := device.Record("cuda:1/bf16", 4, 1<<20)
	if err != nil {
		require.ErrorContains(t, err, "without the tag gpu")
		return
	}
	require.Equal(t, "cuda:1/bf16", be.Name())
	_, err = be.Reserve(1 << 21)
	require.ErrorIs(t, err, backend.ErrMemory)
	_, err = device.Record("cuda:x", 4, 1<<20)
	require.ErrorIs(t, err, device.ErrUnknown)
}
