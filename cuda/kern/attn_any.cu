// Attention, backward, for heads of any size: a warp each row and head. Slow, but it has no limits.
#include "attn.cuh"

// The sequence of row i, of the queries or of the keys.
__device__ __forceinline__ bool find_row(const Args &a, int i, bool queries, Span &s) {
	const int *o = ints(a.in[3]);
	bool single = a.i[1] == 1;
	int n = real_seqs(a.in[3], a.s), lo = 0, hi = n;
	if (n == 0 || i >= (single && queries ? n : o[n]) || !(single && queries) && i < o[0]) return false;
	if (single && queries) {
		lo = i;
	} else {
		while (hi - lo > 1) { // o[lo] <= i < o[hi]
			int m = (lo + hi) / 2;
			if (o[m] <= i) lo = m;
			else hi = m;
		}
	}
	s.seq = lo, s.k0 = o[lo], s.nk = o[lo + 1] - s.k0;
	s.q0 = single ? lo : s.k0, s.nq = single ? 1 : s.nk;
	return true;
}

__device__ __forceinline__ float warp_dot(const float *x, const float *y, int n) {
	float s = 0;
	for (int c = lane(); c < n; c += 32) s += x[c] * y[c];
	return warp_sum(s);
}

struct Head {
	int n, d;
	float scale;
	bool drops;
	Mask mask;

	__device__ __forceinline__ Head(const Args &a, const Span &s) {
		n = blockIdx.y, d = a.in[0].cols / a.i[0], scale = (float)a.f[1];
		drops = a.in[4].p && a.f[0] != 0;
		if (drops) mask = mask_of(a, ints(a.in[4])[s.seq], a.i[2] + n);
	}
	__device__ __forceinline__ const float *of(const Mat &m, int i) const { return row(m, i) + n * d; }
	__device__ __forceinline__ float keep(int q, int k) const { return drops ? mask.one((u32)q << 16 | k) : 1.f; }
};

// Eight columns a lane at a time of row i: f gives the factor of row j of x.
template <class F> __device__ __forceinline__ void weigh(const Head &h, const Mat &y, int i, const Mat &x, int first, int n, const F &f) {
	for (int c0 = 0; c0 < h.d; c0 += 256) {
		float o[8] = {0, 0, 0, 0, 0, 0, 0, 0};
		for (int j = 0; j < n; j++) {
			float p = f(j);
			const float *v = h.of(x, first + j) + c0 + lane();
#pragma unroll
			for (int c = 0; c < 8; c++)
				if (c0 + 32 * c + lane() < h.d) o[c] += p * v[32 * c];
		}
#pragma unroll
		for (int c = 0; c < 8; c++)
			if (c0 + 32 * c + lane() < h.d) row(y, i)[h.n * h.d + c0 + 32 * c + lane()] = o[c];
	}
}

extern "C" __global__ void attn_any(const Args a) {
	Span s;
	int i = warp_row();
	if (!find_row(a, i, true, s)) return;
	Head h(a, s);
	const float *q = h.of(a.in[0], i);
	auto score = [&](int j) { return warp_dot(q, h.of(a.in[1], s.k0 + j), h.d) * h.scale; };
	float top = -INF, z = 0;
	for (int j = 0; j < s.nk; j++) {
		float t = score(j), most = fmaxf(top, t);
		z = z * expf(top - most) + expf(t - most), top = most;
	}
	if (a.out[1].p && lane() == 0) row(a.out[1], i)[h.n] = s.nk > 0 ? top + logf(z) : 0;
	if (a.out[0].p) weigh(h, a.out[0], i, a.in[2], s.k0, s.nk, [&](int j) { return expf(score(j) - top) / z * h.keep(i - s.q0, j); });
}

// The probability of query i and key j, and with dropout the gradient of their score.
__device__ __forceinline__ void pair(const Args &a, const Head &h, const Span &s, int i, int j, float &p, float &ds) {
	const float *dy = h.of(a.in[7], s.q0 + i);
	float t = warp_dot(h.of(a.in[0], s.q0 + i), h.of(a.in[1], s.k0 + j), h.d), g = warp_dot(dy, h.of(a.in[2], s.k0 + j), h.d);
	float delta = warp_dot(dy, h.of(a.in[5], s.q0 + i), h.d), keep = h.keep(i, j);
	float e = expf(t * h.scale - row(a.in[6], s.q0 + i)[h.n]);
	p = e * keep, ds = e * (keep * g - delta) * h.scale;
}

extern "C" __global__ void attn_dq_any(const Args a) {
	Span s;
	int i = warp_row();
	if (!find_row(a, i, true, s)) return;
	Head h(a, s);
	weigh(h, a.out[0], i, a.in[1], s.k0, s.nk, [&](int j) {
		float p, ds;
		pair(a, h, s, i - s.q0, j, p, ds);
		return ds;
	});
}

extern "C" __global__ void attn_dkv_any(const Args a) {
	Span s;
	int j = warp_row();
	if (!find_row(a, j, false, s)) return;
	Head h(a, s);
	for (int k = 0; k < 2; k++) {
		if (!a.out[1 + k].p) continue;
		weigh(h, a.out[1 + k], j, a.in[k == 0 ? 0 : 7], s.q0, s.nq, [&](int i) {
			float p, ds;
			pair(a, h, s, i, j - s.k0, p, ds);
			return k == 0 ? ds : p;
		});
	}
}
