package host

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
)

// A Pool is the worker goroutines that kernels run on. Work is handed out in small pieces. Each worker has
// a share of its own, always the same part of the rows: what it made in one kernel it finds in its core's
// caches in the next. One that has done its share takes of the others', so that a worker whose core is
// taken away holds nobody up; who computes a piece never changes what it computes.
//
// Kernels that are not in Go have a Crew instead.
type Pool struct {
	workers int
	wake    []chan *job
	busy    sync.Mutex // one parallel section at a time
	job     job        // that section
	crew    Crew
}

type job struct {
	run    func(worker, lo, hi int)
	n      int
	grain  int
	shares []share // by worker
	done   sync.WaitGroup
	failed atomic.Pointer[failure]
}

// A share is pieces of grain elements, from next on, below end.
type share struct {
	next atomic.Int64
	end  int64
	_    [48]byte // workers count on cache lines of their own
}

// NewPool starts workers-1 goroutines: the caller of Do is the last worker. Close ends them.
func NewPool(workers int) *Pool {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	p := &Pool{workers: workers}
	p.job.shares = make([]share, workers)
	for worker := 1; worker < workers; worker++ {
		ch := make(chan *job, 1)
		p.wake = append(p.wake, ch)
		go func() {
			for j := range ch {
				j.work(worker)
				j.done.Done()
			}
		}()
	}
	return p
}

var shared struct {
	sync.Mutex
	pools map[int]*Pool
}

// SharedPool returns the pool of the process: as many workers as GOMAXPROCS says, which Go sets by
// the cgroup's CPU limit. It lives as long as the process.
func SharedPool() *Pool {
	shared.Lock()
	defer shared.Unlock()
	n := runtime.GOMAXPROCS(0)
	if shared.pools == nil {
		shared.pools = map[int]*Pool{}
	}
	if shared.pools[n] == nil {
		shared.pools[n] = NewPool(n)
	}
	return shared.pools[n]
}

// Workers is the number of goroutines that compute, the caller's included.
func (p *Pool) Workers() int { return p.workers }

// Close ends the workers. Do must not be called afterwards.
func (p *Pool) Close() {
	for _, ch := range p.wake {
		close(ch)
	}
	if p.crew != nil {
		p.crew.Close()
	}
}

// Do calls run on pieces of [0,n) of at most grain, on all workers, and returns when all are done. No
// two calls at one time have the same worker, which is below Workers. A panic in run becomes an error.
// While another goroutine has the workers the caller computes alone: several small programs at once then
// use one core each.
func (p *Pool) Do(n, grain int, run func(worker, lo, hi int)) error {
	grain = max(1, grain)
	helpers := min(len(p.wake), (n-1)/grain)
	if helpers <= 0 || !p.busy.TryLock() {
		return alone(n, grain, run)
	}
	defer p.busy.Unlock()
	j := &p.job
	j.run, j.n, j.grain = run, n, grain
	pieces, sharers := (n+grain-1)/grain, helpers+1
	for i := range j.shares {
		s := &j.shares[i]
		s.end = 0
		if i < sharers {
			s.end = int64((i + 1) * pieces / sharers)
			s.next.Store(int64(i * pieces / sharers))
		}
	}
	j.failed.Store(nil)
	j.done.Add(helpers)
	for _, ch := range p.wake[:helpers] {
		ch <- j
	}
	j.work(0)
	j.done.Wait()
	j.run = nil
	if f := j.failed.Load(); f != nil {
		return f
	}
	return nil
}

// alone runs the same pieces in order.
func alone(n, grain int, run func(worker, lo, hi int)) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = failed(r)
		}
	}()
	for lo := 0; lo < n; lo += grain {
		run(0, lo, min(lo+grain, n))
	}
	return nil
}

func (j *job) work(worker int) {
	defer func() {
		if r := recover(); r != nil {
			j.failed.CompareAndSwap(nil, failed(r)) // the others stop
		}
	}()
	for k := range j.shares {
		s := &j.shares[(worker+k)%len(j.shares)]
		for s.next.Load() < s.end && j.failed.Load() == nil {
			i := s.next.Add(1) - 1
			if i >= s.end {
				break
			}
			lo := int(i) * j.grain
			j.run(worker, lo, min(lo+j.grain, j.n))
		}
	}
}

// A failure is a panic in a kernel, and where it was.
type failure struct {
	what  any
	where string
}

// failed makes a failure; it is called where the panic is recovered.
func failed(what any) *failure {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for panicked := false; ; {
		f, more := frames.Next()
		if panicked && !strings.HasPrefix(f.Function, "runtime.") {
			return &failure{what, fmt.Sprintf("%s:%d", filepath.Base(f.File), f.Line)}
		}
		panicked = panicked || f.Function == "runtime.gopanic"
		if !more {
			return &failure{what, "an unknown place"}
		}
	}
}

func (f *failure) Error() string { return fmt.Sprintf("panic at %s: %v", f.where, f.what) }
