// One warp a row: sums, softmax, unit length.
#include "common.cuh"

// embed: y (R,D); ids, pos, types (R), word, position, type or dead
extern "C" __global__ void embed(const Args a) {
	int i = warp_row();
	if (i >= real_rows(a.out[0], a.s)) return;
	const float *w = row(a.in[3], ints(a.in[0])[i]), *p = a.in[4].p ? row(a.in[4], ints(a.in[1])[i]) : 0, *t = a.in[5].p ? row(a.in[5], ints(a.in[2])[i]) : 0;
	float *y = row(a.out[0], i);
	for (int j = lane(); j < a.out[0].cols; j += 32) {
		float v = w[j];
		if (p) v += p[j];
		if (t) v += t[j];
		y[j] = v;
	}
}

// normalize: y (R,D), rnorm (R,1); x. Squares are summed in float64: they may be out of range.
extern "C" __global__ void normalize(const Args a) {
	int i = warp_row(), n = a.in[0].cols;
	if (i >= real_rows(a.in[0], a.s)) return;
	const float *x = row(a.in[0], i);
	double q = 0;
	for (int j = lane(); j < n; j += 32) q += (double)x[j] * x[j];
	float r = (float)(1 / fmax(sqrt(warp_sum(q)), a.f[0]));
	if (a.out[1].p && lane() == 0) row(a.out[1], i)[0] = r;
	for (int j = lane(); j < n && a.out[0].p; j += 32) row(a.out[0], i)[j] = x[j] * r;
}

// normalize_grad: dx (R,D); y, rnorm, dy
extern "C" __global__ void normalize_grad(const Args a) {
	int i = warp_row(), n = a.out[0].cols;
	if (i >= real_rows(a.out[0], a.s)) return;
	const float *y = row(a.in[0], i), *dy = row(a.in[2], i);
	float r = row(a.in[1], i)[0], s = 0;
	for (int j = lane(); j < n; j += 32) s += y[j] * dy[j];
	s = warp_sum(s);
	if (r * a.f[0] > 1 - 1e-6) s = 0; // 1/eps, but for rounding
	for (int j = lane(); j < n; j += 32) put(row(a.out[0], i) + j, (dy[j] - y[j] * s) * r, a.acc & 1);
}

// rowsum: y (R,1); x (R,C)
extern "C" __global__ void rowsum(const Args a) {
	int i = warp_row();
	if (i >= real_rows(a.out[0], a.s)) return;
	float s = 0;
	for (int j = lane(); j < a.in[0].cols; j += 32) s += row(a.in[0], i)[j];
	s = warp_sum(s);
	if (lane() == 0) put(row(a.out[0], i), s, a.acc & 1);
}

// The logarithm of Σ exp x over what a mask keeps, 0 if that is nothing.
__device__ __forceinline__ float log_sum(const float *x, const float *mask, int n) {
	float top = -INF, z = 0;
	for (int j = lane(); j < n; j += 32)
		if (!mask || mask[j] != 0) top = fmaxf(top, x[j]);
	top = warp_max(top);
	if (top == -INF) return 0;
	for (int j = lane(); j < n; j += 32)
		if (!mask || mask[j] != 0) z += expf(x[j] - top);
	return top + logf(warp_sum(z));
}

// softmax: y (R,C), lse (R,1); x (R,C), mask or dead
extern "C" __global__ void softmax(const Args a) {
	int i = warp_row(), n = a.in[0].cols;
	if (i >= real_rows(a.in[0], a.s)) return;
	const float *x = row(a.in[0], i), *mask = a.in[1].p ? row(a.in[1], i) : 0;
	float l = log_sum(x, mask, n);
	if (a.out[1].p && lane() == 0) row(a.out[1], i)[0] = l;
	for (int j = lane(); j < n && a.out[0].p; j += 32) row(a.out[0], i)[j] = !mask || mask[j] != 0 ? x[j] - l : 0;
}

// softmax_grad: dx (R,C); y, mask or dead, dy
extern "C" __global__ void softmax_grad(const Args a) {
	int i = warp_row(), n = a.out[0].cols;
	if (i >= real_rows(a.out[0], a.s)) return;
	const float *y = row(a.in[0], i), *mask = a.in[1].p ? row(a.in[1], i) : 0, *dy = row(a.in[2], i);
	float s = 0;
	for (int j = lane(); j < n; j += 32)
		if (!mask || mask[j] != 0) s += dy[j];
	s = warp_sum(s);
	for (int j = lane(); j < n; j += 32) {
		float g = !mask || mask[j] != 0 ? dy[j] - expf(y[j]) * s : 0;
		put(row(a.out[0], i) + j, g, a.acc & 1);
	}
}

// ce: l (R,1), lse (R,1); x (R,C), class (R)
extern "C" __global__ void ce(const Args a) {
	int i = warp_row();
	if (i >= real_rows(a.in[0], a.s)) return;
	const float *x = row(a.in[0], i);
	float l = log_sum(x, 0, a.in[0].cols);
	if (lane() != 0) return;
	int c = ints(a.in[1])[i];
	if (a.out[1].p) row(a.out[1], i)[0] = l;
	if (a.out[0].p) row(a.out[0], i)[0] = c >= 0 ? l - x[c] : 0;
}

// ce_grad: dx (R,C); x, lse, class, dl (R,1)
extern "C" __global__ void ce_grad(const Args a) {
	int i = warp_row();
	if (i >= real_rows(a.out[0], a.s)) return;
	int c = ints(a.in[2])[i];
	float l = row(a.in[1], i)[0], d = row(a.in[3], i)[0];
	for (int j = lane(); j < a.out[0].cols; j += 32) {
		float g = c >= 0 ? expf(row(a.in[0], i)[j] - l) - (j == c ? 1.f : 0.f) : 0;
		put(row(a.out[0], i) + j, d * g, a.acc & 1);
	}
}

// dot: s (1,1); w, l (R,1). One block
extern "C" __global__ void dot(const Args a) {
	int n = real_rows(a.in[0], a.s);
	float s = 0;
	for (int i = threadIdx.x; i < n; i += blockDim.x) {
		float w = row(a.in[0], i)[0];
		if (w != 0) s += w * row(a.in[1], i)[0]; // an unused unit weighs 0, whatever its loss
	}
	s = block_sum(s);
	if (threadIdx.x == 0) put(a.out[0].p, s, a.acc & 1);
}

// gather_grad: dx (N,1); dy (B,K), slots (B,K)
extern "C" __global__ void gather_grad(const Args a) {
	int n = warp_row(), cols = a.in[0].cols, rows = real_rows(a.in[0], a.s);
	if (n >= real_rows(a.out[0], a.s)) return;
	float s = 0;
	for (int i = 0; i < rows; i++)
		for (int j = lane(); j < cols; j += 32)
			if (((const int *)row(a.in[1], i))[j] == n) s += row(a.in[0], i)[j];
	s = warp_sum(s);
	if (lane() == 0) row(a.out[0], n)[0] = s;
}

// pairdot: y (B,K); e (N,D), queries (B), slots (B,K). A warp each pair
extern "C" __global__ void pairdot(const Args a) {
	int p = warp_row(), cols = a.out[0].cols, i = p / cols, j = p - i * cols;
	if (i >= real_rows(a.out[0], a.s)) return;
	int slot = ((const int *)row(a.in[2], i))[j];
	float s = 0;
	if (slot >= 0) {
		const float *q = row(a.in[0], ints(a.in[1])[i]), *e = row(a.in[0], slot);
		for (int k = lane(); k < a.in[0].cols; k += 32) s += q[k] * e[k];
	}
	s = warp_sum(s);
	if (lane() == 0) row(a.out[0], i)[j] = s;
}

// pairdot_grad: de (N,D); e, queries, slots, dy (B,K). A block each row, which looks for it in all pairs
extern "C" __global__ void pairdot_grad(const Args a) {
	int n = blockIdx.x, rows = real_rows(a.in[3], a.s), cols = a.in[3].cols;
	if (n >= real_rows(a.out[0], a.s)) return;
	for (int c = threadIdx.x; c < a.out[0].cols; c += blockDim.x) {
		float s = 0;
		for (int i = 0; i < rows; i++) {
			int q = ints(a.in[1])[i];
			const int *slots = (const int *)row(a.in[2], i);
			for (int j = 0; j < cols; j++) {
				int slot = slots[j];
				if (slot < 0 || q != n && slot != n) continue;
				float d = row(a.in[3], i)[j];
				if (q == n) s += d * row(a.in[0], slot)[c];
				if (slot == n) s += d * row(a.in[0], q)[c];
			}
		}
		row(a.out[0], n)[c] = s;
	}
}
