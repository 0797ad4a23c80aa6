// Matrix products: tiles of BM x BN of the result go through shared memory BK at a time in a ring of
// stages that cp.async fills. Operands are float32 in memory and in shared memory; tf32 and bf16 are
// rounded to when fragments are loaded.
//
// An element is summed in the order of k alone, whatever the tile: a row's result does not depend on the
// rows beside it.
#pragma once
#include "common.cuh"

enum Precision { FP32, TF32, BF16 };

// One product of several that are added up: a times b.
struct Segment {
	const float *a, *b;
	int lda, ldb, k, vec; // vec: bit 0: rows of a are whole float4s that 16 bytes align, bit 1: of b
};

struct Gemm {
	const Scalars *s;
	float *y, *pre;     // result with or without the activation
	const float *gate;  // GELU' of it multiplies the result
	const int *units;   // as in Args
	float *part;        // partial sums (splits, m, n)
	long long stride;
	int ldy, ldpre, ldgate;
	int rows, axis;     // of the result; of the sum for MatTN
	int m, most, splits;
	int acc, act, pairs; // pairs: results can be written two at a time
	int blocks;          // of columns side by side
	int segments;        // of each block
	int tile[17];        // first tile of each block
	int col[16], n[16];  // first column of each block, columns
	const float *bias[16];
	Segment seg[32];
};

template <int BM_, int BN_, int WM_, int WN_, int THREADS_, int STAGES_, Precision P_, bool AT_, bool BT_> struct Shape {
	static const int BM = BM_, BN = BN_, WM = WM_, WN = WN_, THREADS = THREADS_, STAGES = STAGES_, BK = 32;
	static const Precision P = P_;
	static const bool AT = AT_, BT = BT_; // stored with k as the row
	// Rows are padded so that fragments meet each bank once.
	static const int LDA = AT ? BM + 8 : BK + 4, LDB = BT ? BN + 8 : BK + 4;
	static const int A = AT ? BK * LDA : BM * LDA, B = BT ? BK * LDB : BN * LDB, STAGE = A + B;
};

// Copies a tile of R rows by C columns from p on; beyond rows and cols it is 0.
template <int R, int C, int LD, int THREADS> __device__ __forceinline__ void load_tile(float *to, const float *p, int ld, int rows, int cols, bool vec) {
	const int W = C / 4;
#pragma unroll
	for (int e = 0; e < R * W; e += THREADS) {
		int i = e + threadIdx.x, r = i / W, c = (i - r * W) * 4;
		if (R * W % THREADS != 0 && i >= R * W) break;
		int n = r < rows ? max(0, min(4, cols - c)) : 0;
		float *d = to + r * LD + c;
		const float *s = n > 0 ? p + (size_t)r * ld + c : p;
		if (vec) {
			copy16(d, s, 4 * n);
		} else {
#pragma unroll
			for (int j = 0; j < 4; j++) copy4(d + j, j < n ? s + j : p, j < n ? 4 : 0);
		}
	}
}

// The sums of a tile: by warps in fragments of the tensor cores, or by threads.
template <class S> struct Sums {
	static const int MI = S::WM / 16, NI = S::WN / 8;
	float c[MI][NI][4];

	__device__ __forceinline__ void clear() {
#pragma unroll
		for (int i = 0; i < MI; i++)
#pragma unroll
			for (int j = 0; j < NI; j++)
#pragma unroll
				for (int k = 0; k < 4; k++) c[i][j][k] = 0;
	}

	// The fragments of 8 columns of k from kk on.
	static __device__ __forceinline__ void load_a(u32 (&f)[4], const float *a, int m, int kk) {
		int l = lane(), g = l / 4, t = l % 4;
		if (!S::AT) {
			load_matrices(f, a + (m + l % 16) * S::LDA + kk + l / 16 * 4);
		} else {
#pragma unroll
			for (int i = 0; i < 4; i++) f[i] = __float_as_uint(a[(kk + t + i / 2 * 4) * S::LDA + m + g + i % 2 * 8]);
		}
	}
	// Two fragments side by side.
	static __device__ __forceinline__ void load_b(u32 (&f)[4], const float *b, int n, int kk) {
		int l = lane(), g = l / 4, t = l % 4;
		if (!S::BT) {
			load_matrices(f, b + (n + l % 8 + l / 16 * 8) * S::LDB + kk + l / 8 % 2 * 4);
		} else {
#pragma unroll
			for (int i = 0; i < 4; i++) f[i] = __float_as_uint(b[(kk + t + i % 2 * 4) * S::LDB + n + g + i / 2 * 8]);
		}
	}

	// Adds a stage. For bf16 two steps of 8 are one of 16: which k stands where in a fragment does not
	// matter as long as both operands agree.
	__device__ __forceinline__ void add(const float *a, const float *b) {
		const int WARPS_N = S::BN / S::WN;
		int w = threadIdx.x / 32, m0 = w / WARPS_N * S::WM, n0 = w % WARPS_N * S::WN;
#pragma unroll
		for (int kk = 0; kk < S::BK; kk += S::P == BF16 ? 16 : 8) {
			u32 fa[MI][4], fb[NI][2];
#pragma unroll
			for (int i = 0; i < MI; i++) {
				load_a(fa[i], a, m0 + 16 * i, kk);
				if (S::P == BF16) {
					u32 next[4];
					load_a(next, a, m0 + 16 * i, kk + 8);
					u32 lo = bf16(fa[i][0], fa[i][2]), hi = bf16(fa[i][1], fa[i][3]);
					fa[i][0] = lo, fa[i][1] = hi, fa[i][2] = bf16(next[0], next[2]), fa[i][3] = bf16(next[1], next[3]);
				} else {
#pragma unroll
					for (int k = 0; k < 4; k++) fa[i][k] = tf32(fa[i][k]);
				}
			}
#pragma unroll
			for (int j = 0; j < NI; j += 2) {
				u32 f[4];
				load_b(f, b, n0 + 8 * j, kk);
				if (S::P == BF16) {
					u32 next[4];
					load_b(next, b, n0 + 8 * j, kk + 8);
					fb[j][0] = bf16(f[0], f[1]), fb[j + 1][0] = bf16(f[2], f[3]);
					fb[j][1] = bf16(next[0], next[1]), fb[j + 1][1] = bf16(next[2], next[3]);
				} else {
					fb[j][0] = tf32(f[0]), fb[j][1] = tf32(f[1]), fb[j + 1][0] = tf32(f[2]), fb[j + 1][1] = tf32(f[3]);
				}
			}
#pragma unroll
			for (int i = 0; i < MI; i++)
#pragma unroll
				for (int j = 0; j < NI; j++) {
					if (S::P == BF16) mma_bf16(c[i][j], fa[i], fb[j]);
					else mma_tf32(c[i][j], fa[i], fb[j]);
				}
		}
	}

	// Calls f(row, column, v0, v1) for pairs of neighbours.
	template <class F> __device__ __forceinline__ void each(const F &f) const {
		const int WARPS_N = S::BN / S::WN;
		int w = threadIdx.x / 32, m0 = w / WARPS_N * S::WM + lane() / 4, n0 = w % WARPS_N * S::WN + lane() % 4 * 2;
#pragma unroll
		for (int i = 0; i < MI; i++)
#pragma unroll
			for (int h = 0; h < 2; h++)
#pragma unroll
				for (int j = 0; j < NI; j++) f(m0 + 16 * i + 8 * h, n0 + 8 * j, c[i][j][2 * h], c[i][j][2 * h + 1]);
	}
};

// Without tensor cores: 256 threads, each with rows and columns 16 apart.
template <class S> struct SumsFP32 {
	static const int MI = S::BM / 16, NI = S::BN / 16;
	float c[MI][NI];

	__device__ __forceinline__ void clear() {
#pragma unroll
		for (int i = 0; i < MI; i++)
#pragma unroll
			for (int j = 0; j < NI; j++) c[i][j] = 0;
	}
	static __device__ __forceinline__ int row_of(int i) { return threadIdx.x / 16 + 16 * i; }
	static __device__ __forceinline__ int col_of(int j) { return threadIdx.x % 16 + 16 * j; }

	__device__ __forceinline__ void add(const float *a, const float *b) {
#pragma unroll 2
		for (int kk = 0; kk < S::BK; kk += 4) {
			float fa[MI][4], fb[NI][4];
#pragma unroll
			for (int i = 0; i < MI; i++) load<S::AT, S::LDA>(fa[i], a, row_of(i), kk);
#pragma unroll
			for (int j = 0; j < NI; j++) load<S::BT, S::LDB>(fb[j], b, col_of(j), kk);
#pragma unroll
			for (int k = 0; k < 4; k++)
#pragma unroll
				for (int i = 0; i < MI; i++)
#pragma unroll
					for (int j = 0; j < NI; j++) c[i][j] = fmaf(fa[i][k], fb[j][k], c[i][j]);
		}
	}
	template <bool T, int LD> static __device__ __forceinline__ void load(float (&f)[4], const float *p, int i, int kk) {
		if (!T) {
			*(float4 *)f = *(const float4 *)(p + i * LD + kk);
		} else {
#pragma unroll
			for (int k = 0; k < 4; k++) f[k] = p[(kk + k) * LD + i];
		}
	}
	template <class F> __device__ __forceinline__ void each(const F &f) const {
#pragma unroll
		for (int i = 0; i < MI; i++)
#pragma unroll
			for (int j = 0; j < NI; j++) f(row_of(i), col_of(j), c[i][j]);
	}
};

template <class S, bool EXACT> struct SumsOf { typedef Sums<S> type; };
template <class S> struct SumsOf<S, true> { typedef SumsFP32<S> type; };

// Adds up the segments of a tile whose first row is m0 and first column n0, of m rows and n columns. The
// sums of MatTN run over rows from to to.
template <class S, class C> __device__ __forceinline__ void products(const Gemm &g, const Segment *seg, int m0, int n0, int m, int n, int from, int to, C &sums) {
	float *shared = shared_floats();
	int at = 0, k0 = 0, total = 0; // the next to load
	for (int i = 0; i < g.segments; i++) total += ((S::AT ? to - from : seg[i].k) + S::BK - 1) / S::BK;
	auto load = [&](int stage) {
		const Segment &s = seg[at];
		float *a = shared + stage * S::STAGE, *b = a + S::A;
		int k = S::AT ? to - from : s.k, rest = k - k0;
		if (S::AT) load_tile<S::BK, S::BM, S::LDA, S::THREADS>(a, s.a + (size_t)(from + k0) * s.lda + m0, s.lda, rest, m - m0, s.vec & 1);
		else load_tile<S::BM, S::BK, S::LDA, S::THREADS>(a, s.a + (size_t)m0 * s.lda + k0, s.lda, m - m0, rest, s.vec & 1);
		size_t b0 = S::AT ? from + k0 : k0; // MatTN counts both operands' rows
		if (S::BT) load_tile<S::BK, S::BN, S::LDB, S::THREADS>(b, s.b + b0 * s.ldb + n0, s.ldb, rest, n - n0, s.vec >> 1 & 1);
		else load_tile<S::BN, S::BK, S::LDB, S::THREADS>(b, s.b + (size_t)n0 * s.ldb + k0, s.ldb, n - n0, rest, s.vec >> 1 & 1);
		if ((k0 += S::BK) >= k) k0 = 0, at++;
	};
#pragma unroll
	for (int i = 0; i < S::STAGES - 1; i++) {
		if (i < total) load(i);
		copies_end();
	}
	for (int i = 0; i < total; i++) {
		copies_wait<S::STAGES - 2>();
		__syncthreads(); // the stage is there for all, and the one before is free
		int next = i + S::STAGES - 1;
		if (next < total) load(next % S::STAGES);
		copies_end();
		const float *a = shared + i % S::STAGES * S::STAGE;
		sums.add(a, a + S::A);
	}
}

// Calls one or two for the elements of a tile that are inside.
template <class S, class F, class F2> __device__ __forceinline__ void store(const Gemm &g, const Sums<S> &sums, int m0, int n0, int m, int n, const F &one, const F2 &two) {
	sums.each([&](int i, int j, float v, float w) {
		i += m0, j += n0;
		if (i >= m) return;
		if (g.pairs && j + 1 < n) {
			two(i, j, v, w);
			return;
		}
		if (j < n) one(i, j, v);
		if (j + 1 < n) one(i, j + 1, w);
	});
}
template <class S, class F, class F2> __device__ __forceinline__ void store(const Gemm &g, const SumsFP32<S> &sums, int m0, int n0, int m, int n, const F &one, const F2 &) {
	sums.each([&](int i, int j, float v) {
		i += m0, j += n0;
		if (i < m && j < n) one(i, j, v);
	});
}

// MatNT and MatNN: the tile of block k whose results follow the activation.
template <class S> __device__ __forceinline__ void rows_kernel(const Gemm &g) {
	int rows = g.axis == 0 ? g.rows : min(g.rows, g.s->count[g.axis]), m0 = blockIdx.y * S::BM;
	if (m0 >= rows) return;
	int k = 0;
	while (k + 1 < g.blocks && (int)blockIdx.x >= g.tile[k + 1]) k++;
	int n0 = (blockIdx.x - g.tile[k]) * S::BN, n = g.n[k];
	typename SumsOf<S, S::P == FP32>::type sums;
	sums.clear();
	products<S>(g, g.seg + k * g.segments, m0, n0, rows, n, 0, 0, sums);

	const float *bias = g.bias[k];
	int c0 = g.col[k];
	auto value = [&](int i, int j, float v) { // before the activation
		if (bias) v += bias[j];
		return v;
	};
	auto result = [&](int i, int j, float v) {
		if (g.act && g.gate) v *= gelu_d(g.gate[(size_t)i * g.ldgate + j]);
		else if (g.act) v = gelu(v);
		if (g.acc) v += g.y[(size_t)i * g.ldy + c0 + j];
		return v;
	};
	store(g, sums, m0, n0, rows, n, [&](int i, int j, float v) {
		v = value(i, j, v);
		if (g.pre) g.pre[(size_t)i * g.ldpre + c0 + j] = v;
		if (g.y) g.y[(size_t)i * g.ldy + c0 + j] = result(i, j, v);
	}, [&](int i, int j, float v, float w) {
		v = value(i, j, v), w = value(i, j + 1, w);
		if (g.pre) *(float2 *)(g.pre + (size_t)i * g.ldpre + c0 + j) = make_float2(v, w);
		if (g.y) *(float2 *)(g.y + (size_t)i * g.ldy + c0 + j) = make_float2(result(i, j, v), result(i, j + 1, w));
	});
}

// MatTN: the sum over the rows of a unit, or over a part of all rows.
template <class S> __device__ __forceinline__ void sum_kernel(const Gemm &g) {
	int rows = g.axis == 0 ? g.rows : min(g.rows, g.s->count[g.axis]), n = g.n[0];
	int m0 = blockIdx.y * S::BM, n0 = blockIdx.x * S::BN;
	int units = g.units ? min(g.most, g.s->count[3]) : g.splits;
	for (int u = blockIdx.z; u < units; u += gridDim.z) {
		int from, to;
		if (g.units) {
			from = g.units[u], to = g.units[u + 1];
		} else {
			int size = ((rows + g.splits - 1) / g.splits + S::BK - 1) / S::BK * S::BK;
			from = min(u * size, rows), to = min(from + size, rows);
		}
		typename SumsOf<S, S::P == FP32>::type sums;
		sums.clear();
		products<S>(g, g.seg, m0, n0, g.m, n, from, to, sums);
		bool whole = g.splits == 1;
		float *y = whole ? g.y + u * (g.units ? g.stride : 0) : g.part + (size_t)u * g.m * n;
		int ld = whole ? g.ldy : n;
		store(g, sums, m0, n0, g.m, n, [&](int i, int j, float v) { put(y + (size_t)i * ld + j, v, whole && g.acc); },
		      [&](int i, int j, float v, float w) {
			      float2 *p = (float2 *)(y + (size_t)i * ld + j);
			      if (whole && g.acc) v += p->x, w += p->y;
			      *p = make_float2(v, w);
		      });
		__syncthreads(); // shared memory is free again
	}
}
