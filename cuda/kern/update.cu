// Norms of gradients, and what changes weights. Many tensors are one launch: a table in device memory,
// written when the program is encoded, gives each block its piece.
#include "common.cuh"

struct Piece { // of a gradient: elements start to start + n
	const float *g;
	int cols, ld, start, n;
};

// sumsq_pieces: scratch is a double for each piece; in[0].p is the table
extern "C" __global__ void sumsq_pieces(const Args a) {
	const Piece p = ((const Piece *)a.in[0].p)[blockIdx.x];
	double s = 0;
	int k = threadIdx.x;
	if (p.cols >= p.start + p.n && (size_t)(p.g + p.start) % 16 == 0) { // of one row
		const float4 *g = (const float4 *)(p.g + p.start);
#pragma unroll 4
		for (; k < p.n / 4; k += blockDim.x) {
			float4 v = g[k];
			s += (double)v.x * v.x + (double)v.y * v.y + (double)v.z * v.z + (double)v.w * v.w;
		}
		k = p.n / 4 * 4 + threadIdx.x;
	}
	for (; k < p.n; k += blockDim.x) {
		int i = p.start + k, r = i / p.cols;
		float v = p.g[(size_t)r * p.ld + (i - r * p.cols)];
		s += (double)v * v;
	}
	s = block_sum(s);
	if (threadIdx.x == 0) ((double *)a.scratch)[blockIdx.x] = s;
}

// sumsq: s (1,n). in[1] has the first piece of each tensor, and the end
extern "C" __global__ void sumsq(const Args a) {
	int i = blockIdx.x, from = ints(a.in[1])[i], to = ints(a.in[1])[i + 1];
	double s = 0;
	for (int k = from + threadIdx.x; k < to; k += blockDim.x) s += ((const double *)a.scratch)[k];
	s = block_sum(s);
	if (threadIdx.x == 0) a.out[0].p[i] = (float)sqrt(s);
}

// clip: f (1,2); s (1,n). torch's clip_grad_norm_: min(1, clip/(norm + 1e-6))
extern "C" __global__ void clip(const Args a) {
	double s = 0;
	for (int i = threadIdx.x; i < a.in[0].cols; i += blockDim.x) s += (double)a.in[0].p[i] * a.in[0].p[i];
	double norm = sqrt(block_sum(s)), most = a.s->clip;
	if (threadIdx.x != 0) return;
	float f = most > 0 ? (float)fmin(1.0, most / (norm + 1e-6)) : 1.f, n = (float)norm;
	if (!(fabsf(n) < INF)) f = __int_as_float(0x7fc00000); // also where float cannot hold it
	a.out[0].p[0] = f, a.out[0].p[1] = n;
}

struct Update { // of n weights
	float *w, *m, *v, *top;
	const float *g;
	int n, group, flag, _;
	double f[4]; // β1 or momentum, β2, ε, decay
};

// x to the power of n
__device__ double power(double x, u64 n) {
	double y = 1;
	for (; n; n >>= 1, x *= x)
		if (n & 1) y *= x;
	return y;
}

// Calls f for each element of this block's piece, unless the factor of the gradient is NaN.
template <class F> __device__ __forceinline__ void update(const Args &a, const F &f) {
	float factor = a.in[1].p[0];
	if (factor != factor) return;
	const Update u = ((const Update *)a.in[0].p)[blockIdx.x];
	for (int i = threadIdx.x; i < u.n; i += blockDim.x) f(u, i, u.g[i] * factor);
}

// adamw: Loshchilov and Hutter's update as torch writes it: decay of the weight first, bias correction of
// both moments, ε outside the root. flag: the decay is added to the gradient.
extern "C" __global__ void adamw(const Args a) {
	__shared__ float correction[2];
	if (threadIdx.x == 0) {
		const Update &u = ((const Update *)a.in[0].p)[blockIdx.x];
		u64 t = a.s->step + 1;
		correction[0] = (float)(a.s->lr[u.group] / (1 - power(u.f[0], t)));
		correction[1] = (float)sqrt(1 - power(u.f[1], t));
	}
	__syncthreads();
	float step = correction[0], root = correction[1];
	update(a, [&](const Update &u, int i, float d) {
		float w = u.w[i], decay = (float)u.f[3];
		if (u.flag) d += decay * w;
		else w *= (float)(1 - a.s->lr[u.group] * u.f[3]);
		float m = u.m[i] + (float)(1 - u.f[0]) * (d - u.m[i]), v = (float)u.f[1] * u.v[i] + (float)(1 - u.f[1]) * d * d;
		u.m[i] = m, u.v[i] = v;
		if (u.top) u.top[i] = v = fmaxf(u.top[i], v);
		u.w[i] = w - step * m / (sqrtf(v) / root + (float)u.f[2]);
	});
}

// sgd: stochastic gradient descent with momentum m = μ m + d, as torch writes it. flag: Nesterov's
extern "C" __global__ void sgd(const Args a) {
	update(a, [&](const Update &u, int i, float d) {
		float mu = (float)u.f[0];
		d += (float)u.f[3] * u.w[i];
		float m = u.m[i] = mu * u.m[i] + d;
		u.w[i] -= (float)a.s->lr[u.group] * (u.flag ? d + mu * m : m);
	});
}

// adagrad: v += d², w -= lr d / (√v + ε)
extern "C" __global__ void adagrad(const Args a) {
	update(a, [&](const Update &u, int i, float d) {
		d += (float)u.f[3] * u.w[i];
		float v = u.v[i] += d * d;
		u.w[i] -= (float)a.s->lr[u.group] * d / (sqrtf(v) + (float)u.f[2]);
	});
}

// shrink: w = sign(w) max(|w| - lr λ, 0), the proximal step of λ |w|
extern "C" __global__ void shrink(const Args a) {
	float factor = a.in[1].p[0];
	if (factor != factor) return;
	const Update u = ((const Update *)a.in[0].p)[blockIdx.x];
	float by = (float)(a.s->lr[u.group] * u.f[0]);
	for (int i = threadIdx.x; i < u.n; i += blockDim.x) {
		float w = u.w[i];
		u.w[i] = w > by ? w - by : w < -by ? w + by : 0.f;
	}
}

// row_norm: s (R,1); x (R,C). A block a row; squares are summed in float64
extern "C" __global__ void row_norm(const Args a) {
	int i = blockIdx.x;
	if (i >= real_rows(a.out[0], a.s)) return;
	const float *x = row(a.in[0], i);
	double s = 0;
	for (int j = threadIdx.x; j < a.in[0].cols; j += blockDim.x) s += (double)x[j] * x[j];
	s = block_sum(s);
	if (threadIdx.x == 0) row(a.out[0], i)[0] = (float)sqrt(s);
}

// clip_rows: f (R,n); s (R,n). f[0] = C; i[0] = 1: each column by itself, at C/√n
extern "C" __global__ void clip_rows(const Args a) {
	int i = warp_row(), n = a.in[0].cols;
	if (i >= real_rows(a.out[0], a.s)) return;
	const float *x = row(a.in[0], i);
	float *f = row(a.out[0], i);
	double all = 0, most = a.f[0];
	if (a.i[0] == 1) most /= sqrt((double)n);
	else {
		for (int j = lane(); j < n; j += 32) all += (double)x[j] * x[j];
		all = sqrt(warp_sum(all));
	}
	for (int j = lane(); j < n; j += 32) {
		double s = a.i[0] == 1 ? (double)x[j] : all;
		f[j] = s < INF ? (s > most ? (float)(most / s) : 1.f) : 0.f;
	}
}

// sum_rows: y (1,C); x (R,C), f (R,1). A thread a column; rows are added front to back
extern "C" __global__ void sum_rows(const Args a) {
	int j = blockIdx.x * blockDim.x + threadIdx.x;
	if (j >= a.out[0].cols) return;
	float y = a.acc & 1 ? a.out[0].p[j] : 0;
	for (int i = 0, n = real_rows(a.in[0], a.s); i < n; i++) {
		float f = row(a.in[1], i)[0];
		if (f != 0) y += f * row(a.in[0], i)[j];
	}
	a.out[0].p[j] = y;
}
