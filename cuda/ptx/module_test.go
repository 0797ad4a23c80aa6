package ptx

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What is not known is refused, by line.
func TestRefusals(t *testing.T) {
	for body, says := range map[string]string{
		"frob.b32 %r1, %r2;":                           "unknown opcode frob",
		"add.frob.s32 %r1, %r2, %r3;":                  "unknown modifier .frob",
		"add.s32 %r1, %r2;":                            "2 operands",
		"add.s32 %r1, %r2, %rd3;":                      "%rd3 is no operand of type .s32",
		"add.s64 %rd1, %rd2, %r3;":                     "%r3 is no operand of type .s64",
		"add.s32 %r1, %r2, %r99;":                      "unknown register %r99",
		"add.s32 5, %r2, %r3;":                         "cannot be written",
		"@%q1 add.s32 %r1, %r2, %r3;":                  "no predicate %q1",
		"bra NOWHERE;":                                 "no label NOWHERE",
		"ld.global.u32 %r1, [nothing];":                "unknown name nothing",
		"ld.global.u32 {%r1, %r2}, [%rd1];":            "2 elements instead of 1",
		"call.uni nothing;":                            "unknown function nothing",
		"bar.sync 1;":                                  "only barrier 0",
		"cvt.f32.s32 %f1, %rd1;\nmul.frob %r1, 1;":     "no type",
		"cvt.s32.f32 %r1, %f1;":                        "no rounding to an integer",
		"cp.async.cg.shared.global [%rd1], [%rd2], 8;": "a copy of 8 bytes",
		"mma.sync.aligned.m8n8k4.row.col.f32.tf32.tf32.f32 {%f1}, {%r1}, {%r1}, {%f1};": "unknown",
		"X: X: ret;":                 "stands twice",
		"mov.u32 %r1, %frob.x;":      "unknown register %frob.x",
		"st.param.u32 [p0], %r1;":    "a store to space .param",
		".global .u32 g;":            "a variable in space .global inside a function",
		"ld.param.u64 %rd1, [p0+4];": "outside the parameter",
	} {
		_, err := Parse(entry(1, body))
		require.ErrorContains(t, err, says, body)
		require.ErrorContains(t, err, "ptx: line ", body)
	}
	for text, says := range map[string]string{
		".version 7.8\n.target sm_80\n.address_size 32\n": "addresses of 32 bits",
		".entry k() {":                      "do not close",
		".entry k() .frob 3 { ret; }":       "unknown directive .frob",
		".global .align x .b8 a[4];":        "not understood",
		".local .b8 a[4];":                  "outside a function",
		".global .u32 a[1] = {1, 2};":       "not understood",
		".entry k(.param .frob p) { ret; }": "not understood",
	} {
		_, err := Parse(text)
		require.ErrorContains(t, err, says, text)
	}
}

const small = header + `
// a comment with ; and { in it
.global .align 4 .u32 counter[2] = {7, 0x10}; /* and
another */
.const .align 4 .f32 half = 0f3F000000;
.extern .shared .align 16 .b8 dyn[];
.shared .align 4 .b8 mine[12];
.visible .entry k(.param .align 8 .b8 s[24], .param .u64 .ptr .align 4 out)
.maxntid 32, 2, 1
.minnctapersm 2
{
	.loc 1 2 3
	.pragma "nounroll";
	.reg .b32 a, b, c;
	.reg .f32 f;
	.reg .b64 %rd<9>;
	ld.param.u32 a, [s+16];
	mov.b64 %rd1, s;
	ld.param.u32 b, [%rd1+20];
	add.u32 a, a, b;
	mov.u64 %rd2, counter;
	ld.global.u32 b, [%rd2+4];
	add.u32 a, a, b;
	st.global.u32 [counter], a;
	ld.const.f32 f, [half];
	cvt.rzi.u32.f32 b, f;
	mov.u64 %rd3, dyn;
	cvt.u32.u64 b, %rd3;
	st.shared.u32 [mine+8], b;
	st.shared.u32 [%rd3], a;
	ld.shared.u32 c, [mine+8];
	ld.param.u64 %rd4, [out];
	cvta.to.global.u64 %rd5, %rd4;
	st.global.v2.u32 [%rd5], {a, c};
	st.global.f32 [%rd5+8], f;
}
`

func TestModule(t *testing.T) {
	m, err := Parse(small)
	require.NoError(t, err)
	require.Equal(t, "7.8", m.Version)
	require.Equal(t, "sm_80", m.Target)
	require.Equal(t, []string{"k"}, m.Kernels())
	_, err = m.Kernel("other")
	require.ErrorContains(t, err, "no kernel other")
	n, ok := m.Variable("counter")
	require.True(t, ok)
	require.EqualValues(t, 8, n)
	_, ok = m.Variable("dyn")
	require.False(t, ok)

	k, err := m.Kernel("k")
	require.NoError(t, err)
	require.Equal(t, []int{24, 8}, k.Params())
	require.Equal(t, []int{0, 24}, k.ParamOffsets())
	require.Equal(t, 64, k.MaxThreads)
	require.Equal(t, 12, k.SharedBytes())

	mem := NewMemory(0)
	out := upload(t, mem, make([]byte, 12))
	s := words[uint32](0, 0, 0, 0, 100, 200)
	c := Config{Grid: Dim{X: 1}, Block: Dim{X: 1}, Shared: 4}
	require.NoError(t, k.Launch(mem, c, s, out))
	require.Equal(t, []uint32{316, 16, 0x3f000000}, download[uint32](t, mem, out, 3))
	counter, err := mem.Global(m, "counter")
	require.NoError(t, err)
	require.Equal(t, []uint32{316, 16}, download[uint32](t, mem, counter, 2))
	require.NoError(t, mem.Unload(m))
	require.ErrorContains(t, mem.Read(counter, make([]byte, 4)), "has been freed")

	for _, bad := range []struct {
		c    Config
		args []any
		says string
	}{
		{c, []any{s}, "takes 2 parameters, got 1"},
		{c, []any{s[:8], out}, "parameter 0 has 24 bytes"},
		{c, []any{s, uint32(1)}, "parameter 1 has 8 bytes"},
		{c, []any{s, "text"}, "string is no parameter"},
		{Config{Grid: Dim{X: 1}, Block: Dim{X: 65}, Shared: 4}, []any{s, out}, "more than the kernel's 64"},
		{Config{Grid: Dim{}, Block: Dim{X: 1}}, []any{s, out}, "grid"},
		{Config{Grid: Dim{X: 1}, Block: Dim{X: 1025}}, []any{s, out}, "block"},
		{Config{Grid: Dim{X: 1}, Block: Dim{X: 1}, Shared: 1 << 20}, []any{s, out}, "bytes of shared memory"},
		{Config{Grid: Dim{X: 1}, Block: Dim{X: -1}}, []any{s, out}, "blocks"},
		{Config{Grid: Dim{X: 1}, Block: Dim{X: 1}}, []any{s, out}, "of the block's 16 bytes of shared memory"},
	} {
		require.ErrorContains(t, k.Launch(mem, bad.c, bad.args...), bad.says)
	}
}

func TestMemory(t *testing.T) {
	m := NewMemory(1000)
	a, err := m.Alloc(600, "a")
	require.NoError(t, err)
	require.Zero(t, a%512)
	_, err = m.Alloc(500, "b")
	require.ErrorIs(t, err, ErrOutOfMemory)
	_, err = m.Alloc(0, "b")
	require.Error(t, err)
	b, err := m.Alloc(400, "b")
	require.NoError(t, err)
	used, capacity := m.Used()
	require.EqualValues(t, []int64{1000, 1000}, []int64{used, capacity})
	base, n, err := m.Extent(b + 17)
	require.NoError(t, err)
	require.Equal(t, b, base)
	require.EqualValues(t, 400, n)

	require.NoError(t, m.Fill(a+4, []byte{1, 2}, 3))
	got := make([]byte, 8)
	require.NoError(t, m.Read(a+3, got))
	require.Equal(t, []byte{0xff, 1, 2, 1, 2, 1, 2, 0xff}, got)
	require.NoError(t, m.Copy(b, a, 12))
	require.NoError(t, m.Read(b+3, got))
	require.Equal(t, []byte{0xff, 1, 2, 1, 2, 1, 2, 0xff}, got)
	s := m.segment(b)
	require.True(t, s.isWritten(4, 4))
	require.False(t, s.isWritten(0, 4))
	require.False(t, s.isWritten(10, 1))

	require.ErrorContains(t, m.Copy(a, a+1, 8), "overlaps")
	require.ErrorContains(t, m.Write(a+596, got), "bytes 596 to 603 of a, which has 600")
	require.ErrorContains(t, m.Read(b-8, got), "before the one after a")
	require.ErrorContains(t, m.Fill(5, []byte{1}, 1), "in no allocation")
	require.ErrorContains(t, m.Copy(a, 0, 1), "in no allocation")
	require.NoError(t, m.Free(b))
	_, err = m.Alloc(400, "c")
	require.NoError(t, err)
}

// The order of blocks and warps, and what is approximate, depend on the seed alone; results of exact kernels do not.
func TestSeeds(t *testing.T) {
	k := parse(t, entry(1, `ld.param.u64 %rd1, [p0];
mov.u32 %r1, %ctaid.x;
mov.u32 %r2, %ntid.x;
mov.u32 %r3, %tid.x;
mad.lo.u32 %r4, %r1, %r2, %r3;
mad.wide.u32 %rd2, %r4, 4, %rd1;
cvt.rn.f32.u32 %f1, %r4;
mul.f32 %f1, %f1, 0f3C23D70A;
ex2.approx.f32 %f2, %f1;
st.global.f32 [%rd2], %f2;`))
	results := map[uint64][]float32{}
	for _, seed := range []uint64{0, 1, 2} {
		for _, workers := range []int{1, 3} {
			mem := NewMemory(0)
			out, err := mem.Alloc(4*64*9, "")
			require.NoError(t, err)
			require.NoError(t, k.Launch(mem, Config{Grid: Dim{X: 9}, Block: Dim{X: 64}, Seed: seed, Workers: workers}, out))
			got := download[float32](t, mem, out, 64*9)
			if before := results[seed]; before != nil {
				require.Equal(t, before, got)
			}
			results[seed] = got
		}
	}
	require.NotEqual(t, results[0], results[1])
	require.NotEqual(t, results[1], results[2])
}

func FuzzParse(f *testing.F) {
	f.Add(small)
	f.Add(rowSums)
	f.Add(entry(2, begin+checks[0].right))
	f.Fuzz(func(t *testing.T, text string) {
		m, err := Parse(text)
		if err == nil {
			require.NotNil(t, m)
		} else {
			require.True(t, strings.HasPrefix(err.Error(), "ptx: "), err.Error())
		}
	})
}
