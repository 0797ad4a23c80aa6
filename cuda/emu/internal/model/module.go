package model

import (
	"fmt"
	"strconv"
	"strings"

	"rung/cuda/ptx"
)

type module struct {
	handle  Handle
	context *context
	parsed  *ptx.Module
}

func (m *module) of() *context { return m.context }

type function struct {
	handle     Handle
	module     *module
	kernel     *ptx.Kernel
	maxDynamic int // dynamic shared memory that it may have
}

func (f *function) of() *context { return f.module.context }

const defaultShared = 48 << 10 // bytes of a block, without cuFuncSetAttribute

// ModuleLoadData is cuModuleLoadData of PTX text.
func (d *Driver) ModuleLoadData(call string, thread int, text string) (Handle, Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, r := d.within(call, thread)
	if r != Success {
		return 0, r
	}
	if r := d.unsafe(thread); r != Success {
		return 0, r
	}
	parsed := d.modules[text]
	if parsed == nil {
		var err error
		if parsed, err = ptx.Parse(text); err != nil {
			d.fault(fmt.Errorf("emu: %s: %w", call, err))
			return 0, InvalidPTX
		}
		d.modules[text] = parsed
	}
	target, _ := strconv.Atoi(strings.TrimPrefix(parsed.Target, "sm_"))
	switch version, _ := strconv.ParseFloat(parsed.Version, 64); {
	case target > d.config.Capability:
		d.fault(fmt.Errorf("emu: %s: PTX for %s on a device of capability %d", call, parsed.Target, d.config.Capability))
		return 0, InvalidPTX
	case version > newestPTX(d.config.Version):
		return 0, unsupportedPTXVersion
	}
	m := &module{context: c, parsed: parsed}
	m.handle = d.handle(m)
	c.modules[m] = true
	return m.handle, Success
}

// newestPTX is the PTX version that a driver of a CUDA version reads.
func newestPTX(version int) float64 {
	major, minor := version/1000, version%1000/10
	if major >= 13 {
		return 9 + float64(minor)/10
	}
	if major == 12 {
		return 8 + float64(minor)/10
	}
	return 7 + float64(minor)/10
}

// ModuleUnload is cuModuleUnload.
func (d *Driver) ModuleUnload(thread int, h Handle) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, r := d.within("cuModuleUnload", thread)
	if r != Success {
		return r
	}
	if r := d.unsafe(thread); r != Success {
		return r
	}
	m, ok := d.handles[h].(*module)
	if !ok {
		return InvalidHandle
	}
	for _, s := range c.streams {
		d.drain(s)
	}
	delete(c.modules, m)
	delete(d.handles, h)
	for fh, v := range d.handles {
		if f, ok := v.(*function); ok && f.module == m {
			delete(d.handles, fh)
		}
	}
	return c.sticky
}

// ModuleGetFunction is cuModuleGetFunction.
func (d *Driver) ModuleGetFunction(thread int, h Handle, name string) (Handle, Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, r := d.within("cuModuleGetFunction", thread); r != Success {
		return 0, r
	}
	m, ok := d.handles[h].(*module)
	if !ok {
		return 0, InvalidHandle
	}
	k, err := m.parsed.Kernel(name)
	if err != nil {
		return 0, NotFound
	}
	f := &function{module: m, kernel: k, maxDynamic: max(0, defaultShared-k.SharedBytes())}
	f.handle = d.handle(f)
	return f.handle, Success
}

// ModuleGetGlobal is cuModuleGetGlobal.
func (d *Driver) ModuleGetGlobal(thread int, h Handle, name string) (uint64, int64, Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, r := d.within("cuModuleGetGlobal_v2", thread)
	if r != Success {
		return 0, 0, r
	}
	m, ok := d.handles[h].(*module)
	if !ok {
		return 0, 0, InvalidHandle
	}
	n, ok := m.parsed.Variable(name)
	if !ok {
		return 0, 0, NotFound
	}
	a, err := c.device.memory.Global(m.parsed, name)
	if err != nil {
		return 0, 0, OutOfMemory
	}
	return a, n, Success
}

// FuncSetAttribute is cuFuncSetAttribute.
func (d *Driver) FuncSetAttribute(thread int, h Handle, attribute, value int) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, r := d.within("cuFuncSetAttribute", thread); r != Success {
		return r
	}
	f, ok := d.handles[h].(*function)
	if !ok {
		return InvalidHandle
	}
	switch attribute {
	case 8: // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
		if value < 0 || f.kernel.SharedBytes()+value > attributes[97] {
			return InvalidValue
		}
		f.maxDynamic = value
	case 9: // CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT: a hint
	default:
		return InvalidValue
	}
	return Success
}

// FuncGetAttribute is cuFuncGetAttribute. Registers are the compiler's: their number is not known here.
func (d *Driver) FuncGetAttribute(thread int, h Handle, attribute int) (int, Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, r := d.within("cuFuncGetAttribute", thread); r != Success {
		return 0, r
	}
	f, ok := d.handles[h].(*function)
	if !ok {
		return 0, InvalidHandle
	}
	switch attribute {
	case 0:
		if f.kernel.MaxThreads > 0 {
			return f.kernel.MaxThreads, Success
		}
		return attributes[1], Success
	case 1:
		return f.kernel.SharedBytes(), Success
	case 2, 9, 14:
		return 0, Success
	case 3:
		return f.kernel.LocalBytes(), Success
	case 6:
		return d.config.Capability, Success
	case 8:
		return f.maxDynamic, Success
	}
	return 0, NotSupported
}

// FuncParams are the sizes of a function's parameters and their offsets; nil where there is no such function.
func (d *Driver) FuncParams(h Handle) (sizes, offsets []int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.handles[h].(*function)
	if !ok {
		return nil, nil
	}
	return f.kernel.Params(), f.kernel.ParamOffsets()
}

// LaunchKernel is cuLaunchKernel with the bytes of each parameter, which are the callee's.
func (d *Driver) LaunchKernel(call string, thread int, h Handle, grid, block ptx.Dim, shared int, on Handle, params [][]byte) Result {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, r := d.within(call, thread)
	if r != Success {
		return r
	}
	f, ok := d.handles[h].(*function)
	if !ok {
		return InvalidHandle
	}
	s, r := d.stream(c, on)
	if r != Success {
		return r
	}
	k := f.kernel
	for _, g := range []int{grid.X, grid.Y, grid.Z, block.X, block.Y, block.Z} {
		if g <= 0 {
			return InvalidValue
		}
	}
	switch {
	case grid.Y > 65535 || grid.Z > 65535 || block.Size() > attributes[1] || block.Z > 64:
		return InvalidValue
	case k.MaxThreads > 0 && block.Size() > k.MaxThreads:
		return LaunchOutOfResources
	case shared < 0 || shared > f.maxDynamic:
		return InvalidValue
	}
	args := make([]any, len(params))
	for i, p := range params {
		args[i] = p
	}
	return d.enqueue(s, node{kind: nodeKernel, run: func() Result { return d.kernel(c, k, grid, block, shared, args) }})
}

// kernel runs a launch.
func (d *Driver) kernel(c *context, k *ptx.Kernel, grid, block ptx.Dim, shared int, args []any) Result {
	d.kernels++
	switch d.kernels {
	case d.config.FailKernel:
		d.fault(fmt.Errorf("emu: kernel %s fails: it is number %d", k.Name, d.kernels))
		return LaunchFailed
	case d.config.LoseKernel:
		d.fault(fmt.Errorf("emu: the device is lost in kernel %s, number %d", k.Name, d.kernels))
		d.lost = d.config.LostResult
		return d.lost
	}
	if other := d.override[k.Name]; other != nil {
		k = other
	}
	err := k.Launch(c.device.memory, ptx.Config{
		Grid: grid, Block: block, Shared: shared, Seed: d.config.Seed, Workers: d.config.Workers, Coverage: d.coverage, Limit: d.config.Limit,
	}, args...)
	if err != nil {
		d.fault(err)
		return faultResult(err)
	}
	return Success
}
