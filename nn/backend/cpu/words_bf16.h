// Words of two bf16 numbers, the next two along k, the first in the lower half: rounded to nearest even, as the
// instructions do it. Denormal numbers are 0 in products.
#define ROUNDS
enum { PER = 2 };

// vtwo rounds sixteen and sixteen floats, in this order.
static inline vf vtwo(vf lo, vf hi) { return (vf)_mm512_cvtne2ps_pbh(hi, lo); }

// vword is rows 0 and 1 of x, n floats each; left rows are there, ld apart.
static inline vf vword(const float *x, long ld, long n, long left) {
	static const uint16_t order[32] = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
	if (left <= 0) return vzero();
	vf two = vtwo(vloadn(x, n), left > 1 ? vloadn(x + ld, n) : vzero());
	return vfrombits(_mm512_permutexvar_epi16(viload(order), vbits(two)));
}

// valong is sixteen words of a row of which left floats are there.
static inline vf valong(const float *x, long left) {
	return vtwo(left > 0 ? vloadn(x, left) : vzero(), left > VL ? vloadn(x + VL, left - VL) : vzero());
}

static inline vf vmac(vf a, vf b, vf c) { return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b); }
