package graph

import (
	"context"
	"errors"
	"fmt"

	"rung/nn/backend"
	"rung/nn/backend/host"
)

// A Run is the memory of one execution of a program at a time: the arena, the inputs and, per unit,
// the gradients of units.
type Run struct {
	p      *Program
	be     backend.Backend
	bind   backend.Binding
	exec   backend.Exec
	mem    []backend.Memory
	host   map[string][]byte // staging of inputs and indexes
	dirty  []input
	stale  []span // of gradients: what is cleared, because no call overwrites it
	units  backend.Memory
	stride int
}

// input is where a staged input goes.
type input struct {
	from []byte
	to   backend.Memory
}

// span is n bytes of a memory.
type span struct {
	mem    backend.Memory
	off, n int64
}

// NewRun reserves the memory of one execution. units is the capacity of a per-unit program.
func (p *Program) NewRun(be backend.Backend, units int) (*Run, error) {
	if be.Float() != p.Float {
		return nil, fmt.Errorf("graph: the program's elements are not those of backend %s", be.Name())
	}
	r := &Run{p: p, be: be, host: map[string][]byte{}}
	if err := r.reserve(units); err != nil {
		_ = r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Run) reserve(units int) error {
	size := int64(r.be.Float().Size())
	var err error
	if r.bind.Arena, err = r.memory(int64(r.p.Arena) * size); err != nil {
		return fmt.Errorf("graph: arena: %w", err)
	}
	for _, sp := range []backend.Space{backend.Input, backend.Index} {
		for _, l := range r.p.Leaves[sp] {
			n, each := int64(units+1), size
			if len(l.Shape.Dims) > 0 {
				n = int64(l.Shape.Size())
			}
			if sp == backend.Index {
				each = 4
			}
			m, err := r.memory(n * each)
			if err != nil {
				return fmt.Errorf("graph: input %q: %w", l.Name, err)
			}
			r.bind.Blocks[sp] = append(r.bind.Blocks[sp], backend.Block{Mem: m})
			if h := m.Host(); h != nil {
				r.host[l.Name] = h
			} else {
				r.host[l.Name] = make([]byte, n*each)
				r.dirty = append(r.dirty, input{r.host[l.Name], m})
			}
		}
	}
	if r.p.PerUnit {
		for _, l := range r.p.Leaves[backend.Grad] {
			r.stride += (l.Shape.Size() + align - 1) / align * align
		}
		if r.units, err = r.memory(int64(r.stride) * int64(units) * size); err != nil {
			return fmt.Errorf("graph: gradients of %d units: %w", units, err)
		}
		r.bind.PerUnit, r.bind.Units = r.stride, r.p.Units
	}
	return nil
}

func (r *Run) memory(n int64) (backend.Memory, error) {
	m, err := r.be.Reserve(n)
	if err == nil {
		r.mem = append(r.mem, m)
	}
	return m, err
}

// Program is what runs.
func (r *Run) Program() *Program { return r.p }

// Bind points the program at weights and gradients. A weight is taken from the first store that has
// its path, so that an adapter's store goes before its base's; swapping it is one more Bind. After an
// error what was bound before still is.
func (r *Run) Bind(stores ...*Store) error {
	bind := r.bind
	var err error
	if bind.Blocks[backend.Weight], err = r.find(stores, backend.Weight); err != nil {
		return err
	}
	if r.p.PerUnit {
		off := 0
		bind.Blocks[backend.Grad] = nil
		for _, l := range r.p.Leaves[backend.Grad] {
			bind.Blocks[backend.Grad] = append(bind.Blocks[backend.Grad], backend.Block{Mem: r.units, Off: off})
			off += (l.Shape.Size() + align - 1) / align * align
		}
	} else if bind.Blocks[backend.Grad], err = r.find(stores, backend.Grad); err != nil {
		return err
	}
	exec, err := r.be.Encode(r.p.Calls, bind)
	if err != nil {
		return err
	}
	old := r.exec
	r.bind, r.exec, r.stale = bind, exec, r.uncovered(stores, bind, exec)
	if old != nil {
		return old.Close()
	}
	return nil
}

// uncovered is the gradients in stores that no call of exec can overwrite: there is nobody who adds to them, or
// what is added first is in parts.
func (r *Run) uncovered(stores []*Store, bind backend.Binding, exec backend.Exec) (spans []span) {
	if r.p.PerUnit {
		return []span{{r.units, 0, r.units.Size()}}
	}
	over := map[backend.Block]bool{}
	if _, ok := exec.(backend.Overwriter); ok {
		for _, c := range r.p.Calls {
			for _, b := range c.Out {
				if b.First {
					over[bind.Blocks[backend.Grad][b.ID]] = true
				}
			}
		}
	}
	for _, s := range stores {
		from := 0
		add := func(to int) {
			if to > from {
				spans = append(spans, span{s.Grad, s.bytes(from), s.bytes(to - from)})
			}
		}
		for _, g := range s.Seg {
			if s.Grad != nil && over[s.block(s.Grad, g)] {
				add(g.Off)
				from = g.Off + g.Size()
			}
		}
		if s.Grad != nil {
			add(s.k)
		}
	}
	return spans
}

// find takes each weight, or its gradient, from the first store that has it.
func (r *Run) find(stores []*Store, sp backend.Space) ([]backend.Block, error) {
	blocks := make([]backend.Block, 0, len(r.p.Leaves[sp]))
next:
	for _, l := range r.p.Leaves[sp] {
		for _, s := range stores {
			g, ok := s.Find(l.Name)
			if !ok {
				continue
			}
			if want := (Shape{Dims: g.Dims}); !want.Equal(l.Shape) {
				return nil, fmt.Errorf("graph: weight %q is %v in the store and %v in the program", l.Name, want, l.Shape)
			}
			m := s.Master
			if sp == backend.Grad {
				m = s.Grad
			}
			if m == nil || sp == backend.Grad && !g.Trainable {
				return nil, fmt.Errorf("graph: weight %q has no gradient in the store", l.Name)
			}
			blocks = append(blocks, s.block(m, g))
			continue next
		}
		return nil, fmt.Errorf("graph: no store has the weight %q", l.Name)
	}
	return blocks, nil
}

// Ints is the memory of an index input to fill before Do; nil if the program does not read it.
func (r *Run) Ints(name string) []int32 { return host.Elements[int32](r.host[name]) }

// Floats is the memory of an input to fill before Do; nil if the program does not read it, or its
// elements are no F.
func Floats[F host.Float](r *Run, name string) []F {
	if same[F](r.be) != nil {
		return nil
	}
	return host.Elements[F](r.host[name])
}

// Do runs the program on the real rows that s counts. Gradients are added to what is there if
// accumulate is set, else instead of it.
func (r *Run) Do(ctx context.Context, s *backend.Scalars, accumulate bool) error {
	if r.exec == nil {
		return errors.New("graph: a run without weights: Bind comes first")
	}
	for _, in := range r.dirty {
		if err := in.to.WriteAt(in.from, 0); err != nil {
			return err
		}
	}
	if !accumulate && len(r.p.Leaves[backend.Grad]) > 0 {
		for _, z := range r.stale {
			if err := z.mem.Clear(z.off, z.n); err != nil {
				return err
			}
		}
	}
	if o, ok := r.exec.(backend.Overwriter); ok {
		o.Overwrite(!accumulate && !r.p.PerUnit)
	}
	return r.exec.Launch(ctx, s)
}

// Trace has later launches report the time of each call of the program, or no longer with nil. False:
// the backend does not measure it.
func (r *Run) Trace(f backend.Trace) bool {
	t, ok := r.exec.(backend.Tracer)
	if ok {
		t.Trace(f)
	}
	return ok
}

// Output copies the first rows rows of an output of the last Do to dst, which grows as needed.
func Output[F host.Float](r *Run, name string, rows int, dst []F) ([]F, error) {
	b, ok := r.p.Out[name]
	if !ok {
		return nil, fmt.Errorf("graph: no output %q", name)
	}
	if err := same[F](r.be); err != nil {
		return nil, err
	}
	if rows < 0 || rows > b.Rows {
		return nil, fmt.Errorf("graph: %d rows of output %q, which has %d", rows, name, b.Rows)
	}
	m, off := r.place(b)
	size := r.be.Float().Size()
	at := len(dst)
	dst = append(dst, make([]F, rows*b.Cols)...)
	if rows > 1 && b.Ld == b.Cols { // at once: each read of a device's memory waits for it
		return dst, m.ReadAt(host.Bytes(dst[at:]), int64(off)*int64(size))
	}
	for i := range rows {
		if err := m.ReadAt(host.Bytes(dst[at+i*b.Cols:at+(i+1)*b.Cols]), int64(off+i*b.Ld)*int64(size)); err != nil {
			return nil, err
		}
	}
	return dst, nil
}

// UnitGradients is the memory of a per-unit program's gradients: a row of stride elements for each unit, in which
// weights lie as in the store that they are of. Nil of other programs.
func (r *Run) UnitGradients() (m backend.Memory, stride int) { return r.units, r.stride }

// place is the memory that b is in, and the element it starts at.
func (r *Run) place(b backend.Buf) (backend.Memory, int) {
	if b.Space == backend.Arena {
		return r.bind.Arena, b.Off
	}
	blk := r.bind.Blocks[b.Space][b.ID]
	return blk.Mem, blk.Off + b.Off
}

// OutputLater is Output for a function to be called once, when it is wanted: until then nothing waits for a device, whatever
// is done in between, if the rows lie side by side.
func OutputLater[F host.Float](r *Run, name string, rows int) (func() ([]F, error), error) {
	if b, ok := r.p.Out[name]; ok && same[F](r.be) == nil && (rows == 1 || b.Ld == b.Cols) && rows > 0 && rows <= b.Rows {
		m, off := r.place(b)
		if later, ok := m.(backend.Later); ok {
			v := make([]F, rows*b.Cols)
			wait, err := later.ReadLater(host.Bytes(v), int64(off)*int64(r.be.Float().Size()))
			return func() ([]F, error) { return v, wait() }, err
		}
	}
	v, err := Output[F](r, name, rows, nil)
	return func() ([]F, error) { return v, nil }, err
}

// UnitOffset is where the gradient of a weight begins in a unit's row; false: there is none.
func (r *Run) UnitOffset(path string) (off int, ok bool) {
	off, _, ok = r.ofUnit(path)
	return off, ok
}

// ofUnit is where the gradient of a weight lies in a unit's row.
func (r *Run) ofUnit(path string) (off, size int, ok bool) {
	for i, l := range r.p.Leaves[backend.Grad] {
		if l.Name == path && r.p.PerUnit {
			return r.bind.Blocks[backend.Grad][i].Off, l.Shape.Size(), true
		}
	}
	return 0, 0, false
}

// UnitGradient copies the gradient of one unit for one weight.
func UnitGradient[F host.Float](r *Run, path string, unit int) ([]F, error) {
	off, size, ok := r.ofUnit(path)
	if !ok {
		return nil, fmt.Errorf("graph: no gradient of %q per unit", path)
	}
	if err := same[F](r.be); err != nil {
		return nil, err
	}
	v := make([]F, size)
	return v, r.units.ReadAt(host.Bytes(v), int64(off+unit*r.stride)*int64(r.be.Float().Size()))
}

// Bytes is the memory that a run of p reserves, but for weights and gradients.
func (p *Program) Bytes() int64 {
	n := int64(p.Arena) * int64(p.Float.Size())
	for _, l := range p.Leaves[backend.Input] {
		n += int64(l.Shape.Size()) * int64(p.Float.Size())
	}
	for _, l := range p.Leaves[backend.Index] {
		if len(l.Shape.Dims) > 0 {
			n += int64(l.Shape.Size()) * 4
		}
	}
	return n
}

// Bytes is the memory that the run has reserved, once it is bound: arena, inputs and what the backend
// needs besides.
func (r *Run) Bytes() int64 {
	var n int64
	for _, m := range r.mem {
		n += m.Size()
	}
	if r.exec != nil {
		n += r.exec.Bytes()
	}
	return n
}

// Close frees the run's memory.
func (r *Run) Close() error {
	var err error
	if r.exec != nil {
		err = r.exec.Close()
	}
	for _, m := range r.mem {
		if e := m.Free(); err == nil {
			err = e
		}
	}
	r.mem, r.exec = nil, nil
	return err
}
