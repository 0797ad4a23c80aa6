package ptx

import "fmt"

// A cell remembers who last touched a granule of memory: as many bytes as the kernel's smallest access has. A run is one
// block of one launch. Two accesses of a launch, one of them a write, are ordered where
//   - one thread makes both, or
//   - threads of a block do, with a block barrier between (the epoch differs), or
//   - lanes of a warp do, with a warp barrier between (the warp's epoch differs), or
//   - blocks do, and the second has seen a counter that the first incremented after a fence.
//
// Of reads since the last write the cell keeps the lanes of one warp, and whether other warps and blocks read too: enough
// to say for each write whether all of them are ordered.
type cell struct {
	writeRun, writeEpoch uint32
	readRun, readEpoch   uint32
	readLanes            uint32
	writeWarpEpoch       uint16
	readWarpEpoch        uint16
	writer               uint16 // thread in its block
	readWarp             uint8
	flags                uint8
	writePC, readPC      uint16
}

const (
	flagPending    uint8 = 1 << iota // a cp.async is on its way
	flagAtomic                       // the last write was atomic
	flagManyAtomic                   // by several threads
	flagManyWarps                    // several warps of the run read
	flagManyRuns                     // several blocks read
)

// begin makes the memory ready for a launch of so many blocks. Cells that an earlier launch left have lower run numbers.
func (m *Memory) begin(l *launch, blocks uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.runs+blocks < m.runs || m.runs == 0 {
		m.runs = 1
		for _, s := range m.segments {
			clear(s.pages)
		}
	}
	l.first, l.segments = m.runs, m.segments
	m.runs += blocks
}

// read checks a read by a lane's thread and notes it. What it returns is wrong; "" where nothing is. The cell counts from
// the run first on: that of a launch's first block, or of this block for shared memory.
func (c *cell) read(w *warp, lane int, first uint32, atomic bool) string {
	b := w.b
	if c.writeRun >= first {
		if problem := c.afterWrite(w, lane, atomic); problem != "" {
			return problem
		}
	}
	if atomic {
		return ""
	}
	id, bit := uint8(w.id), uint32(1)<<lane
	switch {
	case c.readRun < first:
		c.flags &^= flagManyWarps | flagManyRuns
		c.readLanes = bit
	case c.readRun != b.run:
		c.flags = c.flags&^flagManyWarps | flagManyRuns
		c.readLanes = bit
	case c.readEpoch != b.epoch:
		c.flags &^= flagManyWarps
		c.readLanes = bit
	case c.readWarp != id:
		c.flags |= flagManyWarps
		c.readLanes = bit
	case c.readWarpEpoch != w.epoch:
		c.readLanes = bit
	default:
		c.readLanes |= bit
	}
	c.readRun, c.readEpoch, c.readWarp, c.readWarpEpoch, c.readPC = b.run, b.epoch, id, w.epoch, uint16(w.pc)
	return ""
}

// afterWrite says what is wrong with an access after the cell's last write.
func (c *cell) afterWrite(w *warp, lane int, atomic bool) string {
	b, thread := w.b, uint16(w.id*32+lane)
	switch {
	case c.flags&flagPending != 0 && c.writeRun == b.run:
		return fmt.Sprintf("cp.async of thread %d (line %d) still writes here: a wait_group is missing", c.writer, b.line(c.writePC))
	case atomic && c.flags&flagAtomic != 0:
		return ""
	case c.writeRun != b.run:
		if epoch, ok := b.fenced[c.writeRun]; !ok || c.writeEpoch > epoch {
			return fmt.Sprintf("race with the write by block %s, thread %d (line %d)", b.nth(int(c.writeRun-b.first)), c.writer,
				b.line(c.writePC))
		}
	case c.flags&flagManyAtomic != 0 && c.writeEpoch == b.epoch,
		c.writeEpoch == b.epoch && c.writer != thread && (c.writer>>5 != uint16(w.id) || c.writeWarpEpoch == w.epoch):
		return fmt.Sprintf("race with the write by thread %d of the block (line %d): no barrier is between", c.writer, b.line(c.writePC))
	}
	return ""
}

// write checks a write by a lane's thread and notes it.
func (c *cell) write(w *warp, lane int, first uint32, atomic bool) string {
	b, thread := w.b, uint16(w.id*32+lane)
	if c.writeRun >= first {
		if problem := c.afterWrite(w, lane, atomic); problem != "" {
			return problem
		}
	}
	if c.readRun >= first {
		foreign := c.readRun != b.run || c.flags&flagManyRuns != 0
		if foreign && b.fenced == nil {
			return fmt.Sprintf("race with a read by another block (line %d)", b.line(c.readPC))
		}
		if c.readRun == b.run && c.readEpoch == b.epoch && (c.flags&flagManyWarps != 0 || c.readWarp != uint8(w.id) ||
			c.readWarpEpoch == w.epoch && c.readLanes&^(1<<lane) != 0) {
			return fmt.Sprintf("race with a read by warp %d of the block (line %d): no barrier is between", c.readWarp, b.line(c.readPC))
		}
	}
	flags := c.flags &^ (flagPending | flagAtomic | flagManyAtomic)
	if atomic {
		flags |= flagAtomic
		if c.flags&flagAtomic != 0 && c.writeRun >= first && (c.writer != thread || c.writeRun != b.run || c.flags&flagManyAtomic != 0) {
			flags |= flagManyAtomic
		}
	}
	c.flags, c.writer, c.writePC = flags, thread, uint16(w.pc)
	c.writeRun, c.writeEpoch, c.writeWarpEpoch = b.run, b.epoch, w.epoch
	return ""
}

// line is the line of the text of an instruction.
func (b *block) line(pc uint16) int {
	if int(pc) < len(b.k.code) {
		return int(b.k.code[pc].line)
	}
	return 0
}
