//go:build cgo && (amd64 || arm64) && unix

package cpu

// ISO C keeps the compiler from fusing products and sums on its own: the kernels say where they do.

// #cgo CFLAGS: -std=c11 -O2
// #cgo LDFLAGS: -lm
// #include "kernels.h"
import "C"

import (
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"rung/nn/backend"
	"rung/nn/backend/host"
)

type (
	args = host.Args[float32]
	mat  = host.Mat[float32]
)

// An isa is an instruction set, and the block of a matrix that its registers hold.
type isa struct {
	name     string
	version  int // of its kernels
	products int // of those that multiply matrices
	mr, nr   int // rows and columns of a block
	kc, kt   int // words of depth that a product, and a weight's gradient, takes at a time
	tc       int // columns of a tile of a product
	per      int // numbers of a word: 2 are rounded to bf16
	deep     int // depths in words are multiples of it
}

// isaOf has the sizes that its products are compiled for.
func isaOf(name string, version, products int, s C.struct_sizes) isa {
	return isa{name, version, products, int(s.mr), int(s.nr), int(s.kc), int(s.kt), int(s.tc), int(s.per), int(s.deep)}
}

// words is the depth of k in words.
func (s isa) words(k int) int { return up(ceil(k, s.per), s.deep) }

// native lists the instruction sets of this machine, the best last: those that multiply in float32, or those that
// round to bf16.
func native(rounds bool) (names []string) {
	for _, s := range isas() {
		if s.per > 1 == rounds {
			names = append(names, s.name)
		}
	}
	return names
}

// install replaces the kernels that this package has, and gives the pool who runs them.
func install(p *host.Pool, t *host.Kernels[float32], name string) error {
	have := isas()
	s := have[slices.IndexFunc(have, func(s isa) bool { return s.name == name })]
	t[backend.MatNT] = s.matNT()
	t[backend.MatNN] = s.matNN()
	t[backend.MatTN] = s.matTN()
	t[backend.Attn] = s.attn()
	t[backend.AttnGrad] = s.attnGrad()
	s.installElements(t)
	s.installRows(t)
	s.installMixtures(t)
	s.installUpdates(t)
	s.installGroups(t)
	return p.Engage(hire)
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
		N:      func(a *args) int { return a.Dst[0].Rows },
		Grain:  func(a *args) int { return max(1, work/max(1, a.Out[0].Cols)) },
		Record: run,
	}}}
}

// task records a call of a kernel.
func task[T any](s isa, a *args, kernel int, arg *T) { taskAt(s, a, kernel, 0, arg) }

// productAt is taskAt of a kernel that multiplies matrices.
func productAt[T any](s isa, a *args, kernel int, slot uintptr, arg *T) {
	s.version = s.products
	taskAt(s, a, kernel, slot, arg)
}

// taskAt records a call of a kernel; slot is the offset of the field of its argument that gets the address of
// the worker's scratch.
func taskAt[T any](s isa, a *args, kernel int, slot uintptr, arg *T) {
	a.Tasks.Add(kernel*C.RUNG_ISAS+s.version, int(slot), unsafe.Pointer(arg), unsafe.Sizeof(*arg))
}

// A crew is a team of threads.
type crew struct{ team *C.struct_team }

// hire starts the threads of a crew. They look for work between kernels if there is a core for each.
func hire(workers int) (host.Crew, error) {
	t := C.rung_team_new(C.int(workers), flag(workers <= runtime.NumCPU()))
	if t == nil {
		return nil, fmt.Errorf("cpu: no memory for %d workers", workers)
	}
	return crew{t}, nil
}

func (c crew) Do(j *host.Job) { C.rung_team_do(c.team, jobOf(j)) }

func (c crew) Alone(j *host.Job) { C.rung_do_alone(jobOf(j)) }

func (c crew) Close() { C.rung_team_free(c.team) }

func jobOf(j *host.Job) C.struct_job {
	return C.struct_job{
		tasks: (*C.uint64_t)(&j.Words[0]), starts: (*C.uint32_t)(&j.Starts[0]),
		ends: (*C.int64_t)(unsafe.Pointer(unsafe.SliceData(j.Ends))), scratch: (*C.char)(unsafe.Pointer(unsafe.SliceData(j.Scratch))),
		segments: C.long(len(j.Ends)), pieces: C.long(len(j.Starts) - 1), stride: C.long(j.Stride),
	}
}

// A job has no more segments than a group has calls: the threads of a crew keep count of so many.
var _ [C.RUNG_SEGMENTS - host.GroupSize]struct{}

// work is the elements of a piece: a call into C and the hand-over of work are small beside it.
const work = 1 << 14

func up(n, to int) int   { return (n + to - 1) / to * to }
func ceil(n, by int) int { return (n + by - 1) / by }

func flag(b bool) C.int {
	if b {
		return 1
	}
	return 0
}
