// Package backend is the contract between compiled programs and the kernels that run them: types only.
//
// A program is a list of Calls on Bufs. A Buf says where a matrix will be (which space, at which
// offset) but holds no memory: a Binding gives that when the program is encoded, so that one program
// serves many sets of weights. Call is data: a CPU walks the list, CUDA captures it.
package backend

import (
	"context"
	"errors"
)

// ErrMemory reports that a backend has no memory left for what it was to reserve: less may fit.
var ErrMemory = errors.New("out of memory")

// An Axis says what the rows of a matrix count. Capacities are fixed when a program is compiled; how
// many rows are real is known only when it runs, and no kernel reads or writes a row beyond that.
type Axis uint8

// The axes. Letters are those of the dimension legend in package nn.
const (
	Fixed   Axis = iota // rows of a weight: all are real
	Tok                 // T: tokens of packed sequences
	Seq                 // N: sequences
	Unit                // B: units (a query with its candidates, or one row)
	NumAxes = 4
)

func (a Axis) String() string { return [...]string{"", "T", "N", "B"}[a&3] }

// A Space is where a buffer lives. All but the arena are bound when a program is encoded.
type Space uint8

// The spaces.
const (
	None      Space = iota // a result that nobody reads: it has no memory, kernels skip it
	Arena                  // planned memory of one run
	Weight                 // a parameter
	Grad                   // the gradient of a parameter, or one a unit
	Input                  // floats that the host fills
	Index                  // int32 values that the host fills
	Moment1                // AdamW's first moments, flat
	Moment2                // AdamW's second moments, flat
	NumSpaces = 8
)

// A Buf is a matrix of Rows x Cols elements with Ld elements from row to row. Off and Ld count
// elements; Rows is a capacity. Of one in space None nothing else need be set.
type Buf struct {
	Space          Space
	Axis           Axis
	Acc            bool // a result is added to what is there
	First          bool // it is whole and the first of the program to be added there: see Overwriter
	ID             int  // which weight, gradient, input or index
	Off            int  // from the start of the space or of what is bound
	Rows, Cols, Ld int
}

// Dead reports that nobody reads b.
func (b Buf) Dead() bool { return b.Space == None }

// ColsOf returns columns j to j+n of b: a view.
func (b Buf) ColsOf(j, n int) Buf {
	if b.Space != None {
		b.Off, b.Cols = b.Off+j, n
	}
	return b
}

// A Call is one kernel on buffers. Which buffers and numbers (I, F) an operation takes is said at its Op.
type Call struct {
	Op      Op
	Node    string // the operator of the graph that asked for it, for messages
	Out, In []Buf
	I       [4]int
	F       [4]float64
	// Host is what a call of Op Host does, on CPU backends only: results and inputs are whole buffers.
	Host func(out, in [][]byte) error
}

// Scalars change from launch to launch and are read where the kernels run.
type Scalars struct {
	Count [NumAxes]int // real rows, by axis
	Seed  uint64       // key of the Philox generator
	Step  uint64       // update step, counted from 0: part of Philox counters, and of AdamW's bias correction
	LR    [8]float64   // learning rate of each parameter group
	Clip  float64      // greatest global gradient norm; 0: not clipped
}

// Float is the element type of a backend's floats.
type Float uint8

// Float64 exists on the reference backend, for gradient checks.
const (
	Float32 Float = iota
	Float64
)

// Size is the size of an element in bytes.
func (f Float) Size() int { return 4 << f }

// Memory is a block of a backend's memory.
type Memory interface {
	Size() int64                         // in bytes
	Host() []byte                        // the block itself where the host can address it, else nil
	ReadAt(dst []byte, off int64) error  // waits for what was launched before
	WriteAt(src []byte, off int64) error // ordered after what was launched before
	Clear(off, n int64) error            // sets n bytes to zero
	Free() error
}

// Sparse is memory that can keep account of its parts that are zero, so that they need be neither cleared nor
// updated: a batch touches few rows of an embedding table.
type Sparse interface {
	Memory
	Track() // before anything is written; Host is for reading from then on
}

// Later is memory of a device that can be read without waiting for it.
type Later interface {
	Memory
	// ReadLater copies what stands at off after all that was launched before. The function that it returns is called once: it
	// waits, if need be, and fills dst.
	ReadLater(dst []byte, off int64) (func() error, error)
}

// A Block is part of a memory, from element Off on.
type Block struct {
	Mem Memory
	Off int
	// Version points at a number that changes whenever the elements do: kernel forms of a weight
	// (packed, transposed) are cached by it, and made before or beside other calls of a launch: a program that writes the
	// block multiplies by nothing in it. Nil: they change at every launch.
	Version *uint64
}

// A Binding gives the memory of a program's spaces.
type Binding struct {
	Arena   Memory
	Blocks  [NumSpaces][]Block // by Buf.ID; nothing for None and Arena
	PerUnit int                // gradients: elements from unit to unit; 0: one gradient for all
	// Units holds, by axis, the index input with the first row of each unit, and the end: B+1 values from
	// where its block starts. Only of interest with PerUnit; results of units beyond the real count are
	// left as they are.
	Units [NumAxes]int
}

// A Backend runs programs. Its methods may be called from several goroutines.
type Backend interface {
	Name() string // device and instruction set, such as "cpu/avx2"
	Float() Float
	// Reserve allocates zeroed memory. It is the only method that runs out of memory.
	Reserve(bytes int64) (Memory, error)
	// Encode prepares calls to be launched on the memory that b names. It refuses buffers that do not
	// lie inside.
	Encode(calls []Call, b Binding) (Exec, error)
}

// An Exec is a program on its memory. One goroutine uses it at a time.
type Exec interface {
	// Launch runs the calls in order. On a device it may return before they end; reading their
	// results waits. It checks ctx between calls; an error leaves the results undefined.
	Launch(ctx context.Context, s *Scalars) error
	Bytes() int64 // memory it reserved besides what is bound: scratch, forms of weights
	Close() error
}

// An Overwriter is an Exec that spares gradients being cleared and read again before there is anything in them.
type Overwriter interface {
	Exec
	// Overwrite has later launches write the results that are First over what is there, or add them as the others.
	Overwrite(on bool)
}
