package nntest

import (
	"testing"

	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/backend/ref"
)

func TestRef32(t *testing.T) { TestBackend(t, ref.New[float32](), Auto()) }
func TestRef64(t *testing.T) { TestBackend(t, ref.New[float64](), Small) }

func TestRefGradients(t *testing.T) { TestGradients(t, ref.New[float64]()) }

func TestRefWorkers(t *testing.T) {
	TestWorkers(t, func(n int) backend.Backend {
		p := host.NewPool(n)
		t.Cleanup(p.Close)
		return ref.On[float32](p)
	}, Small)
}
