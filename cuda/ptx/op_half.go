package ptx

// Arithmetic in half precision, one value or two packed: in double, rounded once.

// halves splits an operand of type f16, bf16 or a pair of them, and joins results.
func halves(typ string) (get func(u uint32, i int) float64, put func(v float64) uint32, n int) {
	n = 1
	if typeSize(typ) == 4 {
		n = 2
	}
	if typ[0] == 'b' {
		return func(u uint32, i int) float64 { return float64(bf16(u >> (16 * i) & 0xffff)) },
			func(v float64) uint32 { return toBF16(narrow(v), nearest) }, n
	}
	return func(u uint32, i int) float64 { return float64(f16(u >> (16 * i) & 0xffff)) },
		func(v float64) uint32 { return toF16(v, nearest) }, n
}

// narrow rounds a double to a single to odd, so that rounding it again to half precision is right.
func narrow(v float64) float32 {
	f := round32(v, 0, towardZero)
	if float64(f) != v && v == v && f32bits(f)&1 == 0 {
		f = f32(f32bits(f) | 1)
	}
	return f
}

func (b *builder) halfArithmetic(s *statement, in *instruction) {
	b.allow(s, "rn", "NaN", "sat", "relu")
	get, put, n := halves(s.typ())
	op, nan, sat, relu := s.op, s.has("NaN"), s.has("sat"), s.has("relu")
	f := func(x, y, z float64) float64 {
		switch op {
		case "add":
			return x + y
		case "sub":
			return x - y
		case "mul":
			return x * y
		case "fma":
			return x*y + z
		}
		return extreme(x, y, op == "max", nan)
	}
	switch op {
	case "add", "sub", "mul", "fma", "min", "max":
	default:
		b.fail("unknown for type .%s", s.typ())
	}
	lanes := func(x, y, z uint32) (r uint32) {
		for i := range n {
			v := f(get(x, i), get(y, i), get(z, i))
			if sat {
				v = float64(saturate(float32(v)))
			}
			if relu {
				v = extreme(v, 0, true, false)
			}
			r |= put(v) << (16 * i)
		}
		return r
	}
	if op == "fma" {
		b.plain3(s, in, s.typ(), each3(lanes), nil)
		return
	}
	b.plain2(s, in, s.typ(), each2(func(x, y uint32) uint32 { return lanes(x, y, 0) }), nil)
}

func (b *builder) halfFunction(s *statement, in *instruction, f func(x, y float64) float64) {
	if !isHalf(s.typ()) || s.op != "ex2" && s.op != "tanh" {
		b.fail("unknown for type .%s", s.typ())
		return
	}
	get, put, n := halves(s.typ())
	b.plain1(s, in, s.typ(), each1(func(x uint32) (r uint32) {
		for i := range n {
			r |= put(f(get(x, i), 0)) << (16 * i)
		}
		return r
	}), nil)
}
