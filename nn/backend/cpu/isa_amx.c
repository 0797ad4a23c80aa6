//go:build amd64 && unix

// The products for AMX.
#define _GNU_SOURCE
#include "kernels.h"
#ifdef RUNG_ROUNDED
#include <math.h>
#define FN(name) name##_amx
#define BLOCK_HEADER "tiles_amx.h"
#define TARGETS "avx512f,avx512bw,avx512bf16,avx2,fma,amx-tile,amx-bf16"
// Sixteen words of 32 rows and of 32 columns are 4 KiB: a block's rows take half of the first cache.
enum { MR = 32, KC = 192, KT = 192, TC = 384, DEEP = 16 };
#include "vec_avx512.h"
#include "words_bf16.h"
#include "vmath.h"
#include "micro.h"
#include "rounded.h"
#include "matmul.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
#else
const struct sizes sizes_amx;
#endif

#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

// Processes have to ask before they use tiles: see Linux's Documentation/arch/x86/xstate.rst.
int rung_amx(int has) {
	(void)has;
#ifndef RUNG_ROUNDED
	return 0;
#elif defined RUNG_AMX_EMULATED
	int rung_amx_emulate(void);
	return rung_amx_emulate();
#elif defined __linux__ && defined SYS_arch_prctl
	enum { ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 };
	return has && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0;
#else
	return 0;
#endif
}
