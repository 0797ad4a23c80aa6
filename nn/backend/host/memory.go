package host

import (
	"fmt"
	"unsafe"

	"rung/nn/backend"
)

// Memory is anonymous memory outside the Go heap, zeroed, 64-byte aligned (to a page). Pages that
// are never touched cost nothing.
type Memory struct {
	b      []byte
	mapped []byte  // what b lies in
	used   []uint8 // by page, nil unless they are tracked
}

// Reserve maps n bytes.
func Reserve(n int64) (*Memory, error) {
	if n < 0 || n > 1<<46 {
		return nil, fmt.Errorf("backend: reserve %d bytes: not a size", n)
	}
	b, mapped, err := mmap(max(n, 1))
	if err != nil {
		return nil, fmt.Errorf("backend: reserve %d MiB: %w", n>>20, err)
	}
	return &Memory{b: b[:n], mapped: mapped}, nil
}

// Size is the number of bytes.
func (m *Memory) Size() int64 { return int64(len(m.b)) }

// Host is the memory itself.
func (m *Memory) Host() []byte { return m.b }

// ReadAt copies len(dst) bytes from off.
func (m *Memory) ReadAt(dst []byte, off int64) error {
	if err := m.check(off, int64(len(dst))); err != nil {
		return err
	}
	copy(dst, m.b[off:])
	return nil
}

// WriteAt copies src to off.
func (m *Memory) WriteAt(src []byte, off int64) error {
	if err := m.check(off, int64(len(src))); err != nil {
		return err
	}
	copy(m.b[off:], src)
	m.use(int(off), len(src))
	return nil
}

// Clear sets n bytes from off to zero.
func (m *Memory) Clear(off, n int64) error {
	if err := m.check(off, n); err != nil {
		return err
	}
	if m.used != nil {
		m.clearUsed(int(off), int(n))
	} else {
		clear(m.b[off : off+n])
	}
	return nil
}

func (m *Memory) check(off, n int64) error {
	if off < 0 || n < 0 || off > m.Size()-n {
		return fmt.Errorf("backend: bytes %d to %d of a block of %d", off, off+n, m.Size())
	}
	return nil
}

// Free gives the memory back. It must not be used afterwards; a second call does nothing.
func (m *Memory) Free() error {
	mapped := m.mapped
	m.b, m.mapped = nil, nil
	if mapped == nil {
		return nil
	}
	return munmap(mapped)
}

// Elements views bytes as elements, which they must be aligned for.
func Elements[T float32 | float64 | int32](b []byte) []T {
	var t T
	if len(b) == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/int(unsafe.Sizeof(t)))
}

// Bytes views elements as bytes.
func Bytes[T float32 | float64 | int32](v []T) []byte {
	var t T
	if len(v) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), len(v)*int(unsafe.Sizeof(t)))
}

var _ backend.Sparse = (*Memory)(nil)

// Wrap makes memory of bytes that the caller owns: Free does not give them back.
func Wrap(b []byte) backend.Memory { return &wrapped{Memory{b: b}} }

type wrapped struct{ Memory }

func (w *wrapped) Free() error { w.b = nil; return nil }
