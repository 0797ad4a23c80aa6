//go:build gpu

// Package cuda is the backend on NVIDIA GPUs of compute capability 8.0 and later. It needs no CUDA toolkit:
// the kernels are PTX inside the binary (package kern), which the driver compiles, and the driver is
// found when the program runs (package driver).
//
// A program's calls become kernel launches when it is encoded, and one CUDA graph at its first launch. How
// many rows are real, seed, step and learning rates are read from device memory, so that the same graph
// serves every launch. Nothing waits for the device but reading
// what it has computed, and writing to it once the pinned memory between has gone round. Results are the same bits
// whenever the same program runs on the same kind of device with the same precision.
package cuda

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"gorgonia.org/cu"

	"rung/cuda/driver"
	"rung/cuda/kern"
	"rung/nn/backend"
)

// A Precision is what the operands of matrix products are rounded to. Sums, and all else, are float32.
type Precision int

// The precisions. FP32 uses no tensor cores.
const (
	FP32 Precision = iota // 24 significant bits
	TF32                  // 11
	BF16                  // 8
)

var precisions = [...]string{"fp32", "tf32", "bf16"}

func (p Precision) String() string { return precisions[p] }

// ParsePrecision is the precision of a name.
func ParsePrecision(name string) (Precision, error) {
	for p, s := range precisions {
		if s == name {
			return Precision(p), nil
		}
	}
	return 0, fmt.Errorf("cuda: precision %q: want fp32, tf32 or bf16", name)
}

// Variable is the environment variable with what is asked of devices, joined by commas: "sync" has every kernel waited for,
// so that an error names the kernel and operator where it happened; "cublaslt" has plain products computed by cuBLASLt.
const Variable = "RUNG_CUDA"

// settings reads the environment.
func settings() (wait, library bool, err error) {
	for _, word := range strings.FieldsFunc(os.Getenv(Variable), func(r rune) bool { return r == ',' || r == ' ' }) {
		switch word {
		case "sync":
			wait = true
		case "cublaslt":
			library = true
		default:
			return false, false, fmt.Errorf("%s: %q: want sync or cublaslt", Variable, word)
		}
	}
	return wait, library, nil
}

// least is the compute capability that the kernels need.
const least = 80

// leastCUDA is the CUDA version whose drivers take the kernels' PTX: that of NVRTC, which made it.
const leastCUDA = 11080

// Info is what a device is.
type Info struct {
	Ordinal    int
	Name       string
	Capability int   // 90 for 9.0
	Memory     int64 // bytes
	SMs        int   // multiprocessors
}

func (i Info) String() string {
	return fmt.Sprintf("cuda:%d %s, capability %d.%d, %.1f GiB", i.Ordinal, i.Name, i.Capability/10, i.Capability%10, float64(i.Memory)/(1<<30))
}

// Usable says why the kernels cannot run on the device.
func (i Info) Usable() error {
	if i.Capability < least {
		return fmt.Errorf("cuda: device %d (%s) has compute capability %d.%d; the kernels need %d.%d or later", i.Ordinal, i.Name, i.Capability/10, i.Capability%10, least/10, least%10)
	}
	return nil
}

// Devices lists the devices. Without a usable driver the error says why.
func Devices() ([]Info, error) {
	if why := driver.Why(); why != "" {
		return nil, fmt.Errorf("cuda: no usable driver: %s", why)
	}
	n, err := cu.NumDevices()
	if err != nil {
		return nil, fmt.Errorf("cuda: cuDeviceGetCount: %w", err)
	}
	all := make([]Info, n)
	for i := range all {
		if all[i], err = info(i); err != nil {
			return nil, fmt.Errorf("cuda: device %d: %w", i, err)
		}
	}
	return all, nil
}

func info(ordinal int) (Info, error) {
	i := Info{Ordinal: ordinal}
	d, err := cu.GetDevice(ordinal)
	if err != nil {
		return i, fmt.Errorf("cuDeviceGet: %w", err)
	}
	if i.Name, err = d.Name(); err != nil {
		return i, fmt.Errorf("cuDeviceGetName: %w", err)
	}
	if i.Memory, err = d.TotalMem(); err != nil {
		return i, fmt.Errorf("cuDeviceTotalMem: %w", err)
	}
	var major, minor int
	for _, a := range []struct {
		to *int
		of cu.DeviceAttribute
	}{{&major, cu.ComputeCapabilityMajor}, {&minor, cu.ComputeCapabilityMinor}, {&i.SMs, cu.MultiprocessorCount}} {
		if *a.to, err = d.Attribute(a.of); err != nil {
			return i, fmt.Errorf("cuDeviceGetAttribute: %w", err)
		}
	}
	i.Capability = 10*major + minor
	return i, nil
}

// DriverVersion is the CUDA version that the driver supports, as 13000 for 13.0; 0 without one.
func DriverVersion() int {
	if driver.Why() != "" {
		return 0
	}
	return cu.Version()
}

// A Backend runs programs on one device.
type Backend struct {
	info      Info
	precision Precision
	device    device
	sync      bool
	products  *products // nil: products run on our own kernels

	mu      sync.Mutex // guards what follows
	watch   backend.Watch
	modules map[string]driver.Module
	kernels map[string]driver.Kernel
	ring    ring
	reads   readback
}

// Open returns the backend on a device, whose primary context it keeps until Close.
func Open(ordinal int, p Precision) (*Backend, error) {
	all, err := Devices()
	if err != nil {
		return nil, err
	}
	if ordinal < 0 || ordinal >= len(all) {
		return nil, fmt.Errorf("cuda: no device %d: there are %d", ordinal, len(all))
	}
	if p < FP32 || p > BF16 {
		return nil, fmt.Errorf("cuda: no precision %d", p)
	}
	if err := all[ordinal].Usable(); err != nil {
		return nil, err
	}
	b := newBackend(all[ordinal], p)
	wait, library, err := settings()
	if err != nil {
		return nil, fmt.Errorf("cuda: %w", err)
	}
	b.sync = wait
	d, err := driver.Open(ordinal)
	if err != nil {
		return nil, fmt.Errorf("cuda: device %d: %w", ordinal, err)
	}
	b.device = card{d}
	if b.ring.b, err = b.device.Pin(ringBytes + readsBytes); err != nil {
		return nil, errors.Join(fmt.Errorf("cuda: device %d: %w", ordinal, err), b.device.Close())
	}
	b.split()
	if library {
		if err := b.openProducts(d); err != nil {
			_ = b.Close() // the reason is what counts
			return nil, fmt.Errorf("cuda: %s=cublaslt: %w", Variable, err)
		}
	}
	return b, nil
}

// split divides the pinned memory between what goes to the device and what comes from it.
func (b *Backend) split() { b.ring.b, b.reads.b = b.ring.b[:ringBytes], b.ring.b[ringBytes:] }

func newBackend(i Info, p Precision) *Backend {
	return &Backend{info: i, precision: p, modules: map[string]driver.Module{}, kernels: map[string]driver.Kernel{}}
}

// Name is what results depend on: the device and the precision, such as "cuda:0/tf32", and cuBLASLt's version where that is used.
func (b *Backend) Name() string {
	name := fmt.Sprintf("cuda:%d/%v", b.info.Ordinal, b.precision)
	if b.products != nil {
		name += "+cublaslt-" + b.products.library.Number()
	}
	return name
}

// Info is what the device is.
func (b *Backend) Info() Info { return b.info }

// Card is what launches depend on: what the device is called, its multiprocessors and its bytes of memory.
func (b *Backend) Card() (name string, sms int, memory int64) {
	return b.info.Name, b.info.SMs, b.info.Memory
}

// Exact reports that the operands of matrix products are not rounded.
func (b *Backend) Exact() bool { return b.precision == FP32 }

// Float is Float32.
func (b *Backend) Float() backend.Float { return backend.Float32 }

// Available is how many bytes of device memory are free.
func (b *Backend) Available() (int64, error) {
	n, _, err := b.device.Available()
	if err != nil {
		return 0, fmt.Errorf("backend %s: %w", b.Name(), err)
	}
	return n, nil
}

// Close lets go of the device. Memory and programs must be closed before.
func (b *Backend) Close() error {
	return errors.Join(b.device.Wait(), b.products.close(), b.device.Unpin(b.ring.b), b.device.Close())
}

// source is the file that a kernel is in.
func source(kernel string) (string, error) {
	for _, k := range kernelFiles {
		for _, name := range k.kernels {
			if name == kernel {
				return k.file, nil
			}
		}
	}
	return "", fmt.Errorf("cuda: no kernel %q", kernel)
}

// kernel loads a kernel, with the file that it is in.
func (b *Backend) kernel(name string, shared int) (driver.Kernel, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if k, ok := b.kernels[name]; ok {
		return k, nil
	}
	file, err := source(name)
	if err != nil {
		return driver.Kernel{}, err
	}
	m, ok := b.modules[file]
	if !ok {
		text, err := kern.PTX(file)
		if err != nil {
			return driver.Kernel{}, err
		}
		if m, err = b.device.Load(text); err != nil {
			err = fmt.Errorf("kernels %s: %w", file, err)
			if v := DriverVersion(); 0 < v && v < leastCUDA {
				err = fmt.Errorf("%w: the driver is for CUDA %d.%d, the kernels need %d.%d or later", err, v/1000, v%1000/10, leastCUDA/1000, leastCUDA%1000/10)
			}
			return driver.Kernel{}, err
		}
		b.modules[file] = m
	}
	k, err := b.device.Kernel(m, name, shared)
	if err != nil {
		return k, fmt.Errorf("kernel %s: %w", name, err)
	}
	b.kernels[name] = k
	return k, nil
}

var _ backend.Backend = (*Backend)(nil)
