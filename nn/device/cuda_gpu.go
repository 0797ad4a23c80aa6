//go:build gpu

package device

import (
	"fmt"
	"strconv"
	"strings"
	"sync"

	"rung/cuda"
	"rung/nn/backend"
)

// opened is the GPUs that this process uses, by name: a context and compiled kernels are shared, and stay.
var opened struct {
	sync.Mutex
	m map[string]backend.Backend
}

// hasGPU reports that the first device can be used.
func hasGPU() bool {
	all, err := cuda.Devices()
	return err == nil && len(all) > 0 && all[0].Usable() == nil
}

// parseGPU reads what follows "cuda" in a device's name: "", ":N", "/precision" or both.
func parseGPU(rest string) (ordinal int, p cuda.Precision, err error) {
	at, precision, given := strings.Cut(rest, "/")
	if given {
		if p, err = cuda.ParsePrecision(precision); err != nil {
			return 0, 0, fmt.Errorf("device: \"cuda%s\": %w: %w", rest, ErrUnknown, err)
		}
	}
	if at != "" {
		n, ok := strings.CutPrefix(at, ":")
		if ordinal, err = strconv.Atoi(n); err != nil || !ok || ordinal < 0 {
			return 0, 0, fmt.Errorf("device: \"cuda%s\": %w", rest, ErrUnknown)
		}
	}
	return ordinal, p, nil
}

// openGPU opens the GPU of a name.
func openGPU(rest string) (backend.Backend, error) {
	ordinal, p, err := parseGPU(rest)
	if err != nil {
		return nil, err
	}
	opened.Lock()
	defer opened.Unlock()
	key := fmt.Sprintf("%d/%v", ordinal, p)
	if be, ok := opened.m[key]; ok {
		return be, nil
	}
	be, err := cuda.Open(ordinal, p)
	if err != nil {
		return nil, fmt.Errorf("device: %w", err)
	}
	if opened.m == nil {
		opened.m = map[string]backend.Backend{}
	}
	opened.m[key] = be
	return be, nil
}

// recordGPU is a backend that records what a GPU of so many multiprocessors and so much memory would do.
func recordGPU(rest string, sms int, memory int64) (backend.Backend, error) {
	ordinal, p, err := parseGPU(rest)
	if err != nil {
		return nil, err
	}
	return cuda.Record(cuda.Info{Ordinal: ordinal, Name: "a GPU on paper", Capability: 80, SMs: sms, Memory: memory}, p), nil
}

// GPUs says which GPUs there are, or why none can be used.
func GPUs() ([]string, error) {
	all, err := cuda.Devices()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, d := range all {
		says := d.String()
		if err := d.Usable(); err != nil {
			says += ": cannot be used: " + err.Error()
		}
		out = append(out, says)
	}
	if v := cuda.DriverVersion(); v > 0 && len(out) > 0 {
		out[0] = fmt.Sprintf("driver for CUDA %d.%d; %s", v/1000, v%1000/10, out[0])
	}
	return out, nil
}

// CublasLt says which cuBLASLt there is and whether products run on it. It is an error where it is asked for and cannot be used.
func CublasLt() (string, error) { return cuda.Products() }
