package ptx

import "math"

// flush32 replaces subnormal values by zeros of their sign.
func flush32(u uint32) uint32 {
	if u&0x7f800000 == 0 {
		return u & 0x80000000
	}
	return u
}

func saturate(f float32) float32 {
	if f != f {
		return 0
	}
	return max(0, min(1, f))
}

// finish wraps an operator on singles: .ftz flushes arguments and result, .sat clamps the result.
func finish(s *statement, f func(x, y, z float32) float32) func(x, y, z uint32) uint32 {
	ftz, sat := s.has("ftz"), s.has("sat")
	return func(x, y, z uint32) uint32 {
		if ftz {
			x, y, z = flush32(x), flush32(y), flush32(z)
		}
		r := f(f32(x), f32(y), f32(z))
		if sat {
			r = saturate(r)
		}
		if ftz {
			return flush32(f32bits(r))
		}
		return f32bits(r)
	}
}

func fadd(d, a, b *row32) {
	for i := range d {
		d[i] = f32bits(f32(a[i]) + f32(b[i]))
	}
}

func fsub(d, a, b *row32) {
	for i := range d {
		d[i] = f32bits(f32(a[i]) - f32(b[i]))
	}
}

func fmul(d, a, b *row32) {
	for i := range d {
		d[i] = f32bits(f32(a[i]) * f32(b[i]))
	}
}

func fdiv(d, a, b *row32) {
	for i := range d {
		d[i] = f32bits(f32(a[i]) / f32(b[i]))
	}
}

// ffma is fma32 with its common case in the loop.
func ffma(d, a, b, c *row32) {
	for i := range d {
		x, y, z := f32(a[i]), f32(b[i]), f32(c[i])
		s := float64(float64(x)*float64(y)) + float64(z)
		if u := f64bits(s); u&(1<<29-1) != 1<<28 && u<<1 >= (1023-126)<<53 || s == 0 {
			d[i] = f32bits(float32(s))
		} else {
			d[i] = f32bits(fma32(x, y, z))
		}
	}
}

func dadd(d, a, b *row64) {
	for i := range d {
		d[i] = f64bits(f64(a[i]) + f64(b[i]))
	}
}

func dsub(d, a, b *row64) {
	for i := range d {
		d[i] = f64bits(f64(a[i]) - f64(b[i]))
	}
}

func dmul(d, a, b *row64) {
	for i := range d {
		d[i] = f64bits(f64(a[i]) * f64(b[i]))
	}
}

func ddiv(d, a, b *row64) {
	for i := range d {
		d[i] = f64bits(f64(a[i]) / f64(b[i]))
	}
}

func dfma(d, a, b, c *row64) {
	for i := range d {
		d[i] = f64bits(math.FMA(f64(a[i]), f64(b[i]), f64(c[i])))
	}
}

func (b *builder) floatArithmetic(s *statement, in *instruction) {
	switch s.op {
	case "min", "max":
		b.allow(s, "ftz", "NaN")
		b.minMax(s, in)
		return
	case "div":
		b.allow(s, "rn", "rz", "rm", "rp", "ftz", "approx", "full")
		if s.has("approx") || s.has("full") {
			b.approx(s, in, 3, 2, func(x, y float64) float64 { return x / y })
			return
		}
	case "rem":
		b.fail("no remainder of floats")
		return
	default:
		b.allow(s, "rn", "rz", "rm", "rp", "ftz", "sat")
	}
	r, op := roundingOf(s), s.op
	single := map[string]binary32{"add": fadd, "sub": fsub, "mul": fmul, "div": fdiv}[op]
	double := map[string]binary64{"add": dadd, "sub": dsub, "mul": dmul, "div": ddiv}[op]
	if r != nearest {
		double = each2(func(x, y uint64) uint64 { return f64bits(big64(op, r, f64(x), f64(y), 0)) })
	}
	if r != nearest || s.has("ftz") || s.has("sat") {
		f := finish(s, func(x, y, _ float32) float32 {
			v, rest := exact32(op, float64(x), float64(y))
			return round32(v, rest, r)
		})
		single = each2(func(x, y uint32) uint32 { return f(x, y, 0) })
	}
	b.plain2(s, in, s.typ(), single, double)
}

func (b *builder) floatMad(s *statement, in *instruction) {
	b.allow(s, "rn", "rz", "rm", "rp", "ftz", "sat")
	r := roundingOf(s)
	single, double := ternary32(ffma), ternary64(dfma)
	if r != nearest {
		double = each3(func(x, y, z uint64) uint64 { return f64bits(big64("fma", r, f64(x), f64(y), f64(z))) })
	}
	if r != nearest || s.has("ftz") || s.has("sat") {
		single = each3(finish(s, func(x, y, z float32) float32 {
			sum, rest := twoSum(float64(x)*float64(y), float64(z))
			return round32(sum, rest, r)
		}))
	}
	b.plain3(s, in, s.typ(), single, double)
}

// extreme is the smaller or greater of two; of a NaN and a number it is the number, unless NaNs are to win.
func extreme(x, y float64, greater, nan bool) float64 {
	switch {
	case x != x || y != y:
		if nan || x != x && y != y {
			return math.NaN()
		}
		if x != x {
			return y
		}
		return x
	case greater:
		return max(x, y)
	}
	return min(x, y)
}

func (b *builder) minMax(s *statement, in *instruction) {
	greater, nan := s.op == "max", s.has("NaN")
	f := finish(s, func(x, y, _ float32) float32 { return float32(extreme(float64(x), float64(y), greater, nan)) })
	single := each2(func(x, y uint32) uint32 { return f(x, y, 0) })
	b.plain2(s, in, s.typ(), single, each2(func(x, y uint64) uint64 { return f64bits(extreme(f64(x), f64(y), greater, nan)) }))
}

func (b *builder) floatUnary(s *statement, in *instruction) {
	b.allow(s, "ftz")
	typ := s.typ()
	sign := uint64(1) << (8*typeSize(typ) - 1)
	if typ == "f16x2" || typ == "bf16x2" {
		sign |= 0x8000
	}
	ftz := s.has("ftz")
	negate := s.op == "neg"
	if s.op != "neg" && s.op != "abs" {
		b.fail("unknown for type .%s", typ)
	}
	b.plain1(s, in, typ, each1(func(x uint32) uint32 {
		if ftz {
			x = flush32(x)
		}
		if negate {
			return x ^ uint32(sign)
		}
		return x &^ uint32(sign)
	}), each1(func(x uint64) uint64 {
		if negate {
			return x ^ sign
		}
		return x &^ sign
	}))
}

// opFunction is rcp, sqrt, rsqrt, ex2, lg2, sin, cos and tanh. The errors are those that the PTX manual gives for the
// .approx forms, in units of the result's last place, or absolute for lg2, sin and cos.
func opFunction(b *builder, s *statement, in *instruction) {
	b.allow(s, "rn", "rz", "rm", "rp", "ftz", "approx")
	r, op := roundingOf(s), s.op
	function := map[string]func(x float64) float64{
		"rcp": func(x float64) float64 { return 1 / x }, "sqrt": math.Sqrt, "rsqrt": func(x float64) float64 { return 1 / math.Sqrt(x) },
		"ex2": math.Exp2, "lg2": math.Log2, "sin": math.Sin, "cos": math.Cos, "tanh": math.Tanh,
	}[op]
	if s.has("approx") {
		ulp := map[string]float64{"rcp": 1, "sqrt": 2, "rsqrt": 3, "ex2": 2, "tanh": 1 << 12}[op]
		b.approx(s, in, 2, ulp, func(x, _ float64) float64 { return function(x) })
		return
	}
	if op != "rcp" && op != "sqrt" {
		b.fail("only .approx is known")
		return
	}
	f := finish(s, func(x, _, _ float32) float32 {
		if op == "rcp" {
			v, rest := exact32("div", 1, float64(x))
			return round32(v, rest, r)
		}
		v := math.Sqrt(float64(x))
		if v != v || math.IsInf(v, 0) {
			return float32(v)
		}
		return round32(v, math.FMA(-v, v, float64(x)), r)
	})
	b.plain1(s, in, s.typ(), each1(func(x uint32) uint32 { return f(x, 0, 0) }), each1(func(x uint64) uint64 {
		if op == "rcp" {
			return f64bits(big64(op, r, 1, f64(x), 0))
		}
		return f64bits(big64(op, r, f64(x), 0, 0))
	}))
}

// approx compiles a function of one or two singles whose result is exact to so many units in the last place only.
func (b *builder) approx(s *statement, in *instruction, operands int, ulp float64, f func(x, y float64) float64) {
	typ := s.typ()
	if !b.want(s, operands, operands) {
		return
	}
	if typ == "f64" { // rcp and rsqrt give the upper 20 bits of the fraction
		d, x := b.out64(s.args[0]), b.in64(s.args[1], typ)
		in.run = func(w *warp, m uint32) {
			do1(each1(func(x uint64) uint64 { return f64bits(f(f64(x), 0)) &^ (1<<32 - 1) }), &w.r64[d], &w.r64[x], m)
		}
		return
	}
	if typ != "f32" {
		b.halfFunction(s, in, f)
		return
	}
	d, x := b.out32(s.args[0]), b.in32(s.args[1], typ)
	y := x
	if operands == 3 {
		y = b.in32(s.args[2], typ)
	}
	ftz, absolute := s.has("ftz"), 0.0
	if s.op == "lg2" || s.op == "sin" || s.op == "cos" {
		absolute = 0x1p-22
	}
	in.run = func(w *warp, m uint32) {
		p, q, out, seed := &w.r32[x], &w.r32[y], &w.r32[d], w.b.seed
		for ; m != 0; m &= m - 1 {
			l := lowest(m)
			u, v := p[l], q[l]
			if ftz {
				u, v = flush32(u), flush32(v)
			}
			r := f(float64(f32(u)), float64(f32(v)))
			if seed != 0 && r != 0 && !math.IsInf(r, 0) && !exactCase(s.op, f32(u)) {
				h := mix(seed ^ uint64(u)<<32 ^ uint64(v))
				noise := float64(int64(h)) * 0x1p-63 // in [-1,1)
				r += noise * max(absolute, math.Abs(r)*ulp*0x1p-24)
			}
			o := f32bits(float32(r))
			if ftz {
				o = flush32(o)
			}
			out[l] = o
		}
	}
}

// exactCase says whether a device is exact: kernels rely on 2^0 = 1, on 1/1 = 1 and the like.
func exactCase(op string, x float32) bool {
	fraction, _ := math.Frexp(float64(x))
	switch op {
	case "ex2":
		return x == float32(math.Trunc(float64(x)))
	case "div":
		return false
	}
	return fraction == 0.5 || fraction == -0.5
}

func opCopysign(b *builder, s *statement, in *instruction) {
	b.allow(s)
	if !isFloat(s.typ()) {
		b.fail("unknown type")
	}
	b.plain2(s, in, s.typ(), each2(func(sign, x uint32) uint32 { return x&^(1<<31) | sign&(1<<31) }),
		each2(func(sign, x uint64) uint64 { return x&^(1<<63) | sign&(1<<63) }))
}

func opTestp(b *builder, s *statement, in *instruction) {
	b.allow(s, "finite", "infinite", "number", "notanumber", "normal", "subnormal")
	if !b.want(s, 2, 2) || len(s.mods) != 1 {
		b.fail("no test")
		return
	}
	d, x := b.outPred(s.args[0]), b.ins(s.args[1], 1, s.typ())
	if b.err != nil {
		return
	}
	double, test := s.typ() == "f64", s.mods[0]
	in.run = func(w *warp, m uint32) {
		for ; m != 0; m &= m - 1 {
			l := lowest(m)
			u := x[0].get(w, l)
			v, least := float64(f32(uint32(u))), 0x1p-126
			if double {
				v, least = f64(u), 0x1p-1022
			}
			a := math.Abs(v)
			r := map[string]bool{
				"finite": a <= math.MaxFloat64, "infinite": math.IsInf(v, 0), "number": v == v, "notanumber": v != v,
				"normal": a >= least && a <= math.MaxFloat64, "subnormal": a > 0 && a < least,
			}[test]
			w.p[d] = w.p[d]&^(1<<l) | bit(r)<<l
		}
	}
}
