package ptx

import "strings"

// A comparison of two rows gives a bit for each lane.
type (
	compare32 func(a, b *row32) uint32
	compare64 func(a, b *row64) uint32
)

func lanes32(f func(a, b uint32) bool) compare32 {
	return func(a, b *row32) (r uint32) {
		for i := range a {
			r |= bit(f(a[i], b[i])) << i
		}
		return r
	}
}

func lanes64(f func(a, b uint64) bool) compare64 {
	return func(a, b *row64) (r uint32) {
		for i := range a {
			r |= bit(f(a[i], b[i])) << i
		}
		return r
	}
}

// integerOrder is the comparison of signed values; unsigned ones of 64 bits are moved first.
func integerOrder(op string) func(x, y int64) bool {
	switch op {
	case "eq":
		return func(x, y int64) bool { return x == y }
	case "ne":
		return func(x, y int64) bool { return x != y }
	case "lt", "lo":
		return func(x, y int64) bool { return x < y }
	case "le", "ls":
		return func(x, y int64) bool { return x <= y }
	case "gt", "hi":
		return func(x, y int64) bool { return x > y }
	case "ge", "hs":
		return func(x, y int64) bool { return x >= y }
	}
	return nil
}

// floatOrder is a comparison of floats: false where one is a NaN, but for the names that end in u (and nan).
func floatOrder(op string) func(x, y float64) bool {
	switch op {
	case "eq":
		return func(x, y float64) bool { return x == y }
	case "ne":
		return func(x, y float64) bool { return x < y || x > y }
	case "lt":
		return func(x, y float64) bool { return x < y }
	case "le":
		return func(x, y float64) bool { return x <= y }
	case "gt":
		return func(x, y float64) bool { return x > y }
	case "ge":
		return func(x, y float64) bool { return x >= y }
	case "num":
		return func(x, y float64) bool { return x == x && y == y }
	case "nan":
		return func(x, y float64) bool { return x != x || y != y }
	}
	if ordered, ok := strings.CutSuffix(op, "u"); ok && len(ordered) == 2 {
		if f := floatOrder(ordered); f != nil {
			return func(x, y float64) bool { return x != x || y != y || f(x, y) }
		}
	}
	return nil
}

// comparison compiles the comparison of two operands.
func (b *builder) comparison(s *statement, op, typ string, x, y operand) func(w *warp) uint32 {
	if isFloat(typ) || isHalf(typ) && typeSize(typ) == 2 {
		f := floatOrder(op)
		if f == nil {
			b.fail("unknown comparison .%s", op)
			return nil
		}
		if typ == "f64" {
			p, q := b.in64(x, typ), b.in64(y, typ)
			c := lanes64(func(a, b uint64) bool { return f(f64(a), f64(b)) })
			return func(w *warp) uint32 { return c(&w.r64[p], &w.r64[q]) }
		}
		decode := decoder(typ, s.has("ftz"))
		p, q := b.in32(x, typ), b.in32(y, typ)
		c := lanes32(func(a, b uint32) bool { return f(decode(uint64(a)), decode(uint64(b))) })
		return func(w *warp) uint32 { return c(&w.r32[p], &w.r32[q]) }
	}
	f := integerOrder(op)
	if f == nil || typ == "pred" || isHalf(typ) {
		b.fail("unknown comparison .%s of type .%s", op, typ)
		return nil
	}
	if typeSize(typ) == 8 {
		p, q := b.in64(x, typ), b.in64(y, typ)
		offset := uint64(1) << 63 // keeps the order of unsigned values
		if isSigned(typ) {
			offset = 0
		}
		c := lanes64(func(a, b uint64) bool { return f(int64(a^offset), int64(b^offset)) })
		return func(w *warp) uint32 { return c(&w.r64[p], &w.r64[q]) }
	}
	get, _ := widener(typ)
	p, q := b.in32(x, typ), b.in32(y, typ)
	c := common32(op, typ)
	if c == nil {
		c = lanes32(func(a, b uint32) bool { return f(get(a), get(b)) })
	}
	return func(w *warp) uint32 { return c(&w.r32[p], &w.r32[q]) }
}

// common32 are comparisons of loops and bounds.
func common32(op, typ string) compare32 {
	switch op + "." + typ {
	case "lt.s32":
		return func(a, b *row32) (r uint32) {
			for i := range a {
				r |= bit(int32(a[i]) < int32(b[i])) << i
			}
			return r
		}
	case "ge.s32":
		return func(a, b *row32) (r uint32) {
			for i := range a {
				r |= bit(int32(a[i]) >= int32(b[i])) << i
			}
			return r
		}
	case "eq.s32", "eq.u32", "eq.b32":
		return func(a, b *row32) (r uint32) {
			for i := range a {
				r |= bit(a[i] == b[i]) << i
			}
			return r
		}
	case "ne.s32", "ne.u32", "ne.b32":
		return func(a, b *row32) (r uint32) {
			for i := range a {
				r |= bit(a[i] != b[i]) << i
			}
			return r
		}
	}
	return nil
}

// split comparison and combination from a statement's modifiers.
func (b *builder) comparisonMods(s *statement) (compare, combine string) {
	for _, m := range s.mods {
		switch {
		case m == "ftz":
		case m == "and" || m == "or" || m == "xor":
			combine = m
		case compare == "" && (integerOrder(m) != nil || floatOrder(m) != nil):
			compare = m
		default:
			b.fail("unknown modifier .%s", m)
		}
	}
	return compare, combine
}

// opSetp sets d, or d|q, to a comparison and its opposite, combined with a third predicate.
func opSetp(b *builder, s *statement, in *instruction) {
	compare, combine := b.comparisonMods(s)
	third := combine != ""
	if !b.want(s, 3+int(bit(third)), 3+int(bit(third))) {
		return
	}
	c := b.comparison(s, compare, s.typ(), s.args[1], s.args[2])
	d, q := b.outPred(s.args[0]), -1
	if s.args[0].second != nil {
		q = b.outPred(*s.args[0].second)
	}
	if b.err != nil {
		return
	}
	if !third {
		in.run = func(w *warp, m uint32) {
			r := c(w)
			w.p[d] = w.p[d]&^m | r&m
			if q >= 0 {
				w.p[q] = w.p[q]&^m | ^r&m
			}
		}
		return
	}
	f := logic(combine)
	p, not := b.inPred(s.args[3])
	in.run = func(w *warp, m uint32) {
		r, z := c(w), w.lanes(p, not)
		w.p[d] = w.p[d]&^m | f(r, z)&m
		if q >= 0 {
			w.p[q] = w.p[q]&^m | f(^r, z)&m
		}
	}
}

// opSet is a comparison whose result is a number: all ones or 1.0, or 0.
func opSet(b *builder, s *statement, in *instruction) {
	compare, combine := b.comparisonMods(s)
	third := combine != ""
	if !b.want(s, 3+int(bit(third)), 3+int(bit(third))) || len(s.types) != 2 || typeSize(s.types[0]) != 4 {
		b.fail("unknown types")
		return
	}
	c := b.comparison(s, compare, s.types[1], s.args[1], s.args[2])
	d, p, not, f := b.out32(s.args[0]), 0, false, func(x, _ uint32) uint32 { return x }
	if third {
		p, not = b.inPred(s.args[3])
		f = logic(combine)
	}
	if b.err != nil {
		return
	}
	yes := ^uint32(0)
	if s.types[0] == "f32" {
		yes = f32bits(1)
	}
	in.run = func(w *warp, m uint32) {
		z := uint32(0)
		if third {
			z = w.lanes(p, not)
		}
		r := f(c(w), z)
		for ; m != 0; m &= m - 1 {
			l := lowest(m)
			w.r32[d][l] = yes & -(r >> l & 1)
		}
	}
}

func opSelp(b *builder, s *statement, in *instruction) {
	b.allow(s)
	if !b.want(s, 4, 4) {
		return
	}
	typ := s.typ()
	p, not := b.inPred(s.args[3])
	if typeSize(typ) == 8 {
		d, x, y := b.out64(s.args[0]), b.in64(s.args[1], typ), b.in64(s.args[2], typ)
		in.run = func(w *warp, m uint32) { selectLanes(&w.r64[d], &w.r64[x], &w.r64[y], w.lanes(p, not), m) }
		return
	}
	d, x, y := b.out32(s.args[0]), b.in32(s.args[1], typ), b.in32(s.args[2], typ)
	in.run = func(w *warp, m uint32) { selectLanes(&w.r32[d], &w.r32[x], &w.r32[y], w.lanes(p, not), m) }
}

func selectLanes[T uint32 | uint64](d, x, y *[32]T, which, m uint32) {
	for ; m != 0; m &= m - 1 {
		l := lowest(m)
		if which>>l&1 == 1 {
			d[l] = x[l]
		} else {
			d[l] = y[l]
		}
	}
}

// opSlct selects by the sign of a third operand.
func opSlct(b *builder, s *statement, in *instruction) {
	b.allow(s, "ftz")
	if !b.want(s, 4, 4) || len(s.types) != 2 {
		b.fail("unknown types")
		return
	}
	sign := b.in32(s.args[3], s.types[1])
	d, x, y := b.outs(s.args[0], 1), b.ins(s.args[1], 1, s.typ()), b.ins(s.args[2], 1, s.typ())
	if b.err != nil {
		return
	}
	float := s.types[1] == "f32"
	in.run = func(w *warp, m uint32) {
		for ; m != 0; m &= m - 1 {
			l := lowest(m)
			u := w.r32[sign][l]
			src := x[0]
			if float && !(f32(u) >= 0) || !float && int32(u) < 0 {
				src = y[0]
			}
			d[0].set(w, l, src.get(w, l))
		}
	}
}
