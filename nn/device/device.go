// Package device selects a backend by name.
package device

import (
	"errors"
	"fmt"
	"strings"

	"rung/nn/backend"
	"rung/nn/backend/cpu"
	"rung/nn/backend/ref"
)

// ErrUnknown reports a name that is no device's.
var ErrUnknown = errors.New("want auto, cpu, cpu/bf16, cuda:N or ref")

// Open returns the backend that a name asks for:
//
//	auto or ""   a GPU where this build, the driver and the device serve, else the CPU
//	cpu          the CPU, in float32; the environment's RUNG_CPU forces an instruction set
//	cpu/bf16     the CPU, which multiplies bf16 where it has instructions for that
//	cuda:N       GPU N (cuda alone: 0), in float32; cuda:N/tf32 and cuda:N/bf16 multiply on tensor cores
//	ref          the reference kernels
//
// Whoever opens a GPU twice shares it.
func Open(name string) (backend.Backend, error) {
	switch {
	case name == "cpu":
		return cpu.New()
	case name == "cpu/bf16":
		return cpu.NewBF16()
	case name == "ref":
		return ref.New[float32](), nil
	case name == "" || name == "auto":
		if hasGPU() {
			return openGPU("")
		}
		return cpu.New()
	}
	if rest, ok := strings.CutPrefix(name, "cuda"); ok {
		return openGPU(rest)
	}
	return nil, fmt.Errorf("device: %q: %w", name, ErrUnknown)
}

// Record returns a backend that computes nothing, and needs neither driver nor GPU: it encodes programs as the
// GPU of a name ("cuda", with N and precision as Open takes them) would, if that had so many multiprocessors and so
// many bytes of memory. It is a backend.Watcher.
func Record(name string, sms int, memory int64) (backend.Backend, error) {
	rest, ok := strings.CutPrefix(name, "cuda")
	if !ok {
		return nil, fmt.Errorf("device: %q is no GPU's name: %w", name, ErrUnknown)
	}
	return recordGPU(rest, sms, memory)
}
