// Matrix products: tiles of BM x BN of the result go through shared memory BK at a time in a ring of
// stages that cp.async fills. Operands are float32 in memory and in shared memory; they are rounded to tf32
// or bf16 when fragments are loaded. (Rounding them in shared memory, once, took longer.)
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
	float *part;        // partial sums (splits, total)
	long long stride;
	int ldy, ldpre, ldgate;
	int rows, axis;     // of the result; of the sum for MatTN
	int total, most, splits;
	int acc, act, wide; // wide: rows of results and of the gate can be read and written four at a time
	int blocks;          // of columns side by side; for MatTN products of different matrices with one rows
	int segments;        // of each block
	int tile[17];        // first tile of each block
	int col[16], n[16];  // first column of each block, columns. MatTN: col is where its partial sums begin
	const float *bias[16];
	Segment seg[32];
	// MatTN: results and the sums of the columns of dy, or 0; bit 0 and 1 of accs: they are added to
	float *out[16], *sum[16];
	int m[16], ld[16], accs[16];
};

template <int BM_, int BN_, int WM_, int WN_, int THREADS_, int STAGES_, Precision P_, bool AT_, bool BT_> struct Shape {
	static const int BM = BM_, BN = BN_, WM = WM_, WN = WN_, THREADS = THREADS_, STAGES = STAGES_, BK = 32;
	static const Precision P = P_;
	static const bool AT = AT_, BT = BT_; // stored with k as the row
	// Rows are padded so that fragments meet each bank once.
	static const int LDA = AT ? BM + 8 : BK + 4, LDB = BT ? BN + 8 : BK + 4;
	static const int A = AT ? BK * LDA : BM * LDA, B = BT ? BK * LDB : BN * LDB, STAGE = A + B, LDT = BN + 8;
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

// Calls f for the fours of a tile that this thread copied, which it sees before the block's barrier.
template <int R, int C, int LD, int THREADS, class F> __device__ __forceinline__ void own_tile(const float *tile, const F &f) {
	const int W = C / 4;
#pragma unroll
	for (int e = 0; e < R * W; e += THREADS) {
		int i = e + threadIdx.x, r = i / W, c = (i - r * W) * 4;
		if (R * W % THREADS != 0 && i >= R * W) break;
		f(*(const float4 *)(tile + r * LD + c));
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

	// The fragments of 8 steps of k from kk on. Where k is the row in shared memory a lane's rows or columns are
	// neighbours there, not 8 apart, so that they are one load: row() and col() say which they are.
	static __device__ __forceinline__ void load_a(u32 (&f)[MI][4], const float *a, int m, int kk) {
		int l = lane(), g = l / 4, t = l % 4;
		if constexpr (!S::AT) {
#pragma unroll
			for (int i = 0; i < MI; i++) load_matrices(f[i], a + (m + 16 * i + l % 16) * S::LDA + kk + l / 16 * 4);
		} else {
#pragma unroll
			for (int k = 0; k < 2; k++)
#pragma unroll
				for (int q = 0; q < MI / 2; q++) {
					float4 x = *(const float4 *)(a + (kk + t + 4 * k) * S::LDA + m + 32 * q + 4 * g);
					f[2 * q][2 * k] = __float_as_uint(x.x), f[2 * q][2 * k + 1] = __float_as_uint(x.y);
					f[2 * q + 1][2 * k] = __float_as_uint(x.z), f[2 * q + 1][2 * k + 1] = __float_as_uint(x.w);
				}
		}
	}
	static __device__ __forceinline__ void load_b(u32 (&f)[NI][2], const float *b, int n, int kk) {
		int l = lane(), g = l / 4, t = l % 4;
		if constexpr (!S::BT) {
#pragma unroll
			for (int j = 0; j < NI; j += 2) {
				u32 x[4];
				load_matrices(x, b + (n + 8 * j + l % 8 + l / 16 * 8) * S::LDB + kk + l / 8 % 2 * 4);
				f[j][0] = x[0], f[j][1] = x[1], f[j + 1][0] = x[2], f[j + 1][1] = x[3];
			}
		} else {
#pragma unroll
			for (int k = 0; k < 2; k++)
#pragma unroll
				for (int q = 0; q < NI / 4; q++) {
					float4 x = *(const float4 *)(b + (kk + t + 4 * k) * S::LDB + n + 32 * q + 4 * g);
					f[4 * q][k] = __float_as_uint(x.x), f[4 * q + 1][k] = __float_as_uint(x.y);
					f[4 * q + 2][k] = __float_as_uint(x.z), f[4 * q + 3][k] = __float_as_uint(x.w);
				}
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
			load_a(fa, a, m0, kk);
			load_b(fb, b, n0, kk);
			if (S::P == BF16) {
				u32 na[MI][4], nb[NI][2];
				load_a(na, a, m0, kk + 8);
				load_b(nb, b, n0, kk + 8);
#pragma unroll
				for (int i = 0; i < MI; i++) {
					u32 lo = bf16(fa[i][0], fa[i][2]), hi = bf16(fa[i][1], fa[i][3]);
					fa[i][0] = lo, fa[i][1] = hi, fa[i][2] = bf16(na[i][0], na[i][2]), fa[i][3] = bf16(na[i][1], na[i][3]);
				}
#pragma unroll
				for (int j = 0; j < NI; j++) fb[j][0] = bf16(fb[j][0], fb[j][1]), fb[j][1] = bf16(nb[j][0], nb[j][1]);
			} else {
#pragma unroll
				for (int i = 0; i < MI; i++)
#pragma unroll
					for (int k = 0; k < 4; k++) fa[i][k] = tf32(fa[i][k]);
#pragma unroll
				for (int j = 0; j < NI; j++) fb[j][0] = tf32(fb[j][0]), fb[j][1] = tf32(fb[j][1]);
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

	// Writes the sums to shared memory.
	__device__ __forceinline__ void put(float *tile) const {
		const int WARPS_N = S::BN / S::WN;
		int w = threadIdx.x / 32, g = lane() / 4, t = lane() % 4, m0 = w / WARPS_N * S::WM, n0 = w % WARPS_N * S::WN;
#pragma unroll
		for (int i = 0; i < MI; i++)
#pragma unroll
			for (int h = 0; h < 2; h++) {
				int r = S::AT ? (2 * i + h) / 4 * 32 + 4 * g + (2 * i + h) % 4 : 16 * i + 8 * h + g;
				float *to = tile + (m0 + r) * S::LDT + n0;
				if (S::BT) {
#pragma unroll
					for (int q = 0; q < NI / 4; q++)
#pragma unroll
						for (int k = 0; k < 2; k++)
							*(float4 *)(to + 32 * q + 8 * t + 4 * k) = make_float4(c[i][4 * q][2 * h + k], c[i][4 * q + 1][2 * h + k], c[i][4 * q + 2][2 * h + k], c[i][4 * q + 3][2 * h + k]);
				} else {
#pragma unroll
					for (int j = 0; j < NI; j++) *(float2 *)(to + 8 * j + 2 * t) = make_float2(c[i][j][2 * h], c[i][j][2 * h + 1]);
				}
			}
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
		const int STEP = S::AT ? NI : 1, UNROLL = S::AT ? 2 : 1; // few registers, or many loads at once
#pragma unroll UNROLL
		for (int kk = 0; kk < S::BK; kk += 4) {
			float fa[MI][4];
#pragma unroll
			for (int i = 0; i < MI; i++) load<S::AT, S::LDA>(fa[i], a, row_of(i), kk);
#pragma unroll
			for (int j = 0; j < NI; j += STEP) {
				float fb[STEP][4];
#pragma unroll
				for (int q = 0; q < STEP; q++) load<S::BT, S::LDB>(fb[q], b, col_of(j + q), kk);
#pragma unroll
				for (int k = 0; k < 4; k++)
#pragma unroll
					for (int i = 0; i < MI; i++)
#pragma unroll
						for (int q = 0; q < STEP; q++) c[i][j + q] = fmaf(fa[i][k], fb[q][k], c[i][j + q]);
			}
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
	__device__ __forceinline__ void put(float *tile) const {
#pragma unroll
		for (int i = 0; i < MI; i++)
#pragma unroll
			for (int j = 0; j < NI; j++) tile[row_of(i) * S::LDT + col_of(j)] = c[i][j];
	}
};

template <class S, bool EXACT> struct SumsOf { typedef Sums<S> type; };
template <class S> struct SumsOf<S, true> { typedef SumsFP32<S> type; };

// Adds up the segments of a tile whose first row is m0 and first column n0, of m rows and n columns. The
// sums of MatTN run over rows from to to.
// With SUM every thread adds up the fours of a that it has copied, too.
template <class S, bool SUM, class C> __device__ __forceinline__ void products(const Gemm &g, const Segment *seg, int m0, int n0, int m, int n, int from, int to, C &sums, bool sum, float4 &total4) {
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
		float *a = shared + i % S::STAGES * S::STAGE, *b = a + S::A;
		if (SUM && sum) own_tile<S::BK, S::BM, S::LDA, S::THREADS>(a, [&](const float4 &v) { total4.x += v.x, total4.y += v.y, total4.z += v.z, total4.w += v.w; });
		__syncthreads(); // the stage is there for all, and the one before is free
		int next = i + S::STAGES - 1;
		if (next < total) load(next % S::STAGES);
		copies_end();
		sums.add(a, b);
	}
}

// Four neighbours of a row, n of them inside; wide: they are 16-byte aligned.
__device__ __forceinline__ void read4(float (&v)[4], const float *p, int n, bool wide) {
	if (wide && n == 4) {
		*(float4 *)v = *(const float4 *)p;
	} else {
#pragma unroll
		for (int c = 0; c < 4; c++) v[c] = c < n ? p[c] : 0;
	}
}
__device__ __forceinline__ void write4(float *p, const float (&v)[4], int n, bool wide) {
	if (wide && n == 4) {
		*(float4 *)p = *(const float4 *)v;
	} else {
#pragma unroll
		for (int c = 0; c < 4; c++)
			if (c < n) p[c] = v[c];
	}
}

// Calls f(row, column, four sums, how many are inside) for all of a tile. The sums go through shared memory, so
// that rows are written whole, and by a loop whose code is small.
template <class S, class C, class F> __device__ __forceinline__ void finish(const C &sums, int m, int n, const F &f) {
	float *tile = shared_floats();
	__syncthreads(); // the last stage has been read
	sums.put(tile);
	__syncthreads();
#pragma unroll 1
	for (int e = threadIdx.x; e < S::BM * S::BN / 4; e += S::THREADS) {
		int i = e / (S::BN / 4), j = e % (S::BN / 4) * 4;
		if (i >= m) break;
		if (j >= n) continue;
		float v[4];
		*(float4 *)v = *(const float4 *)(tile + i * S::LDT + j);
		f(i, j, v, min(4, n - j));
	}
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
	float4 none;
	products<S, false>(g, g.seg + k * g.segments, m0, n0, rows, n, 0, 0, sums, false, none);

	const float *bias = g.bias[k] ? g.bias[k] + n0 : 0;
	int c0 = g.col[k] + n0;
	finish<S>(sums, rows - m0, n - n0, [&](int i, int j, float(&v)[4], int left) {
		size_t r = m0 + i, c = c0 + j;
		float x[4];
		if (bias) {
			read4(x, bias + j, left, false);
#pragma unroll
			for (int q = 0; q < 4; q++) v[q] += x[q];
		}
		if (g.pre) write4(g.pre + r * g.ldpre + c, v, left, g.wide);
		if (!g.y) return;
		if (g.gate) {
			read4(x, g.gate + r * g.ldgate + c, left, g.wide);
#pragma unroll
			for (int q = 0; q < 4; q++) v[q] *= gelu_d(x[q]);
		} else if (g.act) {
#pragma unroll
			for (int q = 0; q < 4; q++) v[q] = gelu(v[q]);
		}
		if (g.acc) {
			read4(x, g.y + r * g.ldy + c, left, g.wide);
#pragma unroll
			for (int q = 0; q < 4; q++) v[q] += x[q];
		}
		write4(g.y + r * g.ldy + c, v, left, g.wide);
	});
}

// MatTN: the sum over the rows of a unit, or over a part of all rows. The blocks with a product's first
// columns sum those of dy, too.
template <class S> __device__ __forceinline__ void sum_kernel(const Gemm &g) {
	const int W = S::BM / 4, PARTS = S::THREADS / W; // a thread's fours are those of one column, PARTS rows apart
	int rows = g.axis == 0 ? g.rows : min(g.rows, g.s->count[g.axis]), k = 0;
	while (k + 1 < g.blocks && (int)blockIdx.x >= g.tile[k + 1]) k++;
	int n = g.n[k], m = g.m[k], wide = (n + S::BN - 1) / S::BN, at = blockIdx.x - g.tile[k];
	int m0 = at / wide * S::BM, n0 = at % wide * S::BN;
	bool sum = g.sum[k] && n0 == 0, whole = g.splits == 1;
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
		float4 fours = make_float4(0, 0, 0, 0);
		products<S, true>(g, g.seg + k, m0, n0, m, n, from, to, sums, sum, fours);
		float *parts = g.part + (size_t)u * g.total + g.col[k];
		if (sum) {
			float *shared = shared_floats();
			__syncthreads();
			*(float4 *)(shared + threadIdx.x * 4) = fours;
			__syncthreads();
			for (int c = threadIdx.x; c < S::BM && m0 + c < m; c += S::THREADS) {
				float s = 0;
#pragma unroll
				for (int i = 0; i < PARTS; i++) s += shared[i * S::BM + c];
				if (whole) put(g.sum[k] + m0 + c, s, g.accs[k] & 2);
				else parts[m * n + m0 + c] = s;
			}
		}
		float *y = whole ? g.out[k] + u * g.stride : parts;
		int ld = whole ? g.ld[k] : n;
		bool acc = whole && g.accs[k] & 1;
		finish<S>(sums, m - m0, n - n0, [&](int i, int j, float(&v)[4], int left) {
			float *p = y + (size_t)(m0 + i) * ld + n0 + j;
			if (acc) {
				float x[4];
				read4(x, p, left, g.wide);
#pragma unroll
				for (int q = 0; q < 4; q++) v[q] += x[q];
			}
			write4(p, v, left, g.wide);
		});
		__syncthreads(); // shared memory is free again
	}
}
