//go:build gpu

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../abi/include/cuda.h"
#include "../../driver.h"

static CUresult init(unsigned int flags) {
	(void)flags;
	return CUDA_SUCCESS;
}

static CUresult count(int *n) {
	*n = 1;
	return CUDA_SUCCESS;
}

static CUresult get(CUdevice *device, int ordinal) {
	*device = ordinal;
	return ordinal == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

static CUresult name(char *text, int size, CUdevice device) {
	(void)device;
	snprintf(text, size, "device of a table");
	return CUDA_SUCCESS;
}

static const struct gpu_function table[] = {
	{"cuInit", init},
	{"cuDeviceGetCount", count},
	{"cuDeviceGet", get},
	{"cuDeviceGetName", name},
	{NULL, NULL},
};

__attribute__((constructor)) static void choose(void) {
	const char *driver = getenv("GPU_DRIVER");
	if (driver && !strcmp(driver, "table") && gpu_use(table) != 0)
		abort();
}
