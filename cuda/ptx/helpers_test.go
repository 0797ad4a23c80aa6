package ptx

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// header begins every text of these tests.
const header = ".version 7.8\n.target sm_80\n.address_size 64\n"

// entry is a kernel with parameters p0, p1, … of type .u64 and registers of every kind.
func entry(params int, body string) string {
	var list []string
	for i := range params {
		list = append(list, fmt.Sprintf(".param .u64 p%d", i))
	}
	return header + ".visible .entry k(" + strings.Join(list, ", ") + ")\n{\n" +
		".reg .pred %p<8>;\n.reg .b16 %h<8>;\n.reg .b32 %r<32>;\n.reg .f32 %f<32>;\n.reg .b64 %rd<32>;\n.reg .f64 %fd<16>;\n" +
		body + "\nret;\n}\n"
}

func parse(t testing.TB, text string) *Kernel {
	t.Helper()
	m, err := Parse(text)
	require.NoError(t, err)
	k, err := m.Kernel("k")
	require.NoError(t, err)
	return k
}

// upload allocates memory with contents.
func upload(t testing.TB, mem *Memory, b []byte) uint64 {
	t.Helper()
	a, err := mem.Alloc(int64(len(b)), "")
	require.NoError(t, err)
	require.NoError(t, mem.Write(a, b))
	return a
}

func words[T uint32 | uint64 | float32](v ...T) []byte {
	b, err := binary.Append(nil, binary.LittleEndian, v)
	if err != nil {
		panic(err)
	}
	return b
}

func download[T uint32 | uint64 | float32](t testing.TB, mem *Memory, a uint64, n int) []T {
	t.Helper()
	out := make([]T, n)
	b := make([]byte, binary.Size(out))
	require.NoError(t, mem.Read(a, b))
	_, err := binary.Decode(b, binary.LittleEndian, out)
	require.NoError(t, err)
	return out
}

// compute runs instructions in one thread for each row of operands, of 64 bits each in %rd1, %rd2, %rd3; in %r1 to %r3,
// %f1 to %f3, %h1 to %h3 and %fd1 to %fd3 are their lower bits. It returns what they leave in %rd10.
func compute(t testing.TB, body string, seed uint64, rows [][3]uint64) []uint64 {
	t.Helper()
	var in []uint64
	for _, r := range rows {
		in = append(in, r[:]...)
	}
	text := entry(2, `
ld.param.u64 %rd20, [p0];
ld.param.u64 %rd21, [p1];
mov.u32 %r20, %ctaid.x;
mov.u32 %r21, %ntid.x;
mov.u32 %r22, %tid.x;
mad.lo.s32 %r23, %r20, %r21, %r22;
mad.wide.u32 %rd22, %r23, 24, %rd20;
mad.wide.u32 %rd23, %r23, 8, %rd21;
ld.global.u64 %rd1, [%rd22];
ld.global.u64 %rd2, [%rd22+8];
ld.global.u64 %rd3, [%rd22+16];
cvt.u32.u64 %r1, %rd1;
cvt.u32.u64 %r2, %rd2;
cvt.u32.u64 %r3, %rd3;
cvt.u16.u64 %h1, %rd1;
cvt.u16.u64 %h2, %rd2;
cvt.u16.u64 %h3, %rd3;
mov.b32 %f1, %r1;
mov.b32 %f2, %r2;
mov.b32 %f3, %r3;
mov.b64 %fd1, %rd1;
mov.b64 %fd2, %rd2;
mov.b64 %fd3, %rd3;
mov.u64 %rd10, 0;
`+body+`
st.global.u64 [%rd23], %rd10;`)
	mem := NewMemory(0)
	k := parse(t, text)
	const block = 32
	for len(in)%(3*block) != 0 {
		in = append(in, 0)
	}
	n := len(in) / 3
	out, err := mem.Alloc(int64(8*n), "out")
	require.NoError(t, err)
	require.NoError(t, k.Launch(mem, Config{Grid: Dim{X: n / block}, Block: Dim{X: block}, Seed: seed}, upload(t, mem, words(in...)), out))
	return download[uint64](t, mem, out, n)[:len(rows)]
}

// operands are rows of random and special bits.
func operands(n int) [][3]uint64 {
	rng := rand.New(rand.NewPCG(1, 2))
	special := []uint64{
		0, 1, 2, 31, 32, 33, 63, 64, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 1 << 32, 1<<63 - 1,
		1 << 63, ^uint64(0), ^uint64(6), uint64(math.Float32bits(1)), uint64(math.Float32bits(-2.5)),
	}
	rows := make([][3]uint64, n)
	for i := range rows {
		for j := range rows[i] {
			switch rng.IntN(4) {
			case 0:
				rows[i][j] = special[rng.IntN(len(special))]
			case 1:
				rows[i][j] = rng.Uint64() >> rng.IntN(64)
			default:
				rows[i][j] = rng.Uint64()
			}
		}
	}
	return rows
}

// floats are rows of floats in 32 bits: of all sizes, and special ones.
func floats(n int) [][3]uint64 {
	rng := rand.New(rand.NewPCG(3, 4))
	special := []float32{
		0, float32(math.Copysign(0, -1)), 1, -1, .5, 1.5, 2.5, -2.5, 3, 1e-45, -1e-45, 1.1754944e-38, 3.4028235e38, -3.4028235e38,
		float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()), 0.99999994, 1.0000001, 16777217, 2147483648, -2147483904, 65504, 65520,
	}
	rows := make([][3]uint64, n)
	for i := range rows {
		for j := range rows[i] {
			f := float32(rng.NormFloat64() * math.Exp2(float64(rng.IntN(20)-10)))
			switch rng.IntN(5) {
			case 0:
				f = special[rng.IntN(len(special))]
			case 1:
				f = math.Float32frombits(rng.Uint32())
			}
			rows[i][j] = uint64(math.Float32bits(f))
		}
	}
	return rows
}

// doubles are rows of floats in 64 bits.
func doubles(n int) [][3]uint64 {
	rng := rand.New(rand.NewPCG(5, 6))
	rows := make([][3]uint64, n)
	for i := range rows {
		for j := range rows[i] {
			f := rng.NormFloat64() * math.Exp2(float64(rng.IntN(100)-50))
			switch rng.IntN(8) {
			case 0:
				f = []float64{0, 1, -1, math.Inf(1), math.NaN(), 0x1p-1074, math.MaxFloat64, 4294967296.5, -9.3e18}[rng.IntN(9)]
			case 1:
				f = math.Float64frombits(rng.Uint64())
			}
			rows[i][j] = math.Float64bits(f)
		}
	}
	return rows
}
