package ptx

import (
	"encoding/binary"
	"math/bits"
)

// An access says what a thread does with memory.
type access uint8

const (
	reads access = iota
	writes
	atomics     // reads and writes, as one
	atomicReads // a volatile, relaxed or acquire load
)

// lock locks the page of an address, where blocks run in parallel, until unlock or until another is locked.
func (w *warp) lock(address uint64) {
	page := address>>pageShift + 1
	if !w.b.parallel || w.page == page {
		return
	}
	w.unlock()
	w.page = page
	w.b.mem.stripes[page%uint64(len(w.b.mem.stripes))].Lock()
}

func (w *warp) unlock() {
	if w.page != 0 {
		w.b.mem.stripes[w.page%uint64(len(w.b.mem.stripes))].Unlock()
		w.page = 0
	}
}

// global checks an access of n bytes to global memory and returns where they are. The caller unlocks.
func (w *warp) global(lane int, address uint64, n int, a access) []byte {
	s := w.seg
	if s == nil || address-s.base >= uint64(len(s.data)) {
		s = find(w.b.segments, address)
	}
	if s.problem(address, uint64(n)) {
		w.fault(lane, Address, "%s %d bytes at %#x: %s", verb(a), n, address, s.reason(address, uint64(n)))
	}
	w.seg = s
	at := int(address - s.base)
	if at&(n-1) != 0 {
		w.fault(lane, Misaligned, "%s %d bytes at %#x, byte %d of %s: not aligned", verb(a), n, address, at, s.name)
	}
	w.lock(address)
	g := w.b.k.granule[0]
	cells := s.pages[at>>pageShift]
	if len(cells) < pageSize>>g {
		cells = make([]cell, pageSize>>g)
		s.pages[at>>pageShift] = cells
	}
	if a != writes && !s.isWritten(at, n) {
		w.fault(lane, Unwritten, "reads %d bytes at %#x, byte %d of %s, that nothing has written", n, address, at, s.name)
	}
	in := at & (pageSize - 1)
	for i := in >> g; i <= (in+n-1)>>g; i++ {
		if problem := cells[i].touch(w, lane, w.b.first, a); problem != "" {
			w.fault(lane, Race, "%s %d bytes at %#x, byte %d of %s: %s", verb(a), n, address, at, s.name, problem)
		}
	}
	if a == writes || a == atomics {
		s.mark(at, n)
	}
	return s.data[at : at+n]
}

// problem says whether n bytes at an address are out of reach.
func (s *segment) problem(address, n uint64) bool {
	return s == nil || n > uint64(len(s.data)) || address-s.base > uint64(len(s.data))-n
}

func (c *cell) touch(w *warp, lane int, first uint32, a access) string {
	switch a {
	case reads:
		return c.read(w, lane, first, false)
	case writes:
		return c.write(w, lane, first, false)
	case atomics:
		return c.write(w, lane, first, true)
	}
	return c.read(w, lane, first, true)
}

func verb(a access) string {
	return [...]string{"reads", "writes", "updates", "reads"}[a]
}

// sharedBytes checks an access of n bytes to shared memory and returns where they are.
func (w *warp) sharedBytes(lane int, at uint64, n int, a access) []byte {
	b := w.b
	if at&(uint64(n)-1) != 0 {
		w.fault(lane, Misaligned, "%s %d bytes at byte %d of shared memory: not aligned", verb(a), n, at)
	}
	if size := uint64(len(b.shared)); uint64(n) > size || at > size-uint64(n) {
		w.fault(lane, Address, "%s bytes %d to %d of the block's %d bytes of shared memory", verb(a), int64(at), int64(at)+int64(n)-1, size)
	}
	g := b.k.granule[1]
	cells := b.cells[at>>g : (at+uint64(n)-1)>>g+1]
	for i := range cells {
		c := &cells[i]
		if a == reads && c.readAgain(w, lane) {
			continue
		}
		if a != writes && c.writeRun != b.run {
			w.fault(lane, Unwritten, "reads byte %d of shared memory, that no thread has written", at)
		}
		if problem := c.touch(w, lane, b.run, a); problem != "" {
			w.fault(lane, Race, "%s %d bytes at byte %d of shared memory: %s", verb(a), n, at, problem)
		}
	}
	return b.shared[at : at+uint64(n)]
}

// readAgain notes a read of shared memory in the common case: an earlier epoch wrote, and this warp has read since.
func (c *cell) readAgain(w *warp, lane int) bool {
	b := w.b
	if c.writeRun == b.run && c.writeEpoch != b.epoch && c.flags&flagPending == 0 &&
		c.readRun == b.run && c.readEpoch == b.epoch && c.readWarp == uint8(w.id) && c.readWarpEpoch == w.epoch {
		c.readLanes |= 1 << lane
		return true
	}
	return false
}

// loadShared loads 4 bytes for each lane of a mask.
func (w *warp) loadShared(d *row32, at *row64, m uint32) {
	b := w.b
	words := b.k.granule[1] == 2
	for ; m != 0; m &= m - 1 {
		l := lowest(m)
		if a := at[l]; words && a&3 == 0 && a < uint64(len(b.shared))-3 && b.cells[a>>2].readAgain(w, l) {
			d[l] = binary.LittleEndian.Uint32(b.shared[a:])
			continue
		}
		d[l] = binary.LittleEndian.Uint32(w.sharedBytes(l, at[l], 4, reads))
	}
}

// localBytes checks an access of n bytes to a thread's local memory.
func (w *warp) localBytes(lane int, at uint64, n int, a access) []byte {
	size := uint64(w.b.k.localBytes)
	if at&(uint64(n)-1) != 0 {
		w.fault(lane, Misaligned, "%s %d bytes at byte %d of local memory: not aligned", verb(a), n, at)
	}
	if uint64(n) > size || at > size-uint64(n) {
		w.fault(lane, Address, "%s bytes %d to %d of the thread's %d bytes of local memory", verb(a), int64(at), int64(at)+int64(n)-1, size)
	}
	at += uint64(lane) * size
	for i := at; i < at+uint64(n); i++ {
		if a == reads && !w.wrote[i] {
			w.fault(lane, Unwritten, "reads byte %d of local memory, that the thread has not written", i-uint64(lane)*size)
		}
		w.wrote[i] = w.wrote[i] || a != reads
	}
	return w.local[at : at+uint64(n)]
}

// bytes finds n bytes in a space; "" is generic.
func (w *warp) bytes(space string, lane int, address uint64, n int, a access) []byte {
	switch {
	case space == "shared":
		return w.sharedBytes(lane, address, n, a)
	case space == "local":
		return w.localBytes(lane, address, n, a)
	case space == "param":
		p := w.b.params
		if size := uint64(len(p)); uint64(n) > size || address > size-uint64(n) {
			w.fault(lane, Address, "reads bytes %d to %d of %d bytes of parameters", int64(address), int64(address)+int64(n)-1, size)
		}
		return p[address : address+uint64(n)]
	case space == "" && address&^windowMask == sharedWindow:
		return w.sharedBytes(lane, address&windowMask, n, a)
	case space == "" && address&^windowMask == localWindow:
		return w.localBytes(lane, address&windowMask, n, a)
	}
	return w.global(lane, address, n, a)
}

func load(p []byte) uint64 {
	switch len(p) {
	case 1:
		return uint64(p[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(p))
	case 4:
		return uint64(binary.LittleEndian.Uint32(p))
	}
	return binary.LittleEndian.Uint64(p)
}

func store(p []byte, v uint64) {
	switch len(p) {
	case 1:
		p[0] = byte(v)
	case 2:
		binary.LittleEndian.PutUint16(p, uint16(v))
	case 4:
		binary.LittleEndian.PutUint32(p, uint32(v))
	default:
		binary.LittleEndian.PutUint64(p, v)
	}
}

// addresses computes where the lanes of a mask go.
func (a addressing) addresses(w *warp, out *row64) {
	if a.wide {
		r := &w.r64[a.row]
		for i := range out {
			out[i] = r[i] + a.offset
		}
		return
	}
	r := &w.r32[a.row]
	for i := range out {
		out[i] = uint64(r[i] + uint32(a.offset))
	}
}

func lowest(mask uint32) int { return bits.TrailingZeros32(mask) & 31 }
