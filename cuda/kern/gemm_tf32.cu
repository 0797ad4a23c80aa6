// Matrix products on tensor cores: operands rounded to tf32, sums in float32.
#include "gemm.cuh"

#define ROWS(size, threads, blocks, ...)                                                                                                              \
	extern "C" __global__ void __launch_bounds__(threads, blocks) tf32_nt_##size(const Gemm g) { rows_kernel<Shape<__VA_ARGS__, TF32, false, false>>(g); } \
	extern "C" __global__ void __launch_bounds__(threads, blocks) tf32_nn_##size(const Gemm g) { rows_kernel<Shape<__VA_ARGS__, TF32, false, true>>(g); }
#define SUMS(size, threads, ...) \
	extern "C" __global__ void __launch_bounds__(threads, 1) tf32_tn_##size(const Gemm g) { sum_kernel<Shape<__VA_ARGS__, TF32, true, true>>(g); }

ROWS(128, 256, 2, 128, 128, 64, 32, 256, 3)
ROWS(64, 128, 3, 64, 64, 32, 32, 128, 3)
SUMS(128, 256, 128, 128, 64, 32, 256, 3)
SUMS(64, 128, 64, 64, 32, 32, 128, 3)
