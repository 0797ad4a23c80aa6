package host

import (
	"unsafe"
)

// Tasks are recorded calls of kernels that are not in Go, in pieces that a Crew does in any order. A task is a
// word, which holds what the kernel is (16 bits), where in its argument the address of the worker's scratch goes
// (16 bits, in bytes; 0: nowhere) and the words to the next task (32 bits), then the argument.
type Tasks struct{ job Job }

// A Job is tasks in pieces: piece p starts at word Starts[p] and ends where the next one starts. Workers have equal
// shares of the pieces of each segment, the ends of which are Ends. Pieces after the last one are done by who has nothing
// else to do. A worker's scratch is Stride bytes from the next worker's.
type Job struct {
	Words   []uint64
	Starts  []uint32 // of the pieces, and the end
	Ends    []int
	Scratch []byte
	Stride  int
}

// A Crew does jobs on threads of its own and the caller's.
type Crew interface {
	Do(j *Job)
	Alone(j *Job) // on the caller's thread
	Close()
}

// Add records a call of a kernel with an argument of so many bytes.
func (t *Tasks) Add(kernel, slot int, arg unsafe.Pointer, bytes uintptr) {
	n := int(bytes+7) / 8
	t.job.Words = append(t.job.Words, uint64(kernel)|uint64(slot)<<16|uint64(n+1)<<32)
	t.job.Words = append(t.job.Words, unsafe.Slice((*uint64)(arg), n)...)
}

// pieces is how many there are.
func (j *Job) pieces() int { return len(j.Starts) - 1 }

// reset forgets all tasks.
func (j *Job) reset() {
	j.Words, j.Starts, j.Ends = j.Words[:0], append(j.Starts[:0], 0), j.Ends[:0]
}

// cut forgets all but the first n pieces.
func (j *Job) cut(n int) {
	j.Starts = j.Starts[:n+1]
	j.Words = j.Words[:j.Starts[n]]
}

// record adds the tasks of pieces of [0,n) of at most grain. Of a panic in add, which becomes an error, nothing is left.
func (e *exec[F]) record(a *Args[F], n, grain int, add func(a *Args[F], lo, hi int)) (err error) {
	j := &e.tasks.job
	had := j.pieces()
	defer func() {
		if r := recover(); r != nil {
			err = failed(r)
			j.cut(had)
		}
	}()
	for lo := 0; lo < n; lo += grain {
		add(a, lo, min(lo+grain, n))
		if end := uint32(len(j.Words)); end > j.Starts[len(j.Starts)-1] {
			j.Starts = append(j.Starts, end)
		}
	}
	return nil
}

// segment ends one, of what was recorded since the one before.
func (j *Job) segment() { j.Ends = append(j.Ends, j.pieces()) }

// do has the pool's crew do a job, or the caller if there is one piece or others have the workers.
func (p *Pool) do(j *Job) {
	switch pieces := j.pieces(); {
	case pieces == 0:
	case pieces == 1 || p.workers == 1 || !p.busy.TryLock():
		p.crew.Alone(j)
	default:
		defer p.busy.Unlock()
		p.crew.Do(j)
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
