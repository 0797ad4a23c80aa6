//go:build gpu

package cuda

import (
	"errors"
	"fmt"

	"rung/cuda/driver"
	"rung/nn/backend"
)

// memory is device memory.
type memory struct {
	be   *Backend
	at   driver.Address
	size int64
}

// Reserve allocates zeroed device memory. The error says how much was asked for and how much is free.
func (b *Backend) Reserve(n int64) (backend.Memory, error) {
	m, err := b.reserve(n)
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (b *Backend) reserve(n int64) (*memory, error) {
	if n < 0 || n > 1<<46 {
		return nil, fmt.Errorf("backend %s: reserve %d bytes: not a size", b.Name(), n)
	}
	at, err := b.device.Alloc(max(n, 1))
	if err != nil {
		err = fmt.Errorf("backend %s: reserve %d bytes: %w", b.Name(), n, err)
		if free, total, e := b.device.Available(); e == nil && driver.OutOfMemory(err) {
			err = full{fmt.Errorf("%w: %d bytes of %d are free", err, free, total)}
		}
		return nil, err
	}
	return &memory{b, at, n}, nil
}

// full is a backend.ErrMemory in the driver's words.
type full struct{ error }

func (f full) Unwrap() error        { return f.error }
func (f full) Is(target error) bool { return target == backend.ErrMemory }

// Size is the number of bytes.
func (m *memory) Size() int64 { return m.size }

// Host is nil: the host cannot address device memory.
func (m *memory) Host() []byte { return nil }

// ReadAt waits for what was launched before.
func (m *memory) ReadAt(dst []byte, off int64) error {
	if err := m.check(off, int64(len(dst))); err != nil {
		return err
	}
	return m.failed("read", m.be.device.Read(dst, m.at+driver.Address(off)))
}

// ReadLater copies to pinned memory, which is read when what was launched before has been waited for.
func (m *memory) ReadLater(dst []byte, off int64) (func() error, error) {
	if err := m.check(off, int64(len(dst))); err != nil {
		return nil, err
	}
	at := m.at + driver.Address(off)
	part, number := m.be.reads.take(m.be, len(dst))
	if part == nil { // no room: what was not asked for yet has it
		return func() error { return nil }, m.failed("read", m.be.device.Read(dst, at))
	}
	if err := m.be.device.Fetch(part, at); err != nil {
		m.be.reads.give(m.be)
		return nil, m.failed("read", err)
	}
	return func() error {
		defer m.be.reads.give(m.be)
		if err := m.be.reads.wait(m.be, number); err != nil {
			return m.failed("read", err)
		}
		copy(dst, part)
		return nil
	}, nil
}

// readback is pinned memory that copies from the device end in, until somebody asks for them. Backend.mu guards it.
type readback struct {
	b          []byte
	next, open int    // bytes in use, and of how many copies
	begun      uint64 // copies so far, and
	waited     uint64 // how many of them have been waited for
}

const readsBytes = 64 << 10

// take gives memory for n bytes, nil if there is none, and the number of the copy.
func (r *readback) take(b *Backend, n int) ([]byte, uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.open == 0 {
		r.next = 0
	}
	if n > len(r.b)-r.next {
		return nil, 0
	}
	part := r.b[r.next : r.next+n]
	r.next, r.open, r.begun = r.next+(n+15)&^15, r.open+1, r.begun+1
	return part, r.begun
}

func (r *readback) give(b *Backend) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r.open--
}

// wait waits for a copy, and so for those before it, unless that was done.
func (r *readback) wait(b *Backend, number uint64) error {
	b.mu.Lock()
	done, begun := r.waited >= number, r.begun
	b.mu.Unlock()
	if done {
		return nil
	}
	if err := b.device.Wait(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	r.waited = max(r.waited, begun)
	return nil
}

// WriteAt copies src, which may change as soon as it returns.
func (m *memory) WriteAt(src []byte, off int64) error {
	if err := m.check(off, int64(len(src))); err != nil {
		return err
	}
	return m.failed("write", m.be.write(m.at+driver.Address(off), src))
}

// Clear sets n bytes to zero.
func (m *memory) Clear(off, n int64) error {
	if err := m.check(off, n); err != nil {
		return err
	}
	return m.failed("clear", m.be.device.Clear(m.at+driver.Address(off), n))
}

func (m *memory) failed(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("backend %s: %s device memory: %w", m.be.Name(), what, err)
}

func (m *memory) check(off, n int64) error {
	if m.at == 0 {
		return errors.New("backend: memory that was freed")
	}
	if off < 0 || n < 0 || off > m.size-n {
		return fmt.Errorf("backend: bytes %d to %d of a block of %d", off, off+n, m.size)
	}
	return nil
}

// Free gives the memory back; a second call does nothing.
func (m *memory) Free() error {
	at := m.at
	if m.at = 0; at == 0 {
		return nil
	}
	return m.failed("free", m.be.device.Free(at))
}

// ring is pinned memory that copies to the device pass through: the caller's own bytes are free at once,
// and nothing waits. When it has gone round, what is still under way is waited for.
type ring struct {
	b    []byte
	next int
}

const ringBytes = 8 << 20

// write copies to the device, after what was launched before.
func (b *Backend) write(to driver.Address, src []byte) error {
	if len(src) > ringBytes/2 {
		return b.device.Write(to, src) // the driver stages it
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	r := &b.ring
	if r.next+len(src) > len(r.b) {
		if err := b.device.Wait(); err != nil {
			return err
		}
		r.next = 0
	}
	part := r.b[r.next : r.next+len(src)]
	copy(part, src)
	r.next = (r.next + len(src) + 63) &^ 63
	return b.device.Write(to, part)
}
