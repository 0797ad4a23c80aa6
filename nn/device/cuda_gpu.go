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

// openGPU opens what follows "cuda" in a device's name: "", ":N", "/precision" or both.
func openGPU(rest string) (backend.Backend, error) {
	at, precision, given := strings.Cut(rest, "/")
	ordinal, p := 0, cuda.FP32
	var err error
	if given {
		if p, err = cuda.ParsePrecision(precision); err != nil {
			return nil, fmt.Errorf("device: \"cuda%s\": %w: %w", rest, ErrUnknown, err)
		}
	}
	if at != "" {
		n, ok := strings.CutPrefix(at, ":")
		if ordinal, err = strconv.Atoi(n); err != nil || !ok || ordinal < 0 {
			return nil, fmt.Errorf("device: \"cuda%s\": %w", rest, ErrUnknown)
		}
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
