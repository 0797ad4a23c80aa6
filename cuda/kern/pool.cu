// Pooling of packed sequences. Forward: a block a sequence, a thread a column. Backward: several blocks
// share the tokens of a sequence.
#include "common.cuh"

// y (N,D); x (T,D), offsets
extern "C" __global__ void first(const Args a) {
	int s = blockIdx.x;
	if (s >= real_rows(a.out[0], a.s)) return;
	const int *o = ints(a.in[1]);
	for (int j = threadIdx.x; j < a.out[0].cols; j += blockDim.x) row(a.out[0], s)[j] = o[s] < o[s + 1] ? row(a.in[0], o[s])[j] : 0;
}

extern "C" __global__ void mean(const Args a) {
	int s = blockIdx.x;
	if (s >= real_rows(a.out[0], a.s)) return;
	int from = ints(a.in[1])[s], to = ints(a.in[1])[s + 1];
	float k = 1.f / max(1, to - from);
	for (int j = threadIdx.x; j < a.out[0].cols; j += blockDim.x) {
		float v = 0;
		for (int i = from; i < to; i++) v += k * row(a.in[0], i)[j];
		row(a.out[0], s)[j] = v;
	}
}

// y (N,D), at (N,D); x, offsets
extern "C" __global__ void max_pool(const Args a) {
	int s = blockIdx.x;
	if (s >= real_seqs(a.in[1], a.s)) return;
	int from = ints(a.in[1])[s], to = ints(a.in[1])[s + 1];
	for (int j = threadIdx.x; j < a.in[0].cols; j += blockDim.x) {
		float best = 0, at = 0;
		for (int i = from; i < to; i++) {
			float v = row(a.in[0], i)[j];
			if (i == from || v > best) best = v, at = i - from;
		}
		if (a.out[0].p) row(a.out[0], s)[j] = best;
		if (a.out[1].p) row(a.out[1], s)[j] = at;
	}
}

// Calls f(sequence, place in it, row of dx, column) for all tokens of this block.
template <class F> __device__ __forceinline__ void tokens(const Args &a, const Mat &offsets, const F &f) {
	int s = blockIdx.x;
	if (s >= real_seqs(offsets, a.s)) return;
	int from = ints(offsets)[s], to = ints(offsets)[s + 1];
	for (int i = from + blockIdx.y; i < to; i += gridDim.y)
		for (int j = threadIdx.x; j < a.out[0].cols; j += blockDim.x) row(a.out[0], i)[j] = f(s, i - from, to - from, j);
}

// dx (T,D); dy (N,D), offsets
extern "C" __global__ void first_grad(const Args a) {
	tokens(a, a.in[1], [&](int s, int place, int, int j) { return place == 0 ? row(a.in[0], s)[j] : 0.f; });
}
extern "C" __global__ void mean_grad(const Args a) {
	tokens(a, a.in[1], [&](int s, int, int n, int j) { return row(a.in[0], s)[j] * (1.f / n); });
}
// dx; dy, at, offsets
extern "C" __global__ void max_grad(const Args a) {
	tokens(a, a.in[2], [&](int s, int place, int, int j) { return (int)row(a.in[1], s)[j] == place ? row(a.in[0], s)[j] : 0.f; });
}
