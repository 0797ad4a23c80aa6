//go:build gpu

/*
 * Goroutines move between threads, and a context is current on a thread: every function makes it current first, so that
 * one call from Go does its work whole.
 */
#include "hot.h"
#include <stdlib.h>

#define TRY(function, arguments)                                   \
	do {                                                       \
		CUresult code_ = function arguments;               \
		if (code_ != CUDA_SUCCESS)                         \
			return (struct gpu_result){code_, #function}; \
	} while (0)
#define DONE return (struct gpu_result){CUDA_SUCCESS, ""}

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
		return (struct gpu_result){code, "cuMemsetD8Async"};
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

static CUresult launch(CUstream stream, const struct gpu_launch *l) {
	void *parameters[] = {l->args};
	return cuLaunchKernel(l->function, l->grid[0], l->grid[1], l->grid[2], l->block, 1, 1, l->shared, stream, parameters, NULL);
}

struct gpu_result gpu_run(CUcontext context, CUstream stream, const struct gpu_launch *launches, int n, int wait, int *failed) {
	TRY(cuCtxSetCurrent, (context));
	for (int i = 0; i < n; i++) {
		*failed = i;
		CUresult code = launch(stream, launches + i);
		if (code != CUDA_SUCCESS)
			return (struct gpu_result){code, "cuLaunchKernel"};
		if (wait)
			TRY(cuStreamSynchronize, (stream));
	}
	*failed = -1;
	DONE;
}

/* An event before the first launch and after each. */
static struct gpu_result time_events(CUstream stream, const struct gpu_launch *launches, int n, CUevent *events, float *ms, int *failed) {
	for (int i = 0; i <= n; i++)
		TRY(cuEventCreate, (events + i, 0));
	TRY(cuEventRecord, (events[0], stream));
	for (int i = 0; i < n; i++) {
		*failed = i;
		CUresult code = launch(stream, launches + i);
		if (code != CUDA_SUCCESS)
			return (struct gpu_result){code, "cuLaunchKernel"};
		TRY(cuEventRecord, (events[i + 1], stream));
	}
	*failed = -1;
	TRY(cuStreamSynchronize, (stream));
	for (int i = 0; i < n; i++)
		TRY(cuEventElapsedTime, (ms + i, events[i], events[i + 1]));
	DONE;
}

struct gpu_result gpu_time(CUcontext context, CUstream stream, const struct gpu_launch *launches, int n, float *ms, int *failed) {
	TRY(cuCtxSetCurrent, (context));
	*failed = -1;
	CUevent *events = calloc(n + 1, sizeof *events);
	if (!events)
		return (struct gpu_result){CUDA_ERROR_OUT_OF_MEMORY, "calloc"};
	struct gpu_result r = time_events(stream, launches, n, events, ms, failed);
	for (int i = 0; i <= n; i++)
		if (events[i])
			cuEventDestroy_v2(events[i]);
	free(events);
	return r;
}

static struct gpu_result capture(CUstream stream, const struct gpu_launch *launches, int n, CUgraph *graph, int *failed) {
	TRY(cuStreamBeginCapture_v2, (stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
	for (int i = 0; i < n; i++) {
		CUresult code = launch(stream, launches + i);
		if (code != CUDA_SUCCESS) {
			*failed = i;
			cuStreamEndCapture(stream, graph); /* which must end, and fails */
			return (struct gpu_result){code, "cuLaunchKernel"};
		}
	}
	TRY(cuStreamEndCapture, (stream, graph));
	DONE;
}

struct gpu_result gpu_capture(CUcontext context, const struct gpu_launch *launches, int n, CUgraphExec *exec, int *failed) {
	CUstream stream; /* of its own: others go on using theirs */
	CUgraph graph = NULL;
	*failed = -1;
	TRY(cuCtxSetCurrent, (context));
	TRY(cuStreamCreate, (&stream, CU_STREAM_NON_BLOCKING));
	struct gpu_result r = capture(stream, launches, n, &graph, failed);
	if (r.code == CUDA_SUCCESS) {
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
