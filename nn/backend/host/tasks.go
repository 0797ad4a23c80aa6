package host

import (
	"unsafe"
)

// Tasks are recorded calls of kernels that are not in Go, in pieces that a Crew does in any order. A task is a
// word, which holds what the kernel is (16 bits), where in its argument the address of the worker's scratch goes
// (16 bits, in bytes; 0: nowhere) and the words to the next task (32 bits), then the argument.
type Tasks struct {
	words  []uint64
	starts []uint32 // of the pieces, and the end
	extra  int      // of the pieces, the last ones that are in no worker's share
}

// A Crew does recorded tasks on threads of its own and the caller's. Workers have equal shares of the pieces but for
// the last extra ones, which are done by who has nothing else to do. A worker's scratch is part bytes from the next
// worker's.
type Crew interface {
	Do(words []uint64, starts []uint32, extra int, scratch []byte, part int)
	Alone(words []uint64, starts []uint32, scratch []byte) // on the caller's thread
	Close()
}

// Add records a call of a kernel with an argument of so many bytes.
func (t *Tasks) Add(kernel, slot int, arg unsafe.Pointer, bytes uintptr) {
	n := int(bytes+7) / 8
	t.words = append(t.words, uint64(kernel)|uint64(slot)<<16|uint64(n+1)<<32)
	t.words = append(t.words, unsafe.Slice((*uint64)(arg), n)...)
}

// record makes the tasks of pieces of [0,n) of at most grain.
func (e *exec[F]) record(n, grain int, add func(a *Args[F], lo, hi int)) error {
	t := &e.tasks
	t.words, t.starts, t.extra = t.words[:0], append(t.starts[:0], 0), 0
	return e.more(e.a, n, grain, add)
}

// more adds pieces of another range. A panic in add becomes an error, and leaves nothing of what it was at.
func (e *exec[F]) more(a *Args[F], n, grain int, add func(a *Args[F], lo, hi int)) (err error) {
	t := &e.tasks
	defer func() {
		if r := recover(); r != nil {
			err = failed(r)
			t.words = t.words[:t.starts[len(t.starts)-1]]
		}
	}()
	for lo := 0; lo < n; lo += grain {
		add(a, lo, min(lo+grain, n))
		if end := uint32(len(t.words)); end > t.starts[len(t.starts)-1] {
			t.starts = append(t.starts, end)
		}
	}
	return nil
}

// do has the pool's crew do the tasks, or the caller if there is one piece or others have the workers.
func (p *Pool) do(t *Tasks, scratch []byte, part int) {
	switch pieces := len(t.starts) - 1; {
	case pieces == 0:
	case pieces == 1 || p.workers == 1 || !p.busy.TryLock():
		p.crew.Alone(t.words, t.starts, scratch)
	default:
		defer p.busy.Unlock()
		p.crew.Do(t.words, t.starts, t.extra, scratch, part)
	}
}

// Engage gives the pool a crew, which hire makes of so many workers, unless it has one.
func (p *Pool) Engage(hire func(workers int) (Crew, error)) (err error) {
	p.busy.Lock()
	defer p.busy.Unlock()
	if p.crew == nil {
		p.crew, err = hire(p.workers)
	}
	return err
}
