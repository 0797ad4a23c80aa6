// Vectors of sixteen floats: AVX-512F. The names are those of vec_avx2.h. Who includes it may have set FN, sizes of blocks
// and targets of its own.
#ifndef FN
#define FN(name) name##_avx512
#define TARGETS "avx512f,avx2,fma"
#define WIDE // more rows in registers
enum { MR = 14, KC = 384, KT = 128, TC = 384 };
#endif

#define PRAGMA_OF(x) _Pragma(#x)
#define PRAGMA(x) PRAGMA_OF(x)
#ifdef __clang__
PRAGMA(clang attribute push(__attribute__((target(TARGETS))), apply_to = function))
#else
PRAGMA(GCC target(TARGETS))
#endif
#include <immintrin.h>
#include <stdint.h>

enum { VL = 16, NV = 2, NR = VL * NV };

typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;

static inline vf vset(float x) { return _mm512_set1_ps(x); }
static inline vf vzero(void) { return _mm512_setzero_ps(); }
static inline vf vload(const float *p) { return _mm512_loadu_ps(p); }
static inline void vstore(float *p, vf v) { _mm512_storeu_ps(p, v); }
static inline vf vadd(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf vsub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf vmul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf vdiv(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf vsqrt(vf a) { return _mm512_sqrt_ps(a); }
static inline vf vfma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf vfnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
static inline vf vmin(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf vround(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

static inline vi viset(int32_t x) { return _mm512_set1_epi32(x); }
static inline vi viload(const void *p) { return _mm512_loadu_si512(p); }
static inline void vistore(void *p, vi v) { _mm512_storeu_si512(p, v); }
static inline vi viadd(vi a, vi b) { return _mm512_add_epi32(a, b); }
static inline vi visub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
static inline vi viand(vi a, vi b) { return _mm512_and_si512(a, b); }
static inline vi vior(vi a, vi b) { return _mm512_or_si512(a, b); }
static inline vi vixor(vi a, vi b) { return _mm512_xor_si512(a, b); }
#define vishl(a, n) _mm512_slli_epi32(a, n)
#define vishr(a, n) _mm512_srli_epi32(a, n)
static inline vi vtoint(vf a) { return _mm512_cvtps_epi32(a); }
static inline vf vtofloat(vi a) { return _mm512_cvtepi32_ps(a); }
static inline vi vbits(vf a) { return _mm512_castps_si512(a); }
static inline vf vfrombits(vi a) { return _mm512_castsi512_ps(a); }

static inline vf vabs(vf a) { return vfrombits(viand(vbits(a), viset(0x7fffffff))); }

static inline vm vlt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
static inline vm vgt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
static inline vm vult(vi a, vi b) { return _mm512_cmplt_epu32_mask(a, b); }
static inline vf vpick(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }
static inline vf vzeroif(vm m, vf a) { return _mm512_maskz_mov_ps((vm)~m, a); }
static inline vi vipick(vm m, vi a, vi b) { return _mm512_mask_blend_epi32(m, b, a); }

// a 2^n for whole n, but 0 where zero is set.
static inline vf vscale(vf a, vf n, vm zero) { return _mm512_maskz_scalef_ps((vm)~zero, a, n); }

// Lane i is element at[i] of 32, by its low five bits.
static inline vf vlookup(const float *table, vi at) { return _mm512_permutex2var_ps(vload(table), at, vload(table + VL)); }

static inline vm vfirst(long n) { return (vm)((1u << n) - 1); }
static inline vf vloadn(const float *p, long n) { return n >= VL ? vload(p) : _mm512_maskz_loadu_ps(vfirst(n), p); }
static inline void vstoren(float *p, vf v, long n) {
	if (n >= VL) vstore(p, v);
	else _mm512_mask_storeu_ps(p, vfirst(n), v);
}

static inline vf vquads(const float *const *r, long c) {
	vf v = _mm512_castps128_ps512(_mm_loadu_ps(r[0] + c));
	v = _mm512_mask_broadcast_f32x4(v, 0x00F0, _mm_loadu_ps(r[4] + c));
	v = _mm512_mask_broadcast_f32x4(v, 0x0F00, _mm_loadu_ps(r[8] + c));
	return _mm512_mask_broadcast_f32x4(v, 0xF000, _mm_loadu_ps(r[12] + c));
}
static inline vf vpairlo(vf a, vf b) { return _mm512_unpacklo_ps(a, b); }
static inline vf vpairhi(vf a, vf b) { return _mm512_unpackhi_ps(a, b); }
static inline vf vfourlo(vf a, vf b) { return _mm512_shuffle_ps(a, b, 0x44); }
static inline vf vfourhi(vf a, vf b) { return _mm512_shuffle_ps(a, b, 0xEE); }

static inline float vsum(vf v) { return _mm512_reduce_add_ps(v); }
static inline float vtop(vf v) { return _mm512_reduce_max_ps(v); }
typedef __m512d vd;
static inline vd vdzero(void) { return _mm512_setzero_pd(); }
static inline vd vdsquares(vf v, vd s) {
	__m512d lo = _mm512_cvtps_pd(_mm512_castps512_ps256(v));
	__m512d hi = _mm512_cvtps_pd(_mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1)));
	return _mm512_fmadd_pd(hi, hi, _mm512_fmadd_pd(lo, lo, s));
}
static inline double vdsum(vd v) { return _mm512_reduce_add_pd(v); }

static inline void vmulwide(vi a, vi m, vi *hi, vi *lo) {
	__m512i even = _mm512_mul_epu32(a, m), odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), m);
	*lo = _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32));
	*hi = _mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd);
}
static inline void vinterleave(uint32_t *p, const vi w[4]) {
	__m512i a = _mm512_unpacklo_epi32(w[0], w[1]), b = _mm512_unpackhi_epi32(w[0], w[1]);
	__m512i c = _mm512_unpacklo_epi32(w[2], w[3]), d = _mm512_unpackhi_epi32(w[2], w[3]);
	// Each 128-bit part of r[i] is the block of lane 4·part+i: a transpose of parts puts them in order.
	__m512i r0 = _mm512_unpacklo_epi64(a, c), r1 = _mm512_unpackhi_epi64(a, c);
	__m512i r2 = _mm512_unpacklo_epi64(b, d), r3 = _mm512_unpackhi_epi64(b, d);
	__m512i s0 = _mm512_shuffle_i32x4(r0, r1, 0x44), s1 = _mm512_shuffle_i32x4(r0, r1, 0xEE);
	__m512i s2 = _mm512_shuffle_i32x4(r2, r3, 0x44), s3 = _mm512_shuffle_i32x4(r2, r3, 0xEE);
	vistore(p, _mm512_shuffle_i32x4(s0, s2, 0x88));
	vistore(p + 16, _mm512_shuffle_i32x4(s0, s2, 0xDD));
	vistore(p + 32, _mm512_shuffle_i32x4(s1, s3, 0x88));
	vistore(p + 48, _mm512_shuffle_i32x4(s1, s3, 0xDD));
}
