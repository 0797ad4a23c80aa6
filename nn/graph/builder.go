package graph

import (
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"rung/nn/backend"
)

// A Builder makes one ExprGraph. It keeps the first error, as bufio.Writer does: check Err, or let
// Compile report it. One goroutine uses it at a time.
type Builder struct {
	g      *G.ExprGraph
	dt     tensor.Dtype
	err    error
	serial int
	nodes  []*G.Node // in creation order, which is topological and the schedule
	info   map[*G.Node]*info
	leaves map[string]E
}

// info is what Gorgonia does not know about a node.
type info struct {
	at    int           // position in nodes
	space backend.Space // of a leaf; None for an operator's node
	name  string        // of a leaf
	op    Operator      // of an operator's node
	in    []E
	out   []Shape // the value, then what is saved
	of    E       // a view: result idx of node of, or its columns from col on
	idx   int
	col   int // -1: not columns
}

// E is an edge: a node of a graph that is being built, never a number. The zero E is no node.
type E struct {
	b *Builder
	n *G.Node
}

// New returns a builder of graphs of float32 or float64 elements.
func New(f backend.Float) *Builder {
	dt := tensor.Float32
	if f == backend.Float64 {
		dt = tensor.Float64
	}
	return &Builder{g: G.NewGraph(), dt: dt, info: map[*G.Node]*info{}, leaves: map[string]E{}}
}

// Err is the first error.
func (b *Builder) Err() error { return b.err }

// Fail records an error, unless there is one, and returns an edge that goes nowhere.
func (b *Builder) Fail(err error) E {
	if b.err == nil {
		b.err = err
	}
	return E{b: b}
}

func (b *Builder) fail(format string, a ...any) E { return b.Fail(fmt.Errorf(format, a...)) }

// OK reports that e is a node.
func (e E) OK() bool { return e.n != nil }

// Shape is the shape of e's value, empty after an error.
func (e E) Shape() Shape {
	if !e.OK() {
		return Shape{Dims: []int{0}}
	}
	return e.info().out[0]
}

// Node is the Gorgonia node, for tests that run the graph on a TapeMachine.
func (e E) Node() *G.Node { return e.n }

// Graph is the Gorgonia graph.
func (b *Builder) Graph() *G.ExprGraph { return b.g }

func (e E) info() *info { return e.b.info[e.n] }

// leaf makes an input node. Gorgonia identifies inputs by name, type and shape, so a second one would
// silently be the first: the Builder refuses one that differs, and returns the first for the same.
func (b *Builder) leaf(sp backend.Space, name string, s Shape) E {
	if b.err != nil {
		return E{b: b}
	}
	if e, ok := b.leaves[name]; ok {
		if i := e.info(); i.space != sp || !i.out[0].Equal(s) {
			return b.fail("graph: %q is both %v and %v", name, i.out[0], s)
		}
		return e
	}
	dt := b.dt
	if sp == backend.Index {
		dt = tensor.Int32
	}
	if !s.valid() {
		return b.fail("graph: %q has shape %v: want one or two dimensions of 1 to 2^28", name, s)
	}
	n := G.NewTensor(b.g, dt, len(s.Dims), G.WithShape(s.Dims...), G.WithName(name))
	e := b.record(n, &info{space: sp, name: name, out: []Shape{s}, col: -1})
	b.leaves[name] = e
	return e
}

// Param is a weight, bound at run time by its path.
func (b *Builder) Param(path string, dims ...int) E {
	return b.leaf(backend.Weight, path, Shape{Dims: dims})
}

// Input is floats that the host fills.
func (b *Builder) Input(name string, s Shape) E { return b.leaf(backend.Input, name, s) }

// Index is int32 values that the host fills: ids, offsets, slots.
func (b *Builder) Index(name string, s Shape) E { return b.leaf(backend.Index, name, s) }

func (b *Builder) record(n *G.Node, i *info) E {
	i.at = len(b.nodes)
	b.nodes = append(b.nodes, n)
	b.info[n] = i
	return E{b, n}
}

// index is e if it is an index, as input what of an operator has to be.
func (b *Builder) index(op, what string, e E) E {
	if b.err == nil && b.owns(e) && e.info().space != backend.Index {
		return b.fail("graph: %s: want %s to be an index, have %v of floats", op, what, e.Shape())
	}
	return e
}

// owns reports that e is a node of b.
func (b *Builder) owns(e E) bool { return e.OK() && e.b == b }

// Apply adds an operator.
func (b *Builder) Apply(op Operator, in ...E) E {
	nodes := make(G.Nodes, len(in))
	shapes := make([]Shape, len(in))
	for i, e := range in {
		if b.err != nil {
			return E{b: b}
		}
		if !e.OK() {
			return b.fail("graph: %s: input %d is missing", op.Name(), i)
		}
		if e.b != b {
			return b.fail("graph: %s: input %d belongs to another graph", op.Name(), i)
		}
		nodes[i], shapes[i] = e.n, e.Shape()
	}
	out, err := op.Infer(shapes)
	if err != nil {
		return b.fail("graph: %s%v: %w", op.Name(), shapes, err)
	}
	for _, s := range out {
		if !s.valid() {
			return b.fail("graph: %s%v: a result of %v is too large", op.Name(), shapes, s)
		}
	}
	return b.apply(&info{op: op, in: in, out: out, col: -1}, op.Name(), out[0], nodes)
}

// Saved returns result i of e, a view that costs nothing. i = 0 is e itself.
func (b *Builder) Saved(e E, i int) E {
	if b.err != nil {
		return E{b: b}
	}
	if !b.owns(e) {
		return b.fail("graph: result %d of no node of this graph", i)
	}
	if i == 0 {
		return e
	}
	if i < 0 || i >= len(e.info().out) {
		return b.fail("graph: result %d of %v, which has %d", i, e.n.Op(), len(e.info().out))
	}
	s := e.info().out[i]
	return b.apply(&info{in: []E{e}, out: []Shape{s}, of: e, idx: i, col: -1}, "saved", s, G.Nodes{e.n})
}

// apply makes the node. Gorgonia merges nodes whose 32-bit hashes collide, so the node must come back
// with our operator; if not, another serial number gives another hash.
func (b *Builder) apply(i *info, name string, s Shape, in G.Nodes) E {
	for range 8 {
		b.serial++
		op := &applied{b: b, info: i, name: fmt.Sprintf("%s#%d", name, b.serial), out: s}
		n, err := G.ApplyOp(op, in...)
		if err != nil {
			return b.fail("graph: %s: %w", name, err)
		}
		if n.Op() == G.Op(op) {
			return b.record(n, i)
		}
	}
	return b.fail("graph: %s: eight hash collisions in a row", name)
}
