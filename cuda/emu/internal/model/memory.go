package model

import (
	"errors"
	"fmt"
	"hash/maphash"
	"syscall"
	"unsafe"

	"rung/cuda/ptx"
)

// MemAlloc is cuMemAlloc.
func (d *Driver) MemAlloc(thread int, n int64) (uint64, Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, r := d.within("cuMemAlloc_v2", thread)
	if r != Success {
		return 0, r
	}
	if r := d.unsafe(thread); r != Success {
		return 0, r
	}
	if n <= 0 {
		return 0, InvalidValue
	}
	a, err := c.device.memory.Alloc(n, "")
	if err != nil {
		return 0, OutOfMemory
	}
	c.allocs[a] = n
	return a, Success
}

// MemFree is cuMemFree, which waits for all work before.
func (d *Driver) MemFree(thread int, a uint64) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, r := d.within("cuMemFree_v2", thread)
	if r != Success {
		return r
	}
	if r := d.unsafe(thread); r != Success {
		return r
	}
	if a == 0 {
		return Success
	}
	if _, ok := c.allocs[a]; !ok {
		d.fault(fmt.Errorf("emu: cuMemFree of %#x, where no allocation begins", a))
		return InvalidValue
	}
	for _, s := range c.streams {
		if s.capture == nil {
			d.drain(s)
		}
	}
	delete(c.allocs, a)
	if err := c.device.memory.Free(a); err != nil {
		return InvalidValue
	}
	return c.sticky
}

// MemGetInfo is cuMemGetInfo.
func (d *Driver) MemGetInfo(thread int) (available, total int64, r Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, r := d.within("cuMemGetInfo_v2", thread)
	if r != Success {
		return 0, 0, r
	}
	used, capacity := c.device.memory.Used()
	return capacity - used, capacity, Success
}

// MemGetAddressRange is cuMemGetAddressRange.
func (d *Driver) MemGetAddressRange(thread int, a uint64) (base uint64, n int64, r Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, r := d.within("cuMemGetAddressRange_v2", thread)
	if r != Success {
		return 0, 0, r
	}
	base, n, err := c.device.memory.Extent(a)
	if err != nil {
		return 0, 0, NotFound
	}
	return base, n, Success
}

// MemHostAlloc is cuMemHostAlloc and cuMemAllocHost: memory outside Go's heap.
func (d *Driver) MemHostAlloc(call string, thread int, n int) (unsafe.Pointer, Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, r := d.within(call, thread)
	if r != Success {
		return nil, r
	}
	if r := d.unsafe(thread); r != Success {
		return nil, r
	}
	if n <= 0 {
		return nil, InvalidValue
	}
	b, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil, OutOfMemory
	}
	p := unsafe.Pointer(unsafe.SliceData(b))
	c.pinned[uintptr(p)] = b
	return p, Success
}

// MemFreeHost is cuMemFreeHost, which waits for all work before.
func (d *Driver) MemFreeHost(thread int, p unsafe.Pointer) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, r := d.within("cuMemFreeHost", thread)
	if r != Success {
		return r
	}
	if r := d.unsafe(thread); r != Success {
		return r
	}
	if _, ok := c.pinned[uintptr(p)]; !ok {
		return InvalidValue
	}
	for _, s := range c.streams {
		if s.capture == nil {
			d.drain(s)
		}
	}
	c.unpin(uintptr(p))
	return c.sticky
}

func (c *context) unpin(p uintptr) {
	_ = syscall.Munmap(c.pinned[p]) // what Mmap gave
	delete(c.pinned, p)
}

// isPinned says whether a host range lies in pinned memory.
func (c *context) isPinned(b []byte) bool {
	p := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	for base, block := range c.pinned {
		if p >= base && p+uintptr(len(b)) <= base+uintptr(len(block)) {
			return true
		}
	}
	return false
}

// copyFault notes a copy that goes outside an allocation.
func (d *Driver) copyFault(call string, err error) Result {
	d.fault(fmt.Errorf("emu: %s: %w", call, err))
	return InvalidValue
}

// blocking begins a call that works on the default stream and has ended when it returns.
func (d *Driver) blocking(call string, thread int) (*context, Result) {
	c, r := d.within(call, thread)
	if r != Success {
		return nil, r
	}
	if r := d.unsafe(thread); r != Success {
		return nil, r
	}
	s := c.streams[0]
	if r := d.implicit(s); r != Success {
		return nil, r
	}
	return c, d.drain(s)
}

// Memcpy is a copy that has ended when it returns: cuMemcpyHtoD, cuMemcpyDtoH or cuMemcpyDtoD, on the default stream. One of
// dst and src is host memory where host is set.
func (d *Driver) Memcpy(call string, thread int, dst, src uint64, host []byte, n int) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, r := d.blocking(call, thread)
	if r != Success {
		return r
	}
	return d.copy(call, c, dst, src, host, n)
}

// copy moves n bytes: from host where src is 0, to host where dst is 0, else on the device.
func (d *Driver) copy(call string, c *context, dst, src uint64, host []byte, n int) Result {
	if n == 0 {
		return Success
	}
	var err error
	switch m := c.device.memory; {
	case host == nil:
		err = m.Copy(dst, src, n)
	case src == 0:
		err = m.Write(dst, host)
	default:
		err = m.Read(src, host)
	}
	if err != nil {
		return d.copyFault(call, err)
	}
	return Success
}

var seed = maphash.MakeSeed()

// MemcpyAsync is a copy on a stream. Memory that is not pinned is read before the call returns, and a copy to it waits, as
// the driver's does. Pinned memory is read and written when the stream gets there; it must not change before.
func (d *Driver) MemcpyAsync(call string, thread int, dst, src uint64, host []byte, n int, on Handle) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, s, r := d.on(call, thread, on)
	if r != Success {
		return r
	}
	for _, a := range []uint64{dst, src} { // a wrong address is refused at once
		if a != 0 && n > 0 {
			if base, size, err := c.device.memory.Extent(a); err != nil || a-base > uint64(size-int64(n)) || int64(n) > size {
				return d.copyFault(call, fmt.Errorf("%d bytes at %#x are in no allocation", n, a))
			}
		}
	}
	run := func() Result { return d.copy(call, c, dst, src, host, n) }
	switch capturing := s.capture != nil; {
	case host == nil || n == 0 || capturing:
	case src == 0 && c.isPinned(host):
		sum := maphash.Bytes(seed, host)
		run = func() Result {
			if maphash.Bytes(seed, host) != sum {
				d.fault(fmt.Errorf("emu: %s of %d bytes: the pinned memory has changed before the copy ran", call, n))
				return LaunchFailed
			}
			return d.copy(call, c, dst, 0, host, n)
		}
	case src == 0:
		host = append([]byte(nil), host...)
	case c.isPinned(host):
		for i := range host {
			host[i] = 0xff // until the copy has run
		}
	default:
		if r := d.enqueue(s, node{kind: nodeCopy, run: run}); r != Success {
			return r
		}
		return d.drain(s)
	}
	return d.enqueue(s, node{kind: nodeCopy, run: run})
}

// Memset is cuMemsetD8, D16 and D32: a pattern n times.
func (d *Driver) Memset(call string, thread int, dst uint64, pattern []byte, n int) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, r := d.blocking(call, thread)
	if r != Success {
		return r
	}
	if err := c.device.memory.Fill(dst, pattern, n); err != nil {
		return d.copyFault(call, err)
	}
	return Success
}

// MemsetAsync is the same on a stream.
func (d *Driver) MemsetAsync(call string, thread int, dst uint64, pattern []byte, n int, on Handle) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, s, r := d.on(call, thread, on)
	if r != Success {
		return r
	}
	if dst%uint64(len(pattern)) != 0 {
		return InvalidValue
	}
	return d.enqueue(s, node{kind: nodeSet, run: func() Result {
		if n == 0 {
			return Success
		}
		if err := c.device.memory.Fill(dst, pattern, n); err != nil {
			return d.copyFault(call, err)
		}
		return Success
	}})
}

// faultResult is the result that a device gives for what package ptx found.
func faultResult(err error) Result {
	var f *ptx.Fault
	if !errors.As(err, &f) {
		return InvalidValue
	}
	switch f.Kind {
	case ptx.Misaligned:
		return MisalignedAddress
	case ptx.Address:
		return IllegalAddress
	case ptx.Assertion:
		return Assert
	}
	return LaunchFailed
}
