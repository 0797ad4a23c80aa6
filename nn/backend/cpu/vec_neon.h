// Vectors of four floats: NEON of arm64, where every processor has it. The names are those of vec_avx2.h.
#include <arm_neon.h>
#include <stdint.h>
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF // as GCC has it in ISO C
#else
#pragma GCC optimize("no-schedule-insns") // loads moved up would need more registers than there are
#endif

#define FN(name) name##_neon
#define BLOCK_HEADER "block_neon.h"
enum { VL = 4, MR = 6, NV = 4, NR = VL * NV, KC = 384, KT = 256, TC = 384 };

typedef float32x4_t vf;
typedef int32x4_t vi;
typedef uint32x4_t vm; // a mask: all bits of a lane, or none

static inline vi vsigned(vm a) { return vreinterpretq_s32_u32(a); }
static inline vm vunsigned(vi a) { return vreinterpretq_u32_s32(a); }

static inline vf vset(float x) { return vdupq_n_f32(x); }
static inline vf vzero(void) { return vdupq_n_f32(0); }
static inline vf vload(const float *p) { return vld1q_f32(p); }
static inline void vstore(float *p, vf v) { vst1q_f32(p, v); }
static inline vf vadd(vf a, vf b) { return vaddq_f32(a, b); }
static inline vf vsub(vf a, vf b) { return vsubq_f32(a, b); }
static inline vf vmul(vf a, vf b) { return vmulq_f32(a, b); }
static inline vf vdiv(vf a, vf b) { return vdivq_f32(a, b); }
static inline vf vsqrt(vf a) { return vsqrtq_f32(a); }
static inline vf vfma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
static inline vf vfnma(vf a, vf b, vf c) { return vfmsq_f32(c, a, b); }
// Comparisons: fmin and fmax give NaN where either is, fminnm and fmaxnm where both are.
static inline vf vmin(vf a, vf b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
static inline vf vmax(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline vf vround(vf a) { return vrndnq_f32(a); }

static inline vi viset(int32_t x) { return vdupq_n_s32(x); }
static inline vi viload(const void *p) { return vld1q_s32(p); }
static inline void vistore(void *p, vi v) { vst1q_s32(p, v); }
static inline vi viadd(vi a, vi b) { return vaddq_s32(a, b); }
static inline vi visub(vi a, vi b) { return vsubq_s32(a, b); }
static inline vi viand(vi a, vi b) { return vandq_s32(a, b); }
static inline vi vior(vi a, vi b) { return vorrq_s32(a, b); }
static inline vi vixor(vi a, vi b) { return veorq_s32(a, b); }
#define vishl(a, n) vshlq_n_s32(a, n)
#define vishr(a, n) vsigned(vshrq_n_u32(vunsigned(a), n))
static inline vi vtoint(vf a) { return vcvtnq_s32_f32(a); }
static inline vf vtofloat(vi a) { return vcvtq_f32_s32(a); }
static inline vi vbits(vf a) { return vreinterpretq_s32_f32(a); }
static inline vf vfrombits(vi a) { return vreinterpretq_f32_s32(a); }

static inline vf vabs(vf a) { return vabsq_f32(a); }

static inline vm vlt(vf a, vf b) { return vcltq_f32(a, b); }
static inline vm vgt(vf a, vf b) { return vcgtq_f32(a, b); }
static inline vm vult(vi a, vi b) { return vcltq_u32(vunsigned(a), vunsigned(b)); }
static inline vf vpick(vm m, vf a, vf b) { return vbslq_f32(m, a, b); }
static inline vf vzeroif(vm m, vf a) { return vfrombits(vsigned(vbicq_u32(vunsigned(vbits(a)), m))); }
static inline vi vipick(vm m, vi a, vi b) { return vbslq_s32(m, a, b); }

static inline vf vscale(vf a, vf n, vm zero) { return vzeroif(zero, vfrombits(viadd(vbits(a), vishl(vtoint(n), 23)))); }

// There are no masked loads and stores: the first n lanes, 0 < n < VL, are a pair and one.
static inline vf vloadn(const float *p, long n) {
	if (n >= VL) return vload(p);
	float32x2_t none = vdup_n_f32(0);
	if (n == 1) return vcombine_f32(vld1_lane_f32(p, none, 0), none);
	return vcombine_f32(vld1_f32(p), n == 2 ? none : vld1_lane_f32(p + 2, none, 0));
}
static inline void vstoren(float *p, vf v, long n) {
	if (n >= VL) {
		vstore(p, v);
		return;
	}
	if (n == 1) {
		vst1q_lane_f32(p, v, 0);
		return;
	}
	vst1_f32(p, vget_low_f32(v));
	if (n == 3) vst1q_lane_f32(p + 2, v, 2);
}

static inline vf vquads(const float *const *r, long c) { return vload(r[0] + c); }
static inline vf vpairlo(vf a, vf b) { return vzip1q_f32(a, b); }
static inline vf vpairhi(vf a, vf b) { return vzip2q_f32(a, b); }
static inline vf vfourlo(vf a, vf b) { return vcombine_f32(vget_low_f32(a), vget_low_f32(b)); }
static inline vf vfourhi(vf a, vf b) { return vcombine_f32(vget_high_f32(a), vget_high_f32(b)); }

static inline float vsum(vf v) { return vaddvq_f32(v); }
static inline float vtop(vf v) { return vmaxvq_f32(v); }
typedef float64x2_t vd;
static inline vd vdzero(void) { return vdupq_n_f64(0); }
static inline vd vdsquares(vf v, vd s) {
	float64x2_t lo = vcvt_f64_f32(vget_low_f32(v)), hi = vcvt_high_f64_f32(v);
	return vfmaq_f64(vfmaq_f64(s, lo, lo), hi, hi);
}
static inline double vdsum(vd v) { return vaddvq_f64(v); }

static inline void vmulwide(vi a, vi m, vi *hi, vi *lo) {
	uint32x4_t low = vreinterpretq_u32_u64(vmull_u32(vget_low_u32(vunsigned(a)), vget_low_u32(vunsigned(m))));
	uint32x4_t high = vreinterpretq_u32_u64(vmull_high_u32(vunsigned(a), vunsigned(m)));
	*lo = vsigned(vuzp1q_u32(low, high));
	*hi = vsigned(vuzp2q_u32(low, high));
}
static inline void vinterleave(uint32_t *p, const vi w[4]) {
	uint32x4x4_t all = {{vunsigned(w[0]), vunsigned(w[1]), vunsigned(w[2]), vunsigned(w[3])}};
	vst4q_u32(p, all);
}
