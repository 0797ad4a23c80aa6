package ptx

import (
	"math"
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"
)

const single = "\nmov.b32 %r10, %f10;\ncvt.u64.u32 %rd10, %r10;"

func val(u uint64) float64 { return float64(math.Float32frombits(uint32(u))) }

// sameFloat compares bits, but all NaNs are one.
func sameFloat(got, want uint64) bool {
	return got == want || math.IsNaN(val(got)) && math.IsNaN(val(want))
}

// exactly rounds the exact value of a*b+c to a single in a direction; specials are the plain result.
func exactly(a, b, c float64, mode big.RoundingMode) uint64 {
	plain := math.FMA(a, b, c)
	if math.IsNaN(plain) || math.IsInf(plain, 0) || math.IsInf(a, 0) || math.IsInf(b, 0) || math.IsInf(c, 0) {
		return uint64(math.Float32bits(float32(plain)))
	}
	big64 := func(f float64) *big.Float { return new(big.Float).SetPrec(2000).SetFloat64(f) }
	v := new(big.Float).SetPrec(2000).Mul(big64(a), big64(b))
	v.Add(v, big64(c))
	if v.Sign() == 0 {
		return uint64(math.Float32bits(float32(plain)))
	}
	return uint64(math.Float32bits(toSingle(v, mode)))
}

// toSingle rounds to a multiple of the last place of a single.
func toSingle(v *big.Float, mode big.RoundingMode) float32 {
	exponent := max(v.MantExp(nil)-24, -149)
	scaled := new(big.Float).SetPrec(2000).SetMantExp(v, -exponent)
	n, _ := scaled.Int(nil) // toward zero
	rest := new(big.Float).SetPrec(2000).Sub(scaled, new(big.Float).SetPrec(2000).SetInt(n))
	away := false
	half := big.NewFloat(.5)
	switch c := new(big.Float).Abs(rest).Cmp(half); {
	case rest.Sign() == 0 || mode == big.ToZero:
	case mode == big.ToNearestEven:
		away = c > 0 || c == 0 && n.Bit(0) == 1
	case mode == big.ToNegativeInf:
		away = v.Sign() < 0
	case mode == big.ToPositiveInf:
		away = v.Sign() > 0
	}
	if away {
		n.Add(n, big.NewInt(int64(v.Sign())))
	}
	f, _ := new(big.Float).SetPrec(2000).SetMantExp(new(big.Float).SetPrec(2000).SetInt(n), exponent).Float64()
	if n.Sign() == 0 {
		return float32(math.Copysign(0, float64(v.Sign())))
	}
	if math.Abs(f) > math.MaxFloat32 {
		if mode == big.ToZero || mode == big.ToNegativeInf && f > 0 || mode == big.ToPositiveInf && f < 0 {
			return float32(math.Copysign(math.MaxFloat32, f))
		}
		return float32(math.Inf(v.Sign()))
	}
	return float32(f)
}

var modes = map[string]big.RoundingMode{
	"rn": big.ToNearestEven, "rz": big.ToZero, "rm": big.ToNegativeInf, "rp": big.ToPositiveInf,
}

// Every rounding of sums, products and fused ones equals that of the exact value.
func TestRoundings(t *testing.T) {
	rows := floats(1600)
	for name, mode := range modes {
		for code, args := range map[string]func(a, b, c float64) (float64, float64, float64){
			"fma." + name + ".f32 %f10, %f1, %f2, %f3;": func(a, b, c float64) (float64, float64, float64) { return a, b, c },
			"add." + name + ".f32 %f10, %f1, %f2;":      func(a, b, _ float64) (float64, float64, float64) { return a, 1, b },
			"sub." + name + ".f32 %f10, %f1, %f2;":      func(a, b, _ float64) (float64, float64, float64) { return a, 1, -b },
			"mul." + name + ".f32 %f10, %f1, %f2;":      func(a, b, _ float64) (float64, float64, float64) { return a, b, math.Copysign(0, a*b) },
		} {
			got := compute(t, code+single, 0, rows)
			for i, r := range rows {
				a, b, c := args(val(r[0]), val(r[1]), val(r[2]))
				want := exactly(a, b, c, mode)
				if val(got[i]) == 0 && val(want) == 0 { // signs of zeros are not the point
					continue
				}
				require.True(t, sameFloat(got[i], want), "%s with %g %g %g: %g, want %g", code, val(r[0]), val(r[1]), val(r[2]), val(got[i]), val(want))
			}
		}
	}
}

func TestDivisionAndRoots(t *testing.T) {
	rows := floats(1600)
	for name, mode := range modes {
		for code, f := range map[string]func(a, b *big.Float) *big.Float{
			"div." + name + ".f32 %f10, %f1, %f2;": func(a, b *big.Float) *big.Float { return new(big.Float).SetPrec(2000).Quo(a, b) },
			"rcp." + name + ".f32 %f10, %f2;": func(_, b *big.Float) *big.Float {
				return new(big.Float).SetPrec(2000).Quo(big.NewFloat(1), b)
			},
			"sqrt." + name + ".f32 %f10, %f2;": func(_, b *big.Float) *big.Float {
				if b.Sign() < 0 {
					return nil
				}
				return new(big.Float).SetPrec(300).Sqrt(b)
			},
		} {
			got := compute(t, code+single, 0, rows)
			for i, r := range rows {
				a, b := val(r[0]), val(r[1])
				if a-a != 0 || b-b != 0 || b == 0 || a == 0 {
					continue
				}
				v := f(big.NewFloat(a), big.NewFloat(b))
				if v == nil {
					require.True(t, math.IsNaN(val(got[i])))
					continue
				}
				want := toSingle(v, mode)
				require.Equal(t, want, math.Float32frombits(uint32(got[i])), "%s with %g %g", code, a, b)
			}
		}
	}
	for code, want := range map[string]float64{
		"div.rn.f32 %f10, 0f3F800000, 0f00000000;": math.Inf(1), "rcp.rn.f32 %f10, 0fFF800000;": math.Copysign(0, -1),
		"sqrt.rn.f32 %f10, 0f80000000;": math.Copysign(0, -1), "sqrt.rn.f32 %f10, 0f7F800000;": math.Inf(1),
	} {
		got := compute(t, code+single, 0, make([][3]uint64, 1))
		require.Equal(t, uint64(math.Float32bits(float32(want))), got[0], code)
	}
}

type floatTest struct {
	code string
	want func(a, b, c float64) float64
}

// Operators whose result is exact, or rounds a double once.
func TestFloats(t *testing.T) {
	pick := func(greater bool) func(a, b, _ float64) float64 {
		return func(a, b, _ float64) float64 {
			switch {
			case a != a:
				return b
			case b != b:
				return a
			case (a > b) == greater:
				return a
			}
			return b
		}
	}
	flush := func(f float64) float64 {
		if math.Abs(f) < 0x1p-126 {
			return math.Copysign(0, f)
		}
		return f
	}
	rows := floats(1600)
	for _, test := range []floatTest{
		{"min.f32 %f10, %f1, %f2;", pick(false)},
		{"max.f32 %f10, %f1, %f2;", pick(true)},
		{"max.NaN.f32 %f10, %f1, %f2;", func(a, b, _ float64) float64 {
			if a != a || b != b {
				return math.NaN()
			}
			return max(a, b)
		}},
		{"neg.f32 %f10, %f1;", func(a, _, _ float64) float64 { return -a }},
		{"abs.f32 %f10, %f1;", func(a, _, _ float64) float64 { return math.Abs(a) }},
		{"abs.ftz.f32 %f10, %f1;", func(a, _, _ float64) float64 { return math.Abs(flush(a)) }},
		{"mul.ftz.f32 %f10, %f1, %f2;", func(a, b, _ float64) float64 { return flush(float64(float32(flush(a) * flush(b)))) }},
		{"add.sat.f32 %f10, %f1, %f2;", func(a, b, _ float64) float64 {
			if s := a + b; s == s {
				return max(0, min(1, float64(float32(s))))
			}
			return 0
		}},
		{"copysign.f32 %f10, %f1, %f2;", func(a, b, _ float64) float64 { return math.Copysign(b, a) }},
		{"cvt.sat.f32.f32 %f10, %f1;", func(a, _, _ float64) float64 {
			if a != a {
				return 0
			}
			return max(0, min(1, a))
		}},
		{"cvt.rmi.f32.f32 %f10, %f1;", func(a, _, _ float64) float64 { return math.Floor(a) }},
		{"cvt.rni.f32.f32 %f10, %f1;", func(a, _, _ float64) float64 { return math.RoundToEven(a) }},
		{"cvt.rzi.s32.f32 %r10, %f1;\ncvt.rn.f32.s32 %f10, %r10;", func(a, _, _ float64) float64 {
			if a != a {
				return 0
			}
			return float64(float32(math.Trunc(max(-0x1p31, min(0x1p31-1, a)))))
		}},
		{"cvt.rpi.u64.f32 %rd11, %f1;\ncvt.rn.f32.u64 %f10, %rd11;", func(a, _, _ float64) float64 {
			if a != a {
				return 0
			}
			return float64(float32(math.Ceil(max(0, min(0x1p64, a)))))
		}},
		{"cvt.f64.f32 %fd10, %f1;\nadd.f64 %fd10, %fd10, %fd10;\ncvt.rn.f32.f64 %f10, %fd10;", func(a, _, _ float64) float64 { return float64(float32(2 * a)) }},
		{"setp.ltu.f32 %p1, %f1, %f2;\nselp.f32 %f10, %f1, 0f3F800000, %p1;", func(a, b, _ float64) float64 {
			if !(a >= b) {
				return a
			}
			return 1
		}},
		{"setp.ne.f32 %p1, %f1, %f2;\nsetp.nan.f32 %p2, %f1, %f3;\nsetp.equ.or.f32 %p3, %f2, %f3, %p1;\nselp.f32 %f10, 0f40000000, 0f3F800000, %p3;\n@%p2 mov.f32 %f10, 0f00000000;", func(a, b, c float64) float64 {
			switch {
			case a != a || c != c:
				return 0
			case a == a && b == b && a != b || b == c || b != b || c != c:
				return 2
			}
			return 1
		}},
		{"testp.subnormal.f32 %p1, %f1;\nselp.f32 %f10, 0f3F800000, 0f00000000, %p1;", func(a, _, _ float64) float64 {
			return float64(bit(a != 0 && math.Abs(a) < 0x1p-126))
		}},
		{"set.ge.f32.f32 %f10, %f1, %f2;", func(a, b, _ float64) float64 { return float64(bit(a >= b)) }},
	} {
		got := compute(t, test.code+single, 0, rows)
		for i, r := range rows {
			want := test.want(val(r[0]), val(r[1]), val(r[2]))
			if want == 0 && val(got[i]) == 0 {
				continue
			}
			require.True(t, sameFloat(got[i], uint64(math.Float32bits(float32(want)))), "%s with %g %g %g: %g, want %g", test.code,
				val(r[0]), val(r[1]), val(r[2]), val(got[i]), want)
		}
	}
}

// The .approx functions are right to their documented error, and with a seed they use it.
func TestApproximations(t *testing.T) {
	rows := floats(1600)
	for _, test := range []struct {
		code               string
		f                  func(a float64) float64
		relative, absolute float64
	}{
		{"ex2.approx.f32 %f10, %f1;", math.Exp2, 0x1p-22, 0},
		{"lg2.approx.f32 %f10, %f1;", math.Log2, 0x1p-22, 0x1p-22},
		{"rcp.approx.f32 %f10, %f1;", func(a float64) float64 { return 1 / a }, 0x1p-23, 0},
		{"sqrt.approx.f32 %f10, %f1;", math.Sqrt, 0x1p-22, 0},
		{"rsqrt.approx.f32 %f10, %f1;", func(a float64) float64 { return 1 / math.Sqrt(a) }, 0x5p-24, 0},
		{"tanh.approx.f32 %f10, %f1;", math.Tanh, 0x1p-10, 0},
		{"div.approx.f32 %f10, 0f3F800000, %f1;", func(a float64) float64 { return 1 / a }, 0x1p-21, 0},
		{"cvt.f64.f32 %fd10, %f1;\nrcp.approx.ftz.f64 %fd10, %fd10;\ncvt.rn.f32.f64 %f10, %fd10;", func(a float64) float64 { return 1 / a }, 0x1p-19, 0},
	} {
		plain, seeded := compute(t, test.code+single, 0, rows), compute(t, test.code+single, 9, rows)
		differ := 0
		for i, r := range rows {
			a := val(r[0])
			want := float64(float32(test.f(a)))
			for _, got := range []float64{val(plain[i]), val(seeded[i])} {
				if want != want {
					require.True(t, math.IsNaN(got), "%s with %g", test.code, a)
				} else if !math.IsInf(want, 0) && math.Abs(want) > 0x1p-100 {
					require.InDelta(t, want, got, math.Abs(want)*test.relative+test.absolute, "%s with %g", test.code, a)
				}
			}
			if plain[i] != seeded[i] {
				differ++
			}
		}
		if test.relative > 0x1p-24 && test.code[:3] != "cvt" {
			require.Greater(t, differ, 100, test.code)
		}
	}
}

func TestDoubles(t *testing.T) {
	rows := doubles(1600)
	const out = "\nmov.b64 %rd10, %fd10;"
	for _, test := range []floatTest{
		{"add.f64 %fd10, %fd1, %fd2;", func(a, b, _ float64) float64 { return a + b }},
		{"sub.f64 %fd10, %fd1, %fd2;", func(a, b, _ float64) float64 { return a - b }},
		{"mul.f64 %fd10, %fd1, 0d4000000000000000;", func(a, _, _ float64) float64 { return a * 2 }},
		{"div.rn.f64 %fd10, %fd1, %fd2;", func(a, b, _ float64) float64 { return a / b }},
		{"fma.rn.f64 %fd10, %fd1, %fd2, %fd3;", math.FMA},
		{"sqrt.rn.f64 %fd10, %fd1;", func(a, _, _ float64) float64 { return math.Sqrt(a) }},
		{"rcp.rn.f64 %fd10, %fd1;", func(a, _, _ float64) float64 { return 1 / a }},
		{"neg.f64 %fd10, %fd1;", func(a, _, _ float64) float64 { return -a }},
		{"abs.f64 %fd10, %fd1;", func(a, _, _ float64) float64 { return math.Abs(a) }},
		{"cvt.rn.f32.f64 %f10, %fd1;\ncvt.f64.f32 %fd10, %f10;", func(a, _, _ float64) float64 { return float64(float32(a)) }},
		{"cvt.rzi.s64.f64 %rd11, %fd1;\ncvt.rn.f64.s64 %fd10, %rd11;", func(a, _, _ float64) float64 {
			if a != a {
				return 0
			}
			return math.Trunc(max(-0x1p63, min(0x1p63, a)))
		}},
		{"setp.gt.f64 %p1, %fd1, %fd2;\nselp.f64 %fd10, %fd1, %fd2, %p1;", func(a, b, _ float64) float64 {
			if a > b {
				return a
			}
			return b
		}},
	} {
		got := compute(t, test.code+out, 0, rows)
		for i, r := range rows {
			a, b, c := math.Float64frombits(r[0]), math.Float64frombits(r[1]), math.Float64frombits(r[2])
			want, g := test.want(a, b, c), math.Float64frombits(got[i])
			require.True(t, want == g || want != want && g != g, "%s with %g %g %g: %g, want %g", test.code, a, b, c, g, want)
		}
	}
	// directed roundings enclose the exact value
	lo := compute(t, "div.rm.f64 %fd10, %fd1, %fd2;"+out, 0, rows)
	hi := compute(t, "div.rp.f64 %fd10, %fd1, %fd2;"+out, 0, rows)
	for i, r := range rows {
		a, b := math.Float64frombits(r[0]), math.Float64frombits(r[1])
		l, h := math.Float64frombits(lo[i]), math.Float64frombits(hi[i])
		if q := a / b; q-q == 0 && b-b == 0 && math.Abs(q) > 0x1p-900 && math.Abs(q) < 0x1p900 {
			require.True(t, l <= q && q <= h && (l == h || math.Nextafter(l, h) == h), "%g/%g", a, b)
			require.Equal(t, l == h, math.FMA(q, b, -a) == 0, "%g/%g", a, b)
		}
	}
}

// Integers of 64 bits become singles rounded once.
func TestIntegerToFloat(t *testing.T) {
	rows := operands(640)
	signed := compute(t, "cvt.rn.f32.s64 %f10, %rd1;"+single, 0, rows)
	unsigned := compute(t, "cvt.rz.f32.u64 %f10, %rd1;"+single, 0, rows)
	words := compute(t, "cvt.rn.f32.u32 %f10, %r1;"+single, 0, rows)
	for i, r := range rows {
		if r[0] != 0 {
			require.EqualValues(t, toSingle(new(big.Float).SetInt64(int64(r[0])), big.ToNearestEven), val(signed[i]), "%d", int64(r[0]))
			require.EqualValues(t, toSingle(new(big.Float).SetUint64(r[0]), big.ToZero), val(unsigned[i]), "%d", r[0])
		}
		require.Equal(t, float32(uint32(r[0])), float32(val(words[i])))
	}
}

// Half precision against the nearest of its values.
func TestHalves(t *testing.T) {
	bf := func(u uint64) float64 { return val(u << 16) }
	nearestOf := func(value func(u uint64) float64, v float64) uint64 { // by search, over positive values
		if v != v {
			return 0x7fff
		}
		best := uint64(0)
		for bit := 14; bit >= 0; bit-- { // the greatest that is not above
			if u := best | 1<<bit; value(u) <= math.Abs(v) {
				best = u
			}
		}
		lo, hi := value(best), value(best+1)
		if math.IsInf(hi, 0) { // as if there were one more
			hi = lo + (lo - value(best-1))
		}
		if d := math.Abs(v); d-lo > hi-d || d-lo == hi-d && best&1 == 1 {
			best++
		}
		if math.Signbit(v) {
			best |= 0x8000
		}
		return best
	}
	half := func(u uint64) float64 { return float64(f16(uint32(u))) }
	rows := floats(960)
	packed := compute(t, "cvt.rn.bf16x2.f32 %r10, %f1, %f2;"+low, 0, rows)
	halfs := compute(t, "cvt.rn.f16.f32 %h5, %f1;\ncvt.u64.u16 %rd10, %h5;", 0, rows)
	back := compute(t, "cvt.rn.f16.f32 %h5, %f1;\ncvt.f32.f16 %f10, %h5;"+single, 0, rows)
	tf := compute(t, "cvt.rna.tf32.f32 %r10, %f1;"+low, 0, rows)
	fma := compute(t, "cvt.rn.bf16x2.f32 %r4, %f1, %f1;\ncvt.rn.bf16x2.f32 %r5, %f2, %f2;\nfma.rn.bf16x2 %r10, %r4, %r5, %r4;"+low, 0, rows)
	top := compute(t, "cvt.rn.f16x2.f32 %r4, %f1, %f2;\ncvt.rn.f16x2.f32 %r5, %f2, %f1;\nmax.f16x2 %r10, %r4, %r5;"+low, 0, rows)
	for i, r := range rows {
		a, b := val(r[0]), val(r[1])
		require.Equal(t, nearestOf(bf, a)<<16|nearestOf(bf, b), packed[i], "bf16 of %g %g", a, b)
		require.Equal(t, nearestOf(half, a), halfs[i], "f16 of %g", a)
		if a == a {
			require.Equal(t, half(halfs[i]), val(back[i]), "f16 of %g", a)
		}
		if math.Abs(a) < 1e38 && math.Abs(a) > 0x1p-120 {
			require.InDelta(t, 0, (val(tf[i])-a)/a, 0x1p-11, "tf32 of %g", a)
		}
		x, y := bf(nearestOf(bf, a)), bf(nearestOf(bf, b))
		if v := math.FMA(x, y, x); v == v && math.Abs(v) < 1e30 {
			require.Equal(t, nearestOf(bf, v)*0x10001, fma[i], "%g*%g+%g", x, y, x)
		}
		if a == a && b == b && a != -b {
			require.Equal(t, half(nearestOf(half, max(a, b))), half(top[i]&0xffff), "%g %g", a, b)
		}
	}
	require.Zero(t, tf[0]&0x1fff)
}
