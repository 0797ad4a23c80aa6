/* What C code of this module may ask of the driver's stand-in. See driver.c. */
#ifndef GPU_DRIVER_H
#define GPU_DRIVER_H

#pragma GCC visibility push(hidden)

/* A driver function: its symbol (with the version suffix: "cuMemAlloc_v2") and its address. */
struct gpu_function {
	const char *name;
	void *address;
};

/*
 * Makes a table of functions, ended by a NULL name, the driver in place of the library. The table must hold cuInit and
 * cuDeviceGetCount; a function that it lacks is reported as missing. Call it from a C constructor: gorgonia.org/cu calls
 * cuInit in its init(), before Go code of ours can run. Returns 0, or -1 where the driver has been chosen already.
 */
int gpu_use(const struct gpu_function *table);

/* Why there is no usable driver, in words; "" where there is one. */
const char *gpu_why(void);

/* The first function that was called and that the driver lacks; "" where there is none. */
const char *gpu_missing(void);

#pragma GCC visibility pop

#endif
