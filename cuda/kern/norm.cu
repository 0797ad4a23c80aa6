// Layer norm, one warp a row. Rows of up to 1024 columns stay in registers, from where sums take them in the
// same order whether they are read one by one or four at a time: lane l has columns 4 l to 4 l + 3 of each 128.
#include "common.cuh"

static const int FOURS = 8; // of a lane

// Reads or writes a lane's part of a row of n columns; what is beyond is 0.
template <int W> __device__ __forceinline__ void read_row(float (&v)[FOURS][4], const float *p, int n) {
#pragma unroll
	for (int i = 0; i < FOURS; i++) {
		int j = 4 * (lane() + 32 * i);
		if (W == 4) {
			*(float4 *)v[i] = j < n ? *(const float4 *)(p + j) : make_float4(0, 0, 0, 0);
		} else {
#pragma unroll
			for (int c = 0; c < 4; c++) v[i][c] = j + c < n ? p[j + c] : 0;
		}
	}
}
template <int W> __device__ __forceinline__ void write_row(float *p, const float (&v)[FOURS][4], int n, bool acc) {
#pragma unroll
	for (int i = 0; i < FOURS; i++) {
		int j = 4 * (lane() + 32 * i);
		if (W == 4) {
			if (j >= n) continue;
			float4 x = *(const float4 *)v[i];
			if (acc) {
				float4 old = *(const float4 *)(p + j);
				x.x += old.x, x.y += old.y, x.z += old.z, x.w += old.w;
			}
			*(float4 *)(p + j) = x;
		} else {
#pragma unroll
			for (int c = 0; c < 4; c++)
				if (j + c < n) put(p + j + c, v[i][c], acc);
		}
	}
}

// Calls f for the elements of a lane's part that are there.
template <class F> __device__ __forceinline__ void each(int n, const F &f) {
#pragma unroll
	for (int i = 0; i < FOURS; i++)
#pragma unroll
		for (int c = 0; c < 4; c++)
			if (4 * (lane() + 32 * i) + c < n) f(i, c);
}

// norm: y (R,D), mean (R,1), rstd (R,1), sum (R,D); x, res or dead, g (D), b (D)
template <int W> __device__ __forceinline__ void forward(const Args &a) {
	int r = warp_row(), n = a.in[0].cols;
	if (r >= real_rows(a.in[0], a.s)) return;
	float v[FOURS][4], x[FOURS][4], s = 0, q = 0;
	read_row<W>(v, row(a.in[0], r), n);
	if (a.in[1].p) {
		read_row<W>(x, row(a.in[1], r), n);
		each(n, [&](int i, int c) { v[i][c] += x[i][c]; });
	}
	if (a.out[3].p) write_row<W>(row(a.out[3], r), v, n, false);
	each(n, [&](int i, int c) { s += v[i][c]; });
	s = warp_sum(s) / n;
	each(n, [&](int i, int c) { v[i][c] -= s, q += v[i][c] * v[i][c]; });
	float k = 1 / sqrtf(warp_sum(q) / n + (float)a.f[0]);
	if (lane() == 0) {
		if (a.out[1].p) row(a.out[1], r)[0] = s;
		if (a.out[2].p) row(a.out[2], r)[0] = k;
	}
	if (!a.out[0].p) return;
	read_row<W>(x, a.in[2].p, n);
	each(n, [&](int i, int c) { v[i][c] *= k * x[i][c]; });
	read_row<W>(x, a.in[3].p, n);
	each(n, [&](int i, int c) { v[i][c] += x[i][c]; });
	write_row<W>(row(a.out[0], r), v, n, false);
}

// norm_dx: dx (R,D); s, mean, rstd, g, dy
template <int W> __device__ __forceinline__ void backward(const Args &a) {
	int r = warp_row(), n = a.out[0].cols;
	if (r >= real_rows(a.out[0], a.s)) return;
	float h[FOURS][4], t[FOURS][4], g[FOURS][4], u = row(a.in[1], r)[0], k = row(a.in[2], r)[0], p = 0, q = 0;
	read_row<W>(h, row(a.in[0], r), n);
	read_row<W>(t, row(a.in[4], r), n);
	read_row<W>(g, a.in[3].p, n);
	each(n, [&](int i, int c) {
		t[i][c] *= g[i][c], h[i][c] = (h[i][c] - u) * k;
		p += t[i][c], q += t[i][c] * h[i][c];
	});
	p = warp_sum(p) / n, q = warp_sum(q) / n;
	each(n, [&](int i, int c) { t[i][c] = k * (t[i][c] - p - h[i][c] * q); });
	write_row<W>(row(a.out[0], r), t, n, a.acc & 1);
}

extern "C" __global__ void norm1(const Args a) { forward<1>(a); }
extern "C" __global__ void norm4(const Args a) { forward<4>(a); }
extern "C" __global__ void norm_dx1(const Args a) { backward<1>(a); }
extern "C" __global__ void norm_dx4(const Args a) { backward<4>(a); }

// Rows of any length.

// norm_any: y (R,D), mean (R,1), rstd (R,1), sum (R,D); x, res or dead, g (D), b (D)
extern "C" __global__ void norm_any(const Args a) {
	int i = warp_row(), n = a.in[0].cols;
	if (i >= real_rows(a.in[0], a.s)) return;
	const float *x = row(a.in[0], i), *res = a.in[1].p ? row(a.in[1], i) : 0;
	float *y = a.out[0].p ? row(a.out[0], i) : 0, *sum = a.out[3].p ? row(a.out[3], i) : 0;
	auto at = [&](int j) { return res ? x[j] + res[j] : x[j]; };
	float s = 0, q = 0;
	for (int j = lane(); j < n; j += 32) {
		float v = at(j);
		s += v;
		if (sum) sum[j] = v;
	}
	s = warp_sum(s) / n;
	for (int j = lane(); j < n; j += 32) {
		float d = at(j) - s;
		q += d * d;
	}
	float r = 1 / sqrtf(warp_sum(q) / n + (float)a.f[0]);
	for (int j = lane(); j < n && y; j += 32) y[j] = (at(j) - s) * r * a.in[2].p[j] + a.in[3].p[j];
	if (lane() == 0) {
		if (a.out[1].p) row(a.out[1], i)[0] = s;
		if (a.out[2].p) row(a.out[2], i)[0] = r;
	}
}

// norm_dx_any: dx (R,D); s, mean, rstd, g, dy
extern "C" __global__ void norm_dx_any(const Args a) {
	int i = warp_row(), n = a.out[0].cols;
	if (i >= real_rows(a.out[0], a.s)) return;
	const float *s = row(a.in[0], i), *g = a.in[3].p, *dy = row(a.in[4], i);
	float u = row(a.in[1], i)[0], r = row(a.in[2], i)[0], *dx = row(a.out[0], i), p = 0, q = 0;
	for (int j = lane(); j < n; j += 32) {
		float t = dy[j] * g[j];
		p += t, q += t * (s[j] - u) * r;
	}
	p = warp_sum(p) / n, q = warp_sum(q) / n;
	for (int j = lane(); j < n; j += 32) put(dx + j, r * (dy[j] * g[j] - p - (s[j] - u) * r * q), a.acc & 1);
}
