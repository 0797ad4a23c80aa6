//go:build gpu && gpuemu

package emu

/*
#include "../abi/include/cuda.h"
*/
import "C"

import "unsafe"

//export emu_mem_alloc
func emu_mem_alloc(address *C.CUdeviceptr, n C.size_t) C.CUresult {
	a, r := get().MemAlloc(thread(), int64(n))
	return store(address, C.CUdeviceptr(a), r)
}

//export emu_mem_free
func emu_mem_free(address C.CUdeviceptr) C.CUresult {
	return C.CUresult(get().MemFree(thread(), uint64(address)))
}

//export emu_mem_get_info
func emu_mem_get_info(available, total *C.size_t) C.CUresult {
	a, t, r := get().MemGetInfo(thread())
	store(available, C.size_t(a), r)
	return store(total, C.size_t(t), r)
}

//export emu_mem_get_address_range
func emu_mem_get_address_range(base *C.CUdeviceptr, size *C.size_t, address C.CUdeviceptr) C.CUresult {
	b, n, r := get().MemGetAddressRange(thread(), uint64(address))
	if base != nil {
		store(base, C.CUdeviceptr(b), r)
	}
	if size != nil {
		store(size, C.size_t(n), r)
	}
	return C.CUresult(r)
}

//export emu_mem_host_alloc
func emu_mem_host_alloc(to *unsafe.Pointer, n C.size_t, _ C.uint) C.CUresult {
	p, r := get().MemHostAlloc("cuMemHostAlloc", thread(), int(n))
	return store(to, p, r)
}

//export emu_mem_alloc_host
func emu_mem_alloc_host(to *unsafe.Pointer, n C.size_t) C.CUresult {
	p, r := get().MemHostAlloc("cuMemAllocHost_v2", thread(), int(n))
	return store(to, p, r)
}

//export emu_mem_free_host
func emu_mem_free_host(p unsafe.Pointer) C.CUresult {
	return C.CUresult(get().MemFreeHost(thread(), p))
}

//export emu_memcpy_htod
func emu_memcpy_htod(dst C.CUdeviceptr, src unsafe.Pointer, n C.size_t) C.CUresult {
	return C.CUresult(get().Memcpy("cuMemcpyHtoD_v2", thread(), uint64(dst), 0, bytesAt(src, n), int(n)))
}

//export emu_memcpy_dtoh
func emu_memcpy_dtoh(dst unsafe.Pointer, src C.CUdeviceptr, n C.size_t) C.CUresult {
	return C.CUresult(get().Memcpy("cuMemcpyDtoH_v2", thread(), 0, uint64(src), bytesAt(dst, n), int(n)))
}

//export emu_memcpy_dtod
func emu_memcpy_dtod(dst, src C.CUdeviceptr, n C.size_t) C.CUresult {
	return C.CUresult(get().Memcpy("cuMemcpyDtoD_v2", thread(), uint64(dst), uint64(src), nil, int(n)))
}

//export emu_memcpy_htod_async
func emu_memcpy_htod_async(dst C.CUdeviceptr, src unsafe.Pointer, n C.size_t, s C.CUstream) C.CUresult {
	return C.CUresult(get().MemcpyAsync("cuMemcpyHtoDAsync_v2", thread(), uint64(dst), 0, bytesAt(src, n), int(n), handle(s)))
}

//export emu_memcpy_dtoh_async
func emu_memcpy_dtoh_async(dst unsafe.Pointer, src C.CUdeviceptr, n C.size_t, s C.CUstream) C.CUresult {
	return C.CUresult(get().MemcpyAsync("cuMemcpyDtoHAsync_v2", thread(), 0, uint64(src), bytesAt(dst, n), int(n), handle(s)))
}

//export emu_memcpy_dtod_async
func emu_memcpy_dtod_async(dst, src C.CUdeviceptr, n C.size_t, s C.CUstream) C.CUresult {
	return C.CUresult(get().MemcpyAsync("cuMemcpyDtoDAsync_v2", thread(), uint64(dst), uint64(src), nil, int(n), handle(s)))
}

// pattern is the bytes of a value of a memset.
func pattern[T uint8 | uint16 | uint32](v T) []byte {
	var b []byte
	for i := range int(unsafe.Sizeof(v)) {
		b = append(b, byte(uint32(v)>>(8*i)))
	}
	return b
}

func set(call string, dst C.CUdeviceptr, pattern []byte, n C.size_t) C.CUresult {
	return C.CUresult(get().Memset(call, thread(), uint64(dst), pattern, int(n)))
}

func setAsync(call string, dst C.CUdeviceptr, pattern []byte, n C.size_t, s C.CUstream) C.CUresult {
	return C.CUresult(get().MemsetAsync(call, thread(), uint64(dst), pattern, int(n), handle(s)))
}

//export emu_memset_d8
func emu_memset_d8(dst C.CUdeviceptr, v C.uchar, n C.size_t) C.CUresult {
	return set("cuMemsetD8_v2", dst, pattern(uint8(v)), n)
}

//export emu_memset_d16
func emu_memset_d16(dst C.CUdeviceptr, v C.ushort, n C.size_t) C.CUresult {
	return set("cuMemsetD16_v2", dst, pattern(uint16(v)), n)
}

//export emu_memset_d32
func emu_memset_d32(dst C.CUdeviceptr, v C.uint, n C.size_t) C.CUresult {
	return set("cuMemsetD32_v2", dst, pattern(uint32(v)), n)
}

//export emu_memset_d8_async
func emu_memset_d8_async(dst C.CUdeviceptr, v C.uchar, n C.size_t, s C.CUstream) C.CUresult {
	return setAsync("cuMemsetD8Async", dst, pattern(uint8(v)), n, s)
}

//export emu_memset_d16_async
func emu_memset_d16_async(dst C.CUdeviceptr, v C.ushort, n C.size_t, s C.CUstream) C.CUresult {
	return setAsync("cuMemsetD16Async", dst, pattern(uint16(v)), n, s)
}

//export emu_memset_d32_async
func emu_memset_d32_async(dst C.CUdeviceptr, v C.uint, n C.size_t, s C.CUstream) C.CUresult {
	return setAsync("cuMemsetD32Async", dst, pattern(uint32(v)), n, s)
}
