/* What package cuda does on every step, each in one call from Go: see hot.go. */
#ifndef GPU_HOT_H
#define GPU_HOT_H

#include <stddef.h>
#include "../abi/include/cublaslt.h"
#include "../abi/include/cuda.h"

#pragma GCC visibility push(hidden)

/* A result, and the function that gave it: the driver's code or, where that is CUDA_SUCCESS, cuBLASLt's status. */
struct gpu_result {
	CUresult code;
	const char *call;
	cublasStatus_t status;
};

/* One kernel launch, or a product by cuBLASLt. All kernels take one structure, by value. */
struct gpu_launch {
	CUfunction function;
	unsigned grid[3], block, shared;
	void *args;
	struct gpu_product *product; /* see products.h; NULL: a kernel */
	/*
	 * Of what there are two ways to do: a number from 1 on if it belongs to the way by cuBLASLt, the same below 0 if to the
	 * way by kernels of our own. 0: done in any case.
	 */
	int choice, skip;
};

/* Launches, and what they need. */
struct gpu_list {
	CUcontext context;
	CUstream stream;
	cublasLtHandle_t handle; /* of products; NULL: there are none */
	struct gpu_launch *launches;
	int n, choices; /* the greatest choice */
};

struct gpu_result gpu_open(int ordinal, CUcontext *context, CUstream *stream);
struct gpu_result gpu_close(int ordinal, CUcontext context, CUstream stream);
struct gpu_result gpu_load(CUcontext context, const char *image, CUmodule *module);
struct gpu_result gpu_kernel(CUcontext context, CUmodule module, const char *name, int shared, CUfunction *function);
struct gpu_result gpu_alloc(CUcontext context, CUstream stream, size_t n, CUdeviceptr *memory);
struct gpu_result gpu_available(CUcontext context, size_t *available, size_t *total);
struct gpu_result gpu_free(CUcontext context, CUdeviceptr memory);
struct gpu_result gpu_pin(CUcontext context, size_t n, void **memory);
struct gpu_result gpu_unpin(CUcontext context, void *memory);
struct gpu_result gpu_write(CUcontext context, CUstream stream, CUdeviceptr to, const void *from, size_t n);
struct gpu_result gpu_read(CUcontext context, CUstream stream, void *to, CUdeviceptr from, size_t n);
struct gpu_result gpu_fetch(CUcontext context, CUstream stream, void *to, CUdeviceptr from, size_t n);
struct gpu_result gpu_clear(CUcontext context, CUstream stream, CUdeviceptr to, size_t n);
struct gpu_result gpu_wait(CUcontext context, CUstream stream);

/* Chooses the ways for as many real rows as counts has by axis, and sets products to them. */
struct gpu_result gpu_choose(struct gpu_list *list, const int *counts, int *failed);
/* Launches in order; *failed is the one that was refused. With wait each is waited for. */
struct gpu_result gpu_run(const struct gpu_list *list, int wait, int *failed);
/* The same with the milliseconds of each: 0 for the way that was not chosen. */
struct gpu_result gpu_time(const struct gpu_list *list, float *ms, int *failed);
/* Makes the launches a graph. */
struct gpu_result gpu_capture(const struct gpu_list *list, CUgraphExec *graph, int *failed);
struct gpu_result gpu_replay(CUcontext context, CUstream stream, CUgraphExec graph);
struct gpu_result gpu_drop(CUcontext context, CUgraphExec graph);

#pragma GCC visibility pop

#endif
