package model

import (
	"encoding/binary"
	"math"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"rung/cuda/ptx"
)

// scale multiplies n floats of x by a number and adds one.
const scale = `.version 7.8
.target sm_80
.address_size 64
.global .align 4 .f32 bias = 0f3F800000;
.visible .entry scale(.param .u64 x, .param .f32 by, .param .u32 n)
{
.reg .pred %p<4>;
.reg .f32 %f<8>;
.reg .b32 %r<8>;
.reg .b64 %rd<8>;
ld.param.u64 %rd1, [x];
ld.param.f32 %f1, [by];
ld.param.u32 %r1, [n];
mov.u32 %r2, %ctaid.x;
mov.u32 %r3, %ntid.x;
mov.u32 %r4, %tid.x;
mad.lo.u32 %r5, %r2, %r3, %r4;
setp.ge.u32 %p1, %r5, %r1;
@%p1 ret;
mad.wide.u32 %rd2, %r5, 4, %rd1;
ld.global.f32 %f2, [%rd2];
ld.global.f32 %f3, [bias];
fma.rn.f32 %f4, %f1, %f2, %f3;
st.global.f32 [%rd2], %f4;
ret;
}
`

const thread = 7

// A host is a program with a device, a stream and the kernel.
type host struct {
	*testing.T
	*Driver
	context, stream, module, kernel Handle
}

func newHost(t *testing.T, change func(c *Config)) *host {
	c := Defaults()
	if change != nil {
		change(&c)
	}
	h := &host{T: t, Driver: New(c, nil)}
	h.context = ok(h.DevicePrimaryCtxRetain(0))(t)
	require.Equal(t, Success, h.CtxSetCurrent(thread, h.context))
	h.stream = ok(h.StreamCreate("cuStreamCreate", thread, 1))(t)
	h.module = ok(h.ModuleLoadData("cuModuleLoadData", thread, scale))(t)
	h.kernel = ok(h.ModuleGetFunction(thread, h.module, "scale"))(t)
	return h
}

func ok[T any](v T, r Result) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		require.Equal(t, Success, r)
		return v
	}
}

func floats(v ...float32) []byte {
	var b []byte
	for _, f := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
	}
	return b
}

func (h *host) alloc(v ...float32) uint64 {
	h.Helper()
	a := ok(h.MemAlloc(thread, int64(4*len(v))))(h.T)
	require.Equal(h, Success, h.Memcpy("cuMemcpyHtoD_v2", thread, a, 0, floats(v...), 4*len(v)))
	return a
}

func (h *host) launch(x uint64, by float32, n uint32, on Handle) Result {
	return h.LaunchKernel("cuLaunchKernel", thread, h.kernel, ptx.Dim{X: 2, Y: 1, Z: 1}, ptx.Dim{X: 32, Y: 1, Z: 1}, 0, on, [][]byte{
		binary.LittleEndian.AppendUint64(nil, x), floats(by), binary.LittleEndian.AppendUint32(nil, n),
	})
}

// read is what is in memory without waiting for anything but the default stream.
func (h *host) read(a uint64, n int) []float32 {
	h.Helper()
	b := make([]byte, 4*n)
	require.Equal(h, Success, h.Memcpy("cuMemcpyDtoH_v2", thread, 0, a, b, len(b)))
	out := make([]float32, n)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out
}

func (h *host) sync() Result { return h.StreamSynchronize(thread, h.stream) }

// Work runs in a stream's order, at the latest moment.
func TestStreams(t *testing.T) {
	h := newHost(t, nil)
	x := h.alloc(1, 2, 3)
	require.Equal(t, Success, h.launch(x, 2, 3, h.stream))
	require.Equal(t, Success, h.launch(x, 10, 2, h.stream))
	require.Equal(t, []float32{1, 2, 3}, h.read(x, 3), "nobody has waited")
	require.Equal(t, Success, h.sync())
	require.Equal(t, []float32{31, 51, 7}, h.read(x, 3))
	require.Equal(t, 2, h.Kernels())

	// a query runs a piece, and ends
	require.Equal(t, Success, h.launch(x, 0, 3, h.stream))
	require.Equal(t, NotReady, h.StreamQuery(thread, h.stream))
	require.Equal(t, Success, h.StreamQuery(thread, h.stream))
	require.Equal(t, []float32{1, 1, 1}, h.read(x, 3))

	// another stream waits for an event
	other := ok(h.StreamCreate("cuStreamCreate", thread, 1))(t)
	e := ok(h.EventCreate(thread, 0))(t)
	require.Equal(t, Success, h.launch(x, 3, 3, h.stream))
	require.Equal(t, Success, h.EventRecord("cuEventRecord", thread, e, h.stream))
	require.Equal(t, Success, h.launch(x, 0, 3, h.stream))
	require.Equal(t, Success, h.StreamWaitEvent(thread, other, e))
	require.Equal(t, Success, h.launch(x, 5, 3, other))
	require.Equal(t, Success, h.StreamSynchronize(thread, other))
	require.Equal(t, []float32{21, 21, 21}, h.read(x, 3))
	f := ok(h.EventCreate(thread, 0))(t)
	require.Equal(t, Success, h.EventRecord("cuEventRecord", thread, f, h.stream))
	_, r := h.EventElapsedTime(thread, e, f)
	require.Equal(t, NotReady, r)
	require.Equal(t, Success, h.EventSynchronize(thread, f))
	ms := ok(h.EventElapsedTime(thread, e, f))(t)
	require.GreaterOrEqual(t, ms, float32(0))
	require.Equal(t, []float32{1, 1, 1}, h.read(x, 3))

	// the default stream and blocking ones wait for each other
	blocking := ok(h.StreamCreate("cuStreamCreate", thread, 0))(t)
	require.Equal(t, Success, h.launch(x, 6, 3, blocking))
	require.Equal(t, []float32{7, 7, 7}, h.read(x, 3))
	require.Equal(t, Success, h.launch(x, 0, 3, 0))
	require.Equal(t, Success, h.launch(x, 9, 3, blocking))
	require.Equal(t, Success, h.CtxSynchronize(thread))
	require.Equal(t, []float32{10, 10, 10}, h.read(x, 3))
}

func TestCopies(t *testing.T) {
	h := newHost(t, nil)
	x := h.alloc(1, 2)
	y := h.alloc(0, 0)
	p := ok(h.MemHostAlloc("cuMemHostAlloc", thread, 64))(t)
	pinned := unsafe.Slice((*byte)(p), 8)
	async := func(dst, src uint64, b []byte) Result {
		return h.MemcpyAsync("cuMemcpyAsync", thread, dst, src, b, 8, h.stream)
	}
	// pageable memory is read at once
	pageable := floats(5, 6)
	require.Equal(t, Success, async(x, 0, pageable))
	copy(pageable, floats(0, 0))
	require.Equal(t, []float32{1, 2}, h.read(x, 2))
	require.Equal(t, Success, async(y, x, nil))
	// pinned memory holds nothing of use until the copy has run
	require.Equal(t, Success, async(0, y, pinned))
	require.NotEqual(t, floats(5, 6), pinned)
	require.Equal(t, Success, h.sync())
	require.Equal(t, floats(5, 6), pinned)
	// a copy to pageable memory waits
	require.Equal(t, Success, h.launch(x, 2, 2, h.stream))
	require.Equal(t, Success, async(0, x, pageable))
	require.Equal(t, floats(11, 13), pageable)
	// and pinned memory is read late: what changes it is found
	require.Equal(t, Success, async(x, 0, pinned))
	require.Equal(t, Success, h.sync())
	require.Equal(t, []float32{5, 6}, h.read(x, 2))
	require.Equal(t, Success, h.MemsetAsync("cuMemsetD32Async", thread, y, floats(2.5), 2, h.stream))
	require.Equal(t, Success, h.sync())
	require.Equal(t, []float32{2.5, 2.5}, h.read(y, 2))
	require.Equal(t, Success, h.Memset("cuMemsetD8_v2", thread, y, []byte{0}, 8))
	require.Equal(t, []float32{0, 0}, h.read(y, 2))
	require.Equal(t, InvalidValue, async(x+4, 0, pinned))
	require.Equal(t, Success, async(x, 0, pinned))
	pinned[0]++
	require.Equal(t, LaunchFailed, h.sync())
	require.ErrorContains(t, h.Faults()[1], "the pinned memory has changed before the copy ran")
	require.Equal(t, LaunchFailed, h.MemFreeHost(thread, p), "a context that has failed stays so")
}

func TestGraphs(t *testing.T) {
	h := newHost(t, nil)
	x := h.alloc(1)
	begin := func(mode int) { require.Equal(t, Success, h.StreamBeginCapture(thread, h.stream, mode)) }
	begin(captureThread)
	require.Equal(t, 1, ok(h.StreamIsCapturing(thread, h.stream))(t))
	require.Equal(t, Success, h.launch(x, 2, 1, h.stream))
	// another stream takes part
	side := ok(h.StreamCreate("cuStreamCreate", thread, 1))(t)
	fork, back := ok(h.EventCreate(thread, 2))(t), ok(h.EventCreate(thread, 2))(t)
	require.Equal(t, Success, h.EventRecord("cuEventRecord", thread, fork, h.stream))
	require.Equal(t, Success, h.StreamWaitEvent(thread, side, fork))
	require.Equal(t, Success, h.launch(x, 3, 1, side))
	require.Equal(t, Success, h.EventRecord("cuEventRecord", thread, back, side))
	require.Equal(t, Success, h.StreamWaitEvent(thread, h.stream, back))
	g := ok(h.StreamEndCapture(thread, h.stream))(t)
	require.Equal(t, 2, ok(h.GraphGetNodes(g))(t))
	exec := ok(h.GraphInstantiate(thread, g))(t)
	require.Equal(t, Success, h.GraphDestroy(g))
	require.Equal(t, []float32{1}, h.read(x, 1), "capture runs nothing")
	for range 2 {
		require.Equal(t, Success, h.GraphLaunch("cuGraphLaunch", thread, exec, h.stream, false))
	}
	require.Equal(t, Success, h.sync())
	require.Equal(t, []float32{64}, h.read(x, 1)) // 1 → 3 → 10 → 21 → 64
	require.Equal(t, Success, h.GraphExecDestroy(exec))
	require.Equal(t, InvalidValue, h.GraphLaunch("cuGraphLaunch", thread, exec, h.stream, false))

	// what must not be called spoils the capture
	for name, call := range map[string]func() Result{
		"alloc": func() Result { _, r := h.MemAlloc(thread, 4); return r },
		"free":  func() Result { return h.MemFree(thread, x) },
		"copy":  func() Result { return h.Memcpy("cuMemcpyHtoD_v2", thread, x, 0, floats(1), 4) },
		"set":   func() Result { return h.Memset("cuMemsetD8_v2", thread, x, []byte{0}, 4) },
		"pin":   func() Result { _, r := h.MemHostAlloc("cuMemHostAlloc", thread, 4); return r },
		"load":  func() Result { _, r := h.ModuleLoadData("cuModuleLoadData", thread, scale); return r },
		"sync":  h.sync,
		"query": func() Result { return h.StreamQuery(thread, h.stream) },
		"all":   func() Result { return h.CtxSynchronize(thread) },
	} {
		begin(captureThread)
		require.Equal(t, CaptureUnsupported, call(), name)
		require.Equal(t, 2, ok(h.StreamIsCapturing(thread, h.stream))(t), name)
		require.Equal(t, CaptureInvalidated, h.launch(x, 1, 1, h.stream), name)
		_, r := h.StreamEndCapture(thread, h.stream)
		require.Equal(t, CaptureInvalidated, r, name)
	}
	// another thread may, unless the capture forbids it to all
	require.Equal(t, Success, h.CtxSetCurrent(8, h.context))
	begin(captureThread)
	a := ok(h.MemAlloc(8, 4))(t)
	require.Equal(t, Success, h.MemFree(8, a))
	_, r := h.StreamEndCapture(8, h.stream)
	require.Equal(t, CaptureWrongThread, r)
	ok(h.StreamEndCapture(thread, h.stream))(t)
	begin(captureGlobal)
	_, r = h.MemAlloc(8, 4)
	require.Equal(t, CaptureUnsupported, r)
	_, r = h.StreamEndCapture(thread, h.stream)
	require.Equal(t, CaptureInvalidated, r)
	begin(captureRelaxed)
	ok(h.MemAlloc(thread, 4))(t)
	require.Equal(t, IllegalState, h.StreamBeginCapture(thread, h.stream, captureRelaxed))
	ok(h.StreamEndCapture(thread, h.stream))(t)

	// events of a capture cannot be waited for, streams must come back, the default stream stays out
	begin(captureThread)
	require.Equal(t, Success, h.EventRecord("cuEventRecord", thread, fork, h.stream))
	require.Equal(t, CapturedEvent, h.EventSynchronize(thread, fork))
	_, r = h.StreamEndCapture(thread, h.stream)
	require.Equal(t, CaptureInvalidated, r)
	begin(captureThread)
	require.Equal(t, Success, h.EventRecord("cuEventRecord", thread, fork, h.stream))
	require.Equal(t, Success, h.StreamWaitEvent(thread, side, fork))
	_, r = h.StreamEndCapture(thread, side)
	require.Equal(t, CaptureUnmatched, r)
	_, r = h.StreamEndCapture(thread, h.stream)
	require.Equal(t, CaptureUnjoined, r)
	require.Equal(t, CaptureUnsupported, h.StreamBeginCapture(thread, 0, captureThread))
	_, r = h.StreamEndCapture(thread, h.stream)
	require.Equal(t, IllegalState, r)
	blocking := ok(h.StreamCreate("cuStreamCreate", thread, 0))(t)
	require.Equal(t, Success, h.StreamBeginCapture(thread, blocking, captureRelaxed))
	require.Equal(t, CaptureImplicit, h.launch(x, 1, 1, 0))
	_, r = h.StreamEndCapture(thread, blocking)
	require.Equal(t, CaptureInvalidated, r)
}

// A fault of a kernel is the result of the call that waits for it, and of all that follow.
func TestKernelFaults(t *testing.T) {
	h := newHost(t, nil)
	x := h.alloc(1, 2)
	require.Equal(t, Success, h.launch(x, 1, 3, h.stream))
	require.Equal(t, IllegalAddress, h.sync())
	require.Len(t, h.Faults(), 1)
	require.ErrorContains(t, h.Faults()[0], "kernel scale")
	_, r := h.MemAlloc(thread, 4)
	require.Equal(t, IllegalAddress, r)
	require.Equal(t, Success, h.DevicePrimaryCtxReset(0))

	h = newHost(t, nil)
	x = h.alloc(1, 2)
	require.Equal(t, Success, h.launch(x+2, 1, 1, h.stream))
	require.Equal(t, MisalignedAddress, h.sync())

	h = newHost(t, nil)
	x = h.alloc(1)
	require.Equal(t, Success, h.launch(x, 4, 1, h.stream))
	require.Equal(t, Success, h.MemFree(thread, x), "which waits")
	require.Equal(t, Success, h.launch(x, 4, 1, h.stream))
	require.Equal(t, IllegalAddress, h.sync())
	require.ErrorContains(t, h.Faults()[0], "has been freed")

	h = newHost(t, nil)
	require.Equal(t, InvalidValue, h.MemFree(thread, 4711))
	dim := func(x, y int) ptx.Dim { return ptx.Dim{X: x, Y: y, Z: 1} }
	launch := func(f Handle, grid, block ptx.Dim, shared int) Result {
		return h.LaunchKernel("cuLaunchKernel", thread, f, grid, block, shared, h.stream, make([][]byte, 3))
	}
	require.Equal(t, InvalidValue, launch(h.kernel, dim(0, 1), dim(1, 1), 0))
	require.Equal(t, InvalidValue, launch(h.kernel, dim(1, 1), dim(1025, 1), 0))
	require.Equal(t, InvalidValue, launch(h.kernel, dim(1, 1<<16), dim(1, 1), 0))
	require.Equal(t, InvalidHandle, launch(h.stream, dim(1, 1), dim(1, 1), 0))
	require.Equal(t, InvalidValue, launch(h.kernel, dim(1, 1), dim(1, 1), 64<<10))
	require.Equal(t, Success, h.FuncSetAttribute(thread, h.kernel, 8, 64<<10))
	require.Equal(t, 64<<10, ok(h.FuncGetAttribute(thread, h.kernel, 8))(t))
	require.Equal(t, Success, launch(h.kernel, dim(1, 1), dim(1, 1), 64<<10))
	require.Equal(t, InvalidValue, h.FuncSetAttribute(thread, h.kernel, 8, 1<<20))
}

// What is injected happens where it should, and once.
func TestInjectedFaults(t *testing.T) {
	h := newHost(t, func(c *Config) {
		c.Memory = 1 << 20
		c.Fail = []Failure{{"cuMemAlloc_v2", 2, OutOfMemory}, {"cuLaunchKernel", 2, LaunchOutOfResources}}
	})
	x := h.alloc(1)
	_, r := h.MemAlloc(thread, 4)
	require.Equal(t, OutOfMemory, r)
	ok(h.MemAlloc(thread, 4))(t)
	_, r = h.MemAlloc(thread, 1<<20)
	require.Equal(t, OutOfMemory, r)
	free, total, r := h.MemGetInfo(thread)
	require.Equal(t, Success, r)
	require.EqualValues(t, 1<<20, total)
	require.Less(t, free, total)
	require.Equal(t, Success, h.launch(x, 1, 1, h.stream))
	require.Equal(t, LaunchOutOfResources, h.launch(x, 1, 1, h.stream))
	require.Equal(t, Success, h.launch(x, 1, 1, h.stream))
	require.Equal(t, Success, h.sync())
	require.Equal(t, 3, h.Calls()["cuLaunchKernel"])

	h = newHost(t, func(c *Config) { c.FailKernel = 2 })
	x = h.alloc(1)
	require.Equal(t, Success, h.launch(x, 1, 1, h.stream))
	require.Equal(t, Success, h.launch(x, 1, 1, h.stream))
	require.Equal(t, LaunchFailed, h.sync())
	require.ErrorContains(t, h.Faults()[0], "kernel scale fails: it is number 2")

	h = newHost(t, func(c *Config) { c.LoseKernel = 1 })
	x = h.alloc(1)
	require.Equal(t, Success, h.launch(x, 1, 1, h.stream))
	require.Equal(t, Unknown, h.sync())
	_, r = h.DeviceGet(0)
	require.Equal(t, Unknown, r)
	require.Equal(t, Unknown, h.CtxSetCurrent(thread, h.context))

	c := Defaults()
	c.Capability, c.Version = 75, 11040
	d := New(c, nil)
	require.Equal(t, 7, ok(d.DeviceGetAttribute(75, 0))(t))
	require.Equal(t, 5, ok(d.DeviceGetAttribute(76, 0))(t))
	require.Equal(t, 11040, ok(d.DriverGetVersion())(t))
	ctx := ok(d.DevicePrimaryCtxRetain(0))(t)
	require.Equal(t, Success, d.CtxSetCurrent(1, ctx))
	_, r = d.ModuleLoadData("cuModuleLoadData", 1, scale)
	require.Equal(t, InvalidPTX, r)
	require.ErrorContains(t, d.Faults()[0], "PTX for sm_80 on a device of capability 75")
}

func TestContexts(t *testing.T) {
	d := New(Defaults(), nil)
	_, r := d.MemAlloc(1, 4)
	require.Equal(t, InvalidContext, r)
	_, r = d.DeviceGet(1)
	require.Equal(t, InvalidDevice, r)
	require.Equal(t, InvalidContext, d.CtxSetCurrent(1, 99))
	a := ok(d.DevicePrimaryCtxRetain(0))(t)
	require.Equal(t, a, ok(d.DevicePrimaryCtxRetain(0))(t))
	b := ok(d.CtxCreate(1, 0))(t)
	require.Equal(t, b, ok(d.CtxGetCurrent(1))(t))
	require.Equal(t, Success, d.CtxPushCurrent(1, a))
	require.Equal(t, a, ok(d.CtxPopCurrent(1))(t))
	require.Zero(t, ok(d.CtxGetCurrent(2))(t))
	ok(d.MemAlloc(1, 4))(t)
	require.Equal(t, Success, d.CtxDestroy(b))
	_, r = d.MemAlloc(1, 4)
	require.Equal(t, ContextIsDestroyed, r)
	require.Equal(t, Success, d.CtxSetCurrent(1, a))
	ok(d.MemAlloc(1, 4))(t)
	ok(d.MemHostAlloc("cuMemHostAlloc", 1, 4096))(t)
	ok(d.EventCreate(1, 0))(t)
	require.Len(t, d.Leaks(), 4)
	require.Equal(t, Success, d.DevicePrimaryCtxRelease(0))
	require.Equal(t, Success, d.DevicePrimaryCtxRelease(0))
	require.Equal(t, InvalidContext, d.DevicePrimaryCtxRelease(0))
	require.Empty(t, d.Leaks())

	h := newHost(t, nil)
	bias, n, r := h.ModuleGetGlobal(thread, h.module, "bias")
	require.Equal(t, Success, r)
	require.EqualValues(t, 4, n)
	require.Equal(t, []float32{1}, h.read(bias, 1))
	_, r = h.ModuleGetFunction(thread, h.module, "other")
	require.Equal(t, NotFound, r)
	_, r = h.ModuleLoadData("cuModuleLoadData", thread, "nonsense")
	require.Equal(t, InvalidPTX, r)
	require.NotEmpty(t, h.Unrun())
	require.Equal(t, Success, h.ModuleUnload(thread, h.module))
	require.Equal(t, InvalidHandle, h.launch(0, 1, 1, h.stream))
	require.Equal(t, Success, h.StreamDestroy(thread, h.stream))
	require.Equal(t, InvalidHandle, h.StreamSynchronize(thread, h.stream))
}

func TestParseConfig(t *testing.T) {
	c, err := ParseConfig("capability=75,memory=64M, fail=cuMemAlloc_v2:3:2,fail=cuLaunchKernel:1:701,failkernel=9,losekernel=10,missing=cuX+cuY,seed=0,name=A B")
	require.NoError(t, err)
	want := Defaults()
	want.Capability, want.Memory, want.FailKernel, want.LoseKernel, want.Seed, want.Name = 75, 64<<20, 9, 10, 0, "A B"
	want.Fail = []Failure{{"cuMemAlloc_v2", 3, OutOfMemory}, {"cuLaunchKernel", 1, LaunchOutOfResources}}
	require.Equal(t, want, c)
	for _, bad := range []string{"what=1", "memory=x", "fail=a:b", "fail=a:b:c", "sms"} {
		_, err := ParseConfig(bad)
		require.ErrorContains(t, err, "emu: ", bad)
	}
}
