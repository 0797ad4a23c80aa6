// Matrix products in float32 without tensor cores.
#include "gemm.cuh"

#define ROWS(size, threads, blocks, ...)                                                                                                              \
	extern "C" __global__ void __launch_bounds__(threads, blocks) fp32_nt_##size(const Gemm g) { rows_kernel<Shape<__VA_ARGS__, FP32, false, false>>(g); } \
	extern "C" __global__ void __launch_bounds__(threads, blocks) fp32_nn_##size(const Gemm g) { rows_kernel<Shape<__VA_ARGS__, FP32, false, true>>(g); }
#define SUMS(size, threads, ...) \
	extern "C" __global__ void __launch_bounds__(threads, 1) fp32_tn_##size(const Gemm g) { sum_kernel<Shape<__VA_ARGS__, FP32, true, true>>(g); }

ROWS(128, 256, 2, 128, 128, 64, 32, 256, 3)
ROWS(96, 256, 1, 128, 96, 64, 32, 256, 3)
ROWS(64, 256, 2, 64, 64, 32, 32, 256, 3)
SUMS(128, 256, 128, 128, 64, 32, 256, 3)
SUMS(64, 256, 64, 64, 32, 32, 256, 3)
