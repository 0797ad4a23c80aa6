//go:build unix

#define _GNU_SOURCE
#include "measure.h"
#include <immintrin.h>

#define CHAINS 12 // four or five cycles on two units
#define REG "x"
PEAK(avx2, __attribute__((target("avx2,fma"))), __m256, 8, 2, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_storeu_ps)
PEAK(avx512, __attribute__((target("avx512f"))), __m512, 16, 2, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_storeu_ps)

#if defined __clang__ ? __clang_major__ >= 12 : __GNUC__ >= 11 // which know AMX
#define DOT(s, x, y) _mm512_dpbf16_ps(s, (__m512bh)(x), (__m512bh)(y))
PEAK(avx512bf16, __attribute__((target("avx512f,avx512bf16"))), __m512, 16, 4, _mm512_set1_ps, DOT, _mm512_storeu_ps)
#else
static double avx512bf16(long steps, double *seconds) { return *seconds = 0; }
#endif

#if defined __linux__ && (defined __clang__ ? __clang_major__ >= 12 : __GNUC__ >= 11)
#include <sys/syscall.h>
#include <unistd.h>

// Four products of tiles of sixteen rows of 64 bytes, for a sixteenth of the steps: each takes sixteen cycles.
__attribute__((target("amx-tile,amx-bf16"))) static double amx(long steps, double *seconds) {
	enum { ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 };
	static const struct {
		unsigned char palette, zero[15];
		unsigned short bytes[16];
		unsigned char rows[16];
	} shape = {1, {0}, {64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16}};
	*seconds = 0;
	if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA)) return 0; // the processor or the system has none
#define TILES(...) __asm__ volatile(__VA_ARGS__)
	TILES("ldtilecfg %0" : : "m"(shape));
	TILES("tilezero %tmm0; tilezero %tmm1; tilezero %tmm2; tilezero %tmm3; tilezero %tmm4; tilezero %tmm5");
	double t = now();
	for (long k = 0; k < steps / 16; k++)
		TILES("tdpbf16ps %tmm5, %tmm4, %tmm0; tdpbf16ps %tmm5, %tmm4, %tmm1; tdpbf16ps %tmm5, %tmm4, %tmm2; tdpbf16ps %tmm5, %tmm4, %tmm3");
	*seconds = now() - t;
	TILES("tilerelease");
	return 4 * 16384. * (double)(steps / 16);
}
#else
static double amx(long steps, double *seconds) { return *seconds = 0; }
#endif

double rung_peak(const char *isa, long steps, double *seconds) {
	return !strcmp(isa, "avx2") ? avx2(steps, seconds)
		: !strcmp(isa, "avx512") ? avx512(steps, seconds)
		: !strcmp(isa, "avx512bf16") ? avx512bf16(steps, seconds)
		: !strcmp(isa, "amx") ? amx(steps, seconds) : 0;
}
