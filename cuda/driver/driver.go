//go:build gpu

// Package driver defines the CUDA driver functions that gorgonia.org/cu and this module link against. Each finds its
// namesake in libcuda.so.1 on the first call, so that one binary starts with and without a driver. Without a usable one
// cuInit succeeds, there are 0 devices, and every other function returns CUDA_ERROR_NO_DEVICE (cu.NoDevice).
//
// A program that imports gorgonia.org/cu must import this package too, or it does not link. It is built with the tag gpu
// and two flags, for cu's #include <cuda.h> and its -lcuda, that the Makefile sets and `make env` prints:
//
//	CGO_CFLAGS=-I…/cuda/abi/include CGO_LDFLAGS=-L…/cuda/abi/lib
//
// The environment variable GPU_DRIVER names another library than libcuda.so.1.
package driver

/*
#cgo linux LDFLAGS: -ldl
#include "driver.h"
*/
import "C"

// Why says in words why there is no usable driver: the library is absent, or its cuInit failed. It is "" where there is one.
func Why() string { return C.GoString(C.gpu_why()) }

// Missing is the first function that was called and that the driver lacks, because it is older than the function: what
// stands behind a cu.SharedObjectSymbolNotFound. It is "" where there is none.
func Missing() string { return C.GoString(C.gpu_missing()) }
