//go:build cgo && unix

package cpu

// #include "kernels.h"
import "C"

import "golang.org/x/sys/cpu"

// isas are the instruction sets of this machine, the best last.
func isas() (have []isa) {
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		have = append(have, isaOf("avx2", C.RUNG_AVX2, C.sizes_avx2))
		if cpu.X86.HasAVX512F {
			have = append(have, isaOf("avx512", C.RUNG_AVX512, C.sizes_avx512))
		}
	}
	return have
}
