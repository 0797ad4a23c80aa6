// Package device selects a backend by name.
package device

import (
	"fmt"

	"rung/nn/backend"
	"rung/nn/backend/ref"
)

// Open returns the backend that a name asks for: "auto" or "" for the best there is, "cpu", or "ref",
// the reference kernels.
func Open(name string) (backend.Backend, error) {
	switch name {
	case "", "auto", "cpu":
		return ref.New[float32](), nil
	case "ref":
		return ref.New[float32](), nil
	}
	return nil, fmt.Errorf("device: %q: want auto, cpu or ref", name)
}
