//go:build gpu

package driver

/*
#include <stdlib.h>
#include <string.h>
#include "products.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"
)

// An Error is a function of the driver, or of cuBLASLt, that failed.
type Error struct {
	Call string // such as cuMemAlloc
	Code int    // its result
	Name string // such as CUDA_ERROR_OUT_OF_MEMORY or CUBLAS_STATUS_NOT_SUPPORTED
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s (%d)", e.Call, e.Name, e.Code) }

// NoMemory is the code of CUDA_ERROR_OUT_OF_MEMORY.
const NoMemory = int(C.CUDA_ERROR_OUT_OF_MEMORY)

// OutOfMemory reports that err is a driver's that had no memory left.
func OutOfMemory(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Name == "CUDA_ERROR_OUT_OF_MEMORY"
}

func result(r C.struct_gpu_result) error {
	if r.code == C.CUDA_SUCCESS && r.status == C.CUBLAS_STATUS_SUCCESS {
		return nil
	}
	if r.code == C.CUDA_SUCCESS {
		return &Error{Call: C.GoString(r.call), Code: int(r.status), Name: statusName(r.status)}
	}
	e := &Error{Call: C.GoString(r.call), Code: int(r.code), Name: "an unnamed error"}
	var name *C.char
	if C.cuGetErrorName(r.code, &name) == C.CUDA_SUCCESS && name != nil {
		e.Name = C.GoString(name)
	}
	return e
}

// A Device is a device's primary context and a stream on it, which everything is ordered by. Its methods
// may be called from several goroutines.
type Device struct {
	ordinal C.int
	context C.CUcontext
	stream  C.CUstream
	lt      C.cublasLtHandle_t // nil unless UseCublasLt has been called
}

// Open retains the primary context of a device.
func Open(ordinal int) (*Device, error) {
	d := &Device{ordinal: C.int(ordinal)}
	if err := result(C.gpu_open(d.ordinal, &d.context, &d.stream)); err != nil {
		return nil, err
	}
	return d, nil
}

// Close releases the context.
func (d *Device) Close() error {
	var err error
	if d.lt != nil {
		err = result(C.gpu_lt_destroy(d.context, d.lt))
		d.lt = nil
	}
	return errors.Join(err, result(C.gpu_close(d.ordinal, d.context, d.stream)))
}

// A Module is loaded code.
type Module struct{ m C.CUmodule }

// Load compiles PTX.
func (d *Device) Load(ptx string) (m Module, err error) {
	s := C.CString(ptx)
	defer C.free(unsafe.Pointer(s))
	return m, result(C.gpu_load(d.context, s, &m.m))
}

// A Kernel is a function of a module.
type Kernel struct{ f C.CUfunction }

// Kernel finds a function that is to be launched with up to shared bytes of dynamic shared memory.
func (d *Device) Kernel(m Module, name string, shared int) (k Kernel, err error) {
	s := C.CString(name)
	defer C.free(unsafe.Pointer(s))
	return k, result(C.gpu_kernel(d.context, m.m, s, C.int(shared), &k.f))
}

// An Address is one in device memory.
type Address uint64

// Alloc allocates n zeroed bytes, at an address of which 256 is a divisor.
func (d *Device) Alloc(n int64) (a Address, err error) {
	var p C.CUdeviceptr
	err = result(C.gpu_alloc(d.context, d.stream, C.size_t(n), &p))
	return Address(p), err
}

// Free frees what Alloc gave, after everything that was launched.
func (d *Device) Free(a Address) error { return result(C.gpu_free(d.context, C.CUdeviceptr(a))) }

// Available is how many bytes of device memory are free, of how many.
func (d *Device) Available() (available, total int64, err error) {
	var a, t C.size_t
	err = result(C.gpu_available(d.context, &a, &t))
	return int64(a), int64(t), err
}

// Pin allocates n bytes of host memory that copies to the device can run from by themselves.
func (d *Device) Pin(n int) ([]byte, error) {
	var p unsafe.Pointer
	if err := result(C.gpu_pin(d.context, C.size_t(n), &p)); err != nil {
		return nil, err
	}
	return unsafe.Slice((*byte)(p), n), nil
}

// Unpin frees what Pin gave.
func (d *Device) Unpin(b []byte) error {
	return result(C.gpu_unpin(d.context, unsafe.Pointer(unsafe.SliceData(b))))
}

// Write copies to the device. It may return before it has read pinned memory.
func (d *Device) Write(to Address, from []byte) error {
	if len(from) == 0 {
		return nil
	}
	return result(C.gpu_write(d.context, d.stream, C.CUdeviceptr(to), unsafe.Pointer(unsafe.SliceData(from)), C.size_t(len(from))))
}

// Read copies from the device, after everything that was launched.
func (d *Device) Read(to []byte, from Address) error {
	if len(to) == 0 {
		return d.Wait()
	}
	return result(C.gpu_read(d.context, d.stream, unsafe.Pointer(unsafe.SliceData(to)), C.CUdeviceptr(from), C.size_t(len(to))))
}

// Fetch copies from the device to pinned memory, after everything that was launched. It does not wait.
func (d *Device) Fetch(to []byte, from Address) error {
	if len(to) == 0 {
		return nil
	}
	return result(C.gpu_fetch(d.context, d.stream, unsafe.Pointer(unsafe.SliceData(to)), C.CUdeviceptr(from), C.size_t(len(to))))
}

// Clear sets n bytes to 0.
func (d *Device) Clear(to Address, n int64) error {
	if n == 0 {
		return nil
	}
	return result(C.gpu_clear(d.context, d.stream, C.CUdeviceptr(to), C.size_t(n)))
}

// Wait waits for everything that was launched.
func (d *Device) Wait() error { return result(C.gpu_wait(d.context, d.stream)) }
