package ptx

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// A check runs a kernel that is right, and the same with a fault in it. The kernel has a buffer of 1024 written bytes in
// %rd20, one that nothing has written in %rd21, its thread in %r20 and its block in %r21.
type check struct {
	name        string
	right       string
	wrong       string
	kind        Kind
	says        string
	grid, block int // 2 blocks of 64 threads where they are 0
	shared      int
}

const begin = `
.shared .align 16 .b8 buf[1024];
ld.param.u64 %rd20, [p0];
ld.param.u64 %rd21, [p1];
mov.u32 %r20, %tid.x;
mov.u32 %r21, %ctaid.x;
mov.u32 %r22, %ntid.x;
mad.lo.u32 %r23, %r21, %r22, %r20;
mul.wide.u32 %rd22, %r23, 4;
mul.wide.u32 %rd25, %r20, 4;
mov.u64 %rd24, buf;
add.s64 %rd26, %rd24, %rd25;
add.s64 %rd27, %rd20, %rd22;
add.s64 %rd28, %rd21, %rd22;
setp.eq.u32 %p7, %r20, 0;
`

var checks = []check{
	{
		name: "bounds", kind: Address, says: "bytes 1024 to 1027 of buffer, which has 1024", grid: 1,
		right: "ld.global.u32 %r1, [%rd20+1020];", wrong: "ld.global.u32 %r1, [%rd20+1024];",
	},
	{
		name: "bounds before", kind: Address, says: "4 bytes before the one after", grid: 1,
		right: "ld.global.u32 %r1, [%rd20];", wrong: "ld.global.u32 %r1, [%rd21+-4];",
	},
	{
		name: "null", kind: Address, says: "in no allocation", grid: 1,
		right: "ld.global.u32 %r1, [%rd20];", wrong: "mov.u64 %rd1, 0;\nld.global.u32 %r1, [%rd1+8];",
	},
	{
		name: "alignment", kind: Misaligned, says: "not aligned", grid: 1,
		right: "ld.global.v2.u32 {%r1, %r2}, [%rd20+8];", wrong: "ld.global.v2.u32 {%r1, %r2}, [%rd20+4];",
	},
	{
		name: "unwritten", kind: Unwritten, says: "byte 0 of scratch, that nothing has written", grid: 1, block: 1,
		right: "st.global.u32 [%rd21], 1;\nld.global.u32 %r1, [%rd21];", wrong: "st.global.u16 [%rd21], 1;\nld.global.u32 %r1, [%rd21];",
	},
	{
		name: "shared unwritten", kind: Unwritten, says: "byte 256 of shared memory", grid: 1,
		right: "st.shared.u32 [%rd26], 1;\nld.shared.u32 %r1, [%rd26];", wrong: "st.shared.u32 [%rd26], 1;\nld.shared.u32 %r1, [%rd26+256];",
	},
	{
		name: "shared of an earlier block", kind: Unwritten, says: "that no thread has written",
		right: "st.shared.u32 [%rd26], 1;\nld.shared.u32 %r1, [%rd26];",
		wrong: "setp.eq.u32 %p1, %r21, 0;\n@%p1 st.shared.u32 [%rd26], 1;\nld.shared.u32 %r1, [%rd26];",
	},
	{
		name: "shared bounds", kind: Address, says: "bytes 1024 to 1027 of the block's 1024", grid: 1, block: 1,
		right: "st.shared.u32 [%rd24+1020], 1;", wrong: "st.shared.u32 [%rd24+1024], 1;",
	},
	{
		name: "shared race, write and read", kind: Race, says: "race with the write by thread", grid: 1,
		right: "st.shared.u32 [%rd26], %r20;\nbar.sync 0;\nxor.b32 %r1, %r20, 32;\nmul.wide.u32 %rd1, %r1, 4;\nadd.s64 %rd1, %rd1, %rd24;\nld.shared.u32 %r2, [%rd1];",
		wrong: "st.shared.u32 [%rd26+256], 1;\nst.shared.u32 [%rd26], %r20;\nxor.b32 %r1, %r20, 1;\nmul.wide.u32 %rd1, %r1, 4;\nadd.s64 %rd1, %rd1, %rd24;\nld.shared.u32 %r2, [%rd1];",
	},
	{
		name: "shared race, read and write", kind: Race, says: "race with a read by warp", grid: 1,
		right: "st.shared.u32 [%rd26], %r20;\nbar.sync 0;\nld.shared.u32 %r1, [%rd24];\nbar.sync 0;\nst.shared.u32 [%rd26], 7;",
		wrong: "st.shared.u32 [%rd26], %r20;\nbar.sync 0;\nld.shared.u32 %r1, [%rd24];\nst.shared.u32 [%rd26], 7;",
	},
	{
		name: "shared race, two writes", kind: Race, says: "race with the write by thread", grid: 1,
		right: "@%p7 st.shared.u32 [%rd24], %r20;", wrong: "st.shared.u32 [%rd24], %r20;",
	},
	{
		name: "warp barrier", kind: Race, says: "no barrier is between", grid: 1, block: 32,
		right: "st.shared.u32 [%rd26], %r20;\nbar.warp.sync -1;\nxor.b32 %r1, %r20, 1;\nmul.wide.u32 %rd1, %r1, 4;\nadd.s64 %rd1, %rd1, %rd24;\nld.shared.u32 %r2, [%rd1];\nbar.warp.sync -1;\nst.shared.u32 [%rd26], 1;",
		wrong: "st.shared.u32 [%rd26], %r20;\nbar.warp.sync -1;\nxor.b32 %r1, %r20, 1;\nmul.wide.u32 %rd1, %r1, 4;\nadd.s64 %rd1, %rd1, %rd24;\nld.shared.u32 %r2, [%rd1];\nst.shared.u32 [%rd26], 1;",
	},
	{
		name: "halves of a word", kind: Race, says: "race with", grid: 1, block: 32,
		right: "mul.wide.u32 %rd1, %r20, 2;\nadd.s64 %rd1, %rd1, %rd24;\nst.shared.u16 [%rd1], 1;", wrong: "shr.u32 %r1, %r20, 1;\nmul.wide.u32 %rd1, %r1, 2;\nadd.s64 %rd1, %rd1, %rd24;\nst.shared.u16 [%rd1], 1;",
	},
	{
		name: "shared atomics", kind: Race, says: "race with", grid: 1,
		right: "@%p7 st.shared.u32 [%rd24], 0;\nbar.sync 0;\natom.shared.add.u32 %r1, [%rd24], 1;\nbar.sync 0;\nld.shared.u32 %r2, [%rd24];",
		wrong: "@%p7 st.shared.u32 [%rd24], 0;\nbar.sync 0;\natom.shared.add.u32 %r1, [%rd24], 1;\nld.shared.u32 %r2, [%rd24];",
	},
	{
		name: "blocks, two writes", kind: Race, says: "race with the write by block",
		right: "st.global.u32 [%rd27], 1;", wrong: "add.s64 %rd1, %rd20, %rd25;\nst.global.u32 [%rd1], 1;",
	},
	{
		name: "blocks, write and read", kind: Race, says: "race with",
		right: "ld.global.u32 %r1, [%rd27];\nst.global.u32 [%rd27], 1;", wrong: "ld.global.u32 %r1, [%rd20+16];\nst.global.u32 [%rd27], 1;",
	},
	{
		name: "threads of a block in global memory", kind: Race, says: "no barrier is between",
		right: "st.global.u32 [%rd27], 1;\nbar.sync 0;\nxor.b32 %r1, %r23, 32;\nmul.wide.u32 %rd1, %r1, 4;\nadd.s64 %rd1, %rd1, %rd20;\nld.global.u32 %r2, [%rd1];",
		wrong: "st.global.u32 [%rd27], 1;\nxor.b32 %r1, %r23, 32;\nmul.wide.u32 %rd1, %r1, 4;\nadd.s64 %rd1, %rd1, %rd20;\nld.global.u32 %r2, [%rd1];",
	},
	{
		name: "global atomics", kind: Race, says: "race with",
		right: "atom.global.add.u32 %r1, [%rd20], 1;", wrong: "atom.global.add.u32 %r1, [%rd20], 1;\n@%p7 ld.global.u32 %r2, [%rd20];",
	},
	{ // the last block adds up what the others wrote: it may, after a fence and the counter
		name: "last block", kind: Race, says: "race with the write by block",
		right: "@%p7 bra A;\nbra.uni Z;\nA: mul.wide.u32 %rd1, %r21, 4;\nadd.s64 %rd1, %rd1, %rd21;\nst.global.u32 [%rd1], 1;\nmembar.gl;\natom.global.add.u32 %r1, [%rd20+512], 1;\nand.b32 %r1, %r1, 1;\nsetp.eq.u32 %p1, %r1, 0;\n@%p1 bra Z;\nld.global.u32 %r2, [%rd21];\nld.global.u32 %r3, [%rd21+4];\nZ:",
		wrong: "@%p7 bra A;\nbra.uni Z;\nA: mul.wide.u32 %rd1, %r21, 4;\nadd.s64 %rd1, %rd1, %rd21;\nst.global.u32 [%rd1], 1;\natom.global.add.u32 %r1, [%rd20+512], 1;\nand.b32 %r1, %r1, 1;\nsetp.eq.u32 %p1, %r1, 0;\n@%p1 bra Z;\nld.global.u32 %r2, [%rd21];\nld.global.u32 %r3, [%rd21+4];\nZ:",
	},
	{
		name: "barrier that some do not reach", kind: Deadlock, says: "16 threads wait at line", grid: 1,
		right: "vote.sync.any.pred %p3, %p7, -1;\nbar.sync 0;",
		wrong: "setp.lt.u32 %p1, %r20, 48;\n@%p1 vote.sync.any.pred %p3, %p7, -1;\nbar.sync 0;",
	},
	{
		name: "barrier left out by an exit", kind: Deadlock, says: "threads wait", grid: 1, block: 32,
		right: "setp.lt.u32 %p1, %r20, 16;\n@%p1 exit;\nbar.sync 0;",
		wrong: "setp.lt.u32 %p1, %r20, 16;\n@%p1 bra A;\nbar.sync 0;\nbra B;\nA: bar.warp.sync -1;\nB:",
	},
	{
		name: "divergent barriers", kind: Deadlock, says: "barrier divergence", grid: 1, block: 32,
		right: "setp.lt.u32 %p1, %r20, 16;\n@%p1 mov.u32 %r1, 1;\nbar.sync 0;",
		wrong: "setp.lt.u32 %p1, %r20, 16;\n@%p1 bra A;\nbar.sync 0;\nbra B;\nA: bar.sync 0;\nB:",
	},
	{
		name: "absent lane", kind: Collective, says: "lane 24, which takes no part", grid: 1, block: 24,
		right: "shfl.sync.down.b32 %r1|%p1, %r20, 8, 0x1f, -1;\n", wrong: "",
	},
	{
		name: "lane outside its mask", kind: Collective, says: "is not in its own mask", grid: 1, block: 32,
		right: "shfl.sync.bfly.b32 %r1, %r20, 1, 31, -1;", wrong: "shfl.sync.bfly.b32 %r1, %r20, 1, 31, 0xffff;",
	},
	{
		name: "mma without a lane", kind: Collective, says: "only lanes 0xffff", grid: 1, block: 32,
		right: "mov.f32 %f1, 0f00000000;\nmma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f2,%f3,%f4,%f5}, {%r1,%r1,%r1,%r1}, {%r1,%r1}, {%f1,%f1,%f1,%f1};",
		wrong: "setp.ge.u32 %p1, %r20, 16;\n@%p1 exit;\nmma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f2,%f3,%f4,%f5}, {%r1,%r1,%r1,%r1}, {%r1,%r1}, {%f1,%f1,%f1,%f1};",
	},
	{
		name: "cp.async without a wait", kind: Race, says: "a wait_group is missing", grid: 1, block: 16,
		right: "mul.wide.u32 %rd1, %r20, 16;\nadd.s64 %rd2, %rd24, %rd1;\nadd.s64 %rd3, %rd20, %rd1;\ncp.async.cg.shared.global [%rd2], [%rd3], 16;\ncp.async.commit_group;\ncp.async.wait_group 0;\nld.shared.u32 %r1, [%rd2];",
		wrong: "mul.wide.u32 %rd1, %r20, 16;\nadd.s64 %rd2, %rd24, %rd1;\nadd.s64 %rd3, %rd20, %rd1;\ncp.async.cg.shared.global [%rd2], [%rd3], 16;\ncp.async.commit_group;\ncp.async.wait_group 1;\nld.shared.u32 %r1, [%rd2];",
	},
	{
		name: "cp.async without a barrier", kind: Race, says: "no barrier is between", grid: 1,
		right: "add.s64 %rd3, %rd20, %rd25;\ncp.async.ca.shared.global [%rd26], [%rd3], 4;\ncp.async.wait_all;\nbar.sync 0;\nld.shared.u32 %r1, [%rd24];",
		wrong: "add.s64 %rd3, %rd20, %rd25;\ncp.async.ca.shared.global [%rd26], [%rd3], 4;\ncp.async.wait_all;\nld.shared.u32 %r1, [%rd24];",
	},
	{
		name: "cp.async over what is still read", kind: Race, says: "race with a read", grid: 1,
		right: "add.s64 %rd3, %rd20, %rd25;\nst.shared.u32 [%rd26], 1;\nbar.sync 0;\nld.shared.u32 %r1, [%rd24];\nbar.sync 0;\ncp.async.ca.shared.global [%rd26], [%rd3], 4;",
		wrong: "add.s64 %rd3, %rd20, %rd25;\nst.shared.u32 [%rd26], 1;\nbar.sync 0;\nld.shared.u32 %r1, [%rd24];\ncp.async.ca.shared.global [%rd26], [%rd3], 4;",
	},
	{
		name: "local unwritten", kind: Unwritten, says: "local memory, that the thread has not written", grid: 1,
		right: ".local .align 4 .b8 stack[16];\nmov.u64 %rd1, stack;\nst.local.u32 [%rd1+4], 1;\nld.local.u32 %r1, [%rd1+4];",
		wrong: ".local .align 4 .b8 stack[16];\nmov.u64 %rd1, stack;\nst.local.u32 [%rd1+4], 1;\nld.local.u32 %r1, [%rd1+8];",
	},
	{
		name: "trap", kind: Assertion, says: "trap", grid: 1,
		right: "setp.gt.u32 %p1, %r20, 64;\n@%p1 trap;", wrong: "setp.gt.u32 %p1, %r20, 62;\n@%p1 trap;",
	},
	{
		name: "space", kind: Address, says: "is no generic address of space .shared", grid: 1,
		right: "cvta.shared.u64 %rd1, %rd26;\nst.u32 [%rd1], 1;\ncvta.to.shared.u64 %rd2, %rd1;\nld.shared.u32 %r1, [%rd2];", wrong: "cvta.to.shared.u64 %rd2, %rd27;",
	},
}

func (c check) run(t *testing.T, body string, workers int) error {
	t.Helper()
	k := parse(t, entry(2, begin+body))
	mem := NewMemory(0)
	buffer, err := mem.Alloc(1024, "buffer")
	require.NoError(t, err)
	require.NoError(t, mem.Fill(buffer, []byte{0}, 1024))
	scratch, err := mem.Alloc(1024, "scratch")
	require.NoError(t, err)
	for seed := range uint64(3) {
		err := k.Launch(mem, Config{
			Grid: Dim{X: orElse(c.grid, 2)}, Block: Dim{X: orElse(c.block, 64)}, Shared: c.shared, Seed: seed, Workers: workers, Limit: 1e6,
		}, buffer, scratch)
		if err != nil {
			return err
		}
	}
	return nil
}

func orElse(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

func TestChecks(t *testing.T) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "absent lane" { // the last lanes of a full warp read themselves
				c.block = 32
				require.NoError(t, c.run(t, c.right, 1))
				c.block, c.wrong = 24, c.right
			} else {
				require.NoError(t, c.run(t, c.right, 1))
				require.NoError(t, c.run(t, c.right, 2))
			}
			for workers := 1; workers <= 2; workers++ {
				var f *Fault
				err := c.run(t, c.wrong, workers)
				require.ErrorAs(t, err, &f)
				require.Equal(t, c.kind, f.Kind, f.Error())
				require.Contains(t, f.Error(), c.says)
				require.Equal(t, "k", f.Kernel)
				require.Contains(t, f.Error(), "kernel k, line ")
				require.Positive(t, f.Line)
			}
		})
	}
}

func TestEndless(t *testing.T) {
	err := check{grid: 1}.run(t, "A: bra.uni A;", 1)
	var f *Fault
	require.ErrorAs(t, err, &f)
	require.Equal(t, Endless, f.Kind)
	require.Contains(t, f.Error(), "does not end")
}

func TestUseAfterFree(t *testing.T) {
	k := parse(t, entry(1, "ld.param.u64 %rd1, [p0];\nld.global.u32 %r1, [%rd1];"))
	mem := NewMemory(0)
	a := upload(t, mem, words[uint32](1, 2))
	c := Config{Grid: Dim{X: 1}, Block: Dim{X: 1}}
	require.NoError(t, k.Launch(mem, c, a))
	require.NoError(t, mem.Free(a))
	err := k.Launch(mem, c, a)
	var f *Fault
	require.True(t, errors.As(err, &f))
	require.Contains(t, f.Error(), "has been freed")
	require.ErrorContains(t, mem.Free(a), "freed twice")
	require.ErrorContains(t, mem.Write(a, []byte{1}), "has been freed")
	require.ErrorContains(t, mem.Free(a+4), "no allocation begins")
}
