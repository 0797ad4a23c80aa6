//go:build cgo && amd64 && unix

package cpu

// ISO C keeps the compiler from fusing products and sums on its own: the kernels say where they do.

// #cgo CFLAGS: -std=c11 -O2
// #cgo LDFLAGS: -lm
// #include "kernels.h"
import "C"

import (
	"golang.org/x/sys/cpu"

	"rung/nn/backend"
	"rung/nn/backend/host"
)

type (
	args = host.Args[float32]
	mat  = host.Mat[float32]
)

// native lists the instruction sets of this machine.
func native() (isas []string) {
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		isas = append(isas, "avx2")
		if cpu.X86.HasAVX512F {
			isas = append(isas, "avx512")
		}
	}
	return isas
}

// An isa is an instruction set, and the block of a matrix that its registers hold.
type isa struct {
	id     C.int
	mr, nr int // rows and columns of a block
	kt     int // rows that a weight's gradient packs at a time
}

var (
	avx2   = isa{C.RUNG_AVX2, 6, 16, 256}
	avx512 = isa{C.RUNG_AVX512, 14, 32, 256}
)

// install replaces the kernels that this package has.
func install(t *host.Kernels[float32], name string) {
	s := avx2
	if name == "avx512" {
		s = avx512
	}
	t[backend.MatNT] = s.matNT()
	t[backend.MatNN] = s.matNN()
	t[backend.MatTN] = s.matTN()
	t[backend.Attn] = s.attn()
	t[backend.AttnGrad] = s.attnGrad()
	s.installElements(t)
	s.installRows(t)
	s.installUpdates(t)
}

// at is the address of an element, nil of a matrix that is not there.
func at(m mat, i, j int) *C.float {
	if m.Nil() {
		return nil
	}
	return (*C.float)(&m.D[i*m.Ld+j])
}

// byRows is a kernel of one phase over the rows of result 0, about work elements at a time.
func byRows(run func(a *args, lo, hi int)) host.Kernel[float32] {
	return host.Kernel[float32]{Phases: []host.Phase[float32]{{
		N:     func(a *args) int { return a.Dst[0].Rows },
		Grain: func(a *args) int { return max(1, work/max(1, a.Out[0].Cols)) },
		Run:   run,
	}}}
}

// work is the elements of a piece: a call into C and the hand-over of work are small beside it.
const work = 1 << 14

// part is worker's part of the scratch: n floats.
func part(a *args, worker, n int) []float32 {
	return host.Elements[float32](a.Scratch)[worker*n : (worker+1)*n]
}

func up(n, to int) int   { return (n + to - 1) / to * to }
func ceil(n, by int) int { return (n + by - 1) / by }

func flag(b bool) C.int {
	if b {
		return 1
	}
	return 0
}
