//go:build gpu

package cuda

import (
	"sync"
	"time"

	"rung/cuda/driver"
	"rung/nn/backend"
)

// A device is what the backend needs of a driver's.
type device interface {
	Alloc(n int64) (driver.Address, error)
	Free(a driver.Address) error
	Available() (available, total int64, err error)
	Pin(n int) ([]byte, error)
	Unpin(b []byte) error
	Write(to driver.Address, from []byte) error
	Read(to []byte, from driver.Address) error
	Fetch(to []byte, from driver.Address) error
	Clear(to driver.Address, n int64) error
	Wait() error
	Load(ptx string) (driver.Module, error)
	Kernel(m driver.Module, name string, shared int) (driver.Kernel, error)
	List(launches []driver.Launch) (list, error)
	Close() error
}

// A list is launches that a device has accepted: see driver.List.
type list interface {
	Run(c driver.Counts, wait bool) (failed int, err error)
	Time(c driver.Counts, ms []float32) (failed int, err error)
	Replay(c driver.Counts) (failed int, err error)
	Skipped(i int) bool
	Close() error
}

// card is the driver's device.
type card struct{ *driver.Device }

func (c card) List(launches []driver.Launch) (list, error) { return c.NewList(launches) }

// Record returns a backend that needs neither driver nor device, and computes nothing: it encodes programs as
// one on the device i would, keeps count of memory, and tells a Watch what would be launched. Whatever is read is
// left as it is.
func Record(i Info, p Precision) *Backend {
	b := newBackend(i, p)
	b.device = &paper{memory: i.Memory, next: 1 << 20, sizes: map[driver.Address]int64{}, cleared: b.cleared}
	b.ring.b = make([]byte, ringBytes+readsBytes)
	b.split()
	return b
}

// Watch has later launches reported to f: all of a backend that records, else those that are traced.
func (b *Backend) Watch(f backend.Watch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.watch = f
}

// watched is what Watch was given; recorded: launches take no time.
func (b *Backend) watched() (f backend.Watch, recorded bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, recorded = b.device.(*paper)
	return b.watch, recorded
}

// cleared tells of memory that is set to 0, which is a launch of the driver's own.
func (b *Backend) cleared(n int64) {
	if f, _ := b.watched(); f != nil {
		f(&backend.Launch{Kernel: "memset", Unit: FP32.String(), Scratch: int(n / elem)}, &backend.Scalars{}, 0)
	}
}

// tell reports the launches of a program that has run.
func (x *exec) tell(s *backend.Scalars, timed bool) {
	f, recorded := x.be.watched()
	if f == nil || !timed && !recorded {
		return
	}
	for i := range x.launches {
		if x.list.Skipped(i) {
			continue
		}
		d := time.Duration(0)
		if timed && !recorded {
			d = time.Duration(float64(x.ms[i]) * 1e6)
		}
		f(&x.launches[i], s, d)
	}
}

// paper is a device that exists on paper alone.
type paper struct {
	mu           sync.Mutex
	memory, used int64
	next         driver.Address
	sizes        map[driver.Address]int64
	cleared      func(n int64)
}

const granule = 256 // bytes, of addresses

func (p *paper) Alloc(n int64) (driver.Address, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n = (n + granule - 1) &^ (granule - 1)
	if n > p.memory-p.used {
		return 0, &driver.Error{Call: "cuMemAlloc_v2", Code: driver.NoMemory, Name: "CUDA_ERROR_OUT_OF_MEMORY"}
	}
	a := p.next
	p.next, p.used, p.sizes[a] = p.next+driver.Address(n), p.used+n, n
	return a, nil
}

func (p *paper) Free(a driver.Address) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used -= p.sizes[a]
	delete(p.sizes, a)
	return nil
}

func (p *paper) Available() (available, total int64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.memory - p.used, p.memory, nil
}

func (p *paper) Clear(_ driver.Address, n int64) error {
	p.cleared(n)
	return nil
}

func (p *paper) Pin(n int) ([]byte, error)          { return make([]byte, n), nil }
func (p *paper) Unpin([]byte) error                 { return nil }
func (p *paper) Write(driver.Address, []byte) error { return nil }
func (p *paper) Read([]byte, driver.Address) error  { return nil }
func (p *paper) Fetch([]byte, driver.Address) error { return nil }
func (p *paper) Wait() error                        { return nil }
func (p *paper) Close() error                       { return nil }
func (p *paper) Load(string) (driver.Module, error) { return driver.Module{}, nil }
func (p *paper) List([]driver.Launch) (list, error) { return unrun{}, nil }

func (p *paper) Kernel(driver.Module, string, int) (driver.Kernel, error) {
	return driver.Kernel{}, nil
}

// unrun is launches that nobody runs.
type unrun struct{}

func (unrun) Run(driver.Counts, bool) (int, error)       { return -1, nil }
func (unrun) Time(driver.Counts, []float32) (int, error) { return -1, nil }
func (unrun) Replay(driver.Counts) (int, error)          { return -1, nil }
func (unrun) Skipped(int) bool                           { return false }
func (unrun) Close() error                               { return nil }

var _ backend.Watcher = (*Backend)(nil)
