// Attention, backward: a kernel for dq by tiles of queries and one for dk and dv by tiles of keys, so that
// every sum is one block's. Probabilities are computed again from the saved lse.
#include "attn.cuh"

// Inputs 5, 6, 7 are y, lse, dy. Shared: rows of q, dy, k, v; probabilities; lse and dy·y of queries.
template <int D> struct Tiles {
	static const int LD = D + 4;
	float *q, *dy, *k, *v, *p, *ds, *lse, *delta;

	__device__ __forceinline__ Tiles() {
		q = shared_floats(), dy = q + TILE * LD, k = dy + TILE * LD, v = k + TILE * LD;
		p = v + TILE * LD, ds = p + TILE * KEYS_LD, lse = ds + TILE * KEYS_LD, delta = lse + TILE;
	}

	__device__ __forceinline__ void load_queries(const Args &a, const Span &s, int i0, int head, int d) {
		load_rows<D, LD, false, 256>(q, a, a.in[0], s.q0, i0, s.nq, head, d);
		load_rows<D, LD, false, 256>(dy, a, a.in[7], s.q0, i0, s.nq, head, d);
		int r = threadIdx.x / 4, part = threadIdx.x % 4; // four threads a row
		float sum = 0;
		if (i0 + r < s.nq) {
			const float *y = row(a.in[5], s.q0 + i0 + r) + head * d, *g = row(a.in[7], s.q0 + i0 + r) + head * d;
			for (int c = part; c < d; c += 4) sum += y[c] * g[c];
		}
		sum += __shfl_xor_sync(~0u, sum, 1);
		sum += __shfl_xor_sync(~0u, sum, 2);
		if (part == 0) delta[r] = sum, lse[r] = i0 + r < s.nq ? row(a.in[6], s.q0 + i0 + r)[head] : 0;
	}
	__device__ __forceinline__ void load_keys(const Args &a, const Span &s, int j0, int head, int d) {
		load_rows<D, LD, true, 256>(k, a, a.in[1], s.k0, j0, s.nk, head, d);
		load_rows<D, LD, true, 256>(v, a, a.in[2], s.k0, j0, s.nk, head, d);
	}

	// The probabilities of queries from i0 on and keys from j0 on, after dropout, and their gradients.
	__device__ __forceinline__ void probabilities(const Args &a, const Span &s, int i0, int j0, bool drops, const Mask &mask) {
		int x = threadIdx.x % 16, y = threadIdx.x / 16;
		float t[4][4], g[4][4], scale = (float)a.f[1];
		row_products<D, LD>(t, q, k, x, y);
		row_products<D, LD>(g, dy, v, x, y);
#pragma unroll
		for (int i = 0; i < 4; i++) {
			int r = y + 16 * i;
			float keep[4] = {1, 1, 1, 1};
			if (drops) keep_four(mask, i0 + r, j0 + 4 * x, keep);
#pragma unroll
			for (int j = 0; j < 4; j++) {
				float e = i0 + r < s.nq && j0 + 4 * x + j < s.nk ? expf(t[i][j] * scale - lse[r]) : 0.f;
				g[i][j] = e * (keep[j] * g[i][j] - delta[r]) * scale;
				t[i][j] = e * keep[j];
			}
			*(float4 *)(p + r * KEYS_LD + 4 * x) = make_float4(t[i][0], t[i][1], t[i][2], t[i][3]);
			*(float4 *)(ds + r * KEYS_LD + 4 * x) = make_float4(g[i][0], g[i][1], g[i][2], g[i][3]);
		}
	}
};

__device__ __forceinline__ bool mask_for(const Args &a, const Span &s, int head, Mask &m) {
	if (!a.in[4].p || a.f[0] == 0) return false;
	m = mask_of(a, ints(a.in[4])[s.seq], a.i[2] + head);
	return true;
}

// attn_dq: a block each tile of queries and head
template <int D> __device__ __forceinline__ void attn_dq(const Args &a) {
	const int COLS = D / 16, LD = D + 4;
	Span s;
	if (!find_tile(a, blockIdx.x, true, s)) return;
	int head = blockIdx.y, d = a.in[0].cols / a.i[0], x = threadIdx.x % 16, y = threadIdx.x / 16, i0 = s.tile * TILE;
	Tiles<D> t;
	Mask mask;
	bool drops = mask_for(a, s, head, mask);
	t.load_queries(a, s, i0, head, d);
	float o[4][COLS];
#pragma unroll
	for (int i = 0; i < 4; i++)
#pragma unroll
		for (int c = 0; c < COLS; c++) o[i][c] = 0;
	for (int j0 = 0; j0 < s.nk; j0 += TILE) {
		__syncthreads();
		t.load_keys(a, s, j0, head, d);
		__syncthreads();
		t.probabilities(a, s, i0, j0, drops, mask);
		__syncwarp(); // the rows of ds are those of half a warp
#pragma unroll 4
		for (int j = 0; j < TILE; j += 4) {
			float4 r[4];
#pragma unroll
			for (int i = 0; i < 4; i++) r[i] = *(const float4 *)(t.ds + (y + 16 * i) * KEYS_LD + j);
			const float *k = t.k + j / 4 * LD + x; // key j + n is in row j/4 + 16 n
#pragma unroll
			for (int c = 0; c < COLS; c++) {
				float k0 = k[16 * c], k1 = k[16 * LD + 16 * c], k2 = k[32 * LD + 16 * c], k3 = k[48 * LD + 16 * c];
#pragma unroll
				for (int i = 0; i < 4; i++) o[i][c] += r[i].x * k0 + r[i].y * k1 + r[i].z * k2 + r[i].w * k3;
			}
		}
	}
#pragma unroll
	for (int i = 0; i < 4; i++)
#pragma unroll
		for (int c = 0; c < COLS; c++)
			if (i0 + y + 16 * i < s.nq && x + 16 * c < d) row(a.out[0], s.q0 + i0 + y + 16 * i)[head * d + x + 16 * c] = o[i][c];
}

// attn_dkv: a block each tile of keys and head
template <int D> __device__ __forceinline__ void attn_dkv(const Args &a) {
	const int COLS = D / 16, LD = D + 4;
	Span s;
	if (!find_tile(a, blockIdx.x, false, s)) return;
	int head = blockIdx.y, d = a.in[0].cols / a.i[0], x = threadIdx.x % 16, y = threadIdx.x / 16, j0 = s.tile * TILE;
	Tiles<D> t;
	Mask mask;
	bool drops = mask_for(a, s, head, mask);
	t.load_keys(a, s, j0, head, d);
	float dk[4][COLS], dv[4][COLS]; // of keys y + 16 i
#pragma unroll
	for (int i = 0; i < 4; i++)
#pragma unroll
		for (int c = 0; c < COLS; c++) dk[i][c] = dv[i][c] = 0;
	for (int i0 = 0; i0 < s.nq; i0 += TILE) {
		__syncthreads();
		t.load_queries(a, s, i0, head, d);
		__syncthreads();
		t.probabilities(a, s, i0, j0, drops, mask);
		__syncthreads();
		int n = min(TILE, s.nq - i0);
#pragma unroll 2
		for (int r = 0; r < n; r++) {
			float p[4], g[4];
#pragma unroll
			for (int i = 0; i < 4; i++) p[i] = t.p[r * KEYS_LD + y + 16 * i], g[i] = t.ds[r * KEYS_LD + y + 16 * i];
#pragma unroll
			for (int c = 0; c < COLS; c++) {
				float q = t.q[r * LD + x + 16 * c], dy = t.dy[r * LD + x + 16 * c];
#pragma unroll
				for (int i = 0; i < 4; i++) dk[i][c] += g[i] * q, dv[i][c] += p[i] * dy;
			}
		}
	}
#pragma unroll
	for (int i = 0; i < 4; i++)
#pragma unroll
		for (int c = 0; c < COLS; c++) {
			int r = j0 + y + 16 * i, col = head * d + x + 16 * c;
			if (r >= s.nk || x + 16 * c >= d) continue;
			if (a.out[1].p) row(a.out[1], s.k0 + r)[col] = dk[i][c];
			if (a.out[2].p) row(a.out[2], s.k0 + r)[col] = dv[i][c];
		}
}
extern "C" __global__ void __launch_bounds__(256, 1) attn_dq_32(const Args a) { attn_dq<32>(a); }
extern "C" __global__ void __launch_bounds__(256, 1) attn_dq_64(const Args a) { attn_dq<64>(a); }
extern "C" __global__ void __launch_bounds__(256, 1) attn_dkv_32(const Args a) { attn_dkv<32>(a); }
extern "C" __global__ void __launch_bounds__(256, 1) attn_dkv_64(const Args a) { attn_dkv<64>(a); }
