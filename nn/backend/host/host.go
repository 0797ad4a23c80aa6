// Package host runs programs on the CPU: it resolves the buffers of calls to slices, and hands the
// pieces of each kernel to a pool of workers. Packages ref and cpu give it their kernels.
package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
	"unsafe"

	"rung/nn/backend"
)

// Float is the element type of a backend.
type Float interface{ float32 | float64 }

// A Mat is a matrix in memory. D is nil if nobody reads it. Rows is the number of real rows.
type Mat[F Float] struct {
	D              []F
	Rows, Cols, Ld int
}

// Row returns row i.
func (a Mat[F]) Row(i int) []F { return a.D[i*a.Ld : i*a.Ld+a.Cols : i*a.Ld+a.Cols] }

// Nil reports that nobody reads a, or that an optional input is missing.
func (a Mat[F]) Nil() bool { return a.D == nil }

// Args is a call with its memory resolved.
type Args[F Float] struct {
	*backend.Call
	Dst, Src []Mat[F]  // of Out and In
	Int      [][]int32 // of In, where it is an index
	Version  []*uint64 // of In, where it is a weight whose elements change seldom
	S        *backend.Scalars
	OutPages []Pages // of Out
	InPages  []Pages // of In
	Form     [][]F   // of In, where the kernel asked for a copy in an order of its own
	Scratch  []byte  // what the kernel asked for, 64-byte aligned; shared by its phases and workers
	Tasks    *Tasks  // of the phase that is being recorded
	Workers  int

	at     int // where in the program's scratch Scratch is
	units  [backend.NumAxes][]int32
	stride int              // elements from unit to unit
	adding [2]*backend.Call // the call that adds results that are First, and the one that overwrites; nil without such
}

// A Phase is a kernel's work on pieces of [0, N). Whoever computes an element of a result does so in
// one fixed order: neither the pieces nor the workers change a bit.
type Phase[F Float] struct {
	N     func(a *Args[F]) int
	Grain func(a *Args[F]) int // nil: 1
	Run   func(a *Args[F], lo, hi int)
	RunAs func(a *Args[F], worker, lo, hi int) // instead of Run, for scratch that each worker has its part of

	// Record, instead of Run, adds to Tasks what there is to do. It may do what takes no time at once. Part is
	// the bytes of scratch of each worker, by the shape of the call alone; nil: none. Scratch begins with room for them, which
	// only tasks may use: a worker's is where its pieces of other calls have theirs, and nothing stays in it.
	Record func(a *Args[F], lo, hi int)
	Part   func(a *Args[F]) int
}

// A Kernel is phases, one after another.
type Kernel[F Float] struct {
	Phases  []Phase[F]
	Scratch func(a *Args[F]) int // bytes, at the capacities of the buffers; nil: none
	Forms   *Forms[F]            // nil: inputs are read as they are
	Marks   bool                 // it marks the pages of tracked memory that it writes; else all of a result are marked
}

// Kernels is a table of kernels by operation.
type Kernels[F Float] [backend.NumOps]Kernel[F]

// Segments is how a row reduction over an axis is split. There is one segment, of all rows, unless the
// result is a gradient and the program keeps units apart.
type Segments[F Float] struct {
	N      int
	out    Mat[F]
	size   int // elements from the first of the result to its last
	rows   int
	units  []int32
	stride int
}

// At is the result of segment u and its range of rows.
func (s *Segments[F]) At(u int) (out Mat[F], lo, hi int) {
	if s.units == nil {
		return s.out, 0, s.rows
	}
	out = s.out
	from := u * s.stride
	out.D = out.D[from : from+s.size : len(out.D)] // which must be there: kernels in C do not look
	return out, int(s.units[u]), int(s.units[u+1])
}

// Segments splits a reduction of rows along axis whose result is result i.
func (a *Args[F]) Segments(i int, axis backend.Axis, rows int) Segments[F] {
	s := Segments[F]{N: 1, out: a.Dst[i], rows: rows}
	if units := a.units[axis]; a.Out[i].Space == backend.Grad && units != nil {
		s.N, s.units, s.stride = min(len(units)-1, a.S.Count[backend.Unit]), units, a.stride
		s.size = extent(a.Out[i])
	}
	return s
}

// ByUnit reports that segments are those of units: there may be one, of some rows.
func (s *Segments[F]) ByUnit() bool { return s.units != nil }

// A Backend runs programs with a table of kernels.
type Backend[F Float] struct {
	name    string
	pool    *Pool
	kernels *Kernels[F]
	forms   cache[F]
}

// New returns a backend of that name.
func New[F Float](name string, pool *Pool, k *Kernels[F]) *Backend[F] {
	return &Backend[F]{name: name, pool: pool, kernels: k}
}

// Name is the device and instruction set.
func (b *Backend[F]) Name() string { return b.name }

// Float is the element type.
func (b *Backend[F]) Float() backend.Float {
	var f F
	if unsafe.Sizeof(f) == 8 {
		return backend.Float64
	}
	return backend.Float32
}

// Reserve maps zeroed memory outside the Go heap.
func (b *Backend[F]) Reserve(n int64) (backend.Memory, error) {
	m, err := Reserve(n)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Encode resolves calls to memory.
func (b *Backend[F]) Encode(calls []backend.Call, bind backend.Binding) (backend.Exec, error) {
	e := &exec[F]{be: b, args: make([]Args[F], len(calls)), copies: make([][]copied[F], len(calls))}
	e.piece = func(worker, lo, hi int) {
		if p := e.phase; p.RunAs != nil {
			p.RunAs(e.a, worker, lo, hi)
		} else {
			p.Run(e.a, lo, hi)
		}
	}
	sizes := make([]int, len(calls))
	for i := range calls {
		n, err := e.encode(i, &calls[i], bind)
		if err != nil {
			e.release()
			return nil, fmt.Errorf("backend %s: %w", b.name, err)
		}
		sizes[i] = n
	}
	if scratch := e.group(sizes); scratch > 0 {
		m, err := Reserve(int64(scratch))
		if err != nil {
			e.release()
			return nil, fmt.Errorf("backend %s: scratch: %w", b.name, err)
		}
		e.scratch, e.tasks.job.Scratch = m, m.b
		for i := range e.args {
			e.place(i)
		}
	}
	return e, nil
}

// unitsOf finds the first rows of units.
func unitsOf(bind backend.Binding, id int) ([]int32, error) {
	block, err := blockOf(bind, backend.Index, id)
	if err != nil {
		return nil, err
	}
	x := Elements[int32](block.Mem.Host())
	if block.Off < 0 || block.Off >= len(x) {
		return nil, fmt.Errorf("element %d of an index of %d", block.Off, len(x))
	}
	return x[block.Off:], nil
}

// blockOf is what is bound as id of a space.
func blockOf(bind backend.Binding, s backend.Space, id int) (backend.Block, error) {
	block := backend.Block{Mem: bind.Arena}
	if s != backend.Arena {
		if s >= backend.NumSpaces || id < 0 || id >= len(bind.Blocks[s]) {
			return block, fmt.Errorf("nothing is bound as %d of space %d", id, s)
		}
		block = bind.Blocks[s][id]
	}
	if block.Mem == nil {
		return block, fmt.Errorf("no memory is bound as %d of space %d", id, s)
	}
	return block, nil
}

// extent is the elements from the first to the last of b.
func extent(b backend.Buf) int {
	if b.Rows <= 0 || b.Cols <= 0 {
		return 0
	}
	return (b.Rows-1)*b.Ld + b.Cols
}

// encode resolves one call and returns the bytes of scratch it takes.
func (e *exec[F]) encode(i int, c *backend.Call, bind backend.Binding) (scratch int, err error) {
	if c.Op >= backend.NumOps || c.Op != backend.Host && len(e.be.kernels[c.Op].Phases) == 0 {
		return 0, fmt.Errorf("%s needs a kernel %v, which this backend has not", c.Node, c.Op)
	}
	a, kernel := &e.args[i], &e.be.kernels[c.Op]
	a.Tasks = &e.tasks
	a.Call, a.Workers, a.stride = c, e.be.pool.Workers(), bind.PerUnit
	a.adding = variants(c)
	a.Dst, a.Src = make([]Mat[F], len(c.Out)), make([]Mat[F], len(c.In))
	a.Int, a.Version = make([][]int32, len(c.In)), make([]*uint64, len(c.In))
	a.Form = make([][]F, len(c.In))
	a.OutPages, a.InPages = make([]Pages, len(c.Out)), make([]Pages, len(c.In))
	for k, o := range c.Out {
		if o.Acc && !c.Op.Accumulates(k) {
			return 0, fmt.Errorf("result %d of %s: kernel %v cannot add to what is there", k, c.Node, c.Op)
		}
		if a.Dst[k], _, _, err = resolve[F](bind, o); err != nil {
			return 0, fmt.Errorf("result %d of %s: %w", k, c.Node, err)
		}
		a.OutPages[k] = pagesOf[F](bind, o)
	}
	for k, in := range c.In {
		if a.Src[k], a.Int[k], a.Version[k], err = resolve[F](bind, in); err != nil {
			return 0, fmt.Errorf("input %d of %s: %w", k, c.Node, err)
		}
		a.InPages[k] = pagesOf[F](bind, in)
	}
	if bind.PerUnit > 0 {
		for x, id := range bind.Units {
			if backend.Axis(x) == backend.Fixed {
				continue
			}
			if a.units[x], err = unitsOf(bind, id); err != nil {
				return 0, fmt.Errorf("units by %v of %s: %w", backend.Axis(x), c.Node, err)
			}
		}
	}
	if kernel.Scratch != nil {
		scratch = aligned(kernel.Scratch(a))
	}
	if kernel.Forms != nil {
		n, err := e.encodeForms(i, scratch)
		return scratch + n, err
	}
	return scratch, nil
}

// variants is c, and what it is where results that are First overwrite.
func variants(c *backend.Call) (v [2]*backend.Call) {
	if slices.ContainsFunc(c.Out, func(b backend.Buf) bool { return b.First }) {
		over := *c
		over.Out = slices.Clone(c.Out)
		for k := range over.Out {
			over.Out[k].Acc = over.Out[k].Acc && !over.Out[k].First
		}
		v = [2]*backend.Call{c, &over}
	}
	return v
}

// Overwrite says which calls later launches run.
func (e *exec[F]) Overwrite(on bool) {
	for i := range e.args {
		if a := &e.args[i]; a.adding[0] != nil && on {
			a.Call = a.adding[1]
		} else if a.adding[0] != nil {
			a.Call = a.adding[0]
		}
	}
}

// resolve finds a buffer's memory and checks that it lies inside.
func resolve[F Float](bind backend.Binding, b backend.Buf) (m Mat[F], ints []int32, v *uint64, err error) {
	if b.Space == backend.None {
		return
	}
	block, err := blockOf(bind, b.Space, b.ID)
	if err != nil {
		return m, nil, nil, err
	}
	if b.Rows < 0 || b.Cols < 0 || b.Rows > 1 && b.Ld < b.Cols {
		return m, nil, nil, fmt.Errorf("%dx%d elements, %d from row to row: not a matrix", b.Rows, b.Cols, b.Ld)
	}
	off, end := block.Off+b.Off, extent(b)
	if b.Space == backend.Index {
		x := Elements[int32](block.Mem.Host())
		if off < 0 || off+end > len(x) {
			return m, nil, nil, fmt.Errorf("elements %d to %d of an index of %d", off, off+end, len(x))
		}
		return Mat[F]{Rows: b.Rows, Cols: b.Cols, Ld: b.Ld}, x[off:], nil, nil
	}
	x := Elements[F](block.Mem.Host())
	if off < 0 || off+end > len(x) {
		return m, nil, nil, fmt.Errorf("elements %d to %d of a block of %d", off, off+end, len(x))
	}
	return Mat[F]{x[off:len(x):len(x)], b.Rows, b.Cols, b.Ld}, nil, block.Version, nil
}

type exec[F Float] struct {
	be      *Backend[F]
	args    []Args[F]
	copies  [][]copied[F] // by call: the forms of its inputs
	scratch *Memory
	shelf   *shelf // where forms that this program makes are put
	trace   backend.Trace

	groups []int // where groups of calls end

	// The piece of work at hand: one closure serves all, so that a launch allocates nothing.
	a     *Args[F]
	phase *Phase[F]
	piece func(worker, lo, hi int)
	tasks Tasks
	made  []*form[F] // that the tasks at hand make for a later call
	fresh bool       // later calls of this launch lack none that early could make
}

// Launch runs the calls.
func (e *exec[F]) Launch(ctx context.Context, s *backend.Scalars) error {
	for i := range e.args {
		e.args[i].setRows(s)
	}
	lo := 0
	e.fresh = false
	for _, hi := range e.groups {
		for lo < hi {
			if err := ctx.Err(); err != nil {
				return err
			}
			to, began := hi, time.Time{}
			if e.trace != nil {
				to, began = lo+1, time.Now()
			}
			if err := e.run(lo, to); err != nil {
				return err
			}
			if e.trace != nil {
				e.trace(lo, time.Since(began))
			}
			lo = to
		}
	}
	return nil
}

// run runs calls lo to hi.
func (e *exec[F]) run(lo, hi int) error {
	if a := &e.args[lo]; a.Op == backend.Host {
		if err := a.onHost(); err != nil {
			return e.named(lo, err)
		}
		return nil
	}
	return e.together(lo, hi)
}

// Trace has launches report the time of each call, each by itself.
func (e *exec[F]) Trace(f backend.Trace) { e.trace = f }

// onHost calls a stock operator, whose panics are many.
func (a *Args[F]) onHost() (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = failed(r)
		}
	}()
	whole := func(bufs []backend.Buf, mats []Mat[F]) [][]byte {
		out := make([][]byte, len(mats))
		for i, m := range mats {
			if m.D != nil {
				out[i] = Bytes(m.D[:(bufs[i].Rows-1)*m.Ld+m.Cols])
			}
		}
		return out
	}
	return a.Call.Host(whole(a.Out, a.Dst), whole(a.In, a.Src))
}

func (a *Args[F]) setRows(s *backend.Scalars) {
	a.S = s
	for k, b := range a.Out {
		a.Dst[k].Rows = rowsOf(b, s)
	}
	for k, b := range a.In {
		a.Src[k].Rows = rowsOf(b, s)
	}
}

func rowsOf(b backend.Buf, s *backend.Scalars) int {
	if b.Axis == backend.Fixed {
		return b.Rows
	}
	return min(b.Rows, s.Count[b.Axis])
}

// Bytes is scratch and forms; a form that other programs use too counts whole.
func (e *exec[F]) Bytes() int64 {
	var n int64
	if e.scratch != nil {
		n = e.scratch.Size()
	}
	seen := map[*form[F]]bool{}
	for _, cs := range e.copies {
		for _, c := range cs {
			if c.shared != nil && !seen[c.shared] {
				seen[c.shared] = true
				n += int64(len(c.shared.b))
			}
		}
	}
	return n
}

// Close frees the scratch memory and lets go of the forms of weights.
func (e *exec[F]) Close() error {
	e.args, e.groups, e.tasks = nil, nil, Tasks{}
	return e.release()
}

func (e *exec[F]) release() (err error) {
	for _, call := range e.copies {
		for _, c := range call {
			if c.shared != nil {
				err = errors.Join(err, e.be.forms.drop(c.shared))
			}
		}
	}
	e.copies = nil
	if e.scratch != nil {
		err = errors.Join(err, e.scratch.Free())
		e.scratch = nil
	}
	return err
}
