//go:build gpu

package driver

/*
#include <stdlib.h>
#include <string.h>
#include "hot.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"
)

// An Error is a driver function that failed.
type Error struct {
	Call string // such as cuMemAlloc
	Code int    // its result
	Name string // such as CUDA_ERROR_OUT_OF_MEMORY
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s (%d)", e.Call, e.Name, e.Code) }

// NoMemory is the code of CUDA_ERROR_OUT_OF_MEMORY.
const NoMemory = int(C.CUDA_ERROR_OUT_OF_MEMORY)

// OutOfMemory reports that err is a driver's that had no memory left.
func OutOfMemory(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == NoMemory
}

func result(r C.struct_gpu_result) error {
	if r.code == C.CUDA_SUCCESS {
		return nil
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
func (d *Device) Close() error { return result(C.gpu_close(d.ordinal, d.context, d.stream)) }

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

// Clear sets n bytes to 0.
func (d *Device) Clear(to Address, n int64) error {
	if n == 0 {
		return nil
	}
	return result(C.gpu_clear(d.context, d.stream, C.CUdeviceptr(to), C.size_t(n)))
}

// Wait waits for everything that was launched.
func (d *Device) Wait() error { return result(C.gpu_wait(d.context, d.stream)) }

// A Launch is a kernel with its grid, threads a block, dynamic shared memory, and argument: one structure.
type Launch struct {
	Kernel        Kernel
	Grid          [3]int
	Block, Shared int
	Args          []byte
}

// A List is launches, in memory of C's.
type List struct {
	n      int
	l      *C.struct_gpu_launch
	args   unsafe.Pointer
	graph  C.CUgraphExec
	device *Device
}

// NewList copies launches.
func (d *Device) NewList(launches []Launch) (*List, error) {
	size := 0
	for i := range launches {
		size += (len(launches[i].Args) + 15) &^ 15
	}
	n := max(len(launches), 1)
	l := &List{n: len(launches), device: d}
	l.l = (*C.struct_gpu_launch)(C.calloc(C.size_t(n), C.sizeof_struct_gpu_launch))
	l.args = C.calloc(C.size_t(max(size, 1)), 1)
	if l.l == nil || l.args == nil {
		l.free()
		return nil, fmt.Errorf("no memory for %d launches", n)
	}
	out, at := unsafe.Slice(l.l, n), 0
	args := unsafe.Slice((*byte)(l.args), max(size, 1))
	for i := range launches {
		in := &launches[i]
		copy(args[at:], in.Args)
		out[i].function, out[i].block, out[i].shared = in.Kernel.f, C.uint(in.Block), C.uint(in.Shared)
		for k, g := range in.Grid {
			out[i].grid[k] = C.uint(g)
		}
		out[i].args = unsafe.Add(l.args, at)
		at += (len(in.Args) + 15) &^ 15
	}
	return l, nil
}

// Run launches in order. If one is refused, or fails where each is waited for, failed is its number, else -1.
func (l *List) Run(wait bool) (failed int, err error) {
	var f, w C.int
	if wait {
		w = 1
	}
	err = result(C.gpu_run(l.device.context, l.device.stream, l.l, C.int(l.n), w, &f))
	return int(f), err
}

// Time launches in order and gives the milliseconds of each.
func (l *List) Time(ms []float32) (failed int, err error) {
	if l.n == 0 {
		return -1, nil
	}
	var f C.int
	err = result(C.gpu_time(l.device.context, l.device.stream, l.l, C.int(l.n), (*C.float)(unsafe.SliceData(ms)), &f))
	return int(f), err
}

// Replay launches all at once as a graph, which the first call makes. If a launch is refused, failed is its
// number, else -1.
func (l *List) Replay() (failed int, err error) {
	if l.n == 0 {
		return -1, nil
	}
	if l.graph == nil {
		var f C.int
		if err := result(C.gpu_capture(l.device.context, l.l, C.int(l.n), &l.graph, &f)); err != nil {
			return int(f), err
		}
	}
	return -1, result(C.gpu_replay(l.device.context, l.device.stream, l.graph))
}

// Close frees the list.
func (l *List) Close() error {
	var err error
	if l.graph != nil {
		err = result(C.gpu_drop(l.device.context, l.graph))
		l.graph = nil
	}
	l.free()
	return err
}

func (l *List) free() {
	C.free(unsafe.Pointer(l.l))
	C.free(l.args)
	l.l, l.args, l.n = nil, nil, 0
}
