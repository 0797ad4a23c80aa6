package ptx

import "math/bits"

func opLogic(b *builder, s *statement, in *instruction) {
	b.allow(s)
	typ := s.typ()
	if typ != "pred" {
		f := map[string]struct {
			f32 binary32
			f64 binary64
		}{"and": {and[uint32], and[uint64]}, "or": {or[uint32], or[uint64]}, "xor": {xor[uint32], xor[uint64]}}[s.op]
		if typ == "" {
			b.fail("no type")
			return
		}
		b.plain2(s, in, typ, f.f32, f.f64)
		return
	}
	if !b.want(s, 3, 3) {
		return
	}
	d := b.outPred(s.args[0])
	x, notX := b.inPred(s.args[1])
	y, notY := b.inPred(s.args[2])
	f := logic(s.op)
	in.run = func(w *warp, m uint32) { w.p[d] = w.p[d]&^m | f(w.lanes(x, notX), w.lanes(y, notY))&m }
}

func logic(op string) func(x, y uint32) uint32 {
	switch op {
	case "and":
		return func(x, y uint32) uint32 { return x & y }
	case "or":
		return func(x, y uint32) uint32 { return x | y }
	case "xor":
		return func(x, y uint32) uint32 { return x ^ y }
	}
	return nil
}

// opShift is shl and shr; amounts beyond the size shift everything out.
func opShift(b *builder, s *statement, in *instruction) {
	b.allow(s)
	typ := s.typ()
	if typ == "" || isFloat(typ) {
		b.fail("unknown type")
		return
	}
	if !b.want(s, 3, 3) {
		return
	}
	width := uint32(8 * typeSize(typ))
	amount := b.in32(s.args[2], "u32")
	left, signed := s.op == "shl", isSigned(typ)
	if width == 64 {
		d, x := b.out64(s.args[0]), b.in64(s.args[1], typ)
		in.run = func(w *warp, m uint32) {
			var t row64
			v, n := &w.r64[x], &w.r32[amount]
			for i := range t {
				switch {
				case left:
					t[i] = v[i] << n[i]
				case signed:
					t[i] = uint64(int64(v[i]) >> n[i])
				default:
					t[i] = v[i] >> n[i]
				}
			}
			blend(&w.r64[d], &t, m)
		}
		return
	}
	get, put := widener(typ)
	d, x := b.out32(s.args[0]), b.in32(s.args[1], typ)
	f := each2(func(v, n uint32) uint32 {
		if left {
			return put(int64(uint64(v) << n))
		}
		return put(get(v) >> n)
	})
	if width == 32 {
		switch {
		case left:
			f = func(d, v, n *row32) {
				for i := range d {
					d[i] = v[i] << n[i]
				}
			}
		case signed:
			f = func(d, v, n *row32) {
				for i := range d {
					d[i] = uint32(int32(v[i]) >> n[i])
				}
			}
		default:
			f = func(d, v, n *row32) {
				for i := range d {
					d[i] = v[i] >> n[i]
				}
			}
		}
	}
	in.run = func(w *warp, m uint32) { do2(f, &w.r32[d], &w.r32[x], &w.r32[amount], m) }
}

// opCount is popc, clz and bfind: a number of 32 bits.
func opCount(b *builder, s *statement, in *instruction) {
	b.allow(s, "shiftamt")
	if !b.want(s, 2, 2) {
		return
	}
	typ := s.typ()
	d, src := b.out32(s.args[0]), b.ins(s.args[1], 1, typ)
	if b.err != nil {
		return
	}
	width := 8 * typeSize(typ)
	x, op, amount, signed := src[0], s.op, s.has("shiftamt"), isSigned(typ)
	in.run = func(w *warp, m uint32) {
		for ; m != 0; m &= m - 1 {
			l := lowest(m)
			v := x.get(w, l)
			if width == 32 {
				v = uint64(uint32(v))
			}
			var r int
			switch op {
			case "popc":
				r = bits.OnesCount64(v)
			case "clz":
				r = bits.LeadingZeros64(v) - 64 + width
			default:
				if signed && v>>(width-1)&1 == 1 {
					v = ^v << (64 - width) >> (64 - width)
				}
				if r = bits.Len64(v) - 1; amount && r >= 0 {
					r = width - 1 - r
				}
			}
			w.r32[d][l] = uint32(r)
		}
	}
}

// opBitField is bfe and bfi.
func opBitField(b *builder, s *statement, in *instruction) {
	b.allow(s)
	typ := s.typ()
	insert := s.op == "bfi"
	first := 1 + int(bit(insert)) // operands before position and length
	if typeSize(typ) < 4 || isFloat(typ) {
		b.fail("unknown type")
		return
	}
	if !b.want(s, first+3, first+3) {
		return
	}
	width := 8 * typeSize(typ)
	d, x := b.outs(s.args[0], 1), b.ins(s.args[1], 1, typ)
	y := x
	if insert {
		y = b.ins(s.args[2], 1, typ)
	}
	position, length := b.in32(s.args[first+1], "u32"), b.in32(s.args[first+2], "u32")
	if b.err != nil {
		return
	}
	signed := isSigned(typ)
	in.run = func(w *warp, m uint32) {
		for ; m != 0; m &= m - 1 {
			l := lowest(m)
			p, n := w.r32[position][l]&255, w.r32[length][l]&255
			v := x[0].get(w, l)
			if insert {
				field := (uint64(1)<<n - 1) << p
				v = y[0].get(w, l)&^field | v<<p&field
			} else {
				v = extract(v, p, n, width, signed)
			}
			d[0].set(w, l, v)
		}
	}
}

// extract takes n bits of v from p on; beyond the width a signed value repeats its sign.
func extract(v uint64, p, n uint32, width int, signed bool) uint64 {
	if n == 0 {
		return 0
	}
	if signed {
		s := int64(v<<(64-width)) >> (64 - width) >> min(p, 63)
		if n < 64 {
			s = s << (64 - n) >> (64 - n)
		}
		return uint64(s)
	}
	return v >> p & (1<<n - 1)
}

func opLop3(b *builder, s *statement, in *instruction) {
	b.allow(s)
	if !b.want(s, 5, 5) {
		return
	}
	if s.args[4].kind != opConstant {
		b.fail("the table is no constant")
		return
	}
	table := s.args[4].value.bits
	f := each3(func(x, y, z uint32) uint32 {
		var r uint32
		for i := range 8 {
			if table>>i&1 == 1 {
				r |= choose(x, i>>2) & choose(y, i>>1) & choose(z, i)
			}
		}
		return r
	})
	s.args = s.args[:4]
	b.plain3(s, in, "b32", f, nil)
}

func choose(x uint32, i int) uint32 {
	if i&1 == 1 {
		return x
	}
	return ^x
}

// opFunnel is shf: a shift of two registers as one of 64 bits.
func opFunnel(b *builder, s *statement, in *instruction) {
	b.allow(s, "l", "r", "wrap", "clamp")
	left, wrap := s.has("l"), s.has("wrap")
	if s.typ() != "b32" {
		b.fail("unknown type")
	}
	b.plain3(s, in, "b32", each3(func(low, high, n uint32) uint32 {
		if wrap {
			n &= 31
		}
		n = min(n, 32)
		v := uint64(high)<<32 | uint64(low)
		if left {
			return uint32(v << n >> 32)
		}
		return uint32(v >> n)
	}), nil)
}

// opPermute is prmt in its general mode: each result byte is one of eight, or repeats the sign of one.
func opPermute(b *builder, s *statement, in *instruction) {
	b.allow(s)
	b.plain3(s, in, "b32", each3(func(x, y, selector uint32) uint32 {
		v, r := uint64(y)<<32|uint64(x), uint32(0)
		for i := range 4 {
			n := selector >> (4 * i)
			c := uint32(v >> (8 * (n & 7)) & 255)
			if n&8 != 0 {
				c = uint32(uint8(int8(c) >> 7))
			}
			r |= c << (8 * i)
		}
		return r
	}), nil)
}

// opDot4 is dp4a: a sum of four products of bytes.
func opDot4(b *builder, s *statement, in *instruction) {
	b.allow(s)
	if len(s.types) != 2 || typeSize(s.types[0]) != 4 || typeSize(s.types[1]) != 4 {
		b.fail("unknown types")
		return
	}
	get := func(v uint32, i int, typ string) int32 {
		if typ[0] == 's' {
			return int32(int8(v >> (8 * i)))
		}
		return int32(uint8(v >> (8 * i)))
	}
	tx, ty := s.types[0], s.types[1]
	b.plain3(s, in, "b32", each3(func(x, y, sum uint32) uint32 {
		for i := range 4 {
			sum += uint32(get(x, i, tx) * get(y, i, ty))
		}
		return sum
	}), nil)
}
