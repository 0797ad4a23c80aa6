// Attention, forward: online softmax over tiles of keys.
#include "attn.cuh"

// attn: y (R,D), lse (R,H); q, k, v, offsets, keys. A block each tile of queries and head
template <int D> __device__ __forceinline__ void attn(const Args &a) {
	const int LD = D + 4, COLS = D / 16;
	Span s;
	if (!find_tile(a, blockIdx.x, true, s)) return;
	int head = blockIdx.y, d = a.in[0].cols / a.i[0], x = threadIdx.x % 16, y = threadIdx.x / 16, first = s.tile * TILE;
	float *q = shared_floats(), *k = q + TILE * LD, *v = k + TILE * LD, *p = v + TILE * LD;
	load_rows<D, LD, false, 256>(q, a, a.in[0], s.q0, first, s.nq, head, d);
	float top[4], z[4], o[4][COLS], scale = (float)a.f[1];
#pragma unroll
	for (int i = 0; i < 4; i++) {
		top[i] = -INF, z[i] = 0;
#pragma unroll
		for (int c = 0; c < COLS; c++) o[i][c] = 0;
	}
	bool drops = a.in[4].p && a.f[0] != 0;
	Mask mask;
	if (drops) mask = mask_of(a, ints(a.in[4])[s.seq], a.i[2] + head);
	for (int j0 = 0; j0 < s.nk; j0 += TILE) {
		__syncthreads();
		load_rows<D, LD, true, 256>(k, a, a.in[1], s.k0, j0, s.nk, head, d);
		load_rows<D, LD, false, 256>(v, a, a.in[2], s.k0, j0, s.nk, head, d);
		__syncthreads();
		float t[4][4];
		row_products<D, LD>(t, q, k, x, y);
#pragma unroll
		for (int i = 0; i < 4; i++) {
			float most = top[i], sum = 0;
#pragma unroll
			for (int j = 0; j < 4; j++) {
				t[i][j] = j0 + 4 * x + j < s.nk ? t[i][j] * scale : -INF;
				most = fmaxf(most, t[i][j]);
			}
#pragma unroll
			for (int h = 8; h > 0; h /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, h));
			float old = expf(top[i] - most); // 0 at first; a tile has a key, so most is a number
			top[i] = most;
#pragma unroll
			for (int j = 0; j < 4; j++) t[i][j] = expf(t[i][j] - most), sum += t[i][j];
#pragma unroll
			for (int h = 8; h > 0; h /= 2) sum += __shfl_xor_sync(~0u, sum, h);
			z[i] = z[i] * old + sum;
#pragma unroll
			for (int c = 0; c < COLS; c++) o[i][c] *= old;
			if (drops) {
				float keep[4];
				keep_four(mask, first + y + 16 * i, j0 + 4 * x, keep);
#pragma unroll
				for (int j = 0; j < 4; j++) t[i][j] *= keep[j];
			}
			*(float4 *)(p + (y + 16 * i) * KEYS_LD + 4 * x) = make_float4(t[i][0], t[i][1], t[i][2], t[i][3]);
		}
		__syncwarp(); // the rows of p are those of half a warp
#pragma unroll 4
		for (int j = 0; j < TILE; j += 4) {
			float4 r[4];
#pragma unroll
			for (int i = 0; i < 4; i++) r[i] = *(const float4 *)(p + (y + 16 * i) * KEYS_LD + j);
#pragma unroll
			for (int c = 0; c < COLS; c++) {
				float v0 = v[j * LD + x + 16 * c], v1 = v[(j + 1) * LD + x + 16 * c], v2 = v[(j + 2) * LD + x + 16 * c], v3 = v[(j + 3) * LD + x + 16 * c];
#pragma unroll
				for (int i = 0; i < 4; i++) o[i][c] += r[i].x * v0 + r[i].y * v1 + r[i].z * v2 + r[i].w * v3;
			}
		}
		__syncwarp();
	}
#pragma unroll
	for (int i = 0; i < 4; i++) {
		int r = first + y + 16 * i;
		if (r >= s.nq) continue;
		float by = z[i] > 0 ? 1 / z[i] : 0.f;
#pragma unroll
		for (int c = 0; c < COLS; c++)
			if (a.out[0].p && x + 16 * c < d) row(a.out[0], s.q0 + r)[head * d + x + 16 * c] = o[i][c] * by;
		if (a.out[1].p && x == 0) row(a.out[1], s.q0 + r)[head] = z[i] > 0 ? top[i] + logf(z[i]) : 0;
	}
}
extern "C" __global__ void __launch_bounds__(256) attn_32(const Args a) { attn<32>(a); }
extern "C" __global__ void __launch_bounds__(256) attn_64(const Args a) { attn<64>(a); }
