package model

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"rung/cuda/ptx"
)

// A Handle stands for an object of the driver: what a caller holds as CUcontext, CUstream and so on. 0 is none.
type Handle uintptr

// A Driver is the model. Its methods may be called from several threads; Thread arguments are the callers'.
type Driver struct {
	mu       sync.Mutex
	config   Config
	devices  []*device
	handles  map[Handle]any
	last     Handle
	current  map[int][]*context // by thread, the current one last
	captures []*capture         // that have not ended
	calls    map[string]int
	kernels  int    // that have run
	lost     Result // of every call, once the device is lost
	faults   []error
	modules  map[string]*ptx.Module // by their text: parsed once
	coverage *ptx.Coverage
	override map[string]*ptx.Kernel // by name
	began    time.Time
	report   func(error)
}

type device struct {
	ordinal int
	primary *context
	retains int
	flags   uint32
	memory  *ptx.Memory
}

// A context holds what is made in it.
type context struct {
	handle  Handle
	device  *device
	streams []*stream // the first is the default stream
	pinned  map[uintptr][]byte
	allocs  map[uint64]int64
	modules map[*module]bool
	sticky  Result // of a kernel that failed: every later call's
	dead    bool
}

// New returns a driver. Report is told each fault as it is found; it may be nil.
func New(c Config, report func(error)) *Driver {
	d := &Driver{
		config: c, handles: map[Handle]any{}, last: 0x1000, current: map[int][]*context{}, calls: map[string]int{},
		modules: map[string]*ptx.Module{}, coverage: &ptx.Coverage{}, began: time.Now(), report: report,
	}
	for i := range c.Devices {
		d.devices = append(d.devices, &device{ordinal: i, memory: ptx.NewMemory(c.Memory)})
	}
	return d
}

// Inherit takes over the kernels that another driver has parsed, what of them has run, and what runs in their place.
func (d *Driver) Inherit(from *Driver) {
	from.mu.Lock()
	defer from.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.modules, d.coverage, d.override = maps.Clone(from.modules), from.coverage, maps.Clone(from.override)
}

// Faults are what kernels and callers did wrong so far.
func (d *Driver) Faults() []error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]error(nil), d.faults...)
}

// Calls is how often each function has been called.
func (d *Driver) Calls() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[string]int{}
	for name, n := range d.calls {
		out[name] = n
	}
	return out
}

// Kernels is how many kernels have run.
func (d *Driver) Kernels() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.kernels
}

// Override lets another kernel run in place of those of a name, from the next launch or graph on; nil takes it back.
func (d *Driver) Override(name string, k *ptx.Kernel) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.override == nil {
		d.override = map[string]*ptx.Kernel{}
	}
	d.override[name] = k
}

// Coverage gives each kernel of the loaded modules with the instructions that have run.
func (d *Driver) Coverage(yield func(k *ptx.Kernel, ran []ptx.Line) bool) {
	d.mu.Lock()
	var all []*ptx.Kernel
	for _, m := range d.modules {
		for _, name := range m.Kernels() {
			if k, err := m.Kernel(name); err == nil {
				all = append(all, k)
			}
		}
	}
	d.mu.Unlock()
	slices.SortFunc(all, func(a, b *ptx.Kernel) int { return strings.Compare(a.Name, b.Name) })
	for _, k := range all {
		if !yield(k, d.coverage.Ran(k)) {
			return
		}
	}
}

// Unrun lists the instructions of all kernels of the loaded modules that have not run.
func (d *Driver) Unrun() (lines []ptx.Line) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range d.modules {
		for _, name := range m.Kernels() {
			if k, err := m.Kernel(name); err == nil {
				lines = append(lines, d.coverage.Unrun(k)...)
			}
		}
	}
	return lines
}

// Leaks lists what has been made and not freed, in words.
func (d *Driver) Leaks() (all []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, dev := range d.devices {
		if c := dev.primary; c != nil {
			for a, n := range c.allocs {
				all = append(all, fmt.Sprintf("%d bytes of memory at %#x", n, a))
			}
			for _, b := range c.pinned {
				all = append(all, fmt.Sprintf("%d bytes of pinned memory", len(b)))
			}
		}
		if dev.retains > 0 {
			all = append(all, fmt.Sprintf("the primary context of device %d, retained %d times", dev.ordinal, dev.retains))
		}
	}
	for _, h := range d.handles {
		switch h.(type) {
		case *event, *graph, *graphExec:
			all = append(all, fmt.Sprintf("a %T", h)[len("a *model."):])
		case *stream:
			all = append(all, "stream")
		case *LtDesc, *LtLayout, *LtPreference, *ltHandle:
			all = append(all, fmt.Sprintf("cuBLASLt's %T", h))
		}
	}
	return all
}

func (d *Driver) handle(v any) Handle {
	d.last += 16
	d.handles[d.last] = v
	return d.last
}

// fault notes what a kernel or a caller did wrong.
func (d *Driver) fault(err error) {
	d.faults = append(d.faults, err)
	if d.report != nil {
		d.report(err)
	}
}

// enter counts a call, and says whether it is to fail. The caller holds the lock.
func (d *Driver) enter(call string) Result {
	d.calls[call]++
	if d.lost != Success {
		return d.lost
	}
	for _, f := range d.config.Fail {
		if f.Call == call && f.Nth == d.calls[call] {
			return f.Result
		}
	}
	return Success
}

// within begins a call that needs a context: that of the thread.
func (d *Driver) within(call string, thread int) (*context, Result) {
	if r := d.enter(call); r != Success {
		return nil, r
	}
	stack := d.current[thread]
	if len(stack) == 0 || stack[len(stack)-1] == nil {
		return nil, InvalidContext
	}
	c := stack[len(stack)-1]
	if c.dead {
		return nil, ContextIsDestroyed
	}
	return c, c.sticky
}

// DeviceGetCount is cuDeviceGetCount.
func (d *Driver) DeviceGetCount() (int, Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.devices), d.enter("cuDeviceGetCount")
}

// DeviceGet is cuDeviceGet.
func (d *Driver) DeviceGet(ordinal int) (int, Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.enter("cuDeviceGet"); r != Success {
		return 0, r
	}
	_, r := d.device(ordinal)
	return ordinal, r
}

func (d *Driver) device(ordinal int) (*device, Result) {
	if ordinal < 0 || ordinal >= len(d.devices) {
		return nil, InvalidDevice
	}
	return d.devices[ordinal], Success
}

// DeviceInfo is what cuDeviceGetName and cuDeviceTotalMem say; call is which.
func (d *Driver) DeviceInfo(call string, ordinal int) (name string, memory int64, r Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.enter(call); r != Success {
		return "", 0, r
	}
	_, r = d.device(ordinal)
	return d.config.Name, d.config.Memory, r
}

// DeviceGetAttribute is cuDeviceGetAttribute.
func (d *Driver) DeviceGetAttribute(attribute, ordinal int) (int, Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.enter("cuDeviceGetAttribute"); r != Success {
		return 0, r
	}
	if _, r := d.device(ordinal); r != Success {
		return 0, r
	}
	switch attribute {
	case 75:
		return d.config.Capability / 10, Success
	case 76:
		return d.config.Capability % 10, Success
	case 16:
		return d.config.SMs, Success
	}
	if v, ok := attributes[attribute]; ok {
		return v, Success
	}
	return 0, InvalidValue
}

// attributes are those whose value a program could need, by CUdevice_attribute.
var attributes = map[int]int{
	1: 1024, 2: 1024, 3: 1024, 4: 64, // threads of a block, and in each dimension
	5: 1<<31 - 1, 6: 65535, 7: 65535, // grid
	8: 48 << 10, 97: 163 << 10, 81: 164 << 10, // shared memory of a block, on request, of a multiprocessor
	9: 64 << 10, 10: 32, 12: 64 << 10, 82: 64 << 10, // constant memory, warp, registers
	13: 1000000, 36: 1000000, 37: 256, 38: 4 << 20, // clocks in kHz, bus width, L2
	15: 1, 17: 0, 18: 0, 19: 1, 20: 0, 31: 1, 32: 0, 39: 2048, 40: 2, 41: 1, 78: 0, 83: 0, 88: 0, 90: 0, 115: 0,
}

// DriverGetVersion is cuDriverGetVersion.
func (d *Driver) DriverGetVersion() (int, Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.config.Version, d.enter("cuDriverGetVersion")
}
