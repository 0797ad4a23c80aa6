//go:build cgo && amd64 && unix

// Package peak measures the physical limit that kernels are compared with.
package peak

// #cgo CFLAGS: -std=c11 -O2
// #include "peak.h"
import "C"

// GFLOPS is the fused multiply-adds (two operations each) of one core in 1e9 a second of its time, the
// best of a few runs of some milliseconds. The machine must have the instruction set; others than
// avx2 and avx512 give 0.
func GFLOPS(isa string) (best float64) {
	const steps = 1 << 20
	for range 8 {
		var seconds C.double
		var ops C.double
		switch isa {
		case "avx2":
			ops = C.rung_peak_avx2(steps, &seconds)
		case "avx512":
			ops = C.rung_peak_avx512(steps, &seconds)
		default:
			return 0
		}
		best = max(best, float64(ops/seconds)/1e9)
	}
	return best
}
