package ptx

import (
	"math"
	"math/bits"
)

var cvtMods = []string{"rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi", "rna", "ftz", "sat", "relu"}

// opCvt converts. Integers widen by their own sign and are cut; a float becomes an integer clamped to its range, NaN
// becomes 0.
func opCvt(b *builder, s *statement, in *instruction) {
	b.allow(s, cvtMods...)
	if len(s.types) != 2 {
		b.fail("not two types")
		return
	}
	to, from := s.types[0], s.types[1]
	switch to {
	case "f16x2", "bf16x2":
		b.pack(s, in, to, from)
		return
	case "tf32":
		b.toTF32(s, in, from)
		return
	}
	if !b.want(s, 2, 2) {
		return
	}
	d, x := b.outs(s.args[0], 1), b.ins(s.args[1], 1, from)
	if b.err != nil {
		return
	}
	out, src := d[0], x[0]
	if out.bits < 8*typeSize(to) {
		b.fail("%s is too small for type .%s", s.args[0].text, to)
		return
	}
	if b.commonCvt(s, in, to, from, out, src) {
		return
	}
	f := converter(b, s, to, from)
	if f == nil {
		return
	}
	in.run = func(w *warp, m uint32) {
		for ; m != 0; m &= m - 1 {
			l := lowest(m)
			out.set(w, l, f(src.get(w, l)))
		}
	}
}

// commonCvt compiles the conversions that every kernel's addresses need.
func (b *builder) commonCvt(s *statement, in *instruction, to, from string, out, src place) bool {
	if len(s.mods) > 0 || isFloat(to) || isFloat(from) || isHalf(to) || isHalf(from) {
		return false
	}
	switch {
	case typeSize(from) == 4 && typeSize(to) == 8 && src.bits == 32:
		signed := isSigned(from)
		in.run = func(w *warp, m uint32) {
			d, x := &w.r64[out.row], &w.r32[src.row]
			for ; m != 0; m &= m - 1 {
				l := lowest(m)
				if d[l] = uint64(x[l]); signed {
					d[l] = uint64(int64(int32(x[l])))
				}
			}
		}
	case typeSize(from) == 8 && typeSize(to) == 4 && out.bits == 32 && src.bits == 64:
		in.run = func(w *warp, m uint32) {
			d, x := &w.r32[out.row], &w.r64[src.row]
			for ; m != 0; m &= m - 1 {
				l := lowest(m)
				d[l] = uint32(x[l])
			}
		}
	default:
		return false
	}
	return true
}

// converter is the function of one lane, on raw bits.
func converter(b *builder, s *statement, to, from string) func(u uint64) uint64 {
	float := func(t string) bool { return isFloat(t) || t == "f16" || t == "bf16" }
	switch {
	case float(from) && float(to):
		return floatToFloat(b, s, to, from)
	case float(from):
		return floatToInteger(b, s, to, from)
	case float(to):
		return integerToFloat(b, s, to, from)
	case from == "pred" || to == "pred" || isHalf(from) || isHalf(to):
		b.fail("unknown types")
		return nil
	}
	shift := uint(64 - 8*typeSize(from))
	width := 8 * typeSize(to)
	signedFrom, signedTo, sat := isSigned(from), isSigned(to), s.has("sat")
	return func(u uint64) uint64 {
		u <<= shift
		if signedFrom {
			u = uint64(int64(u) >> shift)
		} else {
			u >>= shift
		}
		if sat {
			return clampInteger(u, signedFrom, signedTo, width)
		}
		if signedTo {
			return extend(u, uint(64-width))
		}
		return u << (64 - width) >> (64 - width)
	}
}

func clampInteger(u uint64, signedFrom, signedTo bool, width int) uint64 {
	negative := signedFrom && int64(u) < 0
	if !signedTo {
		most := ^uint64(0) >> (64 - width)
		switch {
		case negative:
			return 0
		case u > most:
			return most
		}
		return u
	}
	most := int64(^uint64(0) >> (65 - width))
	switch {
	case !negative && u > uint64(most):
		return uint64(most)
	case negative && int64(u) < -most-1:
		return uint64(-most - 1)
	}
	return u
}

// decoder reads a float of a type.
func decoder(from string, ftz bool) func(u uint64) float64 {
	switch from {
	case "f16":
		return func(u uint64) float64 { return float64(f16(uint32(u) & 0xffff)) }
	case "bf16":
		return func(u uint64) float64 { return float64(bf16(uint32(u) & 0xffff)) }
	case "f64":
		return f64
	}
	if ftz {
		return func(u uint64) float64 { return float64(f32(flush32(uint32(u)))) }
	}
	return func(u uint64) float64 { return float64(f32(uint32(u))) }
}

// encoder rounds to a float of a type.
func encoder(to string, r rounding, ftz bool) func(v float64) uint64 {
	switch to {
	case "f16":
		return func(v float64) uint64 { return uint64(toF16(v, r)) }
	case "bf16":
		return func(v float64) uint64 { return uint64(toBF16(narrow(v), r)) }
	case "f64":
		return f64bits
	}
	return func(v float64) uint64 {
		u := f32bits(round32(v, 0, r))
		if ftz {
			u = flush32(u)
		}
		return uint64(u)
	}
}

// integral is the rounding to an integral value that a statement names, nil where it names none.
func integral(s *statement) func(float64) float64 {
	switch {
	case s.has("rni"):
		return math.RoundToEven
	case s.has("rzi"):
		return math.Trunc
	case s.has("rmi"):
		return math.Floor
	case s.has("rpi"):
		return math.Ceil
	}
	return nil
}

func floatToFloat(b *builder, s *statement, to, from string) func(u uint64) uint64 {
	if (to == "f16" || to == "bf16") && (s.has("rm") || s.has("rp")) {
		b.fail("rounding unknown for type .%s", to)
	}
	decode, encode, whole := decoder(from, s.has("ftz")), encoder(to, roundingOf(s), s.has("ftz")), integral(s)
	sat, relu := s.has("sat"), s.has("relu")
	return func(u uint64) uint64 {
		v := decode(u)
		if whole != nil {
			v = whole(v)
		}
		switch {
		case sat && v != v:
			v = 0
		case sat:
			v = max(0, min(1, v))
		case relu && v <= 0:
			v = 0
		}
		return encode(v)
	}
}

func floatToInteger(b *builder, s *statement, to, from string) func(u uint64) uint64 {
	decode, whole := decoder(from, s.has("ftz")), integral(s)
	if whole == nil {
		b.fail("no rounding to an integer")
		return nil
	}
	width := 8 * typeSize(to)
	least, most := 0.0, math.Ldexp(1, width)
	if isSigned(to) {
		least, most = -math.Ldexp(1, width-1), math.Ldexp(1, width-1)
	}
	return func(u uint64) uint64 {
		v := whole(decode(u))
		switch {
		case v != v:
			return 0
		case v >= most && isSigned(to):
			return ^uint64(0) >> (65 - width)
		case v >= most:
			return ^uint64(0) >> (64 - width)
		case v <= least:
			return uint64(int64(least))
		case v >= 0x1p63:
			return uint64(v)
		}
		return uint64(int64(v))
	}
}

func integerToFloat(b *builder, s *statement, to, from string) func(u uint64) uint64 {
	r, encode := roundingOf(s), encoder(to, roundingOf(s), s.has("ftz"))
	if to == "f64" && typeSize(from) == 8 && r != nearest {
		b.fail("rounding unknown")
	}
	shift := uint(64 - 8*typeSize(from))
	signed, sat := isSigned(from), s.has("sat")
	return func(u uint64) uint64 {
		negative := false
		if u <<= shift; signed {
			u = uint64(int64(u) >> shift)
			negative = int64(u) < 0
		} else {
			u >>= shift
		}
		if negative {
			u = -u
		}
		if n := bits.Len64(u); n > 53 && to != "f64" { // keep that there were bits below the double's last one
			low := u & (1<<(n-53) - 1)
			if u &^= low; low != 0 {
				u |= 1 << (n - 53)
			}
		}
		v := float64(u)
		if negative {
			v = -v
		}
		if sat {
			v = max(0, min(1, v))
		}
		return encode(v)
	}
}

// pack converts two singles to a pair of halves: the first operand to the upper one.
func (b *builder) pack(s *statement, in *instruction, to, from string) {
	if from != "f32" || s.has("rm") || s.has("rp") || s.has("sat") {
		b.fail("unknown conversion")
		return
	}
	r, relu := roundingOf(s), s.has("relu")
	one := func(u uint32) uint32 {
		v := f32(u)
		if relu && v <= 0 {
			v = 0
		}
		if to == "bf16x2" {
			return toBF16(v, r)
		}
		return toF16(float64(v), r)
	}
	if !b.want(s, 3, 3) {
		return
	}
	d, x, y := b.out32(s.args[0]), b.in32(s.args[1], from), b.in32(s.args[2], from)
	f := each2(func(x, y uint32) uint32 { return one(x)<<16 | one(y) })
	in.run = func(w *warp, m uint32) { do2(f, &w.r32[d], &w.r32[x], &w.r32[y], m) }
}

// toTF32 rounds a single to 10 bits of fraction, halves away from zero.
func (b *builder) toTF32(s *statement, in *instruction, from string) {
	if from != "f32" || !s.has("rna") {
		b.fail("unknown conversion")
		return
	}
	b.plain1(s, in, from, each1(func(u uint32) uint32 {
		if v := f32(u); v != v || math.IsInf(float64(v), 0) {
			return u
		}
		return (u + 1<<12) &^ (1<<13 - 1)
	}), nil)
}
