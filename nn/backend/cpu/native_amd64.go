//go:build cgo && unix

package cpu

// #cgo amxemu CFLAGS: -DRUNG_AMX_EMULATED
// #include "kernels.h"
// extern const struct sizes sizes_bf16, sizes_amx;
// int rung_amx(int has);
import "C"

import "golang.org/x/sys/cpu"

// isas are the instruction sets of this machine, the best last.
func isas() (have []isa) {
	x := &cpu.X86
	if !x.HasAVX2 || !x.HasFMA {
		return nil
	}
	have = append(have, isaOf("avx2", C.RUNG_avx2, C.RUNG_avx2, C.sizes_avx2))
	if !x.HasAVX512F {
		return have
	}
	have = append(have, isaOf("avx512", C.RUNG_avx512, C.RUNG_avx512, C.sizes_avx512))
	if !x.HasAVX512BW || !x.HasAVX512BF16 || C.sizes_bf16.mr == 0 {
		return have
	}
	have = append(have, isaOf("avx512bf16", C.RUNG_avx512, C.RUNG_bf16, C.sizes_bf16))
	if C.rung_amx(flag(x.HasAMXTile && x.HasAMXBF16)) != 0 {
		have = append(have, isaOf("amx", C.RUNG_avx512, C.RUNG_amx, C.sizes_amx))
	}
	return have
}
