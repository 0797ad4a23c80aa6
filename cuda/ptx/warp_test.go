package ptx

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// warpRun runs one warp. Each lane has its number in %r20 and a word of the input in %r1, and leaves a word in %r10.
func warpRun(t *testing.T, body string, in [32]uint32) []uint32 {
	t.Helper()
	k := parse(t, entry(2, `ld.param.u64 %rd20, [p0];
ld.param.u64 %rd21, [p1];
mov.u32 %r20, %laneid;
mul.wide.u32 %rd22, %r20, 4;
add.s64 %rd23, %rd20, %rd22;
add.s64 %rd24, %rd21, %rd22;
ld.global.u32 %r1, [%rd23];
`+body+`
st.global.u32 [%rd24], %r10;`))
	mem := NewMemory(0)
	out := upload(t, mem, make([]byte, 128))
	require.NoError(t, k.Launch(mem, Config{Grid: Dim{X: 1}, Block: Dim{X: 32}, Seed: 1}, upload(t, mem, words(in[:]...)), out))
	return download[uint32](t, mem, out, 32)
}

func TestCollectives(t *testing.T) {
	var in [32]uint32
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range in {
		in[i] = rng.Uint32() % 5
	}
	count := func(f func(j int) bool) (mask uint32) {
		for j := range 32 {
			mask |= bit(f(j)) << j
		}
		return mask
	}
	sum := uint32(0)
	for _, v := range in {
		sum += v
	}
	odd := count(func(j int) bool { return in[j]&1 == 1 })
	const isOdd = "and.b32 %r2, %r1, 1;\nsetp.eq.u32 %p1, %r2, 1;\n"
	for code, want := range map[string]func(i int) uint32{
		"shfl.sync.bfly.b32 %r10, %r1, 5, 0x1f, -1;": func(i int) uint32 { return in[i^5] },
		"shfl.sync.idx.b32 %r10, %r1, 7, 0x1f, -1;":  func(int) uint32 { return in[7] },
		"shfl.sync.up.b32 %r10|%p1, %r1, 3, 0, -1;\n@!%p1 mov.u32 %r10, 99;": func(i int) uint32 {
			if i < 3 {
				return 99
			}
			return in[i-3]
		},
		"shfl.sync.down.b32 %r10, %r1, 2, 0x181f, -1;": func(i int) uint32 { // in segments of 8
			if i&7 >= 6 {
				return in[i]
			}
			return in[i+2]
		},
		isOdd + "vote.sync.ballot.b32 %r10, %p1, -1;":                                func(int) uint32 { return odd },
		isOdd + "vote.sync.any.pred %p2, !%p1, -1;\nselp.u32 %r10, 1, 0, %p2;":       func(int) uint32 { return bit(odd != allLanes) },
		isOdd + "vote.sync.all.pred %p2, %p1, -1;\nselp.u32 %r10, 1, 0, %p2;":        func(int) uint32 { return 0 },
		isOdd + "mov.u32 %r10, 0;\n@%p1 bra A;\nbra B;\nA: activemask.b32 %r10;\nB:": func(i int) uint32 { return odd & -(in[i] & 1) },
		"redux.sync.add.u32 %r10, %r1, -1;":                                          func(int) uint32 { return sum },
		"redux.sync.max.s32 %r10, %r1, -1;":                                          func(int) uint32 { return slices.Max(in[:]) },
		"redux.sync.xor.b32 %r10, %r1, -1;": func(int) uint32 {
			var x uint32
			for _, v := range in {
				x ^= v
			}
			return x
		},
		"match.any.sync.b32 %r10, %r1, -1;": func(i int) uint32 { return count(func(j int) bool { return in[j] == in[i] }) },
		// two halves shuffle each with its own mask, where they are
		"setp.lt.u32 %p1, %r20, 16;\n@%p1 bra A;\nshfl.sync.bfly.b32 %r10, %r1, 1, 31, 0xffff0000;\nbra B;\nA: shfl.sync.bfly.b32 %r10, %r1, 2, 31, 0xffff;\nB:": func(i int) uint32 {
			if i < 16 {
				return in[i^2]
			}
			return in[i^1]
		},
		// lanes that come on different ways meet at the shuffle
		"setp.lt.u32 %p1, %r1, 2;\n@%p1 bra A;\nadd.u32 %r1, %r1, 10;\nbra C;\nA: add.u32 %r1, %r1, 20;\nC: shfl.sync.bfly.b32 %r10, %r1, 1, 31, -1;": func(i int) uint32 {
			if v := in[i^1]; v < 2 {
				return v + 20
			}
			return in[i^1] + 10
		},
		"bar.red.popc.u32 %r10, 0, %p0;":                                  func(int) uint32 { return 0 },
		isOdd + "bar.red.or.pred %p2, 0, %p1;\nselp.u32 %r10, 1, 0, %p2;": func(int) uint32 { return bit(odd != 0) },
	} {
		got := warpRun(t, code, in)
		for i := range got {
			require.Equal(t, want(i), got[i], "%s, lane %d", code, i)
		}
	}
}

// The fragments of mma are those of the manual's figures, written down here once more as loops over the matrices.
func TestMMA(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	for _, c := range []struct {
		shape, typ string
		k, packed  int
	}{{"m16n8k16", "bf16", 16, 2}, {"m16n8k16", "f16", 16, 2}, {"m16n8k8", "bf16", 8, 2}, {"m16n8k8", "tf32", 8, 1}, {"m16n8k4", "tf32", 4, 1}} {
		var a [16][16]float64
		var b [16][8]float64
		var acc [16][8]float64
		small := func() float64 { return float64(rng.IntN(65)-32) / 8 } // exact in every type
		for i := range 16 {
			for j := range 16 {
				a[i][j], b[j][i%8], acc[i][j%8] = small(), small(), small()
			}
		}
		encode := map[string]func(v float64) uint32{
			"bf16": func(v float64) uint32 { return toBF16(float32(v), nearest) }, "f16": func(v float64) uint32 { return toF16(v, nearest) },
			"tf32": func(v float64) uint32 { return math.Float32bits(float32(v)) | 0x1abc }, // lower bits are not read
		}[c.typ]
		na, nb := 16*c.k/32/c.packed, 8*c.k/32/c.packed
		var in []uint32
		for lane := range 32 {
			group, place := lane/4, lane%4
			for r := range na { // rows group and group+8 take turns, then columns go on
				row, col := group+8*(r%2), (place+r/2*4)*c.packed
				u := encode(a[row][col])
				if c.packed == 2 {
					u |= encode(a[row][col+1]) << 16
				}
				in = append(in, u)
			}
			for r := range nb {
				k := (place + 4*r) * c.packed
				u := encode(b[k][group])
				if c.packed == 2 {
					u |= encode(b[k+1][group]) << 16
				}
				in = append(in, u)
			}
			for i := range 4 {
				in = append(in, math.Float32bits(float32(acc[group+8*(i/2)][place*2+i%2])))
			}
		}
		names := func(prefix string, from, n int) string {
			var list []string
			for i := range n {
				list = append(list, prefix+itoa(from+i))
			}
			return "{" + strings.Join(list, ",") + "}"
		}
		each := na + nb + 4
		body := "ld.param.u64 %rd1, [p0];\nld.param.u64 %rd2, [p1];\nmov.u32 %r20, %tid.x;\nmad.wide.u32 %rd3, %r20, " + itoa(4*each) + ", %rd1;\nmad.wide.u32 %rd4, %r20, 16, %rd2;\n"
		for i := range na + nb {
			body += "ld.global.u32 %r" + itoa(i) + ", [%rd3+" + itoa(4*i) + "];\n"
		}
		for i := range 4 {
			body += "ld.global.f32 %f" + itoa(i) + ", [%rd3+" + itoa(4*(na+nb+i)) + "];\n"
		}
		body += "mma.sync.aligned." + c.shape + ".row.col.f32." + c.typ + "." + c.typ + ".f32 " + names("%f", 4, 4) + ", " + names("%r", 0, na) + ", " +
			names("%r", na, nb) + ", " + names("%f", 0, 4) + ";\nst.global.v4.f32 [%rd4], {%f4,%f5,%f6,%f7};"
		mem := NewMemory(0)
		out, err := mem.Alloc(512, "")
		require.NoError(t, err)
		require.NoError(t, parse(t, entry(2, body)).Launch(mem, Config{Grid: Dim{X: 1}, Block: Dim{X: 32}}, upload(t, mem, words(in...)), out))
		got := download[float32](t, mem, out, 128)
		for i := range 16 {
			for j := range 8 {
				want := acc[i][j]
				for k := range c.k {
					want += a[i][k] * b[k][j]
				}
				require.EqualValues(t, want, got[(i%8*4+j/2)*4+i/8*2+j%2], "%s %s (%d,%d)", c.shape, c.typ, i, j)
			}
		}
	}
}

// ldmatrix spreads a matrix as mma wants it; .trans its transpose.
func TestLdmatrix(t *testing.T) {
	var in [32]uint32
	for i := range in {
		in[i] = uint32(2*i) | uint32(2*i+1)<<16 // element (r,c) of the 8x8 matrix is 8r+c
	}
	const fill = ".shared .align 16 .b8 m[512];\nmov.u64 %rd1, m;\ncvt.u32.u64 %r2, %rd1;\nshl.b32 %r3, %r20, 2;\nadd.u32 %r3, %r2, %r3;\nst.shared.u32 [%r3], %r1;\nadd.u32 %r5, %r1, 0x00400040;\nst.shared.u32 [%r3+128], %r5;\nbar.sync 0;\nand.b32 %r4, %r20, 15;\nshl.b32 %r4, %r4, 4;\nadd.u32 %r4, %r4, %r2;\n"
	plain := warpRun(t, fill+"ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r9, %r10}, [%r4];", in)
	trans := warpRun(t, fill+"ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%r10}, [%r4];", in)
	for lane := range 32 {
		r, c := uint32(lane/4), uint32(lane%4*2)
		require.Equal(t, (8*r+c+64)|(8*r+c+65)<<16, plain[lane])
		require.Equal(t, (8*c+r)|(8*(c+1)+r)<<16, trans[lane])
	}
}

// cp.async brings fewer bytes than it writes zeros for; groups land in order.
func TestAsyncCopies(t *testing.T) {
	in := [32]uint32{}
	for i := range in {
		in[i] = uint32(i + 1)
	}
	const setup = ".shared .align 16 .b8 m[1024];\nmov.u64 %rd1, m;\nmul.wide.u32 %rd2, %r20, 16;\nadd.s64 %rd1, %rd1, %rd2;\nand.b32 %r2, %r20, 7;\nmul.wide.u32 %rd3, %r2, 16;\nadd.s64 %rd3, %rd20, %rd3;\n"
	got := warpRun(t, setup+"mov.u32 %r3, 4;\ncp.async.cg.shared.global [%rd1], [%rd3], 16, %r3;\ncp.async.commit_group;\ncp.async.wait_group 0;\nld.shared.v4.u32 {%r4,%r5,%r6,%r7}, [%rd1];\nadd.u32 %r10, %r4, %r5;\nadd.u32 %r10, %r10, %r7;", in)
	for lane, v := range got {
		require.Equal(t, in[lane%8*4], v)
	}
	got = warpRun(t, setup+"cp.async.ca.shared.global [%rd1], [%rd3], 8;\ncp.async.commit_group;\ncp.async.ca.shared.global [%rd1+8], [%rd3+8], 8;\ncp.async.commit_group;\ncp.async.wait_group 1;\nld.shared.u32 %r10, [%rd1+4];", in)
	for lane, v := range got {
		require.Equal(t, in[lane%8*4+1], v)
	}
}

// Calls are expanded; their parameters are memory of the thread. Registers of the same name in scopes are their own.
func TestCalls(t *testing.T) {
	text := strings.Replace(entry(2, `
ld.param.u64 %rd1, [p0];
ld.param.u64 %rd2, [p1];
mov.u32 %r1, %tid.x;
mad.wide.u32 %rd1, %r1, 4, %rd1;
mad.wide.u32 %rd2, %r1, 4, %rd2;
ld.global.u32 %r2, [%rd1];
setp.ne.u32 %p1, %r2, 13;
{ .reg .b32 temp; mov.u32 temp, 5; { .reg .b64 temp; mov.u64 temp, 6; } add.u32 %r3, temp, 0; }
{ .param .b32 arg; .param .b32 result; st.param.b32 [arg+0], %r2; st.param.b32 [result+0], 77; @%p1 call.uni (result), half, (arg); ld.param.b32 %r4, [result+0]; }
{ .param .b32 arg; .param .b32 result; st.param.b32 [arg+0], %r4; call.uni (result), half, (arg); ld.param.b32 %r4, [result]; }
add.u32 %r4, %r4, %r3;
st.global.u32 [%rd2], %r4;`), ".visible .entry", `
.func (.param .b32 out) half(.param .b32 in)
{
.reg .pred %p<2>;
.reg .b32 %r<4>;
ld.param.u32 %r1, [in];
and.b32 %r2, %r1, 1;
setp.eq.u32 %p1, %r2, 0;
@%p1 bra EVEN;
mov.u32 %r3, 1000;
st.param.b32 [out+0], %r3;
ret;
EVEN: shr.u32 %r3, %r1, 1;
st.param.b32 [out+0], %r3;
ret;
}
.visible .entry`, 1)
	half := func(v uint32) uint32 {
		if v&1 == 1 {
			return 1000
		}
		return v / 2
	}
	k := parse(t, text)
	in := []uint32{0, 1, 2, 3, 4, 6, 8, 13, 12, 100, 102, 7}
	mem := NewMemory(0)
	out := upload(t, mem, make([]byte, 4*len(in)))
	require.NoError(t, k.Launch(mem, Config{Grid: Dim{X: 1}, Block: Dim{X: len(in)}}, upload(t, mem, words(in...)), out))
	for i, v := range download[uint32](t, mem, out, len(in)) {
		first := half(in[i])
		if in[i] == 13 {
			first = 77
		}
		require.Equal(t, half(first)+5, v, "%d", in[i])
	}
	recursive := strings.Replace(text, "and.b32 %r2, %r1, 1;", "{ .param .b32 a; .param .b32 b; call.uni (a), half, (b); }", 1)
	_, err := Parse(recursive)
	require.ErrorContains(t, err, "half calls itself")
}
