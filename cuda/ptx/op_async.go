package ptx

// An asyncCopy is a cp.async under way: its data come when the thread waits for its group.
type asyncCopy struct {
	at   int // in shared memory
	data [16]byte
	n    int
}

// asyncCopies are those of a thread: the open group, and the committed ones, oldest first.
type asyncCopies struct {
	open   []asyncCopy
	groups [][]asyncCopy
}

func (a *asyncCopies) reset() { a.open, a.groups = a.open[:0], a.groups[:0] }

// opAsync is cp.async and what commits and waits.
func opAsync(b *builder, s *statement, in *instruction) {
	b.allow(s, "async", "ca", "cg", "shared", "shared::cta", "global", "commit_group", "wait_group", "wait_all", "L2::64B",
		"L2::128B", "L2::256B")
	switch {
	case !s.has("async"):
		b.fail("only cp.async is known")
	case s.has("commit_group"):
		b.want(s, 0, 0)
		in.run = func(w *warp, m uint32) {
			for ; m != 0; m &= m - 1 {
				w.async[lowest(m)].commit()
			}
		}
	case s.has("wait_all"):
		b.want(s, 0, 0)
		in.run = func(w *warp, m uint32) {
			for ; m != 0; m &= m - 1 {
				l := lowest(m)
				w.async[l].commit()
				w.land(l, 0)
			}
		}
	case s.has("wait_group"):
		if !b.want(s, 1, 1) || s.args[0].kind != opConstant {
			b.fail("the number of groups is no constant")
			return
		}
		n := int(s.args[0].value.bits)
		in.run = func(w *warp, m uint32) {
			for ; m != 0; m &= m - 1 {
				w.land(lowest(m), n)
			}
		}
	default:
		b.asyncCopy(s, in)
	}
}

func (a *asyncCopies) commit() {
	n := len(a.groups)
	if n < cap(a.groups) { // use what an earlier group held
		a.groups = a.groups[:n+1]
	} else {
		a.groups = append(a.groups, nil)
	}
	a.groups[n], a.open = append(a.groups[n][:0], a.open...), a.open[:0]
}

// land ends all groups but the last n.
func (w *warp) land(lane, n int) {
	a := &w.async[lane]
	done := max(0, len(a.groups)-n)
	for _, group := range a.groups[:done] {
		for i := range group {
			w.landOne(lane, &group[i])
		}
	}
	// rotate, so that the memory of ended groups is used again
	ended := make([][]asyncCopy, done)
	copy(ended, a.groups[:done])
	rest := copy(a.groups, a.groups[done:])
	copy(a.groups[rest:], ended)
	a.groups = a.groups[:rest]
}

func (w *warp) landOne(lane int, c *asyncCopy) {
	b := w.b
	copy(b.shared[c.at:c.at+c.n], c.data[:c.n])
	g := b.k.granule[1]
	for i := c.at >> g; i <= (c.at+c.n-1)>>g; i++ {
		cell := &b.cells[i]
		cell.flags &^= flagPending
		cell.writeRun, cell.writeEpoch, cell.writeWarpEpoch = b.run, b.epoch, w.epoch
		cell.writer, cell.writePC = uint16(w.id*32+lane), uint16(w.pc)
	}
}

func (b *builder) asyncCopy(s *statement, in *instruction) {
	if !b.want(s, 3, 4) || s.args[2].kind != opConstant {
		return
	}
	n := int(s.args[2].value.bits)
	if n != 4 && n != 8 && n != 16 || s.has("cg") && n != 16 {
		b.fail("a copy of %d bytes", n)
		return
	}
	b.touches("shared", n)
	b.touches("global", n)
	to, from := b.addressOf(s.args[0]), b.addressOf(s.args[1])
	size, ignore, not := -1, -1, false
	if len(s.args) == 4 {
		if o := s.args[3]; o.kind == opRegister && o.reg.class == cPred {
			ignore, not = b.inPred(o)
		} else {
			size = b.in32(o, "u32")
			b.touches("global", 4) // how many are read is known when it runs
		}
	}
	if b.err != nil {
		return
	}
	in.run = func(w *warp, m uint32) {
		var dst, src row64
		to.addresses(w, &dst)
		from.addresses(w, &src)
		for ; m != 0; m &= m - 1 {
			l := lowest(m)
			c := asyncCopy{at: int(dst[l]), n: n}
			w.sharedBytes(l, dst[l], n, writes)
			w.pend(c.at, n)
			from := n
			switch {
			case size >= 0:
				from = int(w.r32[size][l])
			case ignore >= 0 && w.lanes(ignore, not)>>l&1 == 1:
				from = 0
			}
			if from > n {
				w.fault(l, Illegal, "copies %d bytes of %d", from, n)
			}
			if from > 0 && src[l]%uint64(n) != 0 {
				w.fault(l, Misaligned, "reads %d bytes at %#x: not aligned", n, src[l])
			}
			for i := 0; i < from; { // what is not copied need not be there
				step := n
				for i+step > from || step > from-i {
					step /= 2
				}
				copy(c.data[i:], w.global(l, src[l]+uint64(i), step, reads))
				i += step
			}
			w.async[l].open = append(w.async[l].open, c)
		}
		w.unlock()
	}
}

// pend marks shared memory that a copy is on its way to.
func (w *warp) pend(at, n int) {
	g := w.b.k.granule[1]
	for i := at >> g; i <= (at+n-1)>>g; i++ {
		w.b.cells[i].flags |= flagPending
	}
}
