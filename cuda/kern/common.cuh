// What kernels have in common. Every kernel takes one structure, which the host packs byte by byte: see
// args.go.
//
// Grids are sized by capacity; how many rows are real is read from the device, so that one captured
// graph serves every launch. Sums run in an order that depends on sizes alone.
#pragma once
#include "ptx.cuh"

#define INF __int_as_float(0x7f800000)

struct Scalars {
	int count[4]; // real rows, by axis
	u64 seed, step;
	double lr[8], clip;
};

// A matrix. An index has ints at p.
struct Mat {
	float *p; // 0: dead
	int rows, cols, ld, axis;
};

struct Args {
	const Scalars *s;
	Mat out[4], in[8];
	int i[4];
	double f[4];
	const int *units; // first row of each unit, and the end; 0: units are not kept apart
	long long stride; // from unit to unit
	void *scratch;
	int most;         // units that there is memory for
	int acc;          // bit k: result k is added to
	int vec;          // rows of all operands are whole numbers of float4
	int splits;       // of a reduction
};

__device__ __forceinline__ int real_rows(const Mat &m, const Scalars *s) { return m.axis == 0 ? m.rows : min(m.rows, s->count[m.axis]); }
__device__ __forceinline__ float *row(const Mat &m, int i) { return m.p + (size_t)i * m.ld; }
__device__ __forceinline__ const int *ints(const Mat &m) { return (const int *)m.p; }

// Sequences of offsets.
__device__ __forceinline__ int real_seqs(const Mat &offsets, const Scalars *s) { return min(offsets.cols - 1, s->count[2]); }

// The units of a reduction, 1 where they are not kept apart, and the rows of each.
__device__ __forceinline__ int real_units(const Args &a) { return a.units ? min(a.most, a.s->count[3]) : 1; }
__device__ __forceinline__ void unit_rows(const Args &a, int u, int rows, int &from, int &to) {
	from = 0, to = rows;
	if (a.units) from = a.units[u], to = a.units[u + 1];
}

__device__ __forceinline__ void put(float *y, float v, bool acc) { *y = acc ? *y + v : v; }

template <class T> __device__ __forceinline__ T warp_sum(T v) {
#pragma unroll
	for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
	return v;
}
__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
	for (int o = 16; o > 0; o >>= 1) v = fmaxf(v, __shfl_xor_sync(~0u, v, o));
	return v;
}

// The sum over a block of up to 1024 threads, in all of them.
template <class T> __device__ __forceinline__ T block_sum(T v) {
	__shared__ T part[32];
	v = warp_sum(v);
	__syncthreads();
	if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
	__syncthreads();
	v = threadIdx.x % 32 < blockDim.x / 32 ? part[threadIdx.x % 32] : T(0);
	return warp_sum(v);
}

// The row of this warp where each has one.
__device__ __forceinline__ int warp_row() { return blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; }
__device__ __forceinline__ int lane() { return threadIdx.x % 32; }

// Philox4x32-10, as nn/backend/philox.
__device__ __forceinline__ void philox(u64 key, u32 (&c)[4]) {
	u32 k0 = (u32)key, k1 = (u32)(key >> 32);
#pragma unroll
	for (int i = 0; i < 10; i++) {
		u32 h0 = __umulhi(0xD2511F53u, c[0]), l0 = 0xD2511F53u * c[0], h1 = __umulhi(0xCD9E8D57u, c[2]), l1 = 0xCD9E8D57u * c[2];
		c[0] = h1 ^ c[1] ^ k0, c[1] = l1, c[2] = h0 ^ c[3] ^ k1, c[3] = l0;
		k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
	}
}

// The dropout of one sequence at one site. Elements come in fours that share a block of random words.
struct Mask {
	u64 seed;
	u32 step, key, site, cut;
	float scale; // of what is kept

	__device__ __forceinline__ void four(u32 i, float (&keep)[4]) const {
		u32 c[4] = {i, site, key, step};
		philox(seed, c);
#pragma unroll
		for (int j = 0; j < 4; j++) keep[j] = c[j] < cut ? 0.f : scale;
	}
	__device__ __forceinline__ float one(u32 element) const {
		u32 c[4] = {element >> 2, site, key, step};
		philox(seed, c);
		u32 j = element & 3, w = j < 2 ? (j == 0 ? c[0] : c[1]) : (j == 2 ? c[2] : c[3]);
		return w < cut ? 0.f : scale;
	}
};

// A rate of F[0] at site I[site]; the host leaves the threshold in I[3].
__device__ __forceinline__ Mask mask_of(const Args &a, int key, int site) {
	Mask m;
	m.seed = a.s->seed, m.step = (u32)a.s->step, m.key = key, m.site = site, m.cut = a.i[3];
	m.scale = a.f[0] < 1 ? (float)(1 / (1 - a.f[0])) : 0.f;
	return m;
}

// The distribution function of N(0,1), GELU and its derivative.
__device__ __forceinline__ float normal(float x) { return 0.5f * erfcf(x * -0.70710678118654752f); }
__device__ __forceinline__ float gelu(float x) { return x * normal(x); }
__device__ __forceinline__ float gelu_d(float x) { return normal(x) + x * (0.39894228040143268f * expf(-0.5f * x * x)); }

__device__ __forceinline__ float sigmoid(float x) {
	float e = expf(-fabsf(x));
	return x >= 0 ? 1 / (1 + e) : e / (1 + e);
}
__device__ __forceinline__ float softplus(float x) { return fmaxf(x, 0.f) + log1pf(expf(-fabsf(x))); }
