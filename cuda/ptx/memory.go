package ptx

import (
	"errors"
	"fmt"
	"sync"
)

// ErrOutOfMemory says that an allocation does not fit into what a Memory has left.
var ErrOutOfMemory = errors.New("ptx: out of memory")

// The address of an allocation's first byte is its number times 2^36: an address tells its allocation, however far it is
// off, and no address is used twice. Addresses from 2^56 up are generic ones of shared and local memory.
const (
	segmentShift = 36
	segmentMask  = 1<<segmentShift - 1
	maxSegments  = 1 << 19

	sharedWindow = uint64(1) << 56
	localWindow  = uint64(2) << 56
	windowMask   = uint64(1)<<56 - 1
)

// Memory is the global memory of a device. Its methods may be called from several goroutines; launches that run at the
// same time must not touch the same allocations.
type Memory struct {
	mu       sync.RWMutex
	segments []*segment // by number, from 1
	capacity int64
	used     int64
	runs     uint32 // blocks that have run so far: each has a number, for the race checks
	images   map[*Module]image
	stripes  [64]sync.Mutex // of pages, where blocks run in parallel
}

// A segment is one allocation.
type segment struct {
	base    uint64
	name    string
	data    []byte
	written []uint64 // a bit for each byte
	freed   bool
	pages   [][]cell // for the race checks: of each page that a launch has touched
}

const (
	pageShift = 12
	pageSize  = 1 << pageShift
)

// image is where a module's variables lie in a memory.
type image map[string]uint64

// NewMemory returns memory of a capacity in bytes; 0: without limit.
func NewMemory(capacity int64) *Memory {
	return &Memory{capacity: capacity, images: map[*Module]image{}}
}

// Alloc allocates bytes that nothing has written yet, aligned to at least 512 bytes, and returns their device address. The
// name stands in faults. The error is ErrOutOfMemory, or one about the size.
func (m *Memory) Alloc(bytes int64, name string) (uint64, error) {
	if bytes <= 0 || bytes > segmentMask/2 {
		return 0, fmt.Errorf("ptx: allocation of %d bytes", bytes)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.alloc(bytes, name)
}

func (m *Memory) alloc(bytes int64, name string) (uint64, error) {
	if m.capacity > 0 && bytes > m.capacity-m.used || len(m.segments) == maxSegments {
		return 0, ErrOutOfMemory
	}
	m.used += bytes
	s := &segment{name: name, data: make([]byte, bytes), written: make([]uint64, (bytes+63)/64)}
	for i := range s.data {
		s.data[i] = 0xff // a NaN where it is read by a copy
	}
	s.pages = make([][]cell, (bytes+pageSize-1)/pageSize)
	m.segments = append(m.segments, s)
	s.base = uint64(len(m.segments)) << segmentShift
	if s.name == "" {
		s.name = fmt.Sprintf("allocation %d", len(m.segments))
	}
	return s.base, nil
}

// Free frees the allocation that begins at address.
func (m *Memory) Free(address uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.segment(address)
	switch {
	case s == nil || s.base != address:
		return fmt.Errorf("ptx: free of %#x, where no allocation begins", address)
	case s.freed:
		return fmt.Errorf("ptx: %s is freed twice", s.name)
	}
	m.used -= int64(len(s.data))
	*s = segment{base: s.base, name: s.name, freed: true, data: nil}
	return nil
}

// Used is how many bytes are allocated, and of how many; 0: no limit.
func (m *Memory) Used() (used, capacity int64) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.used, m.capacity
}

// Write copies bytes to a device address, from outside a launch.
func (m *Memory) Write(address uint64, src []byte) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s, at, err := m.locate(address, len(src))
	if err != nil {
		return err
	}
	copy(s.data[at:], src)
	s.markAll(at, len(src))
	return nil
}

// Read copies bytes from a device address, from outside a launch. Bytes that nothing wrote are 0xff.
func (m *Memory) Read(address uint64, dst []byte) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s, at, err := m.locate(address, len(dst))
	if err != nil {
		return err
	}
	copy(dst, s.data[at:])
	return nil
}

// ReadWritten is Read of what has been written: a byte that nothing wrote is an error.
func (m *Memory) ReadWritten(address uint64, dst []byte) error {
	if err := m.Read(address, dst); err != nil {
		return err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	s, at, _ := m.locate(address, len(dst))
	for i := range dst {
		if !s.isWritten(at+i, 1) {
			return fmt.Errorf("ptx: %d bytes at %#x: byte %d of %s was never written", len(dst), address, at+i, s.name)
		}
	}
	return nil
}

// Copy copies n bytes from one device address to another; what was never written stays so. The ranges must not overlap.
func (m *Memory) Copy(dst, src uint64, n int) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	d, to, err := m.locate(dst, n)
	if err != nil {
		return err
	}
	s, from, err := m.locate(src, n)
	if err != nil {
		return err
	}
	if d == s && to < from+n && from < to+n {
		return fmt.Errorf("ptx: copy of %d bytes from %#x to %#x overlaps", n, src, dst)
	}
	copy(d.data[to:to+n], s.data[from:from+n])
	for i := range n {
		if s.isWritten(from+i, 1) {
			d.mark(to+i, 1)
		} else {
			d.written[(to+i)>>6] &^= 1 << ((to + i) & 63)
		}
	}
	return nil
}

// Fill writes a pattern n times from a device address on.
func (m *Memory) Fill(address uint64, pattern []byte, n int) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s, at, err := m.locate(address, n*len(pattern))
	if err != nil {
		return err
	}
	for i := range n {
		copy(s.data[at+i*len(pattern):], pattern)
	}
	s.markAll(at, n*len(pattern))
	return nil
}

// Extent is the allocation that holds an address: its first address and its size in bytes.
func (m *Memory) Extent(address uint64) (base uint64, bytes int64, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s, _, err := m.locate(address, 0)
	if err != nil {
		return 0, 0, err
	}
	return s.base, int64(len(s.data)), nil
}

// segment is the one that an address belongs to, nil where there is none.
func (m *Memory) segment(address uint64) *segment { return find(m.segments, address) }

func find(segments []*segment, address uint64) *segment {
	if i := address >> segmentShift; i > 0 && i <= uint64(len(segments)) {
		return segments[i-1]
	}
	return nil
}

// locate finds n bytes at an address.
func (m *Memory) locate(address uint64, n int) (*segment, int, error) {
	s := m.segment(address)
	if reason := s.reason(address, uint64(n)); reason != "" {
		return nil, 0, fmt.Errorf("ptx: %d bytes at %#x: %s", n, address, reason)
	}
	return s, int(address - s.base), nil
}

// reason says why n bytes at an address are not to be had; "" where they are.
func (s *segment) reason(address, n uint64) string {
	switch {
	case s == nil:
		return "in no allocation"
	case s.freed:
		return s.name + " has been freed"
	}
	if off, size := address-s.base, uint64(len(s.data)); n > size || off > size-n {
		if off > segmentMask/2 {
			return fmt.Sprintf("outside every allocation; %d bytes before the one after %s", segmentMask+1-off, s.name)
		}
		return fmt.Sprintf("bytes %d to %d of %s, which has %d", off, off+n-1, s.name, size)
	}
	return ""
}

// mark notes that up to 16 bytes, aligned to their number, are written.
func (s *segment) mark(at, n int) {
	s.written[at>>6] |= (1<<n - 1) << (at & 63)
}

// isWritten says whether up to 16 bytes, aligned to their number, are written.
func (s *segment) isWritten(at, n int) bool {
	bits := uint64(1<<n-1) << (at & 63)
	return s.written[at>>6]&bits == bits
}

// markAll notes that any number of bytes are written.
func (s *segment) markAll(at, n int) {
	for ; n > 0 && at&63 != 0; at, n = at+1, n-1 {
		s.mark(at, 1)
	}
	for ; n >= 64; at, n = at+64, n-64 {
		s.written[at>>6] = ^uint64(0)
	}
	for ; n > 0; at, n = at+1, n-1 {
		s.mark(at, 1)
	}
}

// Global is the device address of a variable of a module in this memory. The module's variables are allocated, and
// initialised, when they or one of its kernels are first used.
func (m *Memory) Global(mod *Module, name string) (uint64, error) {
	im, err := m.image(mod)
	if err != nil {
		return 0, err
	}
	if a, ok := im[name]; ok {
		return a, nil
	}
	return 0, fmt.Errorf("ptx: no variable %s", name)
}

// Unload frees the variables of a module.
func (m *Memory) Unload(mod *Module) error {
	m.mu.Lock()
	im := m.images[mod]
	delete(m.images, mod)
	m.mu.Unlock()
	for _, a := range im {
		if err := m.Free(a); err != nil {
			return err
		}
	}
	return nil
}

func (m *Memory) image(mod *Module) (image, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if im, ok := m.images[mod]; ok {
		return im, nil
	}
	im := image{}
	for _, v := range mod.globals {
		a, err := m.alloc(int64(max(v.size, 1)), v.name)
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", v.name, err)
		}
		im[v.name] = a
		s := m.segment(a)
		clear(s.data) // C's rule for what has no initialiser
		copy(s.data, v.init)
		s.markAll(0, len(s.data))
	}
	m.images[mod] = im
	return im, nil
}
