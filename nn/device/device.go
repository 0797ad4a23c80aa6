// Package device selects a backend by name.
package device

import (
	"errors"
	"fmt"

	"rung/nn/backend"
	"rung/nn/backend/cpu"
	"rung/nn/backend/ref"
)

// ErrUnknown reports a name that is no device's.
var ErrUnknown = errors.New("want auto, cpu or ref")

// Open returns the backend that a name asks for: "auto" or "" for the best there is, "cpu", or "ref",
// the reference kernels. The environment's RUNG_CPU forces an instruction set of the CPU.
func Open(name string) (backend.Backend, error) {
	switch name {
	case "", "auto", "cpu":
		return cpu.New()
	case "ref":
		return ref.New[float32](), nil
	}
	return nil, fmt.Errorf("device: %q: %w", name, ErrUnknown)
}
