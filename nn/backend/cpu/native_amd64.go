//go:build cgo && unix

package cpu

// #include "kernels.h"
import "C"

import "golang.org/x/sys/cpu"

// isas are the instruction sets of this machine, the best last.
func isas() (have []isa) {
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		have = append(have, isa{"avx2", C.RUNG_AVX2, 6, 16, 256})
		if cpu.X86.HasAVX512F {
			have = append(have, isa{"avx512", C.RUNG_AVX512, 14, 32, 128})
		}
	}
	return have
}
