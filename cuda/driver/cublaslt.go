//go:build gpu

package driver

/*
#include <stdlib.h>
#include "products.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"
)

// A Library is cuBLASLt as it was found: libcublasLt.so.13, .12 or .11, the newest that the driver can run, or the file
// that the environment variable GPU_CUBLASLT names.
type Library struct {
	Name    string
	Version int // 120901 for 12.9.1
	CUDA    int // of the runtime inside: 12080 for 12.8
}

func (l Library) String() string { return fmt.Sprintf("%s, version %s", l.Name, l.Number()) }

// Number is the version, such as 12.9.1.
func (l Library) Number() string {
	return fmt.Sprintf("%d.%d.%d", l.Version/10000, l.Version/100%100, l.Version%100)
}

// FindCublasLt opens cuBLASLt for a driver of a CUDA version, such as 12040, the first time that it is called. The error
// names the library, and what is missing.
func FindCublasLt(driver int) (Library, error) {
	var l C.struct_gpu_library
	if why := C.gpu_lt_find(C.int(driver), &l); why != nil {
		return Library{}, fmt.Errorf("cuBLASLt: %s", C.GoString(why))
	}
	return Library{C.GoString(&l.name[0]), int(l.version), int(l.cuda)}, nil
}

var statusNames = map[C.cublasStatus_t]string{
	C.CUBLAS_STATUS_NOT_INITIALIZED:  "CUBLAS_STATUS_NOT_INITIALIZED",
	C.CUBLAS_STATUS_ALLOC_FAILED:     "CUBLAS_STATUS_ALLOC_FAILED",
	C.CUBLAS_STATUS_INVALID_VALUE:    "CUBLAS_STATUS_INVALID_VALUE",
	C.CUBLAS_STATUS_ARCH_MISMATCH:    "CUBLAS_STATUS_ARCH_MISMATCH",
	C.CUBLAS_STATUS_MAPPING_ERROR:    "CUBLAS_STATUS_MAPPING_ERROR",
	C.CUBLAS_STATUS_EXECUTION_FAILED: "CUBLAS_STATUS_EXECUTION_FAILED",
	C.CUBLAS_STATUS_INTERNAL_ERROR:   "CUBLAS_STATUS_INTERNAL_ERROR",
	C.CUBLAS_STATUS_NOT_SUPPORTED:    "CUBLAS_STATUS_NOT_SUPPORTED",
	C.CUBLAS_STATUS_LICENSE_ERROR:    "CUBLAS_STATUS_LICENSE_ERROR",
}

func statusName(s C.cublasStatus_t) string {
	if name, ok := statusNames[s]; ok {
		return name
	}
	return "an unnamed status"
}

// UseCublasLt makes a handle of cuBLASLt, which FindCublasLt has found. Close frees it.
func (d *Device) UseCublasLt() error { return result(C.gpu_lt_create(d.context, &d.lt)) }

// Compute is what products are computed in. All operands are float32 in memory.
type Compute int

// The ways to compute: with float32, and with operands rounded to tf32 or bf16.
const (
	ComputeFP32 Compute = C.CUBLAS_COMPUTE_32F
	ComputeTF32 Compute = C.CUBLAS_COMPUTE_32F_FAST_TF32
	ComputeBF16 Compute = C.CUBLAS_COMPUTE_32F_FAST_16BF
)

// A Product is d = op(a) op(b), added to d where Add is set, of matrices that are column-major as cuBLASLt has it: a row-major
// matrix of rows by columns is one of columns by rows. Bias, if it is not 0, is added to each column.
type Product struct {
	A, B, D, Bias          Address
	TransA, TransB, Add    bool
	M, N, K, LdA, LdB, LdD int
	ByK                    bool // K is the rows that are counted, else N: both are capacities
	Axis                   int  // whose count; -1: the capacity is real
	Compute                Compute
	Workspace              Address
	Room                   int // bytes of the workspace
	Algorithm              Algorithm
}

// plan is p in memory of C's, with descriptors.
func (p *Product) plan() (*C.struct_gpu_product, error) {
	c := (*C.struct_gpu_product)(C.calloc(1, C.sizeof_struct_gpu_product))
	if c == nil {
		return nil, errors.New("no memory for a product")
	}
	c.a, c.b, c.d, c.bias = C.CUdeviceptr(p.A), C.CUdeviceptr(p.B), C.CUdeviceptr(p.D), C.CUdeviceptr(p.Bias)
	c.workspace, c.room = C.CUdeviceptr(p.Workspace), C.size_t(p.Room)
	c.m, c.n, c.k = C.int64_t(p.M), C.int64_t(p.N), C.int64_t(p.K)
	c.lda, c.ldb, c.ldd = C.int64_t(p.LdA), C.int64_t(p.LdB), C.int64_t(p.LdD)
	c.trans_a, c.trans_b, c.by_k = truth(p.TransA), truth(p.TransB), truth(p.ByK)
	c.axis, c.beta = C.int(p.Axis), C.float(truth(p.Add))
	c.compute, c.algo = C.cublasComputeType_t(p.Compute), p.Algorithm.a
	if err := result(C.gpu_lt_plan(c)); err != nil {
		unplan(c)
		return nil, err
	}
	return c, nil
}

// unplan frees what plan made.
func unplan(c *C.struct_gpu_product) {
	C.gpu_lt_unplan(c)
	C.free(unsafe.Pointer(c))
}

func truth(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

// An Algorithm is how cuBLASLt computes a product.
type Algorithm struct {
	a                        C.cublasLtMatmulAlgo_t
	ID, Tile, Stages, Splits int
}

func (a Algorithm) String() string {
	return fmt.Sprintf("algo%d_tile%d_stages%d_splits%d", a.ID, a.Tile, a.Stages, a.Splits)
}

// Choose returns the first of the algorithms that the library's heuristic has for p with so many rows which also fits other
// numbers of rows. The same question has the same answer. Sums may be computed in parts where p counts K: those are
// written to the workspace, and added up by a kernel of their own in a fixed order. Nothing is added up by atomics, or
// in the order in which blocks end. None: false.
func (d *Device) Choose(p *Product, rows int, others ...int) (Algorithm, bool, error) {
	c, err := p.plan()
	if err != nil {
		return Algorithm{}, false, err
	}
	defer unplan(c)
	schemes := C.uint32_t(C.CUBLASLT_REDUCTION_SCHEME_NONE)
	if p.ByK {
		schemes = C.CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE
	}
	var found [8]C.struct_gpu_algorithm
	n := C.int(len(found))
	if err := result(C.gpu_lt_algorithms(d.context, d.lt, c, C.int64_t(rows), schemes, &found[0], &n)); err != nil {
		return Algorithm{}, false, err
	}
next:
	for _, f := range found[:n] {
		if f.reduction != C.CUBLASLT_REDUCTION_SCHEME_NONE && C.uint32_t(f.reduction) != schemes {
			continue // the mask is a wish
		}
		c.algo = f.algo
		for _, rows := range others {
			var fits C.int
			if err := result(C.gpu_lt_set(d.lt, c, C.int64_t(rows), &fits)); err != nil {
				return Algorithm{}, false, err
			}
			if fits == 0 {
				continue next
			}
		}
		return Algorithm{f.algo, int(f.id), int(f.tile), int(f.stages), int(f.splits)}, true, nil
	}
	return Algorithm{}, false, nil
}
