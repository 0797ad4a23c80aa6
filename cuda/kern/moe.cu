// Mixtures of experts: routing, gates, and what keeps the use of experts even. One warp a row, or a block for what is over all
// rows, whose sums are in float64.
#include "common.cuh"

enum { MAX_EXPERTS = 256, LANES = MAX_EXPERTS / 32, SIGMOID = 1, BALANCE_FIRST = 1, BALANCE_CV = 2 };

// log Σ exp of a row.
__device__ __forceinline__ float log_sum_exp(const float *z, int n) {
	float top = -INF, s = 0;
	for (int j = lane(); j < n; j += 32) top = fmaxf(top, z[j]);
	top = warp_max(top);
	for (int j = lane(); j < n; j += 32) s += expf(z[j] - top);
	return top + logf(warp_sum(s));
}

// route: y (R,E+C), at (R,k); z (R,C), bias (E) or dead; i: k, router, n
extern "C" __global__ void route(const Args a) {
	int i = warp_row(), c = a.in[0].cols, n = a.i[2], experts = c * n, k = a.i[0];
	if (i >= real_rows(a.in[0], a.s)) return;
	const bool sigmoids = a.i[1] == SIGMOID;
	const float *z = row(a.in[0], i), *bias = a.in[1].p;
	float *y = a.out[0].p ? row(a.out[0], i) : 0, lse = sigmoids ? 0 : log_sum_exp(z, c);
	float score[LANES], key[LANES]; // of experts lane + 32 u; what they are chosen by
	u32 chosen = 0;                 // bit u
#pragma unroll
	for (int u = 0; u < LANES; u++) {
		int e = lane() + 32 * u;
		key[u] = -INF, score[u] = 0;
		if (e >= experts) continue;
		float v = z[e / n], p = sigmoids ? sigmoid(v) : expf(v - lse);
		if (y && e % n == 0) y[experts + e / n] = p;
		score[u] = bias ? p + bias[e] : p;
		key[u] = bias ? score[u] : v;
		if (!(key[u] > -INF)) key[u] = -3.4e38f; // what is no number comes last
	}
	float best = 0, sum = 0;
	for (int j = 0; j < k; j++) {
		float top = -INF;
		int at = MAX_EXPERTS;
#pragma unroll
		for (int u = 0; u < LANES; u++)
			if (!(chosen >> u & 1) && key[u] > top) top = key[u], at = lane() + 32 * u;
#pragma unroll
		for (int o = 16; o > 0; o >>= 1) { // of equals the first
			float other = __shfl_xor_sync(~0u, top, o);
			int where = __shfl_xor_sync(~0u, at, o);
			if (other > top || other == top && where < at) top = other, at = where;
		}
		if (at % 32 == lane()) chosen |= 1u << at / 32;
		if (lane() == 0 && a.out[1].p) row(a.out[1], i)[j] = (float)at;
		if (at < experts) {
			float v = z[at / n];
			best = j == 0 ? v : fmaxf(best, v);
		}
	}
	if (!y) return;
#pragma unroll
	for (int u = 0; u < LANES; u++)
		if (chosen >> u & 1) {
			if (!sigmoids) score[u] = expf(z[(lane() + 32 * u) / n] - best);
			sum += score[u];
		}
	sum = warp_sum(sum);
#pragma unroll
	for (int u = 0; u < LANES; u++) {
		int e = lane() + 32 * u;
		if (e >= experts) continue;
		float g = 0;
		if (chosen >> u & 1) g = !sigmoids ? score[u] / sum : sum <= 1e-12f ? 1.f : k * score[u] / sum;
		y[e] = g;
	}
}

// route_grad: dz (R,C); y, at, bias, dy (R,E+C)
extern "C" __global__ void route_grad(const Args a) {
	int i = warp_row(), c = a.out[0].cols, n = a.i[2], experts = c * n, k = a.i[0];
	if (i >= real_rows(a.out[0], a.s)) return;
	const float *g = row(a.in[0], i), *p = g + experts, *at = row(a.in[1], i), *bias = a.in[2].p, *dg = row(a.in[3], i), *dp = dg + experts;
	float mean = 0, sum = 0, all = 0;
	for (int j = lane(); j < k; j += 32) {
		int e = (int)at[j];
		mean += g[e] * dg[e];
		sum += p[e / n] + (bias ? bias[e] : 0.f);
	}
	mean = warp_sum(mean), sum = warp_sum(sum);
	for (int j = lane(); j < c; j += 32) all += p[j] * dp[j];
	all = warp_sum(all);
	for (int j = lane(); j < c; j += 32) {
		float d = a.i[1] == SIGMOID ? dp[j] : p[j] * (dp[j] - all);
		for (int l = 0; l < k; l++) {
			int e = (int)at[l];
			if (e / n != j) continue;
			if (a.i[1] != SIGMOID) d += g[e] * (dg[e] - mean);
			else if (!(sum <= 1e-12f)) d += (k * dg[e] - mean) / sum;
		}
		row(a.out[0], i)[j] = a.i[1] == SIGMOID ? d * p[j] * (1 - p[j]) : d;
	}
}

// assign: y (R,E), at (R,1+s); ids (R); i: s, E. Either result may be dead
extern "C" __global__ void assign(const Args a) {
	int i = warp_row(), shared = a.i[0], experts = a.i[1];
	if (i >= real_rows(a.out[a.out[0].p ? 0 : 1], a.s)) return;
	int id = ints(a.in[0])[i];
	for (int e = lane(); e < experts && a.out[0].p; e += 32) row(a.out[0], i)[e] = e == id || e >= experts - shared ? 1.f : 0.f;
	for (int j = lane(); j < 1 + shared && a.out[1].p; j += 32) row(a.out[1], i)[j] = (float)(j == 0 ? id : experts - shared + j - 1);
}

// spread: y (T,D); x (N,D), offsets. Several blocks share the tokens of a sequence
extern "C" __global__ void spread(const Args a) {
	int s = blockIdx.x;
	if (s >= real_seqs(a.in[1], a.s)) return;
	for (int i = ints(a.in[1])[s] + blockIdx.y; i < ints(a.in[1])[s + 1]; i += gridDim.y)
		for (int j = threadIdx.x; j < a.out[0].cols; j += blockDim.x) row(a.out[0], i)[j] = row(a.in[0], s)[j];
}

// spread_grad: dx (N,D); dy (T,D), offsets
extern "C" __global__ void spread_grad(const Args a) {
	int s = blockIdx.x;
	if (s >= real_rows(a.out[0], a.s)) return;
	for (int j = threadIdx.x; j < a.out[0].cols; j += blockDim.x) {
		float v = 0;
		for (int i = ints(a.in[1])[s]; i < ints(a.in[1])[s + 1]; i++) v += row(a.in[0], i)[j];
		row(a.out[0], s)[j] = v;
	}
}

// gatemul: y (R,E·r); h (R,E·r) or (R,r), g (R,E); f
extern "C" __global__ void gatemul(const Args a) {
	int i = warp_row(), cols = a.out[0].cols, r = cols / a.in[1].cols;
	if (i >= real_rows(a.out[0], a.s)) return;
	const float *h = row(a.in[0], i), *g = row(a.in[1], i);
	bool one = a.in[0].cols == r;
	for (int j = lane(); j < cols; j += 32) {
		float v = g[j / r]; // of 0 it takes nothing, whatever h is
		row(a.out[0], i)[j] = v == 0 ? 0.f : (float)a.f[0] * v * h[one ? j % r : j];
	}
}

// gatemul_grad: dh like h, dg (R,E); h, g, dy; f
extern "C" __global__ void gatemul_grad(const Args a) {
	int i = warp_row(), experts = a.in[1].cols, r = a.in[2].cols / experts;
	if (i >= real_rows(a.in[0], a.s)) return;
	const float *h = row(a.in[0], i), *g = row(a.in[1], i), *dy = row(a.in[2], i), by = (float)a.f[0];
	bool one = a.in[0].cols == r;
	if (a.out[0].p)
		for (int j = lane(); j < a.in[0].cols; j += 32) {
			float v = 0;
			if (one)
				for (int e = 0; e < experts; e++) v += g[e] * dy[e * r + j];
			else v = g[j / r] * dy[j];
			row(a.out[0], i)[j] = by * v;
		}
	for (int e = 0; e < experts && a.out[1].p; e++) {
		float v = 0;
		for (int j = lane(); j < r; j += 32) v += h[one ? j : e * r + j] * dy[e * r + j];
		v = warp_sum(v);
		if (lane() == 0) row(a.out[1], i)[e] = by * v;
	}
}

// load: n (E), h (1,1); at (R,k), p (R,C) or dead; i: less the mean. A block each expert, and one for the entropy
extern "C" __global__ void load(const Args a) {
	int rows = real_rows(a.in[0], a.s), k = a.in[0].cols, experts = a.out[0].cols, e = blockIdx.x;
	double v = 0;
	if (e < experts) {
		if (!a.out[0].p) return;
		for (int i = threadIdx.x; i < rows; i += blockDim.x)
			for (int j = 0; j < k; j++) v += row(a.in[0], i)[j] == (float)e;
		v = block_sum(v);
		if (a.i[0]) v -= (double)rows * k / experts;
		if (threadIdx.x == 0) a.out[0].p[e] = (float)v;
		return;
	}
	if (!a.out[1].p) return;
	for (int i = threadIdx.x; i < rows && a.in[1].p; i += blockDim.x) {
		const float *p = row(a.in[1], i);
		double sum = 0, entropy = 0;
		for (int j = 0; j < a.in[1].cols; j++) sum += p[j];
		for (int j = 0; j < a.in[1].cols; j++) {
			double q = p[j] / sum;
			if (q > 0) entropy -= q * log(q);
		}
		v += entropy;
	}
	v = block_sum(v);
	if (threadIdx.x == 0) a.out[1].p[0] = (float)(v / max(1, rows));
}

// balance: s (1,1), c (1,E); x (R,E), at (R,k); i: how; f. One block
extern "C" __global__ void balance(const Args a) {
	__shared__ double sums[MAX_EXPERTS], by[MAX_EXPERTS];
	int rows = real_rows(a.in[0], a.s), experts = a.in[0].cols, k = a.i[0] == BALANCE_FIRST ? 1 : a.in[1].cols;
	for (int e = 0; e < experts; e++) {
		double x = 0, f = 0;
		for (int i = threadIdx.x; i < rows; i += blockDim.x) {
			x += row(a.in[0], i)[e];
			for (int j = 0; j < k && a.i[0] != BALANCE_CV; j++) f += row(a.in[1], i)[j] == (float)e;
		}
		x = block_sum(x);
		f = block_sum(f);
		if (threadIdx.x == 0) sums[e] = x, by[e] = f;
	}
	if (threadIdx.x != 0) return;
	double n = max(1, rows), total = 0;
	if (a.i[0] == BALANCE_CV) {
		double mean = 0, variance = 0;
		for (int e = 0; e < experts; e++) mean += sums[e] / experts;
		for (int e = 0; e < experts && experts > 1; e++) variance += (sums[e] - mean) * (sums[e] - mean) / (experts - 1);
		double d = mean * mean + 1e-10;
		for (int e = 0; e < experts; e++)
			by[e] = experts < 2 ? 0 : a.f[0] * (2 * (sums[e] - mean) / (experts - 1) / d - variance / d / d * 2 * mean / experts);
		total = a.f[0] * variance / d;
	} else
		for (int e = 0; e < experts; e++) {
			by[e] = a.f[0] * experts * by[e] / n / n;
			total += by[e] * sums[e];
		}
	if (a.out[0].p) a.out[0].p[0] = (float)total;
	for (int e = 0; e < experts && a.out[1].p; e++) a.out[1].p[e] = (float)by[e];
}

// broadcast: y (R,C); v (1,C), s (1,1)
extern "C" __global__ void broadcast(const Args a) {
	int i = warp_row();
	if (i >= real_rows(a.out[0], a.s)) return;
	for (int j = lane(); j < a.out[0].cols; j += 32) row(a.out[0], i)[j] = a.in[0].p[j] * a.in[1].p[0];
}

// zloss: s (1,1); z (R,C); f. One block, a warp a row
extern "C" __global__ void zloss(const Args a) {
	int rows = real_rows(a.in[0], a.s);
	double s = 0;
	for (int i = threadIdx.x / 32; i < rows; i += blockDim.x / 32) {
		double l = log_sum_exp(row(a.in[0], i), a.in[0].cols);
		if (lane() == 0) s += l * l;
	}
	s = block_sum(s);
	if (threadIdx.x == 0) a.out[0].p[0] = (float)(a.f[0] * s / max(1, rows));
}

// zloss_grad: dz (R,C); z, s (1,1); f
extern "C" __global__ void zloss_grad(const Args a) {
	int i = warp_row(), rows = real_rows(a.in[0], a.s);
	if (i >= rows) return;
	const float *z = row(a.in[0], i);
	float l = log_sum_exp(z, a.in[0].cols), f = (float)(2 * a.f[0] / max(1, rows)) * a.in[1].p[0] * l;
	for (int j = lane(); j < a.in[0].cols; j += 32) row(a.out[0], i)[j] = f * expf(z[j] - l);
}

// signsgd: w; g, factor (1,2); f
extern "C" __global__ void signsgd(const Args a) {
	float factor = a.in[1].p[0], by = (float)a.f[0];
	if (factor != factor) return;
	for (int j = blockIdx.x * blockDim.x + threadIdx.x; j < a.out[0].cols; j += gridDim.x * blockDim.x) {
		float g = a.in[0].p[j];
		if (g != 0) a.out[0].p[j] -= g > 0 ? by : -by;
	}
}
