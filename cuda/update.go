//go:build gpu

package cuda

import (
	"fmt"

	"rung/nn/backend"
)

// pieceSize is how many elements of a gradient or of weights a block works at.
const pieceSize = 1 << 14

// sumSq makes a table of pieces of all gradients: one kernel sums those, a second the pieces of each.
func (e *encoder) sumSq(r *resolved) error {
	var pieces []piece
	first := []int32{0}
	for k := range r.In {
		m, err := e.operand(r, k)
		if err != nil {
			return err
		}
		size := int(m.rows) * int(m.cols)
		if size > 1<<31-1 {
			return fmt.Errorf("a gradient of %dx%d elements is more than a kernel counts", m.rows, m.cols)
		}
		for i := 0; i < size; i += pieceSize {
			pieces = append(pieces, piece{m.p, m.cols, m.ld, int32(i), int32(min(pieceSize, size-i))})
		}
		first = append(first, int32(len(pieces)))
	}
	a := &r.a
	a.in[0] = mat{p: e.tabled(bytesOf(pieces)), axis: -1}
	a.in[1] = mat{p: e.tabled(bytesOf(first)), axis: -1}
	parts := 2 * len(pieces) // doubles
	e.need(parts)
	e.add(r.Node, launch{
		kernel: "sumsq_pieces", grid: [3]int{len(pieces), 1, 1}, block: threads, args: a, scratch: true, table: true,
		does: []backend.Call{reads(r.Call)}, moves: parts,
	})
	second := *a
	e.add(r.Node, launch{
		kernel: "sumsq", grid: [3]int{len(r.In), 1, 1}, block: threads, args: &second, scratch: true, table: true,
		does: []backend.Call{writes(r.Out...)}, moves: parts,
	})
	return nil
}

// tabled appends to the table and returns the place in it.
func (e *encoder) tabled(b []byte) uint64 {
	for len(e.table)%16 != 0 {
		e.table = append(e.table, 0)
	}
	at := len(e.table)
	e.table = append(e.table, b...)
	return uint64(at)
}

// pending is updates of one kind with the same factor, which become one launch.
type pending struct {
	op     backend.Op
	node   string
	call   int // the last that joined
	factor uint64
	pieces []weights
	does   []backend.Call
}

func isUpdate(op backend.Op) bool {
	return op == backend.AdamW || op == backend.SGD || op == backend.Adagrad || op == backend.Shrink
}

// update collects an update; others of its kind that follow join it.
func (e *encoder) update(r *resolved) error {
	a, p := &r.a, &e.updates
	if len(p.pieces) > 0 && (p.op != r.Op || p.factor != a.in[1].p) {
		if err := e.flush(); err != nil {
			return err
		}
	}
	if g := r.I[0]; g < 0 || g >= len(backend.Scalars{}.LR) {
		return fmt.Errorf("%s: no parameter group %d", r.Node, g)
	}
	p.op, p.node, p.call, p.factor = r.Op, r.Node, e.at, a.in[1].p
	p.does = append(p.does, *r.Call)
	w := weights{w: a.out[0].p, g: a.in[0].p, group: int32(r.I[0]), flag: int32(r.I[1]), f: r.F}
	switch r.Op {
	case backend.AdamW:
		w.m, w.v, w.top = a.out[1].p, a.out[2].p, a.out[3].p
	case backend.SGD:
		w.m = a.out[1].p
	case backend.Adagrad:
		w.v = a.out[1].p
	}
	for size := r.Out[0].Cols; size > 0; size -= pieceSize {
		w.n = int32(min(pieceSize, size))
		p.pieces = append(p.pieces, w)
		for _, q := range []*uint64{&w.w, &w.m, &w.v, &w.top, &w.g} {
			if *q != 0 {
				*q += pieceSize * elem
			}
		}
	}
	return nil
}

// flush launches the updates and gradients that were collected.
func (e *encoder) flush() error {
	at := e.at
	defer func() { e.at = at }()
	if p := &e.updates; len(p.pieces) > 0 {
		a := &args{}
		a.in[0] = mat{p: e.tabled(bytesOf(p.pieces)), axis: -1}
		a.in[1] = mat{p: p.factor}
		kernel := map[backend.Op]string{backend.AdamW: "adamw", backend.SGD: "sgd", backend.Adagrad: "adagrad", backend.Shrink: "shrink"}[p.op]
		e.at = p.call
		e.add(p.node, launch{kernel: kernel, grid: [3]int{len(p.pieces), 1, 1}, block: threads, args: a, table: true, does: p.does})
		*p = pending{}
	}
	if g := &e.group; len(g.products) > 0 {
		e.at = g.call
		err := e.sums(g.node, g.products, 0, 0, 0)
		*g = group{}
		if err != nil {
			return fmt.Errorf("%s: %w", g.node, err)
		}
	}
	return nil
}
