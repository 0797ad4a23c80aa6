// Element by element: one thread an element, or four of them where rows are whole numbers of float4.
#include "common.cuh"

// Calls f(row, column, x, v) for W neighbours of each row: x[k] are those of input k, v is the result.
template <int N, int W, class F> __device__ __forceinline__ void elements(const Args &a, const F &f) {
	const Mat &y = a.out[0];
	u32 i = blockIdx.x * blockDim.x + threadIdx.x, w = y.cols / W, r = i / w, c = (i - r * w) * W;
	if (r >= real_rows(y, a.s)) return;
	float x[N > 0 ? N : 1][W], v[W];
#pragma unroll
	for (int k = 0; k < N; k++) {
		const Mat &m = a.in[k];
		if (!m.p) {
#pragma unroll
			for (int j = 0; j < W; j++) x[k][j] = 0;
		} else if (W == 4) {
			*(float4 *)x[k] = *(const float4 *)(row(m, r) + c);
		} else {
			x[k][0] = row(m, r)[c];
		}
	}
	f(r, c, x, v);
	float *to = row(y, r) + c;
	if (W == 4) {
		if (a.acc & 1) {
			float4 old = *(float4 *)to;
			v[0] += old.x, v[1] += old.y, v[2] += old.z, v[3] += old.w;
		}
		*(float4 *)to = make_float4(v[0], v[1], v[2], v[3]);
	} else {
		put(to, v[0], a.acc & 1);
	}
}

// The same for f(x) of one element.
template <int N, int W, class F> __device__ __forceinline__ void map(const Args &a, const F &f) {
	elements<N, W>(a, [&](u32, u32, float(&x)[N > 0 ? N : 1][W], float(&v)[W]) {
#pragma unroll
		for (int j = 0; j < W; j++) {
			float e[N > 0 ? N : 1];
#pragma unroll
			for (int k = 0; k < N; k++) e[k] = x[k][j];
			v[j] = f(e);
		}
	});
}

// Kernels by width, which the host chooses by Args.vec.
#define ELEMENTS(name, N, f)                                                                              \
	extern "C" __global__ void name##1(const Args a) { map<N, 1>(a, [&](const float *x) { return f; }); } \
	extern "C" __global__ void name##4(const Args a) { map<N, 4>(a, [&](const float *x) { return f; }); }

__device__ __forceinline__ float unary_of(int f, float x) {
	switch (f) {
	case 0: return gelu(x);
	case 1: return tanhf(x);
	case 2: return x > 0 ? x : 0;
	case 3: return sigmoid(x);
	case 4: return softplus(x);
	case 5: return expf(x);
	case 6: return x * x;
	case 8: return x > 0 ? 1 / sqrtf(x) : 0;
	}
	return x > 0 ? 1 : 0;
}

// x is the argument, y the value; the one that is not read is 0.
__device__ __forceinline__ float unary_d(int f, float x, float y) {
	switch (f) {
	case 0: return gelu_d(x);
	case 1: return 1 - y * y;
	case 2: return x > 0 ? 1 : 0;
	case 3: return y * (1 - y);
	case 4: return sigmoid(x);
	case 5: return y;
	case 8: return -0.5f * y * y * y;
	}
	return 2 * x;
}

ELEMENTS(unary, 1, unary_of(a.i[0], x[0]))
ELEMENTS(unary_grad, 3, x[2] * unary_d(a.i[0], x[0], x[1]))
ELEMENTS(add, 2, x[0] + x[1])
ELEMENTS(sub, 2, x[0] - x[1])
ELEMENTS(mul, 2, x[0] * x[1])
ELEMENTS(scale, 1, x[0] * (float)a.f[0])
ELEMENTS(fill, 0, (float)a.f[0])
ELEMENTS(copy, 1, x[0])
ELEMENTS(mulconst, 1, x[0] * a.in[1].p[0])
ELEMENTS(bce, 2, softplus(x[0]) - x[0] * x[1])
ELEMENTS(bce_grad, 3, x[2] * (sigmoid(x[0]) - x[1]))

// mulcols: y (R,C); x (R,C), g, c or dead, b or dead (C)
template <int W> __device__ __forceinline__ void mul_cols(const Args &a) {
	elements<1, W>(a, [&](u32, u32 c, float(&x)[1][W], float(&v)[W]) {
#pragma unroll
		for (int j = 0; j < W; j++) {
			v[j] = x[0][j] * a.in[1].p[c + j];
			if (a.in[2].p) v[j] *= a.in[2].p[c + j];
			if (a.in[3].p) v[j] += a.in[3].p[c + j];
		}
	});
}
extern "C" __global__ void mulcols1(const Args a) { mul_cols<1>(a); }
extern "C" __global__ void mulcols4(const Args a) { mul_cols<4>(a); }

// dropout: y; x, keys, seqs or dead, pos or dead
template <int W> __device__ __forceinline__ void drop(const Args &a) {
	elements<1, W>(a, [&](u32 r, u32 c, float(&x)[1][W], float(&v)[W]) {
		int s = r, p = 0;
		if (a.in[2].p) s = ints(a.in[2])[r], p = ints(a.in[3])[r];
		Mask m = mask_of(a, ints(a.in[1])[s], a.i[0]);
		u32 e = (u32)p * a.out[0].cols + c;
		if (W == 4) { // c and the row's width are multiples of 4
			float keep[4];
			m.four(e >> 2, keep);
#pragma unroll
			for (int j = 0; j < W; j++) v[j] = keep[j] == 0 ? 0.f : x[0][j] * keep[j];
		} else {
			float keep = m.one(e);
			v[0] = keep == 0 ? 0.f : x[0][0] * keep; // whatever x is
		}
	});
}
extern "C" __global__ void dropout1(const Args a) { drop<1>(a); }
extern "C" __global__ void dropout4(const Args a) { drop<4>(a); }

// dx (R,C); dy (R,1)
extern "C" __global__ void rowsum_grad1(const Args a) {
	elements<0, 1>(a, [&](u32 r, u32, float(&)[1][1], float(&v)[1]) { v[0] = row(a.in[0], r)[0]; });
}

// y (B,K·K); x (B,K)
extern "C" __global__ void pairs1(const Args a) {
	u32 n = a.in[0].cols;
	elements<0, 1>(a, [&](u32 r, u32 c, float(&)[1][1], float(&v)[1]) {
		const float *x = row(a.in[0], r);
		v[0] = x[c / n] - x[c % n];
	});
}
extern "C" __global__ void outer1(const Args a) {
	u32 n = a.in[0].cols;
	elements<0, 1>(a, [&](u32 r, u32 c, float(&)[1][1], float(&v)[1]) {
		const float *x = row(a.in[0], r);
		v[0] = x[c / n] * x[c % n];
	});
}

// dx (B,K); dy (B,K·K)
extern "C" __global__ void pairs_grad1(const Args a) {
	u32 n = a.out[0].cols;
	elements<0, 1>(a, [&](u32 r, u32 c, float(&)[1][1], float(&v)[1]) {
		const float *dy = row(a.in[0], r);
		float s = 0;
		for (u32 k = 0; k < n; k++) s += dy[c * n + k] - dy[k * n + c];
		v[0] = s;
	});
}

// y (B,K); x (N,1), slots (B,K)
extern "C" __global__ void gather1(const Args a) {
	elements<0, 1>(a, [&](u32 r, u32 c, float(&)[1][1], float(&v)[1]) {
		int s = ((const int *)row(a.in[1], r))[c];
		v[0] = s >= 0 ? row(a.in[0], s)[0] : 0;
	});
}
