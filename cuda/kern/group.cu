// Grouped products: rows meet the weights of their own experts alone. w is (E·r,C), or its transpose where I[0] is 1.
#include "common.cuh"

enum { RANKS = 8 }; // of an expert that a warp computes at a time

__device__ __forceinline__ const float *weight(const Args &a, const Mat &w, int r, int c) {
	return a.i[0] ? w.p + (size_t)c * w.ld + r : w.p + (size_t)r * w.ld + c;
}

// group_nt: h (R,k·r); x (R,C), w, at (R,k). A warp for each row and choice
extern "C" __global__ void group_nt(const Args a) {
	int k = a.in[2].cols, job = warp_row(), i = job / k, j = job % k, cols = a.in[0].cols, r = a.out[0].cols / k;
	if (i >= real_rows(a.in[0], a.s)) return;
	const float *x = row(a.in[0], i);
	int e = (int)row(a.in[2], i)[j];
	for (int q = 0; q < r; q += RANKS) {
		float s[RANKS];
#pragma unroll
		for (int l = 0; l < RANKS; l++) s[l] = 0;
		for (int c = lane(); c < cols; c += 32)
#pragma unroll
			for (int l = 0; l < RANKS; l++)
				if (q + l < r) s[l] += x[c] * *weight(a, a.in[1], e * r + q + l, c);
#pragma unroll
		for (int l = 0; l < RANKS; l++) {
			float v = warp_sum(s[l]);
			if (q + l < r && lane() == 0) row(a.out[0], i)[j * r + q + l] = v;
		}
	}
}

// group_nn: y (R,C); plus (R,C) or dead, h (R,k·r), w, at (R,k). A warp for each row
extern "C" __global__ void group_nn(const Args a) {
	int i = warp_row(), k = a.in[3].cols, cols = a.out[0].cols, r = a.in[1].cols / k;
	if (i >= real_rows(a.in[1], a.s)) return;
	const float *h = row(a.in[1], i), *at = row(a.in[3], i);
	for (int c = lane(); c < cols; c += 32) {
		float v = a.in[0].p ? row(a.in[0], i)[c] : 0.f;
		for (int j = 0; j < k; j++) {
			int e = (int)at[j];
			for (int q = 0; q < r; q++) v += h[j * r + q] * *weight(a, a.in[2], e * r + q, c);
		}
		put(row(a.out[0], i) + c, v, a.acc & 1);
	}
}

// group_tn: dw like w; h, x, at. A block is 32 columns of an expert by 8 rows, whose sums are added up in order at the
// end. Results of one unit or of all go to dw, those of parts of the rows to scratch (splits, dw)
extern "C" __global__ void group_tn(const Args a) {
	__shared__ float part[8][32];
	const Mat &dw = a.out[0];
	int lx = threadIdx.x % 32, ly = threadIdx.x / 32, k = a.in[2].cols, r = a.in[0].cols / k, cols = a.in[1].cols;
	int c = blockIdx.x * 32 + lx, e = blockIdx.y, rows = real_rows(a.in[0], a.s), parts = a.units ? real_units(a) : a.splits;
	for (int u = blockIdx.z; u < parts; u += gridDim.z) {
		int from = 0, to = rows;
		if (a.units) {
			unit_rows(a, u, rows, from, to);
		} else if (a.splits > 1) {
			int size = (rows + a.splits - 1) / a.splits;
			from = min(u * size, rows), to = min(from + size, rows);
		}
		for (int q = 0; q < r; q += RANKS) {
			float s[RANKS];
#pragma unroll
			for (int l = 0; l < RANKS; l++) s[l] = 0;
			for (int i = from + ly; i < to; i += 8)
				for (int j = 0; j < k; j++) {
					if ((int)row(a.in[2], i)[j] != e) continue;
					float x = c < cols ? row(a.in[1], i)[c] : 0.f;
					const float *h = row(a.in[0], i) + j * r + q;
#pragma unroll
					for (int l = 0; l < RANKS; l++)
						if (q + l < r) s[l] += h[l] * x;
				}
#pragma unroll
			for (int l = 0; l < RANKS; l++) {
				__syncthreads();
				part[ly][lx] = s[l];
				__syncthreads();
				if (ly != 0 || c >= cols || q + l >= r) continue;
				float v = 0;
#pragma unroll
				for (int y = 0; y < 8; y++) v += part[y][lx];
				int at = e * r + q + l;
				size_t to = a.i[0] ? (size_t)c * dw.cols + at : (size_t)at * dw.cols + c;
				if (a.splits > 1) ((float *)a.scratch)[(size_t)u * dw.rows * dw.cols + to] = v;
				else put(row(dw, a.i[0] ? c : at) + u * a.stride + (a.i[0] ? at : c), v, a.acc & 1);
			}
		}
	}
}

// take: y (R,k); x (R,E), at (R,k)
extern "C" __global__ void take(const Args a) {
	int i = warp_row();
	if (i >= real_rows(a.in[0], a.s)) return;
	for (int j = lane(); j < a.out[0].cols; j += 32) row(a.out[0], i)[j] = row(a.in[0], i)[(int)row(a.in[1], i)[j]];
}

// take_grad: dx (R,E); at, dy (R,k)
extern "C" __global__ void take_grad(const Args a) {
	int i = warp_row();
	if (i >= real_rows(a.in[0], a.s)) return;
	float *dx = row(a.out[0], i);
	for (int e = lane(); e < a.out[0].cols; e += 32) dx[e] = 0;
	__syncwarp();
	for (int j = lane(); j < a.in[0].cols; j += 32) dx[(int)row(a.in[0], i)[j]] = row(a.in[1], i)[j];
}
