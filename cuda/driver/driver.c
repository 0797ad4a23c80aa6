//go:build gpu

/*
 * The CUDA driver's functions as gorgonia.org/cu and this module link against them. Each is a few instructions that pass
 * the call to the function of the same name in libcuda.so.1, found by dlsym on the first call. So the program links and
 * starts on a machine without a driver.
 *
 * Without a usable driver cuInit succeeds (gorgonia.org/cu ends the process in its init() otherwise), there are 0
 * devices, and every other function returns CUDA_ERROR_NO_DEVICE.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../abi/include/cuda.h" /* by path: never a toolkit's header, whatever -I says */
#include "driver.h"

/*
 * Hidden from the dynamic symbol table: a real libcuda would bind its own calls of these functions to ours, and call
 * itself for ever. Go links with -rdynamic, which exports all that is not hidden, where the linker cannot export single
 * symbols.
 */
#pragma GCC visibility push(hidden)

static pthread_once_t once = PTHREAD_ONCE_INIT;
static void *library;                    /* the driver, or */
static const struct gpu_function *table; /* what stands in for it: set before the first call, or by load */
static int loaded, absent;
static char why[512];
static const char *missing;

static CUresult init_without_driver(unsigned int flags) {
	(void)flags;
	return CUDA_SUCCESS;
}

static CUresult count_without_driver(int *count) {
	*count = 0;
	return CUDA_SUCCESS;
}

static const struct gpu_function no_driver[] = {
	{"cuInit", init_without_driver},
	{"cuDeviceGetCount", count_without_driver},
	{NULL, NULL},
};

/* Opens the driver and initialises it; the reason why that failed is left in why. */
static void *open_library(const char *path) {
	void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!handle) {
		const char *reason = dlerror();
		snprintf(why, sizeof why, "%s", reason ? reason : "dlopen failed");
		return NULL;
	}
	CUresult (*init)(unsigned int) = (CUresult(*)(unsigned int))dlsym(handle, "cuInit");
	if (!init) {
		snprintf(why, sizeof why, "%s: not a CUDA driver: it has no cuInit", path);
		return NULL;
	}
	CUresult result = init(0);
	if (result == CUDA_SUCCESS)
		return handle;
	const char *name = NULL;
	CUresult (*get_name)(CUresult, const char **) = (CUresult(*)(CUresult, const char **))dlsym(handle, "cuGetErrorName");
	if (!get_name || get_name(result, &name) != CUDA_SUCCESS || !name)
		name = "an unnamed error";
	snprintf(why, sizeof why, "%s: cuInit failed: %s (%d)", path, name, (int)result);
	/* The handle stays open: a driver that has begun to start may have threads and exit handlers in its own code. */
	return NULL;
}

static void load(void) {
	loaded = 1;
	if (table)
		return;
	const char *path = getenv("GPU_DRIVER");
	library = open_library(path && *path ? path : "libcuda.so.1");
	if (!library) {
		absent = 1;
		table = no_driver;
	}
}

int gpu_use(const struct gpu_function *functions) {
	if (loaded)
		return -1;
	table = functions;
	return 0;
}

const char *gpu_why(void) {
	pthread_once(&once, load);
	return why;
}

const char *gpu_missing(void) {
	const char *name = __atomic_load_n(&missing, __ATOMIC_ACQUIRE);
	return name ? name : "";
}

static void *find(const char *name) {
	pthread_once(&once, load);
	if (!table)
		return dlsym(library, name);
	for (const struct gpu_function *f = table; f->name; f++)
		if (!strcmp(f->name, name))
			return f->address;
	return NULL;
}

/* The result of a call of a function that was not found. A driver lacks what is newer than it. */
static CUresult not_found(const char *name) {
	if (absent)
		return CUDA_ERROR_NO_DEVICE;
	const char *none = NULL;
	__atomic_compare_exchange_n(&missing, &none, name, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
	return CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND;
}

/* Defines one function; two threads that make the first call both find the same address. */
#define CUDA_FUNCTION(name, parameters, arguments)                                         \
	CUresult name parameters {                                                         \
		static CUresult(*found) parameters;                                        \
		CUresult(*function) parameters = __atomic_load_n(&found, __ATOMIC_ACQUIRE); \
		if (__builtin_expect(!function, 0)) {                                      \
			function = (CUresult(*) parameters)find(#name);                    \
			if (!function)                                                     \
				return not_found(#name);                                   \
			__atomic_store_n(&found, function, __ATOMIC_RELEASE);              \
		}                                                                          \
		return function arguments;                                                 \
	}
#include "../abi/include/cuda_fn.h"
