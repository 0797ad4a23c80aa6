// Adds up the partial sums of MatTN in order.
#include "gemm.cuh"

extern "C" __global__ void gemm_sum(const Gemm g) {
	int e = blockIdx.x * blockDim.x + threadIdx.x, k = 0;
	if (e >= g.total) return;
	while (k + 1 < g.blocks && e >= g.col[k + 1]) k++;
	float v = 0;
#pragma unroll 4
	for (int u = 0; u < g.splits; u++) v += g.part[(size_t)u * g.total + e];
	int i = e - g.col[k], n = g.n[k], size = g.m[k] * n;
	if (i < size) put(g.out[k] + (size_t)(i / n) * g.ld[k] + i % n, v, g.accs[k] & 1);
	else if (g.sum[k] && i - size < g.m[k]) put(g.sum[k] + (i - size), v, g.accs[k] & 2);
}
