//go:build !gpu

package device

import (
	"errors"

	"rung/nn/backend"
)

func hasGPU() bool { return false }

var errNone = errors.New("device: this binary was built without the tag gpu: it knows no CUDA")

func openGPU(string) (backend.Backend, error) { return nil, errNone }

func recordGPU(string, int, int64) (backend.Backend, error) { return nil, errNone }

// GPUs says which GPUs there are, or why none can be used.
func GPUs() ([]string, error) {
	return nil, errors.New("not built in: this binary was built without the tag gpu")
}

// CublasLt says which cuBLASLt there is and whether products run on it.
func CublasLt() (string, error) { return "not built in", nil }
