package ptx

import "fmt"

// A Dim is the size of a grid or a block, or a place in it.
type Dim struct{ X, Y, Z int }

// Size is the number of places; a Y or Z of 0 counts as 1.
func (d Dim) Size() int { return d.X * max(d.Y, 1) * max(d.Z, 1) }

func (d Dim) String() string { return fmt.Sprintf("(%d,%d,%d)", d.X, d.Y, d.Z) }

// place is the i-th place in a grid or block.
func (d Dim) place(i int) Dim {
	y := max(d.Y, 1)
	return Dim{i % d.X, i / d.X % y, i / (d.X * y)}
}

// A Kind is what sort of thing is wrong.
type Kind int

// The kinds of faults.
const (
	Address    Kind = iota // outside an allocation, or freed
	Misaligned             // not aligned to the access
	Unwritten              // a read of what nothing has written
	Race                   // unordered accesses, a cp.async under way among them
	Deadlock               // threads wait for ever, or at different barriers
	Collective             // lanes that an instruction of the warp needs take no part
	Endless                // a block runs on and on
	Assertion              // trap, or a failed assertion
	Illegal                // operands that the instruction does not take
)

// A Fault is what a launch found wrong: at one instruction, in one thread.
type Fault struct {
	Kind        Kind
	Kernel      string
	Line        int    // of the PTX text, from 1
	Instruction string // as it stands there
	Block       Dim
	Thread      Dim // in the block
	Problem     string
}

func (f *Fault) Error() string {
	return fmt.Sprintf("ptx: kernel %s, line %d (%s), block %s, thread %s: %s", f.Kernel, f.Line, f.Instruction, f.Block, f.Thread,
		f.Problem)
}

// fault ends the launch: the worker recovers the panic.
func (w *warp) fault(lane int, kind Kind, format string, args ...any) {
	w.unlock()
	f := &Fault{Kind: kind, Kernel: w.b.k.Name, Block: w.b.index, Thread: w.thread(lane), Problem: fmt.Sprintf(format, args...)}
	if int(w.pc) < len(w.b.k.code) {
		in := &w.b.k.code[w.pc]
		f.Line, f.Instruction = int(in.line), in.text
	}
	panic(f)
}

// thread is the place of a lane's thread in its block.
func (w *warp) thread(lane int) Dim { return w.b.block.place(w.id*32 + lane) }
