package ptx

import (
	"math/big"
	"math/bits"
	"testing"

	"github.com/stretchr/testify/require"
)

// low is a .u32 result in %rd10.
const low = "\ncvt.u64.u32 %rd10, %r10;"

func s32(u uint64) int64 { return int64(int32(u)) }
func u32(u uint64) int64 { return int64(uint32(u)) }
func s16(u uint64) int64 { return int64(int16(u)) }
func u16(u uint64) int64 { return int64(uint16(u)) }

type integerTest struct {
	code string
	want func(a, b, c uint64) uint64
}

// wordTests leave a result of 32 bits in %r10.
var wordTests = []integerTest{
	{"add.s32 %r10, %r1, %r2;", func(a, b, _ uint64) uint64 { return a + b }},
	{"sub.s32 %r10, %r1, %r2;", func(a, b, _ uint64) uint64 { return a - b }},
	{"mul.lo.s32 %r10, %r1, %r2;", func(a, b, _ uint64) uint64 { return a * b }},
	{"mul.hi.s32 %r10, %r1, %r2;", func(a, b, _ uint64) uint64 { return uint64(s32(a) * s32(b) >> 32) }},
	{"mul.hi.u32 %r10, %r1, %r2;", func(a, b, _ uint64) uint64 { return uint64(uint32(a)) * uint64(uint32(b)) >> 32 }},
	{"mad.lo.s32 %r10, %r1, %r2, %r3;", func(a, b, c uint64) uint64 { return a*b + c }},
	{"mad.hi.u32 %r10, %r1, %r2, %r3;", func(a, b, c uint64) uint64 { return uint64(uint32(a))*uint64(uint32(b))>>32 + c }},
	{"mad24.lo.u32 %r10, %r1, %r2, %r3;", func(a, b, c uint64) uint64 { return a&0xffffff*(b&0xffffff) + c }},
	{"mul24.lo.s32 %r10, %r1, %r2;", func(a, b, _ uint64) uint64 { return uint64(int64(a<<40) >> 40 * (int64(b<<40) >> 40)) }},
	{"div.s32 %r10, %r1, %r2;", func(a, b, _ uint64) uint64 {
		if s32(b) == 0 {
			return ^uint64(0)
		}
		return uint64(s32(a) / s32(b))
	}},
	{"div.u32 %r10, %r1, %r2;", func(a, b, _ uint64) uint64 {
		if u32(b) == 0 {
			return ^uint64(0)
		}
		return uint64(u32(a) / u32(b))
	}},
	{"rem.u32 %r10, %r1, %r2;", func(a, b, _ uint64) uint64 {
		if u32(b) == 0 {
			return a
		}
		return uint64(u32(a) % u32(b))
	}},
	{"rem.s32 %r10, %r1, %r2;", func(a, b, _ uint64) uint64 {
		if s32(b) == 0 {
			return a
		}
		return uint64(s32(a) % s32(b))
	}},
	{"min.s32 %r10, %r1, %r2;", func(a, b, _ uint64) uint64 { return uint64(min(s32(a), s32(b))) }},
	{"max.u32 %r10, %r1, %r2;", func(a, b, _ uint64) uint64 { return uint64(max(u32(a), u32(b))) }},
	{"sad.s32 %r10, %r1, %r2, %r3;", func(a, b, c uint64) uint64 { return c + uint64(max(s32(a), s32(b))-min(s32(a), s32(b))) }},
	{"abs.s32 %r10, %r1;", func(a, _, _ uint64) uint64 { return uint64(max(s32(a), -s32(a))) }},
	{"neg.s32 %r10, %r1;", func(a, _, _ uint64) uint64 { return -a }},
	{"not.b32 %r10, %r1;", func(a, _, _ uint64) uint64 { return ^a }},
	{"cnot.b32 %r10, %r1;", func(a, _, _ uint64) uint64 { return uint64(bit(uint32(a) == 0)) }},
	{"and.b32 %r10, %r1, %r2;", func(a, b, _ uint64) uint64 { return a & b }},
	{"or.b32 %r10, %r1, 12345;", func(a, _, _ uint64) uint64 { return a | 12345 }},
	{"xor.b32 %r10, %r1, -1;", func(a, _, _ uint64) uint64 { return ^a }},
	{"shl.b32 %r10, %r1, %r2;", func(a, b, _ uint64) uint64 { return uint64(uint32(a) << uint32(b)) }},
	{"shr.u32 %r10, %r1, %r2;", func(a, b, _ uint64) uint64 { return uint64(uint32(a) >> uint32(b)) }},
	{"shr.s32 %r10, %r1, %r2;", func(a, b, _ uint64) uint64 { return uint64(int32(a) >> uint32(b)) }},
	{"popc.b32 %r10, %r1;", func(a, _, _ uint64) uint64 { return uint64(bits.OnesCount32(uint32(a))) }},
	{"popc.b64 %r10, %rd1;", func(a, _, _ uint64) uint64 { return uint64(bits.OnesCount64(a)) }},
	{"clz.b32 %r10, %r1;", func(a, _, _ uint64) uint64 { return uint64(bits.LeadingZeros32(uint32(a))) }},
	{"bfind.u32 %r10, %r1;", func(a, _, _ uint64) uint64 { return uint64(bits.Len32(uint32(a)) - 1) }},
	{"brev.b32 %r10, %r1;", func(a, _, _ uint64) uint64 { return uint64(bits.Reverse32(uint32(a))) }},
	{"bfe.u32 %r10, %r1, 5, 9;", func(a, _, _ uint64) uint64 { return a >> 5 & 511 }},
	{"bfe.s32 %r10, %r1, 5, 9;", func(a, _, _ uint64) uint64 { return uint64(int32(a) << 18 >> 23) }},
	{"bfe.s32 %r10, %r1, 28, 9;", func(a, _, _ uint64) uint64 { return uint64(int32(a) >> 28) }},
	{"bfi.b32 %r10, %r1, %r2, 7, 4;", func(a, b, _ uint64) uint64 { return b&^(15<<7) | a&15<<7 }},
	{"lop3.b32 %r10, %r1, %r2, %r3, 0xe8;", func(a, b, c uint64) uint64 { return a&b | b&c | a&c }},
	{"lop3.b32 %r10, %r1, %r2, %r3, 0x1d;", func(a, b, c uint64) uint64 { // by the manual's table
		var r uint64
		for i := range 32 {
			r |= 0x1d >> (a>>i&1<<2 | b>>i&1<<1 | c>>i&1) & 1 << i
		}
		return r
	}},
	{"shf.l.wrap.b32 %r10, %r1, %r2, %r3;", func(a, b, c uint64) uint64 {
		return uint64(uint32(b))<<(c&31)&0xffffffff | uint64(uint32(a))>>(32-c&31)
	}},
	{"shf.r.clamp.b32 %r10, %r1, %r2, %r3;", func(a, b, c uint64) uint64 { return (b<<32 | uint64(uint32(a))) >> min(uint32(c), 32) }},
	{"prmt.b32 %r10, %r1, %r2, 0x5410;", func(a, b, _ uint64) uint64 { return a&0xffff | b&0xffff<<16 }},
	{"prmt.b32 %r10, %r1, %r2, 0x9876;", func(a, b, _ uint64) uint64 {
		return b>>16&0xff | b>>24&0xff<<8 | uint64(uint8(int8(a)>>7))<<16 | uint64(uint8(int8(a>>8)>>7))<<24
	}},
	{"dp4a.s32.s32 %r10, %r1, %r2, %r3;", func(a, b, c uint64) uint64 {
		for i := range 4 {
			c += uint64(int64(int8(a>>(8*i))) * int64(int8(b>>(8*i))))
		}
		return c
	}},
	{"add.s16 %h5, %h1, %h2;\ncvt.s32.s16 %r10, %h5;", func(a, b, _ uint64) uint64 { return uint64(s16(a + b)) }},
	{"mul.wide.s16 %r10, %h1, %h2;", func(a, b, _ uint64) uint64 { return uint64(s16(a) * s16(b)) }},
	{"mul.hi.u16 %h5, %h1, %h2;\ncvt.u32.u16 %r10, %h5;", func(a, b, _ uint64) uint64 { return uint64(u16(a) * u16(b) >> 16) }},
	{"shr.s16 %h5, %h1, 3;\ncvt.u32.u16 %r10, %h5;", func(a, _, _ uint64) uint64 { return uint64(uint16(s16(a) >> 3)) }},
	{"mov.b32 %r10, {%h2, %h1};", func(a, b, _ uint64) uint64 { return b&0xffff | a<<16 }},
	{"mov.b32 {%h5, %h6}, %r1;\nmov.b32 %r10, {%h6, %h5};", func(a, _, _ uint64) uint64 { return a>>16&0xffff | a<<16 }},
	{"cvt.s8.s32 %r10, %r1;", func(a, _, _ uint64) uint64 { return uint64(int8(a)) }},
	{"cvt.sat.u8.s32 %r10, %r1;", func(a, _, _ uint64) uint64 { return uint64(max(0, min(255, s32(a)))) }},
	{"cvt.sat.s16.s32 %r10, %r1;", func(a, _, _ uint64) uint64 { return uint64(max(-32768, min(32767, s32(a)))) }},
	{"cvt.u32.u64 %r10, %rd1;", func(a, _, _ uint64) uint64 { return a }},
	{"setp.lt.s32 %p1, %r1, %r2;\nselp.b32 %r10, %r3, 7, %p1;", func(a, b, c uint64) uint64 {
		if s32(a) < s32(b) {
			return c
		}
		return 7
	}},
	{"setp.hi.u32 %p1|%p2, %r1, %r2;\nselp.b32 %r10, 1, 0, %p2;", func(a, b, _ uint64) uint64 { return uint64(bit(uint32(a) <= uint32(b))) }},
	{"setp.eq.s32 %p1, %r3, 0;\nsetp.ge.and.u64 %p2, %rd1, %rd2, !%p1;\nselp.b32 %r10, 1, 0, %p2;", func(a, b, c uint64) uint64 {
		return uint64(bit(a >= b && uint32(c) != 0))
	}},
	{"setp.ne.s64 %p1, %rd1, %rd2;\nsetp.lt.xor.s64 %p2|%p3, %rd1, %rd2, %p1;\nselp.b32 %r10, 1, 0, %p3;", func(a, b, _ uint64) uint64 {
		return uint64(bit((int64(a) >= int64(b)) != (a != b)))
	}},
	{"set.gt.u32.s32 %r10, %r1, %r2;", func(a, b, _ uint64) uint64 { return uint64(-int64(bit(s32(a) > s32(b)))) }},
	{"slct.b32.s32 %r10, %r1, %r2, %r3;", func(a, b, c uint64) uint64 {
		if s32(c) >= 0 {
			return a
		}
		return b
	}},
	{"setp.lt.s16 %p1, %h1, %h2;\nnot.pred %p2, %p1;\nxor.pred %p3, %p1, %p2;\nand.pred %p4, %p3, %p1;\nselp.u32 %r10, 1, 0, %p4;", func(a, b, _ uint64) uint64 {
		return uint64(bit(s16(a) < s16(b)))
	}},
}

// longTests leave a result of 64 bits in %rd10.
var longTests = []integerTest{
	{"add.s64 %rd10, %rd1, %rd2;", func(a, b, _ uint64) uint64 { return a + b }},
	{"sub.s64 %rd10, %rd1, 77;", func(a, _, _ uint64) uint64 { return a - 77 }},
	{"mul.lo.s64 %rd10, %rd1, %rd2;", func(a, b, _ uint64) uint64 { return a * b }},
	{"mul.hi.u64 %rd10, %rd1, %rd2;", func(a, b, _ uint64) uint64 { h, _ := bits.Mul64(a, b); return h }},
	{"mul.hi.s64 %rd10, %rd1, %rd2;", func(a, b, _ uint64) uint64 {
		p := new(big.Int).Mul(big.NewInt(int64(a)), big.NewInt(int64(b)))
		return uint64(p.Rsh(p, 64).Int64())
	}},
	{"mad.lo.s64 %rd10, %rd1, %rd2, %rd3;", func(a, b, c uint64) uint64 { return a*b + c }},
	{"mul.wide.s32 %rd10, %r1, %r2;", func(a, b, _ uint64) uint64 { return uint64(s32(a) * s32(b)) }},
	{"mul.wide.u32 %rd10, %r1, 17;", func(a, _, _ uint64) uint64 { return uint64(uint32(a)) * 17 }},
	{"mad.wide.s32 %rd10, %r1, %r2, %rd3;", func(a, b, c uint64) uint64 { return uint64(s32(a)*s32(b)) + c }},
	{"div.u64 %rd10, %rd1, %rd2;", func(a, b, _ uint64) uint64 {
		if b == 0 {
			return ^uint64(0)
		}
		return a / b
	}},
	{"rem.s64 %rd10, %rd1, %rd2;", func(a, b, _ uint64) uint64 {
		if b == 0 {
			return a
		}
		return uint64(int64(a) % int64(b))
	}},
	{"min.u64 %rd10, %rd1, %rd2;", func(a, b, _ uint64) uint64 { return min(a, b) }},
	{"max.s64 %rd10, %rd1, %rd2;", func(a, b, _ uint64) uint64 { return uint64(max(int64(a), int64(b))) }},
	{"and.b64 %rd10, %rd1, %rd2;", func(a, b, _ uint64) uint64 { return a & b }},
	{"shl.b64 %rd10, %rd1, %r2;", func(a, b, _ uint64) uint64 { return a << uint32(b) }},
	{"shr.u64 %rd10, %rd1, %r2;", func(a, b, _ uint64) uint64 { return a >> uint32(b) }},
	{"shr.s64 %rd10, %rd1, %r2;", func(a, b, _ uint64) uint64 { return uint64(int64(a) >> uint32(b)) }},
	{"not.b64 %rd10, %rd1;", func(a, _, _ uint64) uint64 { return ^a }},
	{"neg.s64 %rd10, %rd1;", func(a, _, _ uint64) uint64 { return -a }},
	{"brev.b64 %rd10, %rd1;", func(a, _, _ uint64) uint64 { return bits.Reverse64(a) }},
	{"bfe.u64 %rd10, %rd1, 13, 40;", func(a, _, _ uint64) uint64 { return a >> 13 & (1<<40 - 1) }},
	{"bfi.b64 %rd10, %rd1, %rd2, 13, 40;", func(a, b, _ uint64) uint64 { return b&^((1<<40-1)<<13) | a&(1<<40-1)<<13 }},
	{"cvt.s64.s32 %rd10, %r1;", func(a, _, _ uint64) uint64 { return uint64(s32(a)) }},
	{"cvt.u64.u32 %rd10, %r1;", func(a, _, _ uint64) uint64 { return uint64(uint32(a)) }},
	{"cvt.s64.s16 %rd10, %h1;", func(a, _, _ uint64) uint64 { return uint64(s16(a)) }},
	{"mov.b64 %rd10, {%r2, %r1};", func(a, b, _ uint64) uint64 { return b&0xffffffff | a<<32 }},
	{"mov.b64 {%r5, %r6}, %rd1;\nmov.b64 %rd10, {%r6, %r5};", func(a, _, _ uint64) uint64 { return a>>32 | a<<32 }},
	{"setp.lo.u64 %p1, %rd1, %rd2;\nselp.b64 %rd10, %rd3, %rd1, %p1;", func(a, b, c uint64) uint64 {
		if a < b {
			return c
		}
		return a
	}},
}

func TestIntegers(t *testing.T) {
	rows := operands(320)
	check := func(test integerTest, code string, mask uint64) {
		got := compute(t, code, 0, rows)
		for i, r := range rows {
			require.Equal(t, test.want(r[0], r[1], r[2])&mask, got[i], "%s with %#x", test.code, r)
		}
	}
	for _, test := range wordTests {
		check(test, test.code+low, 0xffffffff)
	}
	for _, test := range longTests {
		check(test, test.code, ^uint64(0))
	}
}

// Lanes that a guard leaves out keep what they had; so do those that a branch leaves out.
func TestGuards(t *testing.T) {
	rows := operands(96)
	want := func(a uint64) uint64 {
		if s32(a) < 0 {
			return 5
		}
		return a & 0xffffffff
	}
	for _, code := range []string{
		"mov.u32 %r10, %r1;\nsetp.lt.s32 %p1, %r1, 0;\n@%p1 mov.u32 %r10, 5;",
		"mov.u32 %r10, 5;\nsetp.lt.s32 %p1, %r1, 0;\n@!%p1 add.u32 %r10, %r1, 0;",
		"setp.lt.s32 %p1, %r1, 0;\n@%p1 bra B;\nmov.u32 %r10, %r1;\nbra.uni C;\nB: mov.u32 %r10, 5;\nC:",
		"setp.ge.s32 %p1, %r1, 0;\nmov.u32 %r10, 0;\nA: @%p1 bra B;\nadd.u32 %r10, %r10, 1;\nsetp.eq.u32 %p2, %r10, 5;\n@%p2 bra C;\nbra A;\nB: mov.u32 %r10, %r1;\nC:",
	} {
		got := compute(t, code+low, 3, rows)
		for i, r := range rows {
			require.Equal(t, want(r[0]), got[i], "%s with %#x", code, r)
		}
	}
}
