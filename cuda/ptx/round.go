package ptx

import (
	"math"
	"math/big"
)

// A rounding is that of an instruction: to nearest even, or directed.
type rounding byte

const (
	nearest rounding = iota
	towardZero
	down
	up
)

func roundingOf(s *statement) rounding {
	switch {
	case s.has("rz"):
		return towardZero
	case s.has("rm"):
		return down
	case s.has("rp"):
		return up
	}
	return nearest
}

// round32 rounds the exact sum of v and a rest that is less than half of v's last place; only the rest's sign matters.
func round32(v, rest float64, r rounding) float32 {
	if math.IsInf(v, 0) || v != v || v == 0 && rest == 0 {
		return float32(v)
	}
	if rest != 0 && math.Float64bits(v)&1 == 0 { // round to odd, so that the next rounding sees that there was a rest
		switch {
		case v == 0:
			v = math.Copysign(math.SmallestNonzeroFloat64, rest)
		case (rest > 0) == (v > 0):
			v = f64(f64bits(v) + 1)
		default:
			v = f64(f64bits(v) - 1)
		}
	}
	f := float32(v)
	over := float64(f) > v
	under := float64(f) < v
	switch {
	case over && (r == down || r == towardZero && v > 0):
		return math.Nextafter32(f, float32(math.Inf(-1)))
	case under && (r == up || r == towardZero && v < 0):
		return math.Nextafter32(f, float32(math.Inf(1)))
	}
	return f
}

// twoSum is a+b and what its rounding left.
func twoSum(a, b float64) (sum, rest float64) {
	sum = a + b
	t := sum - a
	return sum, (a - (sum - t)) + (b - t)
}

// fma32 is a*b+c rounded once to nearest. In double the product is exact; rounding the sum again to single goes wrong only
// where it lies in the middle of two singles, or among the subnormal ones.
func fma32(a, b, c float32) float32 {
	p := float64(a) * float64(b)
	s := p + float64(c)
	u := f64bits(s)
	if u&(1<<29-1) != 1<<28 && u<<1 >= (1023-126)<<53 || s == 0 {
		return float32(s)
	}
	sum, rest := twoSum(p, float64(c))
	return round32(sum, rest, nearest)
}

// exact32 are the operators on singles whose result is a double and a rest.
func exact32(op string, x, y float64) (v, rest float64) {
	switch op {
	case "add":
		return twoSum(x, y)
	case "sub":
		return twoSum(x, -y)
	case "mul":
		return x * y, 0
	}
	q := x / y
	if math.IsInf(q, 0) || q != q || math.IsInf(y, 0) {
		return q, 0
	}
	rest = math.FMA(-q, y, x) // its sign is that of the error times y's
	if y < 0 {
		rest = -rest
	}
	return q, rest
}

// big64 rounds an operation on doubles in a direction.
func big64(op string, r rounding, x, y, z float64) float64 {
	var plain float64
	switch op {
	case "add":
		plain = x + y
	case "sub":
		plain = x - y
	case "mul":
		plain = x * y
	case "div", "rcp":
		plain = x / y
	case "fma":
		plain = math.FMA(x, y, z)
	case "sqrt":
		plain = math.Sqrt(x)
	}
	if r == nearest || math.IsNaN(plain) || math.IsInf(x, 0) || math.IsInf(y, 0) || math.IsInf(z, 0) ||
		op != "add" && op != "sub" && op != "fma" && plain == 0 && (x == 0 || y == 0) || (op == "div" || op == "rcp") && y == 0 {
		return plain
	}
	mode := map[rounding]big.RoundingMode{towardZero: big.ToZero, down: big.ToNegativeInf, up: big.ToPositiveInf}[r]
	number := func(f float64) *big.Float { return new(big.Float).SetPrec(4000).SetFloat64(f) }
	v := new(big.Float).SetPrec(4000)
	switch op {
	case "add":
		v.Add(number(x), number(y))
	case "sub":
		v.Sub(number(x), number(y))
	case "mul":
		v.Mul(number(x), number(y))
	case "div", "rcp":
		v.Quo(number(x), number(y))
	case "fma":
		v.Mul(number(x), number(y)).Add(v, number(z))
	case "sqrt":
		v.Sqrt(number(x))
	}
	if v.Sign() == 0 {
		return plain
	}
	f, _ := new(big.Float).SetPrec(53).SetMode(mode).Set(v).Float64()
	return f
}

// Half precision. Values of type bf16 are the upper halves of singles; NaNs become the canonical one.

func bf16(u uint32) float32 { return f32(u << 16) }

func toBF16(f float32, r rounding) uint32 {
	u := f32bits(f)
	switch {
	case f != f:
		return 0x7fff
	case r == towardZero:
		return u >> 16
	}
	return (u + 0x7fff + u>>16&1) >> 16
}

func f16(u uint32) float32 {
	exponent, mantissa := int(u>>10&31), float64(u&1023)
	var v float64
	switch exponent {
	case 0:
		v = math.Ldexp(mantissa, -24)
	case 31:
		if v = math.Inf(1); mantissa != 0 {
			v = math.NaN()
		}
	default:
		v = math.Ldexp(1+mantissa/1024, exponent-15)
	}
	if u>>15&1 == 1 {
		v = -v
	}
	return float32(v)
}

func toF16(v float64, r rounding) uint32 {
	sign := uint32(0)
	if math.Signbit(v) {
		sign, v = 0x8000, -v
	}
	integer := math.RoundToEven
	if r == towardZero {
		integer = math.Trunc
	}
	switch {
	case v != v:
		return 0x7fff
	case math.IsInf(v, 0), r == nearest && v >= 65520:
		return sign | 0x7c00
	case v >= 65504:
		return sign | 0x7bff
	case v < 0x1p-14:
		return sign | uint32(integer(v*0x1p24))
	}
	fraction, exponent := math.Frexp(v)
	return sign | uint32(int(integer((fraction*2-1)*1024))+(exponent+14)<<10)
}
