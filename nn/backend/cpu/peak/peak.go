//go:build cgo && (amd64 || arm64) && unix

// Package peak measures the physical limit that kernels are compared with.
package peak

// #cgo CFLAGS: -std=c11 -O2
// #include "peak.h"
// #include <stdlib.h>
import "C"

import "unsafe"

// GFLOPS is the multiply-adds (two operations each) of one core in 1e9 a second of its time, the best of a few runs of
// some milliseconds: fused ones in float32 of avx2, avx512 and neon, products of bf16 of avx512bf16 and amx. The machine
// must have the instruction set; others give 0, and so does an amx that is not there.
func GFLOPS(isa string) (best float64) {
	const steps = 1 << 20
	name := C.CString(isa)
	defer C.free(unsafe.Pointer(name))
	for range 8 {
		var seconds C.double
		ops := C.rung_peak(name, steps, &seconds)
		if ops == 0 {
			return 0
		}
		best = max(best, float64(ops/seconds)/1e9)
	}
	return best
}
