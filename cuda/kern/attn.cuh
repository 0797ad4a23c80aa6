// Attention on packed sequences: what forward and backward have in common. Blocks of 256 threads take 64
// queries by 64 keys of one head at a time; thread (x,y) has queries y + 16 i and keys 4 x + j, so that
// its four keys share a block of random words. Nothing of the size of queries by keys is stored.
#pragma once
#include "common.cuh"

static const int TILE = 64, KEYS_LD = TILE + 4; // rows of probabilities in shared memory

// q, k, v, offsets, keys or dead are inputs 0 to 4; I[0] = heads, I[1] = 1: one query a sequence, I[2] =
// site, I[3] = threshold; F[0] = rate, F[1] = scale.
struct Span {
	int seq, tile; // of a sequence, and which tile of it
	int q0, nq, k0, nk;
};

// Finds tile number `at` of all tiles of all sequences: every warp looks for itself.
__device__ __forceinline__ bool find_tile(const Args &a, int at, bool queries, Span &s) {
	const int *o = ints(a.in[3]);
	int n = real_seqs(a.in[3], a.s), base = 0;
	bool single = a.i[1] == 1;
	if (single && queries) {
		if (at >= n) return false;
		s.seq = at, s.tile = 0;
	} else {
		for (s.seq = -1; base < n; base += 32) {
			int i = base + lane(), tiles = i < n ? (o[i + 1] - o[i] + TILE - 1) / TILE : 0, sum = tiles;
#pragma unroll
			for (int d = 1; d < 32; d *= 2) {
				int v = __shfl_up_sync(~0u, sum, d);
				if (lane() >= d) sum += v;
			}
			u32 here = __ballot_sync(~0u, at < sum);
			if (here) {
				int l = __ffs(here) - 1;
				s.seq = base + l, s.tile = at - __shfl_sync(~0u, sum - tiles, l);
				break;
			}
			at -= __shfl_sync(~0u, sum, 31);
		}
		if (s.seq < 0) return false;
	}
	s.k0 = o[s.seq], s.nk = o[s.seq + 1] - s.k0;
	s.q0 = single ? s.seq : s.k0, s.nq = single ? 1 : s.nk;
	return true;
}

// Key j of a tile is kept in this row, so that a thread's four keys are 16 rows apart: they and those of
// the threads beside it meet each bank once.
__device__ __forceinline__ int key_row(int j) { return j / 4 + j % 4 * 16; }

// Copies rows from i on of a head to shared memory, d columns of D; the rest is 0. Args.vec: columns come in
// fours that 16 bytes align.
template <int D, int LD, bool KEYS, int THREADS> __device__ __forceinline__ void load_rows(float *to, const Args &a, const Mat &m, int first, int i, int n, int head, int d) {
	const float *from = row(m, first + i) + head * d;
	if (a.vec) {
#pragma unroll
		for (int e = threadIdx.x; e < TILE * D / 4; e += THREADS) {
			int r = e / (D / 4), c = e % (D / 4) * 4;
			float4 v = make_float4(0, 0, 0, 0);
			if (i + r < n && c < d) v = *(const float4 *)(from + (size_t)r * m.ld + c);
			*(float4 *)(to + (KEYS ? key_row(r) : r) * LD + c) = v;
		}
		return;
	}
#pragma unroll 4
	for (int e = threadIdx.x; e < TILE * D; e += THREADS) {
		int r = e / D, c = e % D;
		to[(KEYS ? key_row(r) : r) * LD + c] = i + r < n && c < d ? from[(size_t)r * m.ld + c] : 0.f;
	}
}

// s[i][j] = a's row y + 16 i times b's row x + 16 j
template <int D, int LD> __device__ __forceinline__ void row_products(float (&s)[4][4], const float *a, const float *b, int x, int y) {
#pragma unroll
	for (int i = 0; i < 4; i++)
#pragma unroll
		for (int j = 0; j < 4; j++) s[i][j] = 0;
#pragma unroll 4
	for (int c = 0; c < D; c += 4) {
		float4 p[4], q[4];
#pragma unroll
		for (int i = 0; i < 4; i++) p[i] = *(const float4 *)(a + (y + 16 * i) * LD + c), q[i] = *(const float4 *)(b + (x + 16 * i) * LD + c);
#pragma unroll
		for (int i = 0; i < 4; i++)
#pragma unroll
			for (int j = 0; j < 4; j++) s[i][j] += p[i].x * q[j].x + p[i].y * q[j].y + p[i].z * q[j].z + p[i].w * q[j].w;
	}
}

// What dropout multiplies the probabilities of query q and keys k to k+3 by.
__device__ __forceinline__ void keep_four(const Mask &m, int q, int k, float (&keep)[4]) { m.four(((u32)q << 16 | (u32)k) >> 2, keep); }
