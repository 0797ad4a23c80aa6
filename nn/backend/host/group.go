package host

import (
	"fmt"
	"slices"
	"unsafe"

	"rung/nn/backend"
)

// Calls that follow each other and touch nothing that another of them writes are one group: a phase of all of them is
// one job, so that workers wait for each other once instead of once a call. A weight's gradient, its bias' and the
// gradient of what came in are such calls, and so are the updates of weights.

// GroupSize is the most calls of a group.
const GroupSize = 8

// groupScratch is the bytes of scratch that a group of several calls may take, if none of the program's takes more.
const groupScratch = 8 << 20

// group finds the groups of the calls, and gives each call its part of the scratch. A worker has one part, as large as any
// call wants it, in which it does one piece after another; they are at the start. What else calls of a group have is their
// own. It returns the bytes of all. sizes are those of the calls.
func (e *exec[F]) group(sizes []int) (scratch int) {
	stride := &e.tasks.job.Stride
	for i := range e.args {
		*stride = max(*stride, aligned(e.part(i)))
	}
	common := e.be.pool.Workers() * *stride
	limit := max(groupScratch, slices.Max(append(sizes, 0)))
	lo, taken := 0, common
	for i := range e.args {
		workers := e.args[i].Workers * e.part(i)
		own := sizes[i] - workers
		if i > lo && (i-lo == GroupSize || taken+own > limit || !e.joins(lo, i)) {
			e.groups = append(e.groups, i)
			lo, taken = i, common
		}
		e.args[i].at = aligned(taken - workers)
		taken = e.args[i].at + sizes[i]
		scratch = max(scratch, taken)
	}
	e.groups = append(e.groups, len(e.args))
	return scratch
}

// part is the bytes of a worker's scratch that call i wants; those of all workers are the first of its scratch.
func (e *exec[F]) part(i int) (bytes int) {
	a := &e.args[i]
	if a.Op == backend.Host {
		return 0
	}
	phases := e.be.kernels[a.Op].Phases
	for k := range phases {
		if phases[k].Part != nil {
			bytes = max(bytes, phases[k].Part(a))
		}
	}
	return bytes
}

// joins reports that call i can run beside those from lo on.
func (e *exec[F]) joins(lo, i int) bool {
	b := &e.args[i]
	if !e.recorded(i) {
		return false
	}
	for k := lo; k < i; k++ {
		a := &e.args[k]
		if !e.recorded(k) || meet(a.Dst, b.Src) || meet(a.Dst, b.Dst) || meet(a.Src, b.Dst) {
			return false
		}
	}
	return true
}

// recorded reports that all that a call does is tasks.
func (e *exec[F]) recorded(i int) bool {
	op := e.args[i].Op
	if op == backend.Host {
		return false
	}
	for k := range e.be.kernels[op].Phases {
		if e.be.kernels[op].Phases[k].Record == nil {
			return false
		}
	}
	return true
}

// meet reports that an element may be in one of xs and in one of ys. Columns of the same rows that lie side by side do
// not meet.
func meet[F Float](xs, ys []Mat[F]) bool {
	for i := range xs {
		for j := range ys {
			x, y := &xs[i], &ys[j]
			a, b, n, m := x.first(), y.first(), x.bytes(), y.bytes()
			if n == 0 || m == 0 || a+n <= b || b+m <= a {
				continue
			}
			if row := uintptr(x.Ld) * unsafe.Sizeof(F(0)); x.Ld == y.Ld && x.Ld > 0 {
				at, wide := (a-b)%row, uintptr(y.Cols)*unsafe.Sizeof(F(0)) // from a column of y to x's first
				if a < b {
					at = (row - (b-a)%row) % row
				}
				if at >= wide && at+uintptr(x.Cols)*unsafe.Sizeof(F(0)) <= row {
					continue
				}
			}
			return true
		}
	}
	return false
}

func (a *Mat[F]) first() uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(a.D))) }

// bytes is from the first element to the last.
func (a *Mat[F]) bytes() uintptr {
	if a.D == nil || a.Rows <= 0 || a.Cols <= 0 {
		return 0
	}
	return uintptr((a.Rows-1)*a.Ld+a.Cols) * unsafe.Sizeof(F(0))
}

// together runs calls lo to hi, which are one of them, or a group: the forms of their inputs that are out of date, then
// phase after phase.
func (e *exec[F]) together(lo, hi int) error {
	for i := lo; i < hi; i++ {
		if err := e.ready(i); err != nil {
			return e.named(i, err)
		}
	}
	for k, more := 0, true; more; k++ {
		more = false
		e.tasks.job.reset()
		for i := lo; i < hi; i++ {
			phases := e.be.kernels[e.args[i].Op].Phases
			if k >= len(phases) {
				continue
			}
			more = more || k+1 < len(phases)
			if err := e.start(&e.args[i], &phases[k]); err != nil {
				return e.named(i, err)
			}
		}
		if k == 0 {
			e.early(hi)
		}
		e.be.pool.do(&e.tasks.job)
		e.madeEarly()
	}
	return nil
}

// ready makes forms of call i's inputs, and marks the pages that it writes.
func (e *exec[F]) ready(i int) error {
	a := &e.args[i]
	for k := range e.copies[i] {
		if err := e.copies[i][k].refresh(e, a); err != nil {
			return err
		}
	}
	if !e.be.kernels[a.Op].Marks {
		for k, o := range a.Out {
			a.OutPages[k].Use(0, extent(o))
		}
	}
	return nil
}

// start adds the tasks of a phase; one in Go it runs.
func (e *exec[F]) start(a *Args[F], p *Phase[F]) error {
	grain := 1
	if p.Grain != nil {
		grain = p.Grain(a)
	}
	if p.Record == nil {
		e.a, e.phase = a, p
		return e.be.pool.Do(p.N(a), grain, e.piece)
	}
	err := e.record(a, p.N(a), grain, p.Record)
	e.tasks.job.segment()
	return err
}

// named says at which call err is.
func (e *exec[F]) named(i int, err error) error {
	return fmt.Errorf("%s (kernel %v): %w", e.args[i].Node, e.args[i].Op, err)
}
