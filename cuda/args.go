//go:build gpu

package cuda

import (
	"unsafe"

	"rung/nn/backend"
)

// What kernels take: the structures of common.cuh, gemm.cuh and update.cu, field by field. A test
// compares their sizes with those in the PTX.

// scalars is struct Scalars.
type scalars struct {
	count      [4]int32
	seed, step uint64
	lr         [8]float64
	clip       float64
}

// mat is struct Mat.
type mat struct {
	p                    uint64
	rows, cols, ld, axis int32
}

func (m *mat) dead() bool { return m.p == 0 }

// args is struct Args.
type args struct {
	s                      uint64
	out                    [4]mat
	in                     [8]mat
	i                      [4]int32
	f                      [4]float64
	units                  uint64
	stride                 int64
	scratch                uint64
	most, acc, vec, splits int32
}

// segment is struct Segment.
type segment struct {
	a, b             uint64
	lda, ldb, k, vec int32
}

// gemm is struct Gemm.
type gemm struct {
	s, y, pre, gate, units, part uint64
	stride                       int64
	ldy, ldpre, ldgate           int32
	rows, axis                   int32
	total, most, splits          int32
	acc, act, wide               int32
	blocks, segments             int32
	tile                         [17]int32
	col, n                       [16]int32
	bias                         [16]uint64
	seg                          [32]segment
	out, sum                     [16]uint64
	m, ld, accs                  [16]int32
}

// piece is struct Piece.
type piece struct {
	g                  uint64
	cols, ld, start, n int32
}

// weights is struct Update.
type weights struct {
	w, m, v, top, g   uint64
	n, group, flag, _ int32
	f                 [4]float64
}

// bytesOf views a structure, or elements of one kind, as bytes.
func bytesOf[T any](v []T) []byte {
	var t T
	if len(v) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), len(v)*int(unsafe.Sizeof(t)))
}

func structBytes[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), int(unsafe.Sizeof(*v)))
}

// scalarsOf is what the device reads of s.
func scalarsOf(s *backend.Scalars) scalars {
	d := scalars{seed: s.Seed, step: s.Step, lr: s.LR, clip: s.Clip}
	for i, n := range s.Count {
		d.count[i] = int32(n)
	}
	return d
}
