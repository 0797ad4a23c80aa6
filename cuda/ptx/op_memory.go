package ptx

import "slices"

var spaces = []string{"global", "shared", "local", "param", "const"}

// space takes a state space out of a statement's modifiers; "" is generic.
func (b *builder) space(s *statement) string {
	for _, sp := range spaces {
		if s.has(sp) {
			return sp
		}
	}
	if s.has("shared::cta") {
		return "shared"
	}
	return ""
}

// touches notes the size of an access: the race checks need the smallest of a kernel.
func (b *builder) touches(space string, bytes int) {
	g := uint(0)
	for 1<<(g+1) <= bytes {
		g++
	}
	if space == "" || space == "global" || space == "const" {
		b.granule[0] = min(b.granule[0], g)
	}
	if space == "" || space == "shared" {
		b.granule[1] = min(b.granule[1], g)
	}
}

var cacheMods = []string{
	"global", "shared", "shared::cta", "local", "param", "const", "nc", "ca", "cg", "cs", "lu", "cv", "wb", "wt",
	"volatile", "weak", "relaxed", "acquire", "release", "cta", "gpu", "sys", "L1::no_allocate", "L1::evict_last",
	"L1::evict_first", "L1::evict_normal", "L1::evict_unchanged", "L2::64B", "L2::128B", "L2::256B", "b128",
}

// paramSpace is the space of a .param name: a kernel's parameters, or, in calls, a thread's own memory.
func paramSpace(space string, o operand) string {
	if space == "param" && o.symbol != nil {
		return o.symbol.space
	}
	return space
}

func opLoad(b *builder, s *statement, in *instruction) {
	b.allow(s, cacheMods...)
	if !b.want(s, 2, 2) {
		return
	}
	space, typ := paramSpace(b.space(s), s.args[1]), s.typ()
	if space == "const" {
		space = "global" // module variables live there
	}
	width := typeSize(typ)
	n := width * s.vector
	b.touches(space, n)
	a := b.addressOf(s.args[1])
	outs := b.outs(s.args[0], s.vector)
	kind := reads
	if s.has("volatile") || s.has("relaxed") || s.has("acquire") {
		kind = atomicReads
	}
	if b.err != nil {
		return
	}
	shift := uint(0)
	if typ[0] == 's' {
		shift = uint(64 - 8*width)
	}
	if space == "param" && s.args[1].symbol != nil { // the same for all lanes
		at, size := s.args[1].symbol.offset+int(s.args[1].offset), s.args[1].symbol.offset+s.args[1].symbol.size
		if at < 0 || at%width != 0 || at+n > size {
			b.fail("outside the parameter")
		}
		in.run = func(w *warp, m uint32) {
			for i, o := range outs {
				o.fill(w, m, extend(load(w.b.params[at+i*width:at+(i+1)*width]), shift))
			}
		}
		return
	}
	if len(outs) == 1 && width == 4 && outs[0].bits == 32 && (space == "global" || space == "shared" && kind == reads) {
		in.run = loadWords(a, outs[0].row, space == "global", kind)
		return
	}
	in.run = func(w *warp, m uint32) {
		var at row64
		a.addresses(w, &at)
		for ; m != 0; m &= m - 1 {
			l := lowest(m)
			p := w.bytes(space, l, at[l], n, kind)
			for i, o := range outs {
				o.set(w, l, extend(load(p[i*width:(i+1)*width]), shift))
			}
		}
		w.unlock()
	}
}

// loadWords is the common case: 4 bytes into a register of 32 bits.
func loadWords(a addressing, row int, global bool, kind access) func(w *warp, m uint32) {
	return func(w *warp, m uint32) {
		var at row64
		a.addresses(w, &at)
		d := &w.r32[row]
		if !global {
			w.loadShared(d, &at, m)
			return
		}
		for ; m != 0; m &= m - 1 {
			l := lowest(m)
			d[l] = uint32(load(w.global(l, at[l], 4, kind)))
		}
		w.unlock()
	}
}

// extend repeats the sign of a value whose bits begin so far below bit 63; 0: unsigned.
func extend(v uint64, shift uint) uint64 {
	return uint64(int64(v<<shift) >> shift)
}

// A place is a register of 16, 32 or 64 bits.
type place struct {
	row  int
	bits int
}

func (p place) set(w *warp, lane int, v uint64) {
	switch p.bits {
	case 64:
		w.r64[p.row][lane] = v
	case 32:
		w.r32[p.row][lane] = uint32(v)
	default:
		w.r32[p.row][lane] = uint32(v & (1<<p.bits - 1))
	}
}

func (p place) get(w *warp, lane int) uint64 {
	if p.bits == 64 {
		return w.r64[p.row][lane]
	}
	return uint64(w.r32[p.row][lane])
}

func (p place) fill(w *warp, m uint32, v uint64) {
	for ; m != 0; m &= m - 1 {
		p.set(w, lowest(m), v)
	}
}

// outs are the registers that an operand of n elements names; their sizes are their own.
func (b *builder) outs(o operand, n int) []place {
	list := []operand{o}
	if o.kind == opVector {
		list = o.vector
	}
	if len(list) != n {
		b.fail("%d elements instead of %d", len(list), n)
	}
	var places []place
	for _, e := range list {
		switch {
		case e.kind == opSink:
			places = append(places, place{b.scratch64(), 64})
		case e.kind != opRegister || e.reg.class == cPred || e.not:
			b.fail("%s is no register for this", e.text)
		default:
			places = append(places, place{e.reg.row, e.reg.bits})
		}
	}
	return places
}

// ins are the values that an operand of n elements names: registers of any size, or constants of the type's.
func (b *builder) ins(o operand, n int, typ string) []place {
	list := []operand{o}
	if o.kind == opVector {
		list = o.vector
	}
	if len(list) != n {
		b.fail("%d elements instead of %d", len(list), n)
	}
	var places []place
	for _, e := range list {
		switch {
		case e.kind == opRegister && e.reg.class == c64:
			places = append(places, place{e.reg.row, 64})
		case e.kind == opSymbol, e.kind == opConstant && typeSize(typ) == 8:
			places = append(places, place{b.in64(e, typ), 64})
		default:
			places = append(places, place{b.in32(e, typ), 32})
		}
	}
	return places
}

func opStore(b *builder, s *statement, in *instruction) {
	b.allow(s, cacheMods...)
	if !b.want(s, 2, 2) {
		return
	}
	space, typ := paramSpace(b.space(s), s.args[0]), s.typ()
	width := typeSize(typ)
	n := width * s.vector
	b.touches(space, n)
	a := b.addressOf(s.args[0])
	ins := b.ins(s.args[1], s.vector, typ)
	if space == "param" || space == "const" {
		b.fail("a store to space .%s", space)
	}
	if b.err != nil {
		return
	}
	kind := writes
	if s.has("volatile") || s.has("relaxed") || s.has("release") {
		kind = atomics
	}
	in.run = func(w *warp, m uint32) {
		var at row64
		a.addresses(w, &at)
		for ; m != 0; m &= m - 1 {
			l := lowest(m)
			p := w.bytes(space, l, at[l], n, kind)
			for i, v := range ins {
				store(p[i*width:(i+1)*width], v.get(w, l))
			}
		}
		w.unlock()
	}
}

func opCvta(b *builder, s *statement, in *instruction) {
	b.allow(s, append([]string{"to"}, spaces...)...)
	if !b.want(s, 2, 2) {
		return
	}
	d, a := b.out64(s.args[0]), b.in64(s.args[1], "u64")
	space, to := b.space(s), s.has("to")
	window := map[string]uint64{"shared": sharedWindow, "local": localWindow}[space]
	in.run = func(w *warp, m uint32) {
		x, out := &w.r64[a], &w.r64[d]
		for ; m != 0; m &= m - 1 {
			l := lowest(m)
			switch {
			case !to:
				out[l] = x[l] + window
			case x[l]&^windowMask != window:
				w.fault(l, Address, "%#x is no generic address of space .%s", x[l], space)
			default:
				out[l] = x[l] - window
			}
		}
	}
}

func opIsspacep(b *builder, s *statement, in *instruction) {
	b.allow(s, spaces...)
	if !b.want(s, 2, 2) {
		return
	}
	d, a := b.outPred(s.args[0]), b.in64(s.args[1], "u64")
	window := map[string]uint64{"shared": sharedWindow, "local": localWindow}[b.space(s)]
	in.run = func(w *warp, m uint32) {
		var r uint32
		for l, x := range w.r64[a] {
			if x&^windowMask == window {
				r |= 1 << l
			}
		}
		w.p[d] = w.p[d]&^m | r&m
	}
}

// opNothing has no effect that a program can see.
func opNothing(_ *builder, _ *statement, in *instruction) { in.run = func(*warp, uint32) {} }

func opMov(b *builder, s *statement, in *instruction) {
	b.allow(s)
	if !b.want(s, 2, 2) {
		return
	}
	typ, d, a := s.typ(), s.args[0], s.args[1]
	if len(s.mods) == 0 && slices.Contains(s.types, "pred") {
		out := b.outPred(d)
		src, not := b.inPred(a)
		in.run = func(w *warp, m uint32) { w.p[out] = w.p[out]&^m | w.lanes(src, not)&m }
		return
	}
	width := 8 * typeSize(typ)
	switch {
	case d.kind == opVector:
		src := b.ins(a, 1, typ)
		outs := b.outs(d, len(d.vector))
		each := width / max(1, len(outs))
		if b.err != nil {
			return
		}
		in.run = func(w *warp, m uint32) {
			for ; m != 0; m &= m - 1 {
				l := lowest(m)
				v := src[0].get(w, l)
				for i, o := range outs {
					o.set(w, l, v>>(each*i)&(1<<each-1))
				}
			}
		}
	case a.kind == opVector:
		out := b.outs(d, 1)
		each := width / max(1, len(a.vector))
		ins := b.ins(a, len(a.vector), "b"+itoa(each))
		if b.err != nil {
			return
		}
		in.run = func(w *warp, m uint32) {
			for ; m != 0; m &= m - 1 {
				l := lowest(m)
				var v uint64
				for i, x := range ins {
					v |= x.get(w, l) & (1<<each - 1) << (each * i)
				}
				out[0].set(w, l, v)
			}
		}
	case width == 64:
		out, src := b.out64(d), 0
		if a.kind == opSymbol && a.symbol.space == "local" || a.kind == opSymbol && a.symbol.space == "param" {
			src = b.const64row(uint64(a.symbol.offset) + uint64(a.offset))
		} else {
			src = b.in64(a, typ)
		}
		in.run = func(w *warp, m uint32) {
			if x, o := &w.r64[src], &w.r64[out]; m == allLanes {
				*o = *x
			} else {
				blend(o, x, m)
			}
		}
	default:
		out, src := b.out32(d), b.in32(a, typ)
		in.run = func(w *warp, m uint32) {
			if x, o := &w.r32[src], &w.r32[out]; m == allLanes {
				*o = *x
			} else {
				blend(o, x, m)
			}
		}
	}
}

// lanes are those whose predicate is true.
func (w *warp) lanes(pred int, not bool) uint32 {
	if not {
		return ^w.p[pred]
	}
	return w.p[pred]
}
