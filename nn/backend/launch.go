package backend

import "time"

// A Launch is a kernel that a device runs for calls: one for several of them, or one of several for a call.
type Launch struct {
	Kernel        string
	Unit          string // what multiplies: "fp32", "tf32" or "bf16"
	Grid          [3]int
	Block, Shared int    // threads, and bytes of dynamic shared memory, of a block
	Does          []Call // what it does of which calls: results that another launch computes are taken out
	Scratch       int    // elements of memory of the program's own that it reads or writes
}

// Work is the work of all that the launch does.
func (l *Launch) Work(s *Sizes) Work {
	w := Work{Elems: float64(l.Scratch)}
	for i := range l.Does {
		w.Add(l.Does[i].Work(s))
	}
	return w
}

// A Watch is told of a launch, the scalars that it runs with, and how long it took.
type Watch func(l *Launch, s *Scalars, d time.Duration)

// A Watcher is a Backend that tells which kernels it launches: those that it times because they are traced, or
// all, if it only records what a device would do.
type Watcher interface {
	Backend
	// Watch has later launches reported to f; nil ends that.
	Watch(f Watch)
}
