// Matrix products in float32 without tensor cores.
#include "gemm.cuh"

#define KERNELS(size, threads, blocks, ...)                                                                                              \
	extern "C" __global__ void __launch_bounds__(threads, blocks) fp32_nt_##size(const Gemm g) { rows_kernel<Shape<__VA_ARGS__, FP32, false, false>>(g); } \
	extern "C" __global__ void __launch_bounds__(threads, blocks) fp32_nn_##size(const Gemm g) { rows_kernel<Shape<__VA_ARGS__, FP32, false, true>>(g); }  \
	extern "C" __global__ void __launch_bounds__(threads, blocks) fp32_tn_##size(const Gemm g) { sum_kernel<Shape<__VA_ARGS__, FP32, true, true>>(g); }

KERNELS(128, 256, 2, 128, 128, 64, 32, 256, 3)
KERNELS(64, 256, 2, 64, 64, 32, 32, 256, 3)
