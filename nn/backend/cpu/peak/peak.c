//go:build amd64 && unix

#define _POSIX_C_SOURCE 200112L
#include "peak.h"
#include <immintrin.h>
#include <time.h>

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// Twelve chains hide the latency of four or five cycles on two units.
#define PEAK(name, isa, vec, lanes, set, fma, store)                                    \
	__attribute__((target(isa))) double rung_peak_##name(long steps, double *seconds) { \
		vec s[12], x = set(0.999999f), y = set(1e-9f);                          \
		for (int i = 0; i < 12; i++) s[i] = set((float)i);                      \
		double t = now();                                                       \
		__asm__ volatile("" : "+x"(x)); /* not before */                        \
		for (long k = 0; k < steps; k++)                                        \
			_Pragma("GCC unroll 12") for (int i = 0; i < 12; i++) s[i] = fma(s[i], x, y); \
		for (int i = 0; i < 12; i++) __asm__ volatile("" : "+x"(s[i])); /* not after now */ \
		*seconds = now() - t;                                                   \
		volatile float sink[lanes];                                             \
		for (int i = 0; i < 12; i++) store((float *)sink, s[i]);                \
		return 2.0 * 12 * lanes * (double)steps;                                \
	}

PEAK(avx2, "avx2,fma", __m256, 8, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_storeu_ps)
PEAK(avx512, "avx512f", __m512, 16, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_storeu_ps)
