package graph

import (
	"errors"
	"fmt"
	"hash"
	"hash/fnv"

	"github.com/chewxy/hm"
	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"rung/nn/backend"
)

// An Operator is a stateless value: attributes only. One wrapper makes each of them a gorgonia.SDOp.
type Operator interface {
	Name() string
	// Infer gives the shape of the value, then those of what is saved for backward.
	Infer(in []Shape) ([]Shape, error)
	// Lower appends backend calls on planned buffers. A result that nobody reads has a dead buffer.
	Lower(l *Lowering, out, in []backend.Buf)
}

// A Differ is an operator with a gradient. n is its node (saved results are b.Saved(n, i)); Diff
// returns one edge for each input, the zero E where there is no gradient.
type Differ interface {
	Operator
	Diff(b *Builder, n E, in []E, dy E) []E
}

// RowWise marks an operator whose output row i depends on row i of its row inputs only.
type RowWise interface{ RowWise() }

// An Accumulator is an operator that can add result i to what is there.
type Accumulator interface{ Accumulates(i int) bool }

// applied is an Operator in a graph: the ten methods of gorgonia.SDOp, once.
type applied struct {
	b    *Builder
	info *info
	name string
	out  Shape
}

var _ G.SDOp = (*applied)(nil)

func typeOf(dt tensor.Dtype, s Shape) hm.Type { return G.TensorType{Dims: len(s.Dims), Of: dt} }

// Type is called, and its result given back to a pool, at every inference: a new one each time.
func (a *applied) Type() hm.Type {
	ts := make([]hm.Type, 0, len(a.info.in)+1)
	for _, e := range a.info.in {
		ts = append(ts, e.n.Type())
	}
	return hm.NewFnType(append(ts, typeOf(a.b.dt, a.out))...)
}

func (a *applied) Arity() int { return len(a.info.in) }

func (a *applied) InferShape(...G.DimSizer) (tensor.Shape, error) {
	return tensor.Shape(a.out.Dims).Clone(), nil
}
func (a *applied) ReturnsPtr() bool      { return false }
func (a *applied) CallsExtern() bool     { return false }
func (a *applied) OverwritesInput() int  { return -1 }
func (a *applied) WriteHash(h hash.Hash) { fmt.Fprint(h, a.name) }
func (a *applied) Hashcode() uint32      { h := fnv.New32a(); a.WriteHash(h); return h.Sum32() }
func (a *applied) String() string        { return a.name }

// DiffWRT says which inputs have a gradient: all but the indexes.
func (a *applied) DiffWRT(n int) []bool {
	r := make([]bool, n)
	if _, ok := a.info.op.(Differ); ok {
		for i, e := range a.info.in {
			r[i] = e.info().space != backend.Index
		}
	}
	return r
}

// SymDiff is Gorgonia's entry to Diff. Gradients that nobody needs are pruned when programs are
// compiled.
func (a *applied) SymDiff(inputs G.Nodes, out, dy *G.Node) (G.Nodes, error) {
	d, ok := a.info.op.(Differ)
	if !ok {
		return nil, errors.New("it has none")
	}
	a.b.adopt() // dy may be a node of Gorgonia's own: it then knows no axis
	if s := a.b.info[dy]; s.out[0].Axis == backend.Fixed {
		s.out[0].Axis = a.out.Axis
	}
	in := make([]E, len(inputs)) // not a.info.in: backward may read copies that are computed again
	for i, n := range inputs {
		in[i] = E{a.b, n}
	}
	gs := d.Diff(a.b, E{a.b, out}, in, E{a.b, dy})
	ns := make(G.Nodes, len(gs))
	for i, g := range gs {
		ns[i] = g.n
	}
	return ns, a.b.err
}
