// Attention on tensor cores, forward and backward: operands rounded to tf32, softmax and sums in float32.
// A block of 4 warps takes 64 rows of one head, a warp 16 of them: queries, or for dk and dv keys. Scores
// stay in the registers where they were computed: as an operand of the next product, whose sum over
// columns may run in any order, a fragment's columns 2t and 2t+1 stand for t and t+4.
#include "attn.cuh"

static const int THREADS = 128;

template <int D> struct Head {
	static const int LD = D + 4, KD = D / 8;

	static __device__ __forceinline__ void load(float *to, const Args &a, const Mat &m, int first, int i, int n, int head, int d) {
		load_rows<D, LD, false, THREADS>(to, a, m, first, i, n, head, d);
	}

	// s = the warp's 16 rows of a times 8 NI rows of b
	template <int NI> static __device__ __forceinline__ void scores(float (&s)[NI][4], const float *a, const float *b) {
		int l = lane();
		a += (threadIdx.x / 32 * 16 + l % 16) * LD + l / 16 * 4;
		b += (l % 8 + l / 16 * 8) * LD + l / 8 % 2 * 4;
#pragma unroll
		for (int j = 0; j < NI; j++)
#pragma unroll
			for (int k = 0; k < 4; k++) s[j][k] = 0;
#pragma unroll
		for (int k = 0; k < KD; k++) {
			u32 fa[4];
			load_matrices(fa, a + 8 * k);
#pragma unroll
			for (int i = 0; i < 4; i++) fa[i] = tf32(fa[i]);
#pragma unroll
			for (int j = 0; j < NI; j += 2) {
				u32 f[4];
				load_matrices(f, b + 8 * j * LD + 8 * k);
				u32 b0[2] = {tf32(f[0]), tf32(f[1])}, b1[2] = {tf32(f[2]), tf32(f[3])};
				mma_tf32(s[j], fa, b0);
				mma_tf32(s[j + 1], fa, b1);
			}
		}
	}

	// o += p times 8 NI rows of b
	template <int NI> static __device__ __forceinline__ void add(float (&o)[KD][4], const float (&p)[NI][4], const float *b) {
		int g = lane() / 4, t = lane() % 4;
#pragma unroll
		for (int j = 0; j < NI; j++) {
			u32 fa[4] = {tf32(__float_as_uint(p[j][0])), tf32(__float_as_uint(p[j][2])), tf32(__float_as_uint(p[j][1])), tf32(__float_as_uint(p[j][3]))};
			const float *r = b + (8 * j + 2 * t) * LD + g;
#pragma unroll
			for (int k = 0; k < KD; k++) {
				u32 fb[2] = {tf32(__float_as_uint(r[8 * k])), tf32(__float_as_uint(r[LD + 8 * k]))};
				mma_tf32(o[k], fa, fb);
			}
		}
	}

	static __device__ __forceinline__ void clear(float (&o)[KD][4]) {
#pragma unroll
		for (int k = 0; k < KD; k++)
#pragma unroll
			for (int i = 0; i < 4; i++) o[k][i] = 0;
	}

	// Writes the warp's rows of a tile whose first row is i, times by[0] or by[1].
	static __device__ __forceinline__ void store(const float (&o)[KD][4], const float (&by)[2], const Mat &m, int first, int i, int n, int head, int d) {
		int g = lane() / 4, t = lane() % 4;
#pragma unroll
		for (int h = 0; h < 2; h++) {
			int r = i + threadIdx.x / 32 * 16 + g + 8 * h;
			if (r >= n) continue;
			float *y = row(m, first + r) + head * d;
#pragma unroll
			for (int k = 0; k < KD; k++)
#pragma unroll
				for (int c = 0; c < 2; c++)
					if (8 * k + 2 * t + c < d) y[8 * k + 2 * t + c] = o[k][2 * h + c] * by[h];
		}
	}
};

// The row of a tile that element k of this thread's fragments is in; column c of fragment j is 8 j + this.
__device__ __forceinline__ int frag_row(int k) { return threadIdx.x / 32 * 16 + lane() / 4 + k / 2 * 8; }
__device__ __forceinline__ int frag_col(int k) { return lane() % 4 * 2 + k % 2; }

__device__ __forceinline__ bool mask_for(const Args &a, const Span &s, int head, Mask &m) {
	if (!a.in[4].p || a.f[0] == 0) return false;
	m = mask_of(a, ints(a.in[4])[s.seq], a.i[2] + head);
	return true;
}

template <int D> __device__ __forceinline__ void forward(const Args &a) {
	typedef Head<D> H;
	const int NI = TILE / 8; // fragments side by side
	Span s;
	if (!find_tile(a, blockIdx.x, true, s)) return;
	int head = blockIdx.y, d = a.in[0].cols / a.i[0], first = s.tile * TILE;
	float *q = shared_floats(), *k = q + TILE * H::LD, *v = k + TILE * H::LD;
	Mask mask;
	bool drops = mask_for(a, s, head, mask);
	float o[H::KD][4], top[2] = {-INF, -INF}, z[2] = {0, 0}, scale = (float)a.f[1];
	H::clear(o);
	H::load(q, a, a.in[0], s.q0, first, s.nq, head, d);
	for (int j0 = 0; j0 < s.nk; j0 += TILE) {
		__syncthreads();
		H::load(k, a, a.in[1], s.k0, j0, s.nk, head, d);
		H::load(v, a, a.in[2], s.k0, j0, s.nk, head, d);
		__syncthreads();
		float p[NI][4];
		H::scores(p, q, k);
#pragma unroll
		for (int h = 0; h < 2; h++) {
			float most = top[h], sum = 0;
#pragma unroll
			for (int j = 0; j < NI; j++)
#pragma unroll
				for (int c = 0; c < 2; c++) {
					float &e = p[j][2 * h + c];
					e = j0 + 8 * j + frag_col(c) < s.nk ? e * scale : -INF;
					most = fmaxf(most, e);
				}
			most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
			most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
			float old = expf(top[h] - most); // 0 at first; a tile has a key, so most is a number
			top[h] = most;
#pragma unroll
			for (int j = 0; j < NI; j++)
#pragma unroll
				for (int c = 0; c < 2; c++) {
					float &e = p[j][2 * h + c];
					e = expf(e - most), sum += e;
				}
			sum += __shfl_xor_sync(~0u, sum, 1);
			sum += __shfl_xor_sync(~0u, sum, 2);
			z[h] = z[h] * old + sum;
#pragma unroll
			for (int i = 0; i < H::KD; i++) o[i][2 * h] *= old, o[i][2 * h + 1] *= old;
		}
		if (drops) {
#pragma unroll
			for (int j = 0; j < NI; j++)
#pragma unroll
				for (int h = 0; h < 2; h++) {
					float keep[4];
					keep_four(mask, first + frag_row(2 * h), j0 + 8 * j + frag_col(0), keep);
					bool second = lane() % 2; // of the two threads whose keys share random words
					p[j][2 * h] *= second ? keep[2] : keep[0], p[j][2 * h + 1] *= second ? keep[3] : keep[1];
				}
		}
		H::add(o, p, v);
	}
	float by[2] = {z[0] > 0 ? 1 / z[0] : 0, z[1] > 0 ? 1 / z[1] : 0};
	if (a.out[0].p) H::store(o, by, a.out[0], s.q0, first, s.nq, head, d);
	if (a.out[1].p && lane() % 4 == 0) {
#pragma unroll
		for (int h = 0; h < 2; h++) {
			int r = first + frag_row(2 * h);
			if (r < s.nq) row(a.out[1], s.q0 + r)[head] = z[h] > 0 ? top[h] + logf(z[h]) : 0;
		}
	}
}

// lse and dy·y of the queries from i0 on, for each row of a tile. Two threads a row.
__device__ __forceinline__ void load_sums(float *lse, float *delta, const Args &a, const Span &s, int i0, int head, int d) {
	int r = threadIdx.x / 2, part = threadIdx.x % 2;
	float sum = 0;
	if (i0 + r < s.nq) {
		const float *y = row(a.in[5], s.q0 + i0 + r) + head * d, *g = row(a.in[7], s.q0 + i0 + r) + head * d;
		for (int c = part; c < d; c += 2) sum += y[c] * g[c];
	}
	sum += __shfl_xor_sync(~0u, sum, 1);
	if (part == 0) delta[r] = sum, lse[r] = i0 + r < s.nq ? row(a.in[6], s.q0 + i0 + r)[head] : 0;
}

// From scores t and products g of dy and v: the probability after dropout, and the gradient of the score.
__device__ __forceinline__ void probability(float &t, float &g, bool real, float keep, float lse, float delta, float scale) {
	float e = real ? expf(t * scale - lse) : 0.f;
	g = e * (keep * g - delta) * scale;
	t = e * keep;
}

static const int NI = 4; // half a tile at a time: registers

template <int D> __device__ __forceinline__ void backward_q(const Args &a) {
	typedef Head<D> H;
	Span s;
	if (!find_tile(a, blockIdx.x, true, s)) return;
	int head = blockIdx.y, d = a.in[0].cols / a.i[0], i0 = s.tile * TILE;
	float *q = shared_floats(), *dy = q + TILE * H::LD, *k = dy + TILE * H::LD, *v = k + TILE * H::LD, *lse = v + TILE * H::LD, *delta = lse + TILE;
	Mask mask;
	bool drops = mask_for(a, s, head, mask);
	float o[H::KD][4], scale = (float)a.f[1];
	H::clear(o);
	H::load(q, a, a.in[0], s.q0, i0, s.nq, head, d);
	H::load(dy, a, a.in[7], s.q0, i0, s.nq, head, d);
	load_sums(lse, delta, a, s, i0, head, d);
	for (int j0 = 0; j0 < s.nk; j0 += TILE) {
		__syncthreads();
		H::load(k, a, a.in[1], s.k0, j0, s.nk, head, d);
		H::load(v, a, a.in[2], s.k0, j0, s.nk, head, d);
		__syncthreads();
#pragma unroll 1
		for (int half = 0; half < TILE; half += 8 * NI) {
			float p[NI][4], g[NI][4];
			H::scores(p, q, k + half * H::LD);
			H::scores(g, dy, v + half * H::LD);
#pragma unroll
			for (int j = 0; j < NI; j++)
#pragma unroll
				for (int h = 0; h < 2; h++) {
					int i = frag_row(2 * h), c = j0 + half + 8 * j + frag_col(0);
					float keep[4] = {1, 1, 1, 1};
					if (drops) keep_four(mask, i0 + i, c, keep);
					bool second = lane() % 2, real = i0 + i < s.nq;
					probability(p[j][2 * h], g[j][2 * h], real && c < s.nk, second ? keep[2] : keep[0], lse[i], delta[i], scale);
					probability(p[j][2 * h + 1], g[j][2 * h + 1], real && c + 1 < s.nk, second ? keep[3] : keep[1], lse[i], delta[i], scale);
				}
			H::add(o, g, k + half * H::LD);
		}
	}
	float by[2] = {1, 1};
	H::store(o, by, a.out[0], s.q0, i0, s.nq, head, d);
}

template <int D> __device__ __forceinline__ void backward_kv(const Args &a) {
	typedef Head<D> H;
	Span s;
	if (!find_tile(a, blockIdx.x, false, s)) return;
	int head = blockIdx.y, d = a.in[0].cols / a.i[0], j0 = s.tile * TILE;
	float *q = shared_floats(), *dy = q + TILE * H::LD, *k = dy + TILE * H::LD, *v = k + TILE * H::LD, *lse = v + TILE * H::LD, *delta = lse + TILE;
	Mask mask;
	bool drops = mask_for(a, s, head, mask);
	float dk[H::KD][4], dv[H::KD][4], scale = (float)a.f[1];
	H::clear(dk);
	H::clear(dv);
	H::load(k, a, a.in[1], s.k0, j0, s.nk, head, d);
	H::load(v, a, a.in[2], s.k0, j0, s.nk, head, d);
	for (int i0 = 0; i0 < s.nq; i0 += TILE) {
		__syncthreads();
		H::load(q, a, a.in[0], s.q0, i0, s.nq, head, d);
		H::load(dy, a, a.in[7], s.q0, i0, s.nq, head, d);
		load_sums(lse, delta, a, s, i0, head, d);
		__syncthreads();
#pragma unroll 1
		for (int half = 0; half < TILE; half += 8 * NI) {
			float p[NI][4], g[NI][4]; // rows are keys
			H::scores(p, k, q + half * H::LD);
			H::scores(g, v, dy + half * H::LD);
#pragma unroll
			for (int j = 0; j < NI; j++)
#pragma unroll
				for (int e = 0; e < 4; e++) {
					int i = half + 8 * j + frag_col(e), c = j0 + frag_row(e);
					float keep = drops ? mask.one((u32)(i0 + i) << 16 | c) : 1.f;
					probability(p[j][e], g[j][e], i0 + i < s.nq && c < s.nk, keep, lse[i], delta[i], scale);
				}
			H::add(dv, p, dy + half * H::LD);
			H::add(dk, g, q + half * H::LD);
		}
	}
	float by[2] = {1, 1};
	if (a.out[1].p) H::store(dk, by, a.out[1], s.k0, j0, s.nk, head, d);
	if (a.out[2].p) H::store(dv, by, a.out[2], s.k0, j0, s.nk, head, d);
}

extern "C" __global__ void __launch_bounds__(128, 3) attn_tf32_32(const Args a) { forward<32>(a); }
extern "C" __global__ void __launch_bounds__(128, 2) attn_tf32_64(const Args a) { forward<64>(a); }
extern "C" __global__ void __launch_bounds__(128, 4) attn_dq_tf32_32(const Args a) { backward_q<32>(a); }
extern "C" __global__ void __launch_bounds__(128, 2) attn_dq_tf32_64(const Args a) { backward_q<64>(a); }
extern "C" __global__ void __launch_bounds__(128, 3) attn_dkv_tf32_32(const Args a) { backward_kv<32>(a); }
extern "C" __global__ void __launch_bounds__(128, 2) attn_dkv_tf32_64(const Args a) { backward_kv<64>(a); }
