package ptx

import (
	"math/bits"
	"strconv"
)

func itoa(n int) string { return strconv.Itoa(n) }

func isFloat(typ string) bool { return typ == "f32" || typ == "f64" }
func isHalf(typ string) bool {
	return typ == "f16" || typ == "bf16" || typ == "f16x2" || typ == "bf16x2"
}
func isSigned(typ string) bool { return typ != "" && typ[0] == 's' }

// plain1, plain2 and plain3 compile operators of one class.
func (b *builder) plain1(s *statement, in *instruction, typ string, f32 unary32, f64 unary64) {
	if !b.want(s, 2, 2) {
		return
	}
	if typeSize(typ) == 8 {
		d, x := b.out64(s.args[0]), b.in64(s.args[1], typ)
		in.run = func(w *warp, m uint32) { do1(f64, &w.r64[d], &w.r64[x], m) }
		return
	}
	d, x := b.out32(s.args[0]), b.in32(s.args[1], typ)
	in.run = func(w *warp, m uint32) { do1(f32, &w.r32[d], &w.r32[x], m) }
}

func (b *builder) plain2(s *statement, in *instruction, typ string, f32 binary32, f64 binary64) {
	if !b.want(s, 3, 3) {
		return
	}
	if typeSize(typ) == 8 {
		d, x, y := b.out64(s.args[0]), b.in64(s.args[1], typ), b.in64(s.args[2], typ)
		in.run = func(w *warp, m uint32) { do2(f64, &w.r64[d], &w.r64[x], &w.r64[y], m) }
		return
	}
	d, x, y := b.out32(s.args[0]), b.in32(s.args[1], typ), b.in32(s.args[2], typ)
	in.run = func(w *warp, m uint32) { do2(f32, &w.r32[d], &w.r32[x], &w.r32[y], m) }
}

func (b *builder) plain3(s *statement, in *instruction, typ string, f32 ternary32, f64 ternary64) {
	if !b.want(s, 4, 4) {
		return
	}
	if typeSize(typ) == 8 {
		d, x, y, z := b.out64(s.args[0]), b.in64(s.args[1], typ), b.in64(s.args[2], typ), b.in64(s.args[3], typ)
		in.run = func(w *warp, m uint32) { do3(f64, &w.r64[d], &w.r64[x], &w.r64[y], &w.r64[z], m) }
		return
	}
	d, x, y, z := b.out32(s.args[0]), b.in32(s.args[1], typ), b.in32(s.args[2], typ), b.in32(s.args[3], typ)
	in.run = func(w *warp, m uint32) { do3(f32, &w.r32[d], &w.r32[x], &w.r32[y], &w.r32[z], m) }
}

func add[T uint32 | uint64](d, a, b *[32]T) {
	for i := range d {
		d[i] = a[i] + b[i]
	}
}

func sub[T uint32 | uint64](d, a, b *[32]T) {
	for i := range d {
		d[i] = a[i] - b[i]
	}
}

func mul[T uint32 | uint64](d, a, b *[32]T) {
	for i := range d {
		d[i] = a[i] * b[i]
	}
}

func mad[T uint32 | uint64](d, a, b, c *[32]T) {
	for i := range d {
		d[i] = a[i]*b[i] + c[i]
	}
}

func and[T uint32 | uint64](d, a, b *[32]T) {
	for i := range d {
		d[i] = a[i] & b[i]
	}
}

func or[T uint32 | uint64](d, a, b *[32]T) {
	for i := range d {
		d[i] = a[i] | b[i]
	}
}

func xor[T uint32 | uint64](d, a, b *[32]T) {
	for i := range d {
		d[i] = a[i] ^ b[i]
	}
}

// wide1, wide2 and wide3 make functions of 64-bit values, which operands of a narrower type are extended to, operators of
// that type.
func wide1(typ string, f func(a int64) int64) (unary32, unary64) {
	get, put := widener(typ)
	return each1(func(a uint32) uint32 { return put(f(get(a))) }), each1(func(a uint64) uint64 { return uint64(f(int64(a))) })
}

func wide2(typ string, f func(a, b int64) int64) (binary32, binary64) {
	get, put := widener(typ)
	return each2(func(a, b uint32) uint32 { return put(f(get(a), get(b))) }),
		each2(func(a, b uint64) uint64 { return uint64(f(int64(a), int64(b))) })
}

func wide3(typ string, f func(a, b, c int64) int64) (ternary32, ternary64) {
	get, put := widener(typ)
	return each3(func(a, b, c uint32) uint32 { return put(f(get(a), get(b), get(c))) }),
		each3(func(a, b, c uint64) uint64 { return uint64(f(int64(a), int64(b), int64(c))) })
}

// widener extends values of an integer type of up to 32 bits, and cuts them.
func widener(typ string) (get func(uint32) int64, put func(int64) uint32) {
	shift := uint(64 - 8*max(1, typeSize(typ)))
	put = func(v int64) uint32 { return uint32(uint64(v) << shift >> shift) }
	if typeSize(typ) == 4 {
		put = func(v int64) uint32 { return uint32(v) }
	}
	if isSigned(typ) {
		return func(u uint32) int64 { return int64(u) << shift >> shift }, put
	}
	return func(u uint32) int64 { return int64(uint64(u) << shift >> shift) }, put
}

func opArithmetic(b *builder, s *statement, in *instruction) {
	typ := s.typ()
	switch {
	case isFloat(typ):
		b.floatArithmetic(s, in)
		return
	case isHalf(typ):
		b.halfArithmetic(s, in)
		return
	case typ == "":
		b.fail("no type")
		return
	}
	if s.op == "mul" {
		b.allow(s, "lo", "hi", "wide")
		if s.has("wide") {
			b.wideProduct(s, in)
			return
		}
	} else {
		b.allow(s)
	}
	narrow := typeSize(typ) < 4
	var f32 binary32
	var f64 binary64
	switch {
	case s.op == "add" && !narrow:
		f32, f64 = add[uint32], add[uint64]
	case s.op == "sub" && !narrow:
		f32, f64 = sub[uint32], sub[uint64]
	case s.op == "mul" && !s.has("hi") && !narrow:
		f32, f64 = mul[uint32], mul[uint64]
	default:
		f := integerOp(s.op, typ, s.has("hi"))
		if f == nil {
			b.fail("unknown for type .%s", typ)
			return
		}
		f32, f64 = wide2(typ, f)
	}
	b.plain2(s, in, typ, f32, f64)
}

func integerOp(op, typ string, hi bool) func(x, y int64) int64 {
	unsigned64 := typ == "u64" || typ == "b64"
	switch op {
	case "add":
		return func(x, y int64) int64 { return x + y }
	case "sub":
		return func(x, y int64) int64 { return x - y }
	case "mul":
		if hi {
			return high(typ)
		}
		return func(x, y int64) int64 { return x * y }
	case "min":
		if unsigned64 {
			return func(x, y int64) int64 { return int64(min(uint64(x), uint64(y))) }
		}
		return func(x, y int64) int64 { return min(x, y) }
	case "max":
		if unsigned64 {
			return func(x, y int64) int64 { return int64(max(uint64(x), uint64(y))) }
		}
		return func(x, y int64) int64 { return max(x, y) }
	case "div", "rem":
		return quotient(op == "rem", isSigned(typ))
	}
	return nil
}

// quotient is a division; by zero it gives all ones, as devices do, and the remainder is the dividend.
func quotient(rem, signed bool) func(x, y int64) int64 {
	return func(x, y int64) int64 {
		switch {
		case y == 0 && rem:
			return x
		case y == 0:
			return -1
		case !signed && rem:
			return int64(uint64(x) % uint64(y))
		case !signed:
			return int64(uint64(x) / uint64(y))
		case y == -1 && rem:
			return 0
		case y == -1:
			return -x
		case rem:
			return x % y
		}
		return x / y
	}
}

// high is the upper half of a product.
func high(typ string) func(x, y int64) int64 {
	width := 8 * typeSize(typ)
	if width < 64 {
		return func(x, y int64) int64 { return int64(uint64(x*y) >> width) }
	}
	if !isSigned(typ) {
		return func(x, y int64) int64 {
			h, _ := bits.Mul64(uint64(x), uint64(y))
			return int64(h)
		}
	}
	return func(x, y int64) int64 {
		h, _ := bits.Mul64(uint64(x), uint64(y))
		return int64(h - uint64(x>>63)&uint64(y) - uint64(y>>63)&uint64(x))
	}
}

// wideProduct is mul.wide and mad.wide: the result has twice the operands' size.
func (b *builder) wideProduct(s *statement, in *instruction) {
	typ := s.typ()
	sum := s.op == "mad"
	if !b.want(s, 3+int(bit(sum)), 3+int(bit(sum))) {
		return
	}
	if typeSize(typ) != 4 && typeSize(typ) != 2 || isFloat(typ) {
		b.fail("no wide product of type .%s", typ)
		return
	}
	get, _ := widener(typ)
	x, y := b.in32(s.args[1], typ), b.in32(s.args[2], typ)
	if typeSize(typ) == 2 {
		d, z := b.out32(s.args[0]), b.const32row(0)
		if sum {
			z = b.in32(s.args[3], "b32")
		}
		in.run = func(w *warp, m uint32) {
			do3(each3(func(x, y, z uint32) uint32 { return uint32(get(x)*get(y)) + z }), &w.r32[d], &w.r32[x], &w.r32[y], &w.r32[z], m)
		}
		return
	}
	d, z := b.out64(s.args[0]), b.const64row(0)
	if sum {
		z = b.in64(s.args[3], "b64")
	}
	signed := isSigned(typ)
	in.run = func(w *warp, m uint32) {
		var t row64
		p, q, r := &w.r32[x], &w.r32[y], &w.r64[z]
		if signed {
			for i := range t {
				t[i] = uint64(int64(int32(p[i]))*int64(int32(q[i]))) + r[i]
			}
		} else {
			for i := range t {
				t[i] = uint64(p[i])*uint64(q[i]) + r[i]
			}
		}
		if m == allLanes {
			w.r64[d] = t
		} else {
			blend(&w.r64[d], &t, m)
		}
	}
}

func opMad(b *builder, s *statement, in *instruction) {
	typ := s.typ()
	switch {
	case isFloat(typ):
		b.floatMad(s, in)
		return
	case isHalf(typ):
		b.halfArithmetic(s, in)
		return
	case typ == "" || s.op == "fma":
		b.fail("unknown type")
		return
	}
	b.allow(s, "lo", "hi", "wide")
	switch {
	case s.has("wide"):
		b.wideProduct(s, in)
	case s.has("hi"):
		h := high(typ)
		f32, f64 := wide3(typ, func(x, y, z int64) int64 { return h(x, y) + z })
		b.plain3(s, in, typ, f32, f64)
	case typeSize(typ) < 4:
		f32, f64 := wide3(typ, func(x, y, z int64) int64 { return x*y + z })
		b.plain3(s, in, typ, f32, f64)
	default:
		b.plain3(s, in, typ, mad[uint32], mad[uint64])
	}
}

// opMul24 is mul24 and mad24: products of 24-bit values.
func opMul24(b *builder, s *statement, in *instruction) {
	b.allow(s, "lo", "hi")
	typ := s.typ()
	if typ != "u32" && typ != "s32" {
		b.fail("unknown type")
		return
	}
	shift := uint(0)
	if s.has("hi") {
		shift = 16
	}
	product := func(x, y, z int64) int64 {
		if typ == "s32" {
			x, y = x<<40>>40, y<<40>>40
		} else {
			x, y = x&0xffffff, y&0xffffff
		}
		return (x*y)>>shift + z
	}
	if s.op == "mad24" {
		f32, f64 := wide3(typ, product)
		b.plain3(s, in, typ, f32, f64)
		return
	}
	f32, f64 := wide2(typ, func(x, y int64) int64 { return product(x, y, 0) })
	b.plain2(s, in, typ, f32, f64)
}

func opSad(b *builder, s *statement, in *instruction) {
	b.allow(s)
	f32, f64 := wide3(s.typ(), func(x, y, z int64) int64 { return z + max(x, y) - min(x, y) })
	if typeSize(s.typ()) == 8 {
		b.fail("unknown type")
	}
	b.plain3(s, in, s.typ(), f32, f64)
}

// opUnary is abs, neg, not, cnot and brev.
func opUnary(b *builder, s *statement, in *instruction) {
	typ := s.typ()
	if s.op == "not" && typ == "pred" {
		b.allow(s)
		if b.want(s, 2, 2) {
			d := b.outPred(s.args[0])
			x, not := b.inPred(s.args[1])
			in.run = func(w *warp, m uint32) { w.p[d] = w.p[d]&^m | ^w.lanes(x, not)&m }
		}
		return
	}
	switch {
	case typ == "":
		b.fail("no type")
		return
	case isFloat(typ) || isHalf(typ):
		b.floatUnary(s, in)
		return
	}
	b.allow(s)
	f := map[string]func(x int64) int64{
		"abs":  func(x int64) int64 { return max(x, -x) },
		"neg":  func(x int64) int64 { return -x },
		"not":  func(x int64) int64 { return ^x },
		"cnot": func(x int64) int64 { return int64(bit(x == 0)) },
		"brev": func(x int64) int64 { return int64(bits.Reverse64(uint64(x)) >> (64 - 8*typeSize(typ))) },
	}[s.op]
	f32, f64 := wide1(typ, f)
	b.plain1(s, in, typ, f32, f64)
}

func bit(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}
