// Functions of vectors. Their errors, of a dense sweep against float64, are bounds in the tests.

// vexp is e^x to 2 ulp; below e^-86.9 it is 0, so that masked scores of -inf weigh nothing. NaN stays.
static inline vf vexp(vf x) {
	const vf low = vset(-86.9f);
	vf c = vmin(vset(88.8f), vmax(low, x));
	vf n = vround(vmul(c, vset(1.44269504f)));
	c = vfnma(n, vset(0.693359375f), c); // ln 2 in two parts (Cody and Waite)
	c = vfnma(n, vset(-2.12194440e-4f), c);
	vf p = vset(1.9875691500e-4f);
	p = vfma(p, c, vset(1.3981999507e-3f));
	p = vfma(p, c, vset(8.3334519073e-3f));
	p = vfma(p, c, vset(4.1665795894e-2f));
	p = vfma(p, c, vset(1.6666665459e-1f));
	p = vfma(p, c, vset(5.0000001201e-1f));
	p = vfma(vmul(p, c), c, vadd(c, vset(1)));
	// 2^n as 2 · 2^(n-1): n = 128 is no exponent.
	vf scale = vfrombits(vishl(viadd(vtoint(n), viset(126)), 23));
	return vzeroif(vlt(x, low), vmul(vmul(p, scale), vset(2)));
}

// vexp2 is 2^x of x ≤ 127 to 1 ulp; below 2^-126 it is 0. NaN stays.
static inline vf vexp2(vf x) {
	vf n = vround(x), c = vsub(x, n);
	vf p = vset(1.535336188e-4f); // relative error 2e-9 on [-1/2, 1/2]
	p = vfma(p, c, vset(1.339887440e-3f));
	p = vfma(p, c, vset(9.618437357e-3f));
	p = vfma(p, c, vset(5.550332824e-2f));
	p = vfma(p, c, vset(2.402264791e-1f));
	p = vfma(p, c, vset(6.931472028e-1f));
	p = vfma(p, c, vset(1));
	return vscale(p, n, vlt(x, vset(-126)));
}

#ifdef WIDE // registers of 16 lanes hold a table of 32 in two
#include "gelu_table.h"

// segment splits x into the number of its segment, in the low bits of at, and where it lies in it.
static inline vf segment(vf x, float most, vi *at) {
	const vf magic = vset(12582912); // 1.5 · 2^23: whole numbers are in the low bits
	vf u = vmin(vset(most), vmul(x, vset(2.6f))), n = vadd(u, magic);
	*at = vbits(n);
	return vsub(u, vsub(n, magic));
}

static inline vf polynomial(const float c[7][32], vf t, vi at) {
	vf p = vlookup(c[6], at);
	_Pragma("GCC unroll 6") for (int i = 5; i >= 0; i--) p = vfma(p, t, vlookup(c[i], at));
	return p;
}

// vgelu is x Φ(x), with an error below 2e-6 of |x| Φ(x) or 1e-9. Below -6.5 it is 0.
static inline vf vgelu(vf x) {
	vi at;
	vf t = segment(x, 14.49f, &at);
	return vzeroif(vlt(x, vset(-6.5f)), vmul(x, polynomial(phi, t, at)));
}

// vgelud is its derivative, Φ(x) + x φ(x), with an error below 2.5e-7. Below -6.1 it is 0.
static inline vf vgelud(vf x) {
	vi at;
	vf t = segment(x, 15.49f, &at);
	return vzeroif(vlt(x, vset(-6.1f)), polynomial(slope, t, at));
}
#elif defined(LOOKUP8) // registers of 8 lanes hold a table of 8
#include "gelu_table.h"

// vupper is a polynomial of |x| up to 6.4 on eight segments; beyond it is what it is there.
static inline vf vupper(const float c[8][8], vf x) {
	const vf magic = vset(12582912); // as above
	vf u = vmin(vset(7.49f), vfma(vabs(x), vset(1.25f), vset(-0.5f))), n = vadd(u, magic);
	vi at = vbits(n);
	vf t = vsub(u, vsub(n, magic)), p = vlookup(c[7], at);
	_Pragma("GCC unroll 7") for (int i = 6; i >= 0; i--) p = vfma(p, t, vlookup(c[i], at));
	return p;
}

// vgelu is x Φ(x), with an error below 2e-6 of |x| Φ(x) or 1e-9. Below -6.3 it is 0.
static inline vf vgelu(vf x) {
	vf q = vupper(phi8, x); // Φ(-|x|)
	return vzeroif(vlt(x, vset(-6.3f)), vmul(x, vpick(vlt(x, vzero()), q, vsub(vset(1), q))));
}

// vgelud is its derivative, Φ(x) + x φ(x), with an error below 2.5e-7.
static inline vf vgelud(vf x) {
	vf q = vupper(slope8, x); // at -|x|
	return vpick(vlt(x, vzero()), q, vsub(vset(1), q));
}
#else
// vtail is the upper tail of the normal distribution at a = |x| ≤ 14, and its density without the
// factor 1/√2π: Q(a) = e^(-a²/2) R(a), with a polynomial in (a-c)/(a+c) for R (as Cody has it).
static inline vf vtail(vf a, vf *density) {
	vf e = vexp(vmul(vmul(a, vset(-0.5f)), a));
	vf s = vdiv(vset(1), vadd(a, vset(3.5f)));
	vf t = vmul(vsub(a, vset(3.5f)), s);
	vf p = vset(0.0001246101989f);
	p = vfma(p, t, vset(0.0004450328682f));
	p = vfma(p, t, vset(-0.0004975321297f));
	p = vfma(p, t, vset(-0.003193030794f));
	p = vfma(p, t, vset(0.00649068442f));
	p = vfma(p, t, vset(0.01741084709f));
	p = vfma(p, t, vset(-0.116052396f));
	p = vfma(p, t, vset(0.3154246642f));
	p = vfma(p, t, vset(-0.5655617744f));
	p = vfma(p, t, vset(0.7444160796f));
	*density = e;
	return vmul(e, vmul(p, s));
}

// vgelu is x Φ(x), with an error below 1e-6 of |x| Φ(x) or 1e-7.
static inline vf vgelu(vf x) {
	vf e, a = vmin(vset(14), vabs(x)), q = vtail(a, &e);
	return vmul(x, vpick(vlt(x, vzero()), q, vsub(vset(1), q)));
}

// vgelud is its derivative, Φ(x) + x φ(x).
static inline vf vgelud(vf x) {
	vf e, a = vmin(vset(14), vabs(x)), q = vtail(a, &e);
	vf p = vpick(vlt(x, vzero()), q, vsub(vset(1), q));
	return vfma(vmul(x, vset(0.39894228f)), e, p);
}
#endif

// vtanh is an odd polynomial near 0 (Cephes), else by the exponential.
static inline vf vtanh(vf x) {
	vf a = vabs(x), z = vmul(x, x);
	vf p = vset(-5.70498872745e-3f);
	p = vfma(p, z, vset(2.06390887954e-2f));
	p = vfma(p, z, vset(-5.37397155531e-2f));
	p = vfma(p, z, vset(1.33314422036e-1f));
	p = vfma(p, z, vset(-3.33332819422e-1f));
	p = vfma(vmul(p, z), x, x);
	vf q = vsub(vset(1), vdiv(vset(2), vadd(vexp(vadd(a, a)), vset(1))));
	q = vpick(vlt(x, vzero()), vsub(vzero(), q), q);
	return vpick(vlt(a, vset(0.625f)), p, q);
}

// vsigmoid is 1/(1+e^-x), from e^-|x| so that nothing overflows.
static inline vf vsigmoid(vf x) {
	vf e = vexp(vsub(vzero(), vabs(x))), s = vdiv(vset(1), vadd(vset(1), e));
	return vpick(vlt(x, vzero()), vmul(e, s), s);
}

// vlogOf is log(u 2^n) + lost of 1 ≤ u ≤ 2: the logarithm of Cephes.
static inline vf vlogOf(vf u, vf n, vf lost) {
	vm big = vgt(u, vset(1.41421356f));
	vf x = vsub(vpick(big, vmul(u, vset(.5f)), u), vset(1)), z = vmul(x, x);
	vf p = vset(7.0376836292e-2f);
	p = vfma(p, x, vset(-1.1514610310e-1f));
	p = vfma(p, x, vset(1.1676998740e-1f));
	p = vfma(p, x, vset(-1.2420140846e-1f));
	p = vfma(p, x, vset(1.4249322787e-1f));
	p = vfma(p, x, vset(-1.6668057665e-1f));
	p = vfma(p, x, vset(2.0000714765e-1f));
	p = vfma(p, x, vset(-2.4999993993e-1f));
	p = vfma(p, x, vset(3.3333331174e-1f));
	vf y = vmul(vmul(p, x), z);
	vf e = vadd(n, vpick(big, vset(1), vzero()));
	y = vfma(e, vset(-2.12194440e-4f), y);
	y = vfma(vset(-.5f), z, y);
	y = vadd(vadd(x, y), lost);
	return vfma(e, vset(0.693359375f), y);
}

// vlog is log x of positive x, neither denormal nor infinite, to 2 ulp. NaN stays.
static inline vf vlog(vf x) {
	vf n = vtofloat(visub(vishr(vbits(x), 23), viset(127)));
	return vlogOf(vfrombits(vior(viand(vbits(x), viset(0x7fffff)), viset(0x3f800000))), n, vsub(x, x));
}

// vlog1p is log(1+t) of 0 ≤ t ≤ 1, after what 1+t rounds away is put back.
static inline vf vlog1p(vf t) {
	vf u = vadd(t, vset(1));
	return vlogOf(u, vzero(), vdiv(vsub(t, vsub(u, vset(1))), u));
}

// vsoftplus is log(1+e^x).
static inline vf vsoftplus(vf x) {
	return vadd(vmax(vzero(), x), vlog1p(vexp(vsub(vzero(), vabs(x)))));
}
