// Sums over rows whose results are gradients. Tall matrices are split among blocks, whose partial sums a
// second kernel adds up in order; where units are kept apart each unit's rows are summed by themselves.
#include "common.cuh"

// Part k of n of rows from to to.
__device__ __forceinline__ void part_of(int k, int n, int &from, int &to) {
	int size = (to - from + n - 1) / n;
	from = min(from + k * size, to), to = min(from + size, to);
}

// Sums f(i, column) over rows: a block is 32 columns by 8 rows, which are added up in order at the end.
// Results of one unit or of all go to y, partial ones to scratch (splits, K, cols).
template <int K, class F> __device__ __forceinline__ void sum_rows(const Args &a, const Mat &x, const F &f) {
	__shared__ float part[8][32];
	int lx = threadIdx.x % 32, ly = threadIdx.x / 32, j = blockIdx.x * 32 + lx, rows = real_rows(x, a.s);
	for (int u = blockIdx.z; u < real_units(a); u += gridDim.z) {
		int from, to;
		unit_rows(a, u, rows, from, to);
		part_of(blockIdx.y, a.splits, from, to);
		float s[K];
#pragma unroll
		for (int k = 0; k < K; k++) s[k] = 0;
		for (int i = from + ly; i < to && j < x.cols; i += 8) f(i, j, s);
#pragma unroll
		for (int k = 0; k < K; k++) {
			__syncthreads();
			part[ly][lx] = s[k];
			__syncthreads();
			if (ly != 0 || j >= x.cols) continue;
			float v = 0;
#pragma unroll
			for (int y = 0; y < 8; y++) v += part[y][lx];
			if (a.splits > 1) {
				((float *)a.scratch)[(size_t)(blockIdx.y * K + k) * x.cols + j] = v;
			} else if (a.out[k].p) {
				put(a.out[k].p + u * a.stride + j, v, a.acc >> k & 1);
			}
		}
	}
}

// colsum: db (O); dy (R,O)
extern "C" __global__ void colsum(const Args a) {
	sum_rows<1>(a, a.in[0], [&](int i, int j, float(&s)[1]) { s[0] += row(a.in[0], i)[j]; });
}

// mulcols_dg: dg (C); x, dy (R,C), c (C) or dead
extern "C" __global__ void mulcols_dg(const Args a) {
	sum_rows<1>(a, a.in[0], [&](int i, int j, float(&s)[1]) {
		float v = row(a.in[0], i)[j] * row(a.in[1], i)[j];
		s[0] += a.in[2].p ? v * a.in[2].p[j] : v;
	});
}

// norm_dg: dg (D), db (D); s, mean, rstd, dy
extern "C" __global__ void norm_dg(const Args a) {
	sum_rows<2>(a, a.in[0], [&](int i, int j, float(&s)[2]) {
		float d = row(a.in[3], i)[j];
		s[0] += d * (row(a.in[0], i)[j] - row(a.in[1], i)[0]) * row(a.in[2], i)[0];
		s[1] += d;
	});
}

// The partial sums of sum_rows with I[0] results each.
extern "C" __global__ void sum_parts(const Args a) {
	int j = blockIdx.x * blockDim.x + threadIdx.x, n = a.out[0].p ? a.out[0].cols : a.out[1].cols, k = blockIdx.y;
	if (j >= n || !a.out[k].p) return;
	float v = 0;
	for (int i = 0; i < a.splits; i++) v += ((const float *)a.scratch)[(size_t)(i * a.i[0] + k) * n + j];
	put(a.out[k].p + j, v, a.acc >> k & 1);
}

// The partial products of a matrix: out (O,I), scratch (splits, O, I)
extern "C" __global__ void sum_products(const Args a) {
	const Mat &y = a.out[0];
	u32 i = blockIdx.x * blockDim.x + threadIdx.x, n = y.rows * y.cols, r = i / y.cols, c = i - r * y.cols;
	if (i >= n) return;
	float v = 0;
	for (int k = 0; k < a.splits; k++) v += ((const float *)a.scratch)[(size_t)k * n + i];
	put(row(y, r) + c, v, a.acc & 1);
}

// Sets the gradients of all units to 0 before rows are added.
extern "C" __global__ void clear(const Args a) {
	const Mat &y = a.out[0];
	u32 i = blockIdx.x * blockDim.x + threadIdx.x, r = i / y.cols, c = i - r * y.cols;
	if (r >= y.rows) return;
	for (int u = blockIdx.y; u < real_units(a); u += gridDim.y) row(y, r)[u * a.stride + c] = 0;
}

// The unit of row i: the last that starts at or before it and is not empty.
__device__ __forceinline__ int unit_of(const Args &a, int i) {
	int lo = 0, hi = real_units(a); // units[lo] <= i < units[hi]
	while (hi - lo > 1) {
		int m = (lo + hi) / 2;
		if (a.units[m] <= i) lo = m;
		else hi = m;
	}
	return lo;
}

// embed_grad: dtable (V,D); ids (R), dy (R,D). A block of 128 threads each row: it does nothing unless the
// row is the first with its id, else it adds up all rows with that id in order.
extern "C" __global__ void embed_grad(const Args a) {
	const int *ids = ints(a.in[0]);
	int i = blockIdx.x, t = threadIdx.x, rows = real_rows(a.in[1], a.s), u = 0, from, to;
	if (a.units) {
		int n = real_units(a);
		if (n == 0) return;
		rows = min(rows, a.units[n]);
		if (i < a.units[0]) return;
	}
	if (i >= rows) return;
	if (a.units) u = unit_of(a, i);
	unit_rows(a, u, rows, from, to);
	int id = ids[i];
	for (int j = from; j < i; j += 128)
		if (__syncthreads_or(j + t < i && ids[j + t] == id)) return;
	__shared__ int found[128], n;
	float *y = row(a.out[0], id) + u * a.stride;
	for (int c = t; c - t < a.in[1].cols; c += 512) { // four columns a thread at a time
		float s[4] = {0, 0, 0, 0};
		for (int j = i; j < to; j += 128) {
			__syncthreads();
			// which of the next 128 rows have the id, in order: those before a thread's are counted by warps
			bool is = j + t < to && ids[j + t] == id;
			u32 votes = __ballot_sync(~0u, is);
			__shared__ int before[4];
			if (t % 32 == 0) before[t / 32] = __popc(votes);
			__syncthreads();
			int at = __popc(votes & ((1u << t % 32) - 1));
			for (int w = 0; w < t / 32; w++) at += before[w];
			if (is) found[at] = j + t;
			if (t == 127) n = at + is;
			__syncthreads();
			for (int k = 0; k < n; k++) {
				const float *d = row(a.in[1], found[k]);
#pragma unroll
				for (int q = 0; q < 4; q++)
					if (c + 128 * q < a.in[1].cols) s[q] += d[c + 128 * q];
			}
		}
#pragma unroll
		for (int q = 0; q < 4; q++)
			if (c + 128 * q < a.in[1].cols) put(y + c + 128 * q, s[q], true);
	}
}

// embed_few: the same for a table of few rows, which many rows share: a block sums a part of the rows for
// one row of the table, into scratch (splits, V, D).
extern "C" __global__ void embed_few(const Args a) {
	const int *ids = ints(a.in[0]);
	int v = blockIdx.x, rows = real_rows(a.in[1], a.s), from = 0, to = rows, d = a.in[1].cols;
	part_of(blockIdx.y, a.splits, from, to);
	for (int c = threadIdx.x; c < d; c += blockDim.x) {
		float s = 0;
		for (int i = from; i < to; i++)
			if (ids[i] == v) s += row(a.in[1], i)[c];
		((float *)a.scratch)[(size_t)(blockIdx.y * a.out[0].rows + v) * d + c] = s;
	}
}
