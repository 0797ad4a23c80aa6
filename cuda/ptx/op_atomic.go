package ptx

import "sync"

var atomicMods = append([]string{"add", "min", "max", "exch", "cas", "and", "or", "xor", "inc", "dec", "noftz"}, cacheMods...)

// opAtom is atom, whose result is the old value, and red, which has none.
func opAtom(b *builder, s *statement, in *instruction) {
	b.allow(s, atomicMods...)
	result := s.op == "atom"
	typ, op := s.typ(), atomicOp(s)
	f := atomicFunction(op, typ)
	operands := 2 + int(bit(result)) + int(bit(op == "cas"))
	if f == nil || s.vector != 1 {
		b.fail("unknown atomic")
		return
	}
	if !b.want(s, operands, operands) {
		return
	}
	space, width := b.space(s), typeSize(typ)
	b.touches(space, width)
	args := s.args
	d := place{bits: 0}
	if result {
		d = b.outs(args[0], 1)[0]
		args = args[1:]
	}
	a, x := b.addressOf(args[0]), b.ins(args[1], 1, typ)
	y := x
	if op == "cas" {
		y = b.ins(args[2], 1, typ)
	}
	if b.err != nil {
		return
	}
	acquires := s.has("acquire") || s.has("acq_rel")
	in.run = func(w *warp, m uint32) {
		var at row64
		a.addresses(w, &at)
		for ; m != 0; m &= m - 1 {
			l := lowest(m)
			p := w.bytes(space, l, at[l], width, atomics)
			old := load(p)
			store(p, f(old, x[0].get(w, l), y[0].get(w, l)))
			if space != "shared" && at[l]&^windowMask == 0 {
				w.b.meet(at[l], acquires)
			}
			if result {
				d.set(w, l, old)
			}
		}
		w.unlock()
	}
}

func atomicOp(s *statement) string {
	for _, m := range s.mods {
		switch m {
		case "add", "min", "max", "exch", "cas", "and", "or", "xor", "inc", "dec":
			return m
		}
	}
	return ""
}

// atomicFunction computes the new value of the old one and the operands.
func atomicFunction(op, typ string) func(old, x, y uint64) uint64 {
	width := 8 * typeSize(typ)
	if width < 32 {
		return nil
	}
	mask := ^uint64(0) >> (64 - width)
	switch {
	case op == "exch":
		return func(_, x, _ uint64) uint64 { return x }
	case op == "cas":
		return func(old, x, y uint64) uint64 {
			if old == x&mask {
				return y
			}
			return old
		}
	case typ == "f32" && op == "add":
		return func(old, x, _ uint64) uint64 { return uint64(f32bits(f32(uint32(old)) + f32(uint32(x)))) }
	case typ == "f64" && op == "add":
		return func(old, x, _ uint64) uint64 { return f64bits(f64(old) + f64(x)) }
	case isFloat(typ) || isHalf(typ):
		return nil
	case op == "and":
		return func(old, x, _ uint64) uint64 { return old & x }
	case op == "or":
		return func(old, x, _ uint64) uint64 { return old | x }
	case op == "xor":
		return func(old, x, _ uint64) uint64 { return old ^ x }
	case op == "inc":
		return func(old, x, _ uint64) uint64 {
			if old >= x&mask {
				return 0
			}
			return old + 1
		}
	case op == "dec":
		return func(old, x, _ uint64) uint64 {
			if old == 0 || old > x&mask {
				return x
			}
			return old - 1
		}
	}
	f := integerOp(op, typ, false)
	if f == nil {
		return nil
	}
	shift := uint(64 - width)
	get := func(v uint64) int64 { return int64(v << shift >> shift) }
	if isSigned(typ) {
		get = func(v uint64) int64 { return int64(v<<shift) >> shift }
	}
	return func(old, x, _ uint64) uint64 { return uint64(f(get(old), get(x))) }
}

// opFence notes that the block's writes so far come before what its next atomic operation publishes.
func opFence(b *builder, s *statement, in *instruction) {
	b.allow(s, "gl", "cta", "gpu", "sys", "sc", "acq_rel", "proxy", "async")
	orders := s.has("gl") || s.has("gpu") || s.has("sys")
	in.run = func(w *warp, _ uint32) {
		if orders {
			w.b.fence = w.b.epoch
		}
	}
}

// meetings are the blocks that published their writes by an atomic operation, by its address, and up to which epoch.
type meetings struct {
	mu sync.Mutex
	at map[uint64]map[uint32]uint32
}

// meet orders this block after the blocks whose fenced writes came before their atomic operation at an address.
func (b *block) meet(address uint64, acquires bool) {
	m := &b.meeting
	m.mu.Lock()
	defer m.mu.Unlock()
	at := m.at[address]
	if at == nil {
		at = map[uint32]uint32{}
		if m.at == nil {
			m.at = map[uint64]map[uint32]uint32{}
		}
		m.at[address] = at
	}
	if b.fence > 0 || acquires {
		for run, epoch := range at {
			if run != b.run {
				if b.fenced == nil {
					b.fenced = map[uint32]uint32{}
				}
				b.fenced[run] = max(b.fenced[run], epoch)
			}
		}
	}
	if b.fence > 0 {
		at[b.run] = b.fence
		for run, epoch := range b.fenced {
			at[run] = max(at[run], epoch)
		}
	}
}
