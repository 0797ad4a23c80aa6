//go:build gpu && gpuemu

package emu

/*
#include "../abi/include/cublaslt.h"
*/
import "C"

import (
	"unsafe"

	"rung/cuda/emu/internal/model"
)

// The functions here have the signatures of cuBLASLt's; emu.c puts them into its table.

// give stores a handle where C wants a pointer.
func give[T any](to *T, h model.Handle, s model.Status) C.cublasStatus_t {
	if to == nil {
		return C.CUBLAS_STATUS_INVALID_VALUE
	}
	if s == model.LtSuccess {
		*(*model.Handle)(unsafe.Pointer(to)) = h
	}
	return C.cublasStatus_t(s)
}

// of is what give stored.
func of[P C.cublasLtHandle_t | C.cublasLtMatmulDesc_t | C.cublasLtMatrixLayout_t | C.cublasLtMatmulPreference_t | C.cudaStream_t](p P) model.Handle {
	return model.Handle(unsafe.Pointer(p))
}

//export emu_lt_version
func emu_lt_version() C.size_t { return C.size_t(get().LtVersion()) }

//export emu_lt_cuda
func emu_lt_cuda() C.size_t {
	v := get().LtVersion()
	return C.size_t(v/10000*1000 + v/100%100*10)
}

//export emu_lt_create
func emu_lt_create(out *C.cublasLtHandle_t) C.cublasStatus_t {
	h, s := get().LtCreate(thread())
	return give(out, h, s)
}

//export emu_lt_destroy
func emu_lt_destroy(h C.cublasLtHandle_t) C.cublasStatus_t {
	return C.cublasStatus_t(get().LtDestroy(of(h)))
}

//export emu_lt_desc_create
func emu_lt_desc_create(out *C.cublasLtMatmulDesc_t, compute C.cublasComputeType_t, scale C.cudaDataType_t) C.cublasStatus_t {
	h, s := get().LtDescCreate(int(compute), int(scale))
	return give(out, h, s)
}

//export emu_lt_desc_destroy
func emu_lt_desc_destroy(h C.cublasLtMatmulDesc_t) C.cublasStatus_t {
	return C.cublasStatus_t(get().LtDescDestroy(of(h)))
}

//export emu_lt_desc_set
func emu_lt_desc_set(h C.cublasLtMatmulDesc_t, attribute C.cublasLtMatmulDescAttributes_t, value unsafe.Pointer, n C.size_t) C.cublasStatus_t {
	return C.cublasStatus_t(get().LtDescSet(of(h), int(attribute), bytesAt(value, n)))
}

//export emu_lt_layout_create
func emu_lt_layout_create(out *C.cublasLtMatrixLayout_t, kind C.cudaDataType_t, rows, cols C.uint64_t, ld C.int64_t) C.cublasStatus_t {
	h, s := get().LtLayoutCreate(int(kind), uint64(rows), uint64(cols), int64(ld))
	return give(out, h, s)
}

//export emu_lt_layout_destroy
func emu_lt_layout_destroy(h C.cublasLtMatrixLayout_t) C.cublasStatus_t {
	return C.cublasStatus_t(get().LtLayoutDestroy(of(h)))
}

//export emu_lt_layout_set
func emu_lt_layout_set(h C.cublasLtMatrixLayout_t, attribute C.cublasLtMatrixLayoutAttribute_t, value unsafe.Pointer, n C.size_t) C.cublasStatus_t {
	return C.cublasStatus_t(get().LtLayoutSet(of(h), int(attribute), bytesAt(value, n)))
}

//export emu_lt_preference_create
func emu_lt_preference_create(out *C.cublasLtMatmulPreference_t) C.cublasStatus_t {
	h, s := get().LtPreferenceCreate()
	return give(out, h, s)
}

//export emu_lt_preference_destroy
func emu_lt_preference_destroy(h C.cublasLtMatmulPreference_t) C.cublasStatus_t {
	return C.cublasStatus_t(get().LtPreferenceDestroy(of(h)))
}

//export emu_lt_preference_set
func emu_lt_preference_set(h C.cublasLtMatmulPreference_t, attribute C.cublasLtMatmulPreferenceAttributes_t, value unsafe.Pointer, n C.size_t) C.cublasStatus_t {
	return C.cublasStatus_t(get().LtPreferenceSet(of(h), int(attribute), bytesAt(value, n)))
}

func layouts(a, b, c, d C.cublasLtMatrixLayout_t) [4]model.Handle {
	return [4]model.Handle{of(a), of(b), of(c), of(d)}
}

func algoOf(a *C.cublasLtMatmulAlgo_t) (out model.LtAlgo) {
	if a != nil {
		for i, v := range a.data {
			out[i] = uint64(v)
		}
	}
	return out
}

//export emu_lt_heuristic
func emu_lt_heuristic(h C.cublasLtHandle_t, desc C.cublasLtMatmulDesc_t, a, b, c, d C.cublasLtMatrixLayout_t, preference C.cublasLtMatmulPreference_t, most C.int, results *C.cublasLtMatmulHeuristicResult_t, n *C.int) C.cublasStatus_t {
	if results == nil || n == nil {
		return C.CUBLAS_STATUS_INVALID_VALUE
	}
	all, room, s := get().LtHeuristic(of(h), of(desc), layouts(a, b, c, d), of(preference), int(most))
	*n = C.int(len(all))
	for i, r := range unsafe.Slice(results, int(most))[:len(all)] {
		r = C.cublasLtMatmulHeuristicResult_t{workspaceSize: C.size_t(room[i])}
		for k, v := range all[i] {
			r.algo.data[k] = C.uint64_t(v)
		}
		unsafe.Slice(results, int(most))[i] = r
	}
	return C.cublasStatus_t(s)
}

//export emu_lt_check
func emu_lt_check(h C.cublasLtHandle_t, desc C.cublasLtMatmulDesc_t, a, b, c, d C.cublasLtMatrixLayout_t, algo *C.cublasLtMatmulAlgo_t, result *C.cublasLtMatmulHeuristicResult_t) C.cublasStatus_t {
	if algo == nil || result == nil {
		return C.CUBLAS_STATUS_INVALID_VALUE
	}
	room, s := get().LtCheck(of(h), of(desc), layouts(a, b, c, d), algoOf(algo))
	result.workspaceSize, result.state = C.size_t(room), C.cublasStatus_t(s)
	return C.cublasStatus_t(s)
}

//export emu_lt_config
func emu_lt_config(algo *C.cublasLtMatmulAlgo_t, attribute C.cublasLtMatmulAlgoConfigAttributes_t, value unsafe.Pointer, size C.size_t, written *C.size_t) C.cublasStatus_t {
	if value == nil || size != 4 {
		return C.CUBLAS_STATUS_INVALID_VALUE
	}
	v, s := get().LtAlgoConfig(algoOf(algo), int(attribute))
	if s == model.LtSuccess {
		*(*uint32)(value) = v
	}
	if written != nil {
		*written = size
	}
	return C.cublasStatus_t(s)
}

// Addresses on the device are integers here: Go would take them for pointers into its heap.
//
//export emu_lt_matmul
func emu_lt_matmul(h C.cublasLtHandle_t, desc C.cublasLtMatmulDesc_t, alpha unsafe.Pointer, a C.uintptr_t, la C.cublasLtMatrixLayout_t, b C.uintptr_t, lb C.cublasLtMatrixLayout_t, beta unsafe.Pointer, c C.uintptr_t, lc C.cublasLtMatrixLayout_t, d C.uintptr_t, ld C.cublasLtMatrixLayout_t, algo *C.cublasLtMatmulAlgo_t, workspace C.uintptr_t, room C.size_t, s C.cudaStream_t) C.cublasStatus_t {
	if alpha == nil || beta == nil || algo == nil {
		return C.CUBLAS_STATUS_INVALID_VALUE
	}
	return C.cublasStatus_t(get().LtMatmul(
		thread(), of(h), of(desc), layouts(la, lb, lc, ld), [4]uint64{uint64(a), uint64(b), uint64(c), uint64(d)},
		*(*float32)(alpha), *(*float32)(beta), algoOf(algo), uint64(workspace), uint64(room), of(s),
	))
}
