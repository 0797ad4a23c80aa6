//go:build gpu && gpuemu

package emu

/*
#include "../abi/include/cuda.h"
*/
import "C"

import (
	"syscall"
	"unsafe"

	"rung/cuda/emu/internal/model"
	"rung/cuda/ptx"
)

// The functions here have the driver's signatures; emu.c puts them into its table.

func thread() int { return syscall.Gettid() } // a call from C runs on the caller's thread

func store[T any](to *T, v T, r model.Result) C.CUresult {
	if to == nil {
		return C.CUDA_ERROR_INVALID_VALUE
	}
	if r == model.Success {
		*to = v
	}
	return C.CUresult(r)
}

// keep stores a handle where C wants a pointer.
func keep[T any](to *T, h model.Handle, r model.Result) C.CUresult {
	if to == nil {
		return C.CUDA_ERROR_INVALID_VALUE
	}
	if r == model.Success {
		*(*model.Handle)(unsafe.Pointer(to)) = h
	}
	return C.CUresult(r)
}

func bytesAt(p unsafe.Pointer, n C.size_t) []byte { return unsafe.Slice((*byte)(p), int(n)) }

//export emu_driver_get_version
func emu_driver_get_version(version *C.int) C.CUresult {
	v, r := get().DriverGetVersion()
	return store(version, C.int(v), r)
}

//export emu_device_get_count
func emu_device_get_count(count *C.int) C.CUresult {
	n, r := get().DeviceGetCount()
	return store(count, C.int(n), r)
}

//export emu_device_get
func emu_device_get(device *C.CUdevice, ordinal C.int) C.CUresult {
	n, r := get().DeviceGet(int(ordinal))
	return store(device, C.CUdevice(n), r)
}

//export emu_device_get_name
func emu_device_get_name(name *C.char, size C.int, device C.CUdevice) C.CUresult {
	s, _, r := get().DeviceInfo("cuDeviceGetName", int(device))
	return text(name, size, s, r)
}

func text(to *C.char, size C.int, s string, r model.Result) C.CUresult {
	if r == model.Success && size > 0 {
		b := unsafe.Slice((*byte)(unsafe.Pointer(to)), int(size))
		b[copy(b[:size-1], s)] = 0
	}
	return C.CUresult(r)
}

//export emu_device_get_uuid
func emu_device_get_uuid(uuid *C.CUuuid, device C.CUdevice) C.CUresult {
	_, _, r := get().DeviceInfo("cuDeviceGetUuid", int(device))
	var u C.CUuuid
	u.bytes[0] = C.char(device + 1)
	return store(uuid, u, r)
}

//export emu_device_get_pci_bus_id
func emu_device_get_pci_bus_id(name *C.char, size C.int, device C.CUdevice) C.CUresult {
	_, _, r := get().DeviceInfo("cuDeviceGetPCIBusId", int(device))
	return text(name, size, "0000:00:0"+string(rune('0'+device%10))+".0", r)
}

//export emu_device_total_mem
func emu_device_total_mem(bytes *C.size_t, device C.CUdevice) C.CUresult {
	_, n, r := get().DeviceInfo("cuDeviceTotalMem_v2", int(device))
	return store(bytes, C.size_t(n), r)
}

//export emu_device_get_attribute
func emu_device_get_attribute(value *C.int, attribute C.CUdevice_attribute, device C.CUdevice) C.CUresult {
	v, r := get().DeviceGetAttribute(int(attribute), int(device))
	return store(value, C.int(v), r)
}

//export emu_primary_retain
func emu_primary_retain(context *C.CUcontext, device C.CUdevice) C.CUresult {
	h, r := get().DevicePrimaryCtxRetain(int(device))
	return keep(context, h, r)
}

//export emu_primary_release
func emu_primary_release(device C.CUdevice) C.CUresult {
	return C.CUresult(get().DevicePrimaryCtxRelease(int(device)))
}

//export emu_primary_reset
func emu_primary_reset(device C.CUdevice) C.CUresult {
	return C.CUresult(get().DevicePrimaryCtxReset(int(device)))
}

//export emu_primary_set_flags
func emu_primary_set_flags(device C.CUdevice, flags C.uint) C.CUresult {
	return C.CUresult(get().DevicePrimaryCtxSetFlags(int(device), uint32(flags)))
}

//export emu_primary_get_state
func emu_primary_get_state(device C.CUdevice, flags *C.uint, active *C.int) C.CUresult {
	f, on, r := get().DevicePrimaryCtxGetState(int(device))
	if r == model.Success && on {
		*active = 1
	} else if r == model.Success {
		*active = 0
	}
	return store(flags, C.uint(f), r)
}

//export emu_ctx_create
func emu_ctx_create(context *C.CUcontext, _ C.uint, device C.CUdevice) C.CUresult {
	h, r := get().CtxCreate(thread(), int(device))
	return keep(context, h, r)
}

//export emu_ctx_destroy
func emu_ctx_destroy(context C.CUcontext) C.CUresult {
	return C.CUresult(get().CtxDestroy(handle(context)))
}

// handle is what keep stored.
func handle[P C.CUcontext | C.CUstream | C.CUevent | C.CUmodule | C.CUfunction | C.CUgraph | C.CUgraphExec](p P) model.Handle {
	return model.Handle(unsafe.Pointer(p))
}

//export emu_ctx_set_current
func emu_ctx_set_current(context C.CUcontext) C.CUresult {
	return C.CUresult(get().CtxSetCurrent(thread(), handle(context)))
}

//export emu_ctx_get_current
func emu_ctx_get_current(context *C.CUcontext) C.CUresult {
	h, r := get().CtxGetCurrent(thread())
	return keep(context, h, r)
}

//export emu_ctx_push_current
func emu_ctx_push_current(context C.CUcontext) C.CUresult {
	return C.CUresult(get().CtxPushCurrent(thread(), handle(context)))
}

//export emu_ctx_pop_current
func emu_ctx_pop_current(context *C.CUcontext) C.CUresult {
	h, r := get().CtxPopCurrent(thread())
	if context == nil { // the caller does not want it
		return C.CUresult(r)
	}
	return keep(context, h, r)
}

//export emu_ctx_get_device
func emu_ctx_get_device(device *C.CUdevice) C.CUresult {
	n, r := get().CtxGetDevice(thread())
	return store(device, C.CUdevice(n), r)
}

//export emu_ctx_synchronize
func emu_ctx_synchronize() C.CUresult { return C.CUresult(get().CtxSynchronize(thread())) }

//export emu_module_load_data
func emu_module_load_data(out *C.CUmodule, image *C.char) C.CUresult {
	h, r := get().ModuleLoadData("cuModuleLoadData", thread(), C.GoString(image))
	return keep(out, h, r)
}

//export emu_module_load_data_ex
func emu_module_load_data_ex(out *C.CUmodule, image *C.char, options C.uint, keys *C.CUjit_option, values *unsafe.Pointer) C.CUresult {
	h, r := get().ModuleLoadData("cuModuleLoadDataEx", thread(), C.GoString(image))
	return keep(out, h, r)
}

//export emu_module_unload
func emu_module_unload(m C.CUmodule) C.CUresult {
	return C.CUresult(get().ModuleUnload(thread(), handle(m)))
}

//export emu_module_get_function
func emu_module_get_function(out *C.CUfunction, m C.CUmodule, name *C.char) C.CUresult {
	h, r := get().ModuleGetFunction(thread(), handle(m), C.GoString(name))
	return keep(out, h, r)
}

//export emu_module_get_global
func emu_module_get_global(address *C.CUdeviceptr, bytes *C.size_t, m C.CUmodule, name *C.char) C.CUresult {
	a, n, r := get().ModuleGetGlobal(thread(), handle(m), C.GoString(name))
	if bytes != nil {
		store(bytes, C.size_t(n), r)
	}
	if address == nil {
		return C.CUresult(r)
	}
	return store(address, C.CUdeviceptr(a), r)
}

//export emu_func_set_attribute
func emu_func_set_attribute(f C.CUfunction, attribute C.CUfunction_attribute, value C.int) C.CUresult {
	return C.CUresult(get().FuncSetAttribute(thread(), handle(f), int(attribute), int(value)))
}

//export emu_func_get_attribute
func emu_func_get_attribute(value *C.int, attribute C.CUfunction_attribute, f C.CUfunction) C.CUresult {
	v, r := get().FuncGetAttribute(thread(), handle(f), int(attribute))
	return store(value, C.int(v), r)
}

//export emu_launch_kernel
func emu_launch_kernel(f C.CUfunction, gx, gy, gz, bx, by, bz, shared C.uint, s C.CUstream, params, extra *unsafe.Pointer) C.CUresult {
	return launch("cuLaunchKernel", f, ptx.Dim{X: int(gx), Y: int(gy), Z: int(gz)}, ptx.Dim{X: int(bx), Y: int(by), Z: int(bz)}, shared, s,
		params, extra)
}

//export emu_launch_kernel_ex
func emu_launch_kernel_ex(c *C.CUlaunchConfig, f C.CUfunction, params, extra *unsafe.Pointer) C.CUresult {
	if c.numAttrs != 0 {
		return C.CUDA_ERROR_NOT_SUPPORTED
	}
	return launch("cuLaunchKernelEx", f, ptx.Dim{X: int(c.gridDimX), Y: int(c.gridDimY), Z: int(c.gridDimZ)},
		ptx.Dim{X: int(c.blockDimX), Y: int(c.blockDimY), Z: int(c.blockDimZ)}, c.sharedMemBytes, c.hStream, params, extra)
}

// launch copies the parameters, which are the caller's until the call returns.
func launch(call string, f C.CUfunction, grid, block ptx.Dim, shared C.uint, s C.CUstream, params, extra *unsafe.Pointer) C.CUresult {
	sizes, offsets := get().FuncParams(handle(f))
	if sizes == nil {
		return C.CUDA_ERROR_INVALID_HANDLE
	}
	raw := make([][]byte, len(sizes))
	switch {
	case len(sizes) == 0:
	case params != nil:
		for i, p := range unsafe.Slice(params, len(sizes)) {
			raw[i] = append(raw[i], bytesAt(p, C.size_t(sizes[i]))...)
		}
	case extra != nil:
		packed, ok := packedParams(extra)
		for i, n := range sizes {
			if !ok || offsets[i]+n > len(packed) {
				return C.CUDA_ERROR_INVALID_VALUE
			}
			raw[i] = append(raw[i], packed[offsets[i]:offsets[i]+n]...)
		}
	default:
		return C.CUDA_ERROR_INVALID_VALUE
	}
	return C.CUresult(get().LaunchKernel(call, thread(), handle(f), grid, block, int(shared), handle(s), raw))
}

// packedParams reads the list {1, buffer, 2, &size, 0} that replaces an array of parameters.
func packedParams(extra *unsafe.Pointer) ([]byte, bool) {
	var buffer unsafe.Pointer
	size := C.size_t(0)
	for i := 0; ; i += 2 {
		at := unsafe.Slice(extra, i+2)
		switch uintptr(at[i]) {
		case 0:
			return bytesAt(buffer, size), buffer != nil
		case 1:
			buffer = at[i+1]
		case 2:
			size = *(*C.size_t)(at[i+1])
		default:
			return nil, false
		}
	}
}
