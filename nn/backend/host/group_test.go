package host

import (
	"slices"
	"testing"

	"rung/nn/backend"
)

// Matrices meet where they may have an element in common: columns side by side of the same rows do not.
func TestMeet(t *testing.T) {
	d := make([]float32, 1000)
	at := func(off, rows, cols, ld int) Mat[float32] { return Mat[float32]{d[off:], rows, cols, ld} }
	for _, c := range []struct {
		name string
		x, y Mat[float32]
		want bool
	}{
		{"the same", at(10, 4, 5, 8), at(10, 4, 5, 8), true},
		{"one inside the other", at(0, 10, 10, 10), at(33, 1, 3, 3), true},
		{"one after the other", at(0, 4, 8, 8), at(32, 4, 8, 8), false},
		{"the last element is the other's first", at(0, 4, 8, 8), at(31, 4, 8, 8), true},
		{"columns side by side", at(0, 9, 3, 12), at(3, 9, 9, 12), false},
		{"columns side by side, later rows", at(24, 5, 3, 12), at(3, 9, 9, 12), false},
		{"columns that overlap", at(0, 9, 4, 12), at(3, 9, 9, 12), true},
		{"columns that overlap, later rows", at(26, 5, 3, 12), at(3, 9, 9, 12), true},
		{"a row that runs into the next one's columns", at(10, 5, 4, 12), at(0, 9, 2, 12), true},
		{"rows of other lengths", at(0, 9, 3, 12), at(3, 9, 3, 11), true},
		{"no rows", at(0, 0, 3, 12), at(0, 9, 3, 12), false},
		{"nobody's", Mat[float32]{}, at(0, 9, 3, 12), false},
	} {
		x, y := []Mat[float32]{{}, c.x}, []Mat[float32]{c.y}
		if meet(x, y) != c.want || meet(y, x) != c.want {
			t.Errorf("%s: meet is %v, the other way %v, want %v", c.name, meet(x, y), meet(y, x), c.want)
		}
	}
}

// nothing is a crew that does no task.
type nothing struct{}

func (nothing) Do(*Job)    {}
func (nothing) Alone(*Job) {}
func (nothing) Close()     {}

// Calls are a group until one reads or writes what another writes, or there are as many as a group takes, and calls of a
// group share no scratch. Kernels in Go are by themselves.
func TestGroups(t *testing.T) {
	var k Kernels[float32]
	tasks := Phase[float32]{N: func(*Args[float32]) int { return 0 }, Record: func(*Args[float32], int, int) {}}
	const part = 40 // bytes of scratch of the one worker
	mine := tasks
	mine.Part = func(*Args[float32]) int { return part }
	k[backend.Add] = Kernel[float32]{Phases: []Phase[float32]{tasks, mine}, Scratch: func(*Args[float32]) int { return 100 }}
	k[backend.Mul] = Kernel[float32]{Phases: []Phase[float32]{{N: tasks.N, Run: func(*Args[float32], int, int) {}}}}
	pool := NewPool(1)
	defer pool.Close()
	if err := pool.Engage(func(int) (Crew, error) { return nothing{}, nil }); err != nil {
		t.Fatal(err)
	}
	be := New("test", pool, &k)
	mem, err := be.Reserve(1 << 12)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mem.Free() }()
	buf := func(k int) backend.Buf { return backend.Buf{Space: backend.Arena, Off: 8 * k, Rows: 2, Cols: 4, Ld: 4} }
	call := func(op backend.Op, out int, in ...int) backend.Call {
		c := backend.Call{Op: op, Node: "test", Out: []backend.Buf{buf(out)}}
		for _, i := range in {
			c.In = append(c.In, buf(i))
		}
		return c
	}
	calls := []backend.Call{
		call(backend.Add, 1, 0), call(backend.Add, 2, 0), // read the same
		call(backend.Add, 3, 2), call(backend.Add, 4, 0), // reads what the one before wrote
		call(backend.Add, 4, 5),                          // writes the same
		call(backend.Add, 5, 6), call(backend.Add, 7, 8), // writes what the one before reads
		call(backend.Mul, 9, 8), // in Go
		call(backend.Add, 10, 8),
	}
	want := []int{2, 4, 5, 7, 8}
	for k := range GroupSize {
		calls = append(calls, call(backend.Add, 11+k, 8))
	}
	want = append(want, 8+GroupSize, 9+GroupSize)
	x, err := be.Encode(calls, backend.Binding{Arena: mem})
	if err != nil {
		t.Fatal(err)
	}
	e := x.(*exec[float32])
	if !slices.Equal(e.groups, want) {
		t.Errorf("groups end at %v, want %v", e.groups, want)
	}
	lo := 0
	for _, hi := range e.groups {
		free := part // by the worker, and by those before
		for i := lo; i < hi; i++ {
			if at := e.args[i].at; e.args[i].Op == backend.Add && (at%64 != 0 || at+part < free || at+100 > len(e.scratch.b)) {
				t.Errorf("the scratch of call %d, at %d of its group, is at %d of %d; %d are taken", i, i-lo, at, len(e.scratch.b), free)
			} else if e.args[i].Op == backend.Add {
				free = at + 100
			}
		}
		lo = hi
	}
	half := groupScratch/2 + 64
	e.groups = nil
	if e.group(slices.Repeat([]int{half}, len(calls))); len(e.groups) != len(calls) {
		t.Errorf("groups of calls that take %d bytes each end at %v", half, e.groups)
	}
	if err := x.Launch(t.Context(), &backend.Scalars{}); err != nil {
		t.Error(err)
	}
	if err := x.Close(); err != nil {
		t.Error(err)
	}
}
