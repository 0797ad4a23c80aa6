package app

import (
	"strings"

	"rung/nn/device"
)

// cudaStatus says which GPUs can be used, or why none.
func cudaStatus() string {
	gpus, err := device.GPUs()
	switch {
	case err != nil:
		return oneLine(err.Error())
	case len(gpus) == 0:
		return "built in, and there is a driver, but no device"
	}
	return oneLine(strings.Join(gpus, "; "))
}
