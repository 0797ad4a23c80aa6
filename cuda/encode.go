//go:build gpu

package cuda

import (
	"fmt"

	"rung/nn/backend"
)

// encoder turns the calls of a program into launches.
type encoder struct {
	be       *Backend
	bind     backend.Binding
	at       int // the call at hand
	now      *backend.Call
	launches []launch
	scratch  int // bytes that the greatest call needs
	table    []byte
	most     int
	updates  pending
	group    group
	choices  int // that were made so far, and
	choice   int // what launches are now part of: see driver.Launch
}

// resolved is a call with its memory.
type resolved struct {
	*backend.Call
	a args // operands and numbers
}

// call encodes one call.
func (e *encoder) call(c *backend.Call) error {
	e.now = c
	if c.Op == backend.Host {
		return fmt.Errorf("%s is a stock operator, which runs on the host: a GPU has only this project's own", c.Node)
	}
	if c.Op >= backend.NumOps || encoders[c.Op] == nil {
		return fmt.Errorf("%s needs a kernel %v, which this backend has not", c.Node, c.Op)
	}
	r, err := e.resolve(c)
	if err != nil {
		return err
	}
	joins := e.joins(c) && !(c.Op == backend.MatTN && e.givesTN(r))
	if !joins && !isUpdate(c.Op) {
		if err := e.flush(); err != nil {
			return err
		}
	}
	switch {
	case joins:
		return e.join(r)
	case isUpdate(c.Op):
		return e.update(r)
	}
	alive := false
	for i := range r.Out {
		alive = alive || !r.Out[i].Dead()
	}
	if !alive {
		return nil
	}
	if err := encoders[c.Op](e, r); err != nil {
		return fmt.Errorf("%s (%v): %w", c.Node, c.Op, err)
	}
	return nil
}

// resolve finds the memory of a call's operands.
func (e *encoder) resolve(c *backend.Call) (*resolved, error) {
	r := &resolved{Call: c}
	for k, n := range c.I {
		r.a.i[k] = int32(n)
	}
	r.a.f = c.F
	for k, b := range c.Out {
		if b.Acc && !c.Op.Accumulates(k) {
			return nil, fmt.Errorf("result %d of %s: kernel %v cannot add to what is there", k, c.Node, c.Op)
		}
		m, err := e.mat(b)
		if err != nil {
			return nil, fmt.Errorf("result %d of %s: %w", k, c.Node, err)
		}
		if k < len(r.a.out) {
			r.a.out[k] = m
		}
		if b.Acc {
			r.a.acc |= 1 << k
		}
	}
	for k, b := range c.In {
		m, err := e.mat(b)
		if err != nil {
			return nil, fmt.Errorf("input %d of %s: %w", k, c.Node, err)
		}
		if k < len(r.a.in) {
			r.a.in[k] = m
		}
	}
	return r, nil
}

// block is the memory that is bound as id of a space, and the element it starts at.
func (e *encoder) block(s backend.Space, id int) (*memory, int, error) {
	block := backend.Block{Mem: e.bind.Arena}
	if s != backend.Arena {
		if s >= backend.NumSpaces || id < 0 || id >= len(e.bind.Blocks[s]) {
			return nil, 0, fmt.Errorf("nothing is bound as %d of space %d", id, s)
		}
		block = e.bind.Blocks[s][id]
	}
	m, ok := block.Mem.(*memory)
	if !ok || m == nil {
		return nil, 0, fmt.Errorf("no device memory is bound as %d of space %d", id, s)
	}
	if m.be.device != e.be.device {
		return nil, 0, fmt.Errorf("%d of space %d is memory of %s", id, s, m.be.Name())
	}
	return m, block.Off, nil
}

// extent is the elements from the first to the last of b.
func extent(b backend.Buf) int {
	if b.Rows <= 0 || b.Cols <= 0 {
		return 0
	}
	return (b.Rows-1)*b.Ld + b.Cols
}

const elem = 4 // bytes of a float, and of an index

// mat finds a buffer's memory and checks that it lies inside.
func (e *encoder) mat(b backend.Buf) (mat, error) {
	if b.Dead() {
		return mat{}, nil
	}
	m, off, err := e.block(b.Space, b.ID)
	if err != nil {
		return mat{}, err
	}
	if b.Rows < 0 || b.Cols < 0 || b.Rows > 1 && b.Ld < b.Cols {
		return mat{}, fmt.Errorf("%dx%d elements, %d from row to row: not a matrix", b.Rows, b.Cols, b.Ld)
	}
	const most = 1<<31 - 1 // kernels count rows, columns and strides in int32
	if b.Rows > most || b.Cols > most || b.Ld > most {
		return mat{}, fmt.Errorf("%dx%d elements, %d from row to row: too large", b.Rows, b.Cols, b.Ld)
	}
	off += b.Off
	if n := int(m.size / elem); off < 0 || extent(b) > n || off > n-extent(b) {
		return mat{}, fmt.Errorf("elements %d to %d of a block of %d", off, off+extent(b), n)
	}
	if m.at == 0 {
		return mat{}, fmt.Errorf("memory that was freed")
	}
	return mat{uint64(m.at) + uint64(off)*elem, int32(b.Rows), int32(b.Cols), int32(b.Ld), int32(b.Axis)}, nil
}

// apart says how result k of a row reduction over axis is kept apart by units: where their bounds are,
// the elements from unit to unit, and how many there is memory for. Not at all: 0.
func (e *encoder) apart(c *backend.Call, k int, axis backend.Axis) (units uint64, stride int64, most int, err error) {
	out := c.Out[k]
	if e.bind.PerUnit <= 0 || axis == backend.Fixed || out.Space != backend.Grad {
		return 0, 0, 0, nil
	}
	m, off, err := e.block(backend.Index, e.bind.Units[axis])
	if err != nil {
		return 0, 0, 0, fmt.Errorf("units by %v: %w", axis, err)
	}
	n := int(m.size/elem) - off
	if off < 0 || n < 1 {
		return 0, 0, 0, fmt.Errorf("units by %v: element %d of an index of %d", axis, off, m.size/elem)
	}
	grad, goff, err := e.block(out.Space, out.ID)
	if err != nil {
		return 0, 0, 0, err
	}
	room := int(grad.size/elem) - goff - out.Off - extent(out) // mat has checked that the first fits
	fits := room/e.bind.PerUnit + 1
	if n-1 > fits && (e.most < 0 || fits < e.most) {
		e.most = fits // more is an error when it is launched
	}
	return uint64(m.at) + uint64(off)*elem, int64(e.bind.PerUnit), min(n-1, fits), nil
}

// add appends a launch of the call at hand, unless its grid is empty.
func (e *encoder) add(node string, l launch) {
	if l.grid[0] == 0 || l.grid[1] == 0 || l.grid[2] == 0 {
		return
	}
	l.node, l.call, l.choice = node, e.at, e.choice
	if l.does == nil && l.moves == 0 {
		l.does = []backend.Call{*e.now}
	}
	e.launches = append(e.launches, l)
}

// reads is what a call does but for writing its results, which another launch does.
func reads(c *backend.Call) backend.Call { return backend.Call{Op: c.Op, In: c.In, I: c.I} }

// writes is what writes results.
func writes(out ...backend.Buf) backend.Call { return backend.Call{Op: backend.Fill, Out: out} }

// need makes the scratch large enough for n floats.
func (e *encoder) need(n int) { e.scratch = max(e.scratch, n*elem) }

func ceil(a, b int) int { return (a + b - 1) / b }

// wide reports that every row of m is whole float4s.
func (m *mat) wide() bool {
	return m.dead() || m.p%16 == 0 && m.cols%4 == 0 && (m.rows <= 1 || m.ld%4 == 0)
}
