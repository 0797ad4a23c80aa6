//go:build unix

#include "measure.h"
#include <immintrin.h>

#define CHAINS 12 // four or five cycles on two units
#define REG "x"
PEAK(avx2, __attribute__((target("avx2,fma"))), __m256, 8, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_storeu_ps)
PEAK(avx512, __attribute__((target("avx512f"))), __m512, 16, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_storeu_ps)

double rung_peak(const char *isa, long steps, double *seconds) {
	return !strcmp(isa, "avx2") ? avx2(steps, seconds) : !strcmp(isa, "avx512") ? avx512(steps, seconds) : 0;
}
