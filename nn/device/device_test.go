package device_test

import (
	"testing"

	"github.com/stretchr/testify/require"

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
