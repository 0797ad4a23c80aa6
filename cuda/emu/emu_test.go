//go:build gpu && gpuemu

package emu_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"gorgonia.org/cu"

	"rung/cuda/driver"
	"rung/cuda/emu"
)

// The driver is chosen when a process starts: this one starts itself again with the emulator.
func TestMain(m *testing.M) {
	if os.Getenv("EMU_TEST") != "" {
		os.Exit(m.Run())
	}
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	again := exec.Command(self, os.Args[1:]...)
	again.Env = append(os.Environ(), "EMU_TEST=1", "GPU_DRIVER=emu", "GPU_EMU=memory=64M")
	again.Stdout, again.Stderr = os.Stdout, os.Stderr
	if again.Run() != nil {
		os.Exit(1)
	}
}

const square = `.version 7.8
.target sm_80
.address_size 64
.visible .entry square(.param .u64 x, .param .u32 n)
{
.reg .pred %p<2>;
.reg .f32 %f<4>;
.reg .b32 %r<4>;
.reg .b64 %rd<4>;
ld.param.u64 %rd1, [x];
ld.param.u32 %r1, [n];
mov.u32 %r2, %tid.x;
setp.ge.u32 %p1, %r2, %r1;
@%p1 ret;
mad.wide.u32 %rd2, %r2, 4, %rd1;
ld.global.f32 %f1, [%rd2];
mul.f32 %f2, %f1, %f1;
st.global.f32 [%rd2], %f2;
ret;
}
`

// run uses gorgonia.org/cu as a program would: a context, a module, memory, a launch.
func run(n int) ([]float32, error) {
	d, err := cu.GetDevice(0)
	if err != nil {
		return nil, err
	}
	c, err := d.MakeContext(cu.SchedAuto)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Destroy() }()
	m, err := cu.LoadData(square)
	if err != nil {
		return nil, err
	}
	f, err := m.Function("square")
	if err != nil {
		return nil, err
	}
	x := []float32{1, 2, 3, 4}
	p, err := cu.MemAlloc(int64(4 * len(x)))
	if err != nil {
		return nil, err
	}
	if err := cu.MemcpyHtoD(p, unsafe.Pointer(&x[0]), int64(4*len(x))); err != nil {
		return nil, err
	}
	count := int32(n)
	if err := f.Launch(1, 1, 1, 32, 1, 1, 0, cu.Stream{}, []unsafe.Pointer{unsafe.Pointer(&p), unsafe.Pointer(&count)}); err != nil {
		return nil, err
	}
	if err := cu.MemcpyDtoH(unsafe.Pointer(&x[0]), p, int64(4*len(x))); err != nil {
		return nil, err
	}
	return x, cu.MemFree(p)
}

func TestProgram(t *testing.T) {
	require.Empty(t, driver.Why())
	n, err := cu.NumDevices()
	require.NoError(t, err)
	require.Equal(t, 1, n)
	d, err := cu.GetDevice(0)
	require.NoError(t, err)
	name, err := d.Name()
	require.NoError(t, err)
	require.Equal(t, "PTX emulator", name)
	memory, err := d.TotalMem()
	require.NoError(t, err)
	require.EqualValues(t, 64<<20, memory)
	require.Equal(t, 12000, cu.Version())

	emu.Reset(emu.Defaults(), true)
	x, err := run(4)
	require.NoError(t, err)
	require.Equal(t, []float32{1, 4, 9, 16}, x)
	require.Empty(t, emu.Faults())
	require.Empty(t, emu.Leaks())
	require.Empty(t, emu.Unrun())
	require.Equal(t, 1, emu.Kernels())
	require.Equal(t, 1, emu.Calls()["cuLaunchKernel"])

	_, err = run(5)
	require.Equal(t, cu.IllegalAddress.Error(), err.Error())
	require.Len(t, emu.Faults(), 1)
	require.ErrorContains(t, emu.Faults()[0], "kernel square, line 16 (ld.global.f32 %f1, [%rd2]), block (0,0,0), thread (4,0,0): reads 4 bytes")
}

func TestInjection(t *testing.T) {
	for what, test := range map[string]struct {
		change func(c *emu.Config)
		says   error
	}{
		"memory": {func(c *emu.Config) { c.Memory = 8 }, cu.OutOfMemory},
		"alloc":  {func(c *emu.Config) { c.Fail = []emu.Failure{{Call: "cuMemAlloc_v2", Nth: 1, Result: 2}} }, cu.OutOfMemory},
		"launch": {func(c *emu.Config) { c.Fail = []emu.Failure{{Call: "cuLaunchKernel", Nth: 1, Result: 701}} }, cu.LaunchOutOfResources},
		"kernel": {func(c *emu.Config) { c.FailKernel = 1 }, cu.LaunchFailed},
		"lost":   {func(c *emu.Config) { c.LoseKernel = 1 }, cu.Unknown},
		"old":    {func(c *emu.Config) { c.Capability = 75 }, cu.InvalidPtx},
		"none":   {func(c *emu.Config) { c.Devices = 0 }, cu.InvalidDevice},
	} {
		c := emu.Defaults()
		test.change(&c)
		emu.Reset(c, true)
		_, err := run(4)
		require.EqualError(t, err, test.says.Error(), what)
	}
	emu.Reset(emu.Defaults(), false)
}

// A driver that lacks functions, or that is not there, is chosen when the process starts.
func TestMissing(t *testing.T) {
	if os.Getenv("EMU_TEST_PROBE") != "" {
		_, err := run(4)
		t.Logf("result %v, missing %q, why %q", err, driver.Missing(), driver.Why())
		return
	}
	self, err := os.Executable()
	require.NoError(t, err)
	for config, says := range map[string]string{
		"missing=cuX+cuModuleGetFunction,seed=1": `missing "cuModuleGetFunction"`,
		"nodriver":                               `why "emu: cannot open shared object file`,
		"frob=1":                                 "unknown key",
	} {
		again := exec.Command(self, "-test.run=^TestMissing$", "-test.v")
		again.Env = append(os.Environ(), "EMU_TEST_PROBE=1", "GPU_EMU="+config)
		out, err := again.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.True(t, strings.Contains(string(out), says), "%s: %s", config, out)
	}
}
