//go:build !gpu

package device

import (
	"errors"

	"rung/nn/backend"
)

func hasGPU() bool { return false }

func openGPU(string) (backend.Backend, error) {
	return nil, errors.New("device: this binary was built without the tag gpu: it knows no CUDA")
}

// GPUs says which GPUs there are, or why none can be used.
func GPUs() ([]string, error) {
	return nil, errors.New("not built in: this binary was built without the tag gpu")
}
