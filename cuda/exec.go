//go:build gpu

package cuda

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"rung/cuda/driver"
	"rung/nn/backend"
)

// exec is a program on its memory: launches, which become a graph.
type exec struct {
	be    *Backend
	nodes []string // by launch: kernel and operator, for messages
	of    []int    // by launch: the call that it belongs to
	calls int
	list  list
	own   *memory // scalars, tables, scratch
	most  int     // units that there is memory for; -1: any number
	trace backend.Trace
	ms    []float32

	launches []backend.Launch // what nodes names, for a Watch
}

// Encode turns calls into launches.
func (b *Backend) Encode(calls []backend.Call, bind backend.Binding) (backend.Exec, error) {
	e := encoder{be: b, bind: bind, most: -1}
	for i := range calls {
		e.at = i
		if err := e.call(&calls[i]); err != nil {
			return nil, fmt.Errorf("backend %s: %w", b.Name(), err)
		}
	}
	err := e.flush()
	var x *exec
	if err == nil {
		x, err = e.finish(len(calls))
	}
	if err != nil {
		return nil, fmt.Errorf("backend %s: %w", b.Name(), err)
	}
	return x, nil
}

// launch is a kernel to be launched, of which not all addresses are known yet.
type launch struct {
	kernel        string
	grid          [3]int
	block, shared int
	args          *args
	gemm          *gemm
	scratch       bool // Args.scratch, or Gemm.part, is the scratch
	table         bool // input 0, and 1 if it is set, are places in the table
	node          string
	call          int
	does          []backend.Call // see backend.Launch; nil: the call at hand
	moves         int            // elements of scratch that it reads or writes
	product       *driver.Product
	choice        int
}

// finish reserves the program's own memory, and fills in where it is.
func (e *encoder) finish(calls int) (*exec, error) {
	const tables = 256 // scalars come first
	scratch := tables + (len(e.table)+255)&^255
	x := &exec{be: e.be, calls: calls, most: e.most}
	var err error
	if x.own, err = e.be.reserve(int64(scratch + e.scratch)); err != nil {
		return nil, err
	}
	base := uint64(x.own.at)
	out := make([]driver.Launch, 0, len(e.launches))
	for i := range e.launches {
		l := &e.launches[i]
		d := driver.Launch{Grid: l.grid, Block: l.block, Shared: l.shared, Product: l.product, Choice: l.choice}
		switch {
		case l.product != nil:
		case l.gemm != nil:
			l.gemm.s = base
			if l.scratch {
				l.gemm.part = base + uint64(scratch)
			}
			d.Args = structBytes(l.gemm)
		default:
			l.args.s = base
			if l.scratch {
				l.args.scratch = base + uint64(scratch)
			}
			if l.table {
				for k := range 2 {
					if k == 0 || l.args.in[k].axis == -1 {
						l.args.in[k].p += base + tables
					}
				}
			}
			d.Args = structBytes(l.args)
		}
		if l.product == nil {
			if d.Kernel, err = e.be.kernel(l.kernel, l.shared); err != nil {
				return nil, errors.Join(fmt.Errorf("%s: %w", l.node, err), x.own.Free())
			}
		}
		out = append(out, d)
		x.nodes = append(x.nodes, fmt.Sprintf("kernel %s of %s", l.kernel, l.node))
		x.of = append(x.of, l.call)
		x.launches = append(x.launches, backend.Launch{
			Kernel: l.kernel, Unit: unitOf(l.kernel), Grid: l.grid, Block: l.block, Shared: l.shared, Does: l.does, Scratch: l.moves,
		})
	}
	if err := e.be.write(x.own.at+tables, e.table); err != nil {
		return nil, errors.Join(err, x.own.Free())
	}
	if x.list, err = e.be.device.List(out); err != nil {
		return nil, errors.Join(err, x.own.Free())
	}
	return x, nil
}

// Launch uploads the scalars and launches the graph. It does not wait.
func (x *exec) Launch(ctx context.Context, s *backend.Scalars) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if x.list == nil {
		return errors.New("a program that was closed")
	}
	if n := s.Count[backend.Unit]; x.most >= 0 && n > x.most {
		return fmt.Errorf("backend %s: %d units, but memory for the gradients of %d", x.be.Name(), n, x.most)
	}
	d := scalarsOf(s)
	if err := x.be.write(x.own.at, structBytes(&d)); err != nil {
		return fmt.Errorf("backend %s: %w", x.be.Name(), err)
	}
	var failed int
	var err error
	switch counts := driver.Counts(d.count); {
	case x.trace != nil:
		failed, err = x.timed(counts)
	case x.be.sync:
		failed, err = x.list.Run(counts, true)
	default:
		failed, err = x.list.Replay(counts)
	}
	if err != nil && failed >= 0 {
		return fmt.Errorf("backend %s: %s: %w", x.be.Name(), x.nodes[failed], err)
	}
	if err != nil {
		return fmt.Errorf("backend %s: %w", x.be.Name(), err)
	}
	x.tell(s, x.trace != nil)
	return nil
}

// unitOf is what a kernel multiplies in.
func unitOf(kernel string) string {
	for _, p := range []Precision{BF16, TF32} {
		if strings.Contains(kernel, p.String()) {
			return p.String()
		}
	}
	return FP32.String()
}

// timed launches one by one and reports the time of each call.
func (x *exec) timed(c driver.Counts) (failed int, err error) {
	if failed, err = x.list.Time(c, x.ms); err != nil {
		return failed, err
	}
	for i := 0; i < len(x.of); {
		call, ms := x.of[i], float32(0)
		for ; i < len(x.of) && x.of[i] == call; i++ {
			ms += x.ms[i]
		}
		x.trace(call, time.Duration(float64(ms)*1e6))
	}
	return -1, nil
}

// Trace has launches report the time of each call, as events on the device measure it: the kernels run
// one by one then, not as a graph.
func (x *exec) Trace(f backend.Trace) {
	x.trace = f
	if x.ms == nil {
		x.ms = make([]float32, len(x.of))
	}
}

// Bytes is scalars, tables and scratch.
func (x *exec) Bytes() int64 { return x.own.Size() }

// Close frees what the program has of its own, after what was launched.
func (x *exec) Close() error {
	if x.list == nil {
		return nil
	}
	err := errors.Join(x.be.device.Wait(), x.list.Close(), x.own.Free())
	x.list = nil
	return err
}

var _ backend.Tracer = (*exec)(nil)
