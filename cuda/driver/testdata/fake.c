/*
 * A CUDA driver with one device and a handful of functions, built by the tests as libcuda.so.1. INIT_RESULT is what its
 * cuInit returns.
 */
#include <stdio.h>
#include <string.h>

#include "../../abi/include/cuda.h"

#ifndef INIT_RESULT
#define INIT_RESULT 0
#endif

CUresult cuInit(unsigned int flags) { return flags == 0 ? INIT_RESULT : CUDA_ERROR_INVALID_VALUE; }

CUresult cuGetErrorName(CUresult error, const char **name) {
	if (error != 999)
		return CUDA_ERROR_INVALID_VALUE;
	*name = "CUDA_ERROR_UNKNOWN";
	return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count) {
	*count = 1;
	return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
	*device = 40 + ordinal;
	return ordinal == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

/* Says which device it was asked for, so that a call whose arguments arrive shuffled shows. */
CUresult cuDeviceGetName(char *name, int size, CUdevice device) {
	snprintf(name, size, "fake device %d", device);
	return CUDA_SUCCESS;
}

/* The versioned symbol: memory "at" 16 times its size. */
CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes) {
	*address = 16 * (CUdeviceptr)bytes;
	return CUDA_SUCCESS;
}
