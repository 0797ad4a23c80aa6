//go:build gpu

/*
 * Goroutines move between threads, and a context is current on a thread: every function makes it current first, so that
 * one call from Go does its work whole.
 */
#include "hot.h"
#include <stdlib.h>
#include "products.h"

#define TRY(function, arguments)                                   \
	do {                                                       \
		CUresult code_ = function arguments;               \
		if (code_ != CUDA_SUCCESS)                         \
			return (struct gpu_result){code_, #function, 0}; \
	} while (0)
#define DONE return (struct gpu_result){CUDA_SUCCESS, "", CUBLAS_STATUS_SUCCESS}

struct gpu_result gpu_open(int ordinal, CUcontext *context, CUstream *stream) {
	CUdevice device;
	TRY(cuDeviceGet, (&device, ordinal));
	TRY(cuDevicePrimaryCtxRetain, (context, device));
	TRY(cuCtxSetCurrent, (*context));
	TRY(cuStreamCreate, (stream, CU_STREAM_NON_BLOCKING));
	DONE;
}

struct gpu_result gpu_close(int ordinal, CUcontext context, CUstream stream) {
	CUdevice device;
	TRY(cuCtxSetCurrent, (context));
	TRY(cuStreamDestroy_v2, (stream));
	TRY(cuDeviceGet, (&device, ordinal));
	TRY(cuDevicePrimaryCtxRelease_v2, (device));
	DONE;
}

struct gpu_result gpu_load(CUcontext context, const char *image, CUmodule *module) {
	TRY(cuCtxSetCurrent, (context));
	TRY(cuModuleLoadData, (module, image));
	DONE;
}

struct gpu_result gpu_kernel(CUcontext context, CUmodule module, const char *name, int shared, CUfunction *function) {
	TRY(cuCtxSetCurrent, (context));
	TRY(cuModuleGetFunction, (function, module, name));
	if (shared > 48 << 10)
		TRY(cuFuncSetAttribute, (*function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared));
	DONE;
}

struct gpu_result gpu_alloc(CUcontext context, CUstream stream, size_t n, CUdeviceptr *memory) {
	TRY(cuCtxSetCurrent, (context));
	TRY(cuMemAlloc_v2, (memory, n));
	CUresult code = cuMemsetD8Async(*memory, 0, n, stream);
	if (code != CUDA_SUCCESS) {
		cuMemFree_v2(*memory);
		return (struct gpu_result){code, "cuMemsetD8Async", 0};
	}
	DONE;
}

struct gpu_result gpu_available(CUcontext context, size_t *available, size_t *total) {
	TRY(cuCtxSetCurrent, (context));
	TRY(cuMemGetInfo_v2, (available, total));
	DONE;
}

struct gpu_result gpu_free(CUcontext context, CUdeviceptr memory) {
	TRY(cuCtxSetCurrent, (context));
	TRY(cuMemFree_v2, (memory));
	DONE;
}

struct gpu_result gpu_pin(CUcontext context, size_t n, void **memory) {
	TRY(cuCtxSetCurrent, (context));
	TRY(cuMemHostAlloc, (memory, n, 0));
	DONE;
}

struct gpu_result gpu_unpin(CUcontext context, void *memory) {
	TRY(cuCtxSetCurrent, (context));
	TRY(cuMemFreeHost, (memory));
	DONE;
}

struct gpu_result gpu_write(CUcontext context, CUstream stream, CUdeviceptr to, const void *from, size_t n) {
	TRY(cuCtxSetCurrent, (context));
	TRY(cuMemcpyHtoDAsync_v2, (to, from, n, stream));
	DONE;
}

struct gpu_result gpu_fetch(CUcontext context, CUstream stream, void *to, CUdeviceptr from, size_t n) {
	TRY(cuCtxSetCurrent, (context));
	TRY(cuMemcpyDtoHAsync_v2, (to, from, n, stream));
	DONE;
}

struct gpu_result gpu_read(CUcontext context, CUstream stream, void *to, CUdeviceptr from, size_t n) {
	TRY(cuCtxSetCurrent, (context));
	TRY(cuMemcpyDtoHAsync_v2, (to, from, n, stream));
	TRY(cuStreamSynchronize, (stream));
	DONE;
}

struct gpu_result gpu_clear(CUcontext context, CUstream stream, CUdeviceptr to, size_t n) {
	TRY(cuCtxSetCurrent, (context));
	TRY(cuMemsetD8Async, (to, 0, n, stream));
	DONE;
}

struct gpu_result gpu_wait(CUcontext context, CUstream stream) {
	TRY(cuCtxSetCurrent, (context));
	TRY(cuStreamSynchronize, (stream));
	DONE;
}

struct gpu_result gpu_choose(struct gpu_list *list, const int *counts, int *failed) {
	TRY(cuCtxSetCurrent, (list->context));
	char *refused = calloc(list->choices + 1, 1);
	if (!refused)
		return (struct gpu_result){CUDA_ERROR_OUT_OF_MEMORY, "calloc", 0};
	for (int i = 0; i < list->n; i++) {
		struct gpu_launch *l = list->launches + i;
		struct gpu_product *p = l->product;
		if (!p)
			continue;
		int64_t rows = p->by_k ? p->k : p->n;
		if (p->axis >= 0 && counts[p->axis] < rows)
			rows = counts[p->axis];
		int fits;
		struct gpu_result r = gpu_lt_set(list->handle, p, rows, &fits);
		if (r.status != CUBLAS_STATUS_SUCCESS) {
			*failed = i;
			free(refused);
			return r;
		}
		refused[l->choice] |= !fits;
	}
	for (int i = 0; i < list->n; i++) {
		int c = list->launches[i].choice;
		list->launches[i].skip = c > 0 ? refused[c] : c < 0 ? !refused[-c] : 0;
	}
	free(refused);
	*failed = -1;
	DONE;
}

static struct gpu_result launch(const struct gpu_list *list, CUstream stream, const struct gpu_launch *l) {
	if (l->product)
		return (struct gpu_result){CUDA_SUCCESS, "cublasLtMatmul", gpu_lt_matmul(list->handle, l->product, stream)};
	void *parameters[] = {l->args};
	TRY(cuLaunchKernel,
		(l->function, l->grid[0], l->grid[1], l->grid[2], l->block, 1, 1, l->shared, stream, parameters, NULL));
	DONE;
}

static int refused(struct gpu_result r) { return r.code != CUDA_SUCCESS || r.status != CUBLAS_STATUS_SUCCESS; }

struct gpu_result gpu_run(const struct gpu_list *list, int wait, int *failed) {
	TRY(cuCtxSetCurrent, (list->context));
	for (int i = 0; i < list->n; i++) {
		const struct gpu_launch *l = list->launches + i;
		if (l->skip)
			continue;
		*failed = i;
		struct gpu_result r = launch(list, list->stream, l);
		if (refused(r))
			return r;
		if (wait)
			TRY(cuStreamSynchronize, (list->stream));
	}
	*failed = -1;
	DONE;
}

/* An event before the first launch and after each. */
static struct gpu_result time_events(const struct gpu_list *list, CUevent *events, float *ms, int *failed) {
	for (int i = 0; i <= list->n; i++)
		TRY(cuEventCreate, (events + i, 0));
	TRY(cuEventRecord, (events[0], list->stream));
	for (int i = 0; i < list->n; i++) {
		*failed = i;
		if (!list->launches[i].skip) {
			struct gpu_result r = launch(list, list->stream, list->launches + i);
			if (refused(r))
				return r;
		}
		TRY(cuEventRecord, (events[i + 1], list->stream));
	}
	*failed = -1;
	TRY(cuStreamSynchronize, (list->stream));
	for (int i = 0; i < list->n; i++) {
		ms[i] = 0;
		if (!list->launches[i].skip)
			TRY(cuEventElapsedTime, (ms + i, events[i], events[i + 1]));
	}
	DONE;
}

struct gpu_result gpu_time(const struct gpu_list *list, float *ms, int *failed) {
	TRY(cuCtxSetCurrent, (list->context));
	*failed = -1;
	CUevent *events = calloc(list->n + 1, sizeof *events);
	if (!events)
		return (struct gpu_result){CUDA_ERROR_OUT_OF_MEMORY, "calloc", 0};
	struct gpu_result r = time_events(list, events, ms, failed);
	for (int i = 0; i <= list->n; i++)
		if (events[i])
			cuEventDestroy_v2(events[i]);
	free(events);
	return r;
}

static struct gpu_result capture(const struct gpu_list *list, CUstream stream, CUgraph *graph, int *failed) {
	TRY(cuStreamBeginCapture_v2, (stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
	for (int i = 0; i < list->n; i++) {
		if (list->launches[i].skip)
			continue;
		struct gpu_result r = launch(list, stream, list->launches + i);
		if (refused(r)) {
			*failed = i;
			cuStreamEndCapture(stream, graph); /* which must end, and fails */
			return r;
		}
	}
	TRY(cuStreamEndCapture, (stream, graph));
	DONE;
}

struct gpu_result gpu_capture(const struct gpu_list *list, CUgraphExec *exec, int *failed) {
	CUstream stream; /* of its own: others go on using theirs */
	CUgraph graph = NULL;
	*failed = -1;
	TRY(cuCtxSetCurrent, (list->context));
	TRY(cuStreamCreate, (&stream, CU_STREAM_NON_BLOCKING));
	struct gpu_result r = capture(list, stream, &graph, failed);
	if (!refused(r)) {
		r.code = cuGraphInstantiateWithFlags(exec, graph, 0);
		r.call = "cuGraphInstantiateWithFlags";
	}
	if (graph)
		cuGraphDestroy(graph);
	cuStreamDestroy_v2(stream);
	return r;
}

struct gpu_result gpu_replay(CUcontext context, CUstream stream, CUgraphExec graph) {
	TRY(cuCtxSetCurrent, (context));
	TRY(cuGraphLaunch, (graph, stream));
	DONE;
}

struct gpu_result gpu_drop(CUcontext context, CUgraphExec graph) {
	TRY(cuCtxSetCurrent, (context));
	TRY(cuGraphExecDestroy, (graph));
	DONE;
}
