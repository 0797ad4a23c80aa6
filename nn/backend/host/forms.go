package host

import (
	"sync"
	"unsafe"

	"rung/nn/backend"
)

// Forms are copies of inputs that a kernel reads in their stead, such as weights in packed panels.
// Those of weights that have a version are kept, one copy for all programs of a backend, and made
// again when the version changes; others are made in scratch at each launch.
type Forms[F Float] struct {
	Size func(a *Args[F], i int) int     // elements of the form of input i, at its capacity; 0: none
	N    func(a *Args[F], i int) int     // pieces of it, on all workers
	Pack func(a *Args[F], i, lo, hi int) // adds the tasks of pieces
}

// copied is the form of an input of a call: shared, or in the call's scratch.
type copied[F Float] struct {
	input, off, size int
	shared           *form[F]
}

// A form is the copy of one weight. Its lock is held while it is made, so that of two programs that
// start at the same time the second waits for it.
type form[F Float] struct {
	sync.Mutex
	key     formKey
	users   int // guarded by the cache
	shelf   *shelf
	b       []byte
	made    bool
	version uint64
}

// A shelf is the memory of the forms that one program made: together they are large enough for huge pages.
type shelf struct {
	mem   *Memory
	taken int
	forms int // those that are not dropped; guarded by the cache
}

// shelfSize is the bytes of a shelf, of which those that no form takes cost nothing.
const shelfSize = 32 << 20

// formKey tells forms apart. The pointer to the version is part of it: as long as a program holds
// that, nobody else's weights can have the same.
type formKey struct {
	version        *uint64
	data           unsafe.Pointer
	rows, cols, ld int
	op             backend.Op
}

// A cache is the forms that a backend's programs use.
type cache[F Float] struct {
	sync.Mutex
	forms map[formKey]*form[F]
}

// take finds the form of a weight, or puts it on the shelf, for one more user. A full shelf, or none, is replaced.
func (c *cache[F]) take(key formKey, bytes int, on **shelf) (*form[F], error) {
	c.Lock()
	defer c.Unlock()
	f := c.forms[key]
	if f == nil {
		s := *on
		if s == nil || s.taken+bytes > len(s.mem.b) { // one that is freed has no room
			m, err := Reserve(int64(max(bytes, shelfSize)))
			if err != nil {
				return nil, err
			}
			s = &shelf{mem: m}
			*on = s
		}
		f = &form[F]{key: key, shelf: s, b: s.mem.b[s.taken : s.taken+bytes : s.taken+bytes]}
		s.taken += bytes
		s.forms++
		if c.forms == nil {
			c.forms = map[formKey]*form[F]{}
		}
		c.forms[key] = f
	}
	f.users++
	return f, nil
}

// drop lets go of a form. A shelf is freed with the last form on it.
func (c *cache[F]) drop(f *form[F]) error {
	c.Lock()
	defer c.Unlock()
	if f.users--; f.users > 0 {
		return nil
	}
	delete(c.forms, f.key)
	if f.shelf.forms--; f.shelf.forms > 0 {
		return nil
	}
	return f.shelf.mem.Free()
}

// encodeForms finds the forms of call i; those that are not shared follow the kernel's own scratch.
// It returns their bytes.
func (e *exec[F]) encodeForms(i, scratch int) (bytes int, err error) {
	a, forms := &e.args[i], e.be.kernels[e.args[i].Op].Forms
	for k := range a.In {
		size := forms.Size(a, k)
		if size == 0 || a.Src[k].Nil() {
			continue
		}
		c := copied[F]{input: k, size: size}
		n := aligned(size * e.be.Float().Size())
		if m := a.Src[k]; a.Version[k] != nil {
			key := formKey{a.Version[k], unsafe.Pointer(unsafe.SliceData(m.D)), m.Rows, m.Cols, m.Ld, a.Op}
			if c.shared, err = e.be.forms.take(key, n, &e.shelf); err != nil {
				return 0, err
			}
			a.Form[k] = Elements[F](c.shared.b)[:size]
		} else {
			c.off = scratch + bytes
			bytes += n
		}
		e.copies[i] = append(e.copies[i], c)
	}
	return bytes, nil
}

// place gives call i its part of the scratch.
func (e *exec[F]) place(i int) {
	a := &e.args[i]
	a.Scratch = e.scratch.b[a.at:]
	for _, c := range e.copies[i] {
		if c.shared == nil {
			a.Form[c.input] = Elements[F](a.Scratch[c.off:])[:c.size]
		}
	}
}

// refresh makes the form if what it was made of has changed.
func (c *copied[F]) refresh(e *exec[F], a *Args[F]) error {
	f := c.shared
	if f == nil {
		return c.make(e, a)
	}
	f.Lock()
	defer f.Unlock()
	version := *f.key.version
	if f.made && f.version == version {
		return nil
	}
	f.made = false
	if err := c.make(e, a); err != nil {
		return err
	}
	f.made, f.version = true, version
	return nil
}

// early adds to the tasks at hand, after the last segment, those that make the shared forms which the next call with such
// lacks: they fill what time workers have left at the end. It holds their locks until they are made. A form that another
// program is at is left to refresh, as is one that cannot be made: that says why.
func (e *exec[F]) early(next int) {
	if e.fresh {
		return
	}
	for ; next < len(e.args) && len(e.made) == 0; next++ {
		a := &e.args[next]
		for k := range e.copies[next] {
			c := &e.copies[next][k]
			f := c.shared
			if f == nil || !f.TryLock() {
				continue
			}
			version := *f.key.version
			if f.made && f.version == version {
				f.Unlock()
				continue
			}
			f.made, f.version = false, version
			if c.record(e, a) != nil {
				f.Unlock()
				continue
			}
			e.made = append(e.made, f)
		}
	}
	e.fresh = len(e.made) == 0
}

// madeEarly says that the tasks which early added are done.
func (e *exec[F]) madeEarly() {
	for _, f := range e.made {
		f.made = true
		f.Unlock()
	}
	e.made = e.made[:0]
}

// make makes the form now.
func (c *copied[F]) make(e *exec[F], a *Args[F]) error {
	j := &e.tasks.job
	j.reset()
	err := c.record(e, a)
	if err == nil {
		j.segment()
		e.be.pool.do(j)
	}
	return err
}

// record adds the tasks that make the form.
func (c *copied[F]) record(e *exec[F], a *Args[F]) error {
	forms := e.be.kernels[a.Op].Forms
	return e.record(a, forms.N(a, c.input), 1, func(a *Args[F], lo, hi int) { forms.Pack(a, c.input, lo, hi) })
}

// aligned rounds a size up to whole cache lines.
func aligned(bytes int) int { return (bytes + 63) &^ 63 }
