package ptx

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// rows sums each row of a matrix by a block: loads, a loop, shared memory, barriers, shuffles.
const rowSums = header + `
.visible .entry k(.param .u64 x, .param .u64 y, .param .u32 n)
.maxntid 64, 1, 1
{
.reg .pred %p<8>;
.reg .f32 %f<16>;
.reg .b32 %r<16>;
.reg .b64 %rd<16>;
.shared .align 4 .b8 part[8];
ld.param.u64 %rd1, [x];
ld.param.u64 %rd2, [y];
ld.param.u32 %r1, [n];
mov.u32 %r2, %tid.x;
mov.u32 %r3, %ctaid.x;
mul.lo.u32 %r4, %r3, %r1;
mov.f32 %f1, 0f00000000;
mov.u32 %r5, %r2;
setp.ge.u32 %p1, %r5, %r1;
@%p1 bra DONE;
LOOP:
add.u32 %r6, %r4, %r5;
mul.wide.u32 %rd3, %r6, 4;
add.s64 %rd4, %rd1, %rd3;
ld.global.f32 %f2, [%rd4];
fma.rn.f32 %f1, %f2, %f2, %f1;
add.u32 %r5, %r5, 64;
setp.lt.u32 %p2, %r5, %r1;
@%p2 bra LOOP;
DONE:
mov.b32 %r7, %f1;
shfl.sync.bfly.b32 %r8, %r7, 16, 31, -1;
mov.b32 %f3, %r8;
add.f32 %f1, %f1, %f3;
mov.b32 %r7, %f1;
shfl.sync.bfly.b32 %r8, %r7, 8, 31, -1;
mov.b32 %f3, %r8;
add.f32 %f1, %f1, %f3;
mov.b32 %r7, %f1;
shfl.sync.bfly.b32 %r8, %r7, 4, 31, -1;
mov.b32 %f3, %r8;
add.f32 %f1, %f1, %f3;
mov.b32 %r7, %f1;
shfl.sync.bfly.b32 %r8, %r7, 2, 31, -1;
mov.b32 %f3, %r8;
add.f32 %f1, %f1, %f3;
mov.b32 %r7, %f1;
shfl.sync.bfly.b32 %r8, %r7, 1, 31, -1;
mov.b32 %f3, %r8;
add.f32 %f1, %f1, %f3;
and.b32 %r9, %r2, 31;
shr.u32 %r10, %r2, 5;
shl.b32 %r11, %r10, 2;
cvt.u64.u32 %rd5, %r11;
mov.u64 %rd6, part;
add.s64 %rd7, %rd6, %rd5;
setp.ne.s32 %p3, %r9, 0;
@!%p3 st.shared.f32 [%rd7], %f1;
bar.sync 0;
setp.ne.s32 %p4, %r2, 0;
@%p4 bra END;
ld.shared.f32 %f4, [part];
ld.shared.f32 %f5, [part+4];
add.f32 %f6, %f4, %f5;
mul.wide.u32 %rd8, %r3, 4;
add.s64 %rd9, %rd2, %rd8;
st.global.f32 [%rd9], %f6;
END:
ret;
}
`

// sums runs the kernel and compares it with a reference.
func sums(k *Kernel, n int, cover *Coverage) error {
	const rows = 3
	mem := NewMemory(0)
	x := make([]float32, rows*n)
	for i := range x {
		x[i] = float32(i%17) - 7.5
	}
	in, _ := mem.Alloc(int64(4*len(x)), "x")
	out, _ := mem.Alloc(4*rows, "y")
	if err := mem.Write(in, words(x...)); err != nil {
		return err
	}
	c := Config{Grid: Dim{X: rows}, Block: Dim{X: 64}, Seed: 1, Workers: 1, Limit: 1e5, Coverage: cover}
	if err := k.Launch(mem, c, in, out, uint32(n)); err != nil {
		return err
	}
	b := make([]byte, 4*rows)
	if err := mem.Read(out, b); err != nil {
		return err
	}
	for r := range rows {
		want := 0.0
		for _, v := range x[r*n : (r+1)*n] {
			want += float64(v) * float64(v)
		}
		if got := float64(f32(uint32(load(b[4*r : 4*r+4])))); !(math.Abs(got-want) < 1e-3+1e-6*want) {
			return fmt.Errorf("row %d is %g, want %g", r, got, want)
		}
	}
	return nil
}

func TestMutate(t *testing.T) {
	k := parse(t, rowSums)
	var cover Coverage
	require.NoError(t, sums(k, 40, &cover))
	unrun := cover.Unrun(k)
	require.NotEmpty(t, unrun, "one round of the loop never branches back")
	for _, l := range unrun {
		require.Contains(t, l.Text, "bra LOOP")
	}
	require.NoError(t, sums(k, 200, &cover))
	require.Empty(t, cover.Unrun(k))
	require.Positive(t, cover.Instructions())

	test := func(k *Kernel) error {
		for _, n := range []int{1, 40, 200} {
			if err := sums(k, n, nil); err != nil {
				return err
			}
		}
		return nil
	}
	mutants, err := k.Mutate(cover.Ran(k), 150, 1, test)
	require.NoError(t, err)
	require.Len(t, mutants, 150)
	caught := 0
	for _, m := range mutants {
		if m.Caught != nil {
			caught++
		} else {
			t.Log(m)
		}
	}
	require.Greater(t, caught, 120)
	t.Logf("%d of %d caught", caught, len(mutants))

	again, err := k.Mutate(cover.Ran(k), 5, 1, test)
	require.NoError(t, err)
	for i, m := range again {
		require.Equal(t, mutants[i].String(), m.String())
	}
	_, err = k.Mutate(nil, 1, 1, test)
	require.ErrorContains(t, err, "no instruction of k has run")
}
