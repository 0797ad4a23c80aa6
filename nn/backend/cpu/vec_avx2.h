// Vectors of eight floats: AVX2 and FMA. The names are those of vec_avx512.h: every kernel is written
// once, on them.
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#include <immintrin.h>
#include <stdint.h>

#define FN(name) name##_avx2
#define LOOKUP8
enum { VL = 8, MR = 6, NV = 2, NR = VL * NV, KC = 384, KT = 256, TC = 96 };

typedef __m256 vf;
typedef __m256i vi;
typedef __m256 vm; // a mask: all bits of a lane, or none

static inline vf vset(float x) { return _mm256_set1_ps(x); }
static inline vf vzero(void) { return _mm256_setzero_ps(); }
static inline vf vload(const float *p) { return _mm256_loadu_ps(p); }
static inline void vstore(float *p, vf v) { _mm256_storeu_ps(p, v); }
static inline vf vadd(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf vsub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf vmul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf vdiv(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf vsqrt(vf a) { return _mm256_sqrt_ps(a); }
static inline vf vfma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }   // ab + c
static inline vf vfnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); } // c - ab
// Of a NaN and a number these give b.
static inline vf vmin(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf vround(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

static inline vi viset(int32_t x) { return _mm256_set1_epi32(x); }
static inline vi viload(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
static inline void vistore(void *p, vi v) { _mm256_storeu_si256((__m256i *)p, v); }
static inline vi viadd(vi a, vi b) { return _mm256_add_epi32(a, b); }
static inline vi visub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
static inline vi viand(vi a, vi b) { return _mm256_and_si256(a, b); }
static inline vi vior(vi a, vi b) { return _mm256_or_si256(a, b); }
static inline vi vixor(vi a, vi b) { return _mm256_xor_si256(a, b); }
#define vishl(a, n) _mm256_slli_epi32(a, n)
#define vishr(a, n) _mm256_srli_epi32(a, n)
static inline vi vtoint(vf a) { return _mm256_cvtps_epi32(a); }
static inline vf vtofloat(vi a) { return _mm256_cvtepi32_ps(a); }
static inline vi vbits(vf a) { return _mm256_castps_si256(a); }
static inline vf vfrombits(vi a) { return _mm256_castsi256_ps(a); }

static inline vf vabs(vf a) { return vfrombits(viand(vbits(a), viset(0x7fffffff))); }

static inline vm vlt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
static inline vm vgt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
// Unsigned a < b: a - b borrows, which max shows.
static inline vm vult(vi a, vi b) {
	__m256i ge = _mm256_cmpeq_epi32(_mm256_max_epu32(a, b), a);
	return _mm256_castsi256_ps(_mm256_xor_si256(ge, _mm256_set1_epi32(-1)));
}
static inline vf vpick(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); } // m ? a : b
static inline vf vzeroif(vm m, vf a) { return _mm256_andnot_ps(m, a); }
static inline vi vipick(vm m, vi a, vi b) {
	return _mm256_castps_si256(vpick(m, _mm256_castsi256_ps(a), _mm256_castsi256_ps(b)));
}

// a 2^n for whole n, but 0 where zero is set.
static inline vf vscale(vf a, vf n, vm zero) { return vzeroif(zero, vfrombits(viadd(vbits(a), vishl(vtoint(n), 23)))); }

// Lane i is element at[i] of 8, by its low three bits.
static inline vf vlookup(const float *table, vi at) { return _mm256_permutevar8x32_ps(vload(table), at); }

// The first n lanes, 0 < n < VL.
static inline __m256i vfirst(long n) {
	static const int32_t ones[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
	return _mm256_loadu_si256((const __m256i *)(ones + 8 - n));
}
// Loads and stores that never touch what is past n; lanes past n load as 0.
static inline vf vloadn(const float *p, long n) { return n >= VL ? vload(p) : _mm256_maskload_ps(p, vfirst(n)); }
static inline void vstoren(float *p, vf v, long n) {
	if (n >= VL) vstore(p, v);
	else _mm256_maskstore_ps(p, vfirst(n), v);
}

// For transposes. The 128-bit parts of quads are the four floats from c on of rows r[0], r[4], and so on. Pairs
// are the lanes of a and b in turn, of the lower or upper half of each part; fours are so of pairs.
static inline vf vquads(const float *const *r, long c) {
	return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(r[0] + c)), _mm_loadu_ps(r[4] + c), 1);
}
static inline vf vpairlo(vf a, vf b) { return _mm256_unpacklo_ps(a, b); }
static inline vf vpairhi(vf a, vf b) { return _mm256_unpackhi_ps(a, b); }
static inline vf vfourlo(vf a, vf b) { return _mm256_shuffle_ps(a, b, 0x44); }
static inline vf vfourhi(vf a, vf b) { return _mm256_shuffle_ps(a, b, 0xEE); }

// Sums and maxima over lanes, in halves.
static inline float vsum(vf v) {
	__m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
	s = _mm_add_ps(s, _mm_movehl_ps(s, s));
	return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline float vtop(vf v) {
	__m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
	s = _mm_max_ps(s, _mm_movehl_ps(s, s));
	return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
// The sum of squares in float64, added to two accumulators.
typedef __m256d vd;
static inline vd vdzero(void) { return _mm256_setzero_pd(); }
static inline vd vdsquares(vf v, vd s) {
	__m256d lo = _mm256_cvtps_pd(_mm256_castps256_ps128(v)), hi = _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
	return _mm256_fmadd_pd(hi, hi, _mm256_fmadd_pd(lo, lo, s));
}
static inline double vdsum(vd v) {
	__m128d s = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
	return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}

// High and low halves of the products of unsigned lanes with m.
static inline void vmulwide(vi a, vi m, vi *hi, vi *lo) {
	__m256i even = _mm256_mul_epu32(a, m), odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), m);
	*lo = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
	*hi = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
}
// Lane i of vector w goes to element 4i+w of p.
static inline void vinterleave(uint32_t *p, const vi w[4]) {
	__m256i a = _mm256_unpacklo_epi32(w[0], w[1]), b = _mm256_unpackhi_epi32(w[0], w[1]);
	__m256i c = _mm256_unpacklo_epi32(w[2], w[3]), d = _mm256_unpackhi_epi32(w[2], w[3]);
	__m256i r0 = _mm256_unpacklo_epi64(a, c), r1 = _mm256_unpackhi_epi64(a, c);
	__m256i r2 = _mm256_unpacklo_epi64(b, d), r3 = _mm256_unpackhi_epi64(b, d);
	vistore(p, _mm256_permute2x128_si256(r0, r1, 0x20));
	vistore(p + 8, _mm256_permute2x128_si256(r2, r3, 0x20));
	vistore(p + 16, _mm256_permute2x128_si256(r0, r1, 0x31));
	vistore(p + 24, _mm256_permute2x128_si256(r2, r3, 0x31));
}
