// Matrix products on tensor cores: operands rounded to bf16, sums in float32.
#include "gemm.cuh"

#define ROWS(size, threads, blocks, ...)                                                                                                              \
	extern "C" __global__ void __launch_bounds__(threads, blocks) bf16_nt_##size(const Gemm g) { rows_kernel<Shape<__VA_ARGS__, BF16, false, false>>(g); } \
	extern "C" __global__ void __launch_bounds__(threads, blocks) bf16_nn_##size(const Gemm g) { rows_kernel<Shape<__VA_ARGS__, BF16, false, true>>(g); }
#define SUMS(size, threads, ...) \
	extern "C" __global__ void __launch_bounds__(threads, 1) bf16_tn_##size(const Gemm g) { sum_kernel<Shape<__VA_ARGS__, BF16, true, true>>(g); }

ROWS(128, 256, 2, 128, 128, 64, 32, 256, 3)
ROWS(64, 128, 3, 64, 64, 32, 32, 128, 3)
SUMS(128, 256, 128, 128, 64, 32, 256, 3)
SUMS(64, 128, 64, 64, 32, 32, 128, 3)
