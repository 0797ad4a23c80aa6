package graph

import (
	"fmt"
	"slices"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"rung/nn/backend"
	"rung/nn/backend/host"
)

// Stock applies Gorgonia's own functions: for a head or a loss of a user's own, on the CPU. Such
// operators allocate, and see the capacities of a bucket, not the rows that are real: keep them behind
// (B,K) tables with a mask. Column views are copied for them.
func (b *Builder) Stock(f func(in ...*G.Node) (*G.Node, error), in ...E) E {
	ns := make([]*G.Node, len(in))
	for i, e := range in {
		if b.err != nil {
			return E{b: b}
		}
		if !b.owns(e) {
			return b.fail("graph: stock operator: input %d is no node of this graph", i)
		}
		if e.info().col >= 0 {
			if e = b.Scale(e, 1); !e.OK() {
				return e
			}
		}
		ns[i] = e.n
	}
	if b.err != nil {
		return E{b: b}
	}
	var n *G.Node
	if err := caught(func() (err error) { n, err = f(ns...); return err }); err != nil {
		return b.fail("graph: stock operator: %w", err)
	}
	b.adopt()
	if _, ok := b.info[n]; !ok {
		return b.fail("graph: stock operator: its node belongs to another graph")
	}
	return E{b, n}
}

// caught calls f; Gorgonia panics where it dislikes a shape.
func caught(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return f()
}

// restock applies o's operator to other inputs. With the same inputs Gorgonia gives the same node.
func (b *Builder) restock(o stock, in []E) E {
	if len(in) > 0 {
		return b.Stock(func(ns ...*G.Node) (*G.Node, error) { return G.ApplyOp(o.n.Op(), ns...) }, in...)
	}
	n := b.g.AddNode(G.NewConstant(o.n.Value()))
	b.adopt()
	return E{b, n}
}

// adopt records the nodes that Gorgonia added to the graph by itself, forward or in a SymDiff.
func (b *Builder) adopt() {
	for _, n := range b.g.AllNodes()[len(b.nodes):] {
		s := Shape{Dims: slices.Clone([]int(n.Shape()))}
		if len(s.Dims) == 0 {
			s.Dims = []int{1}
		}
		i := &info{op: stock{n}, col: -1}
		for it := b.g.From(n.ID()); it != nil && it.Next(); {
			c := E{b, it.Node().(*G.Node)}
			i.in = append(i.in, c)
			if cs := c.Shape(); s.Axis == backend.Fixed && cs.Dims[0] == s.Dims[0] {
				s.Axis = cs.Axis
			}
		}
		i.out = []Shape{s}
		b.record(n, i)
	}
}

// stock is a Gorgonia operator, or a constant of Gorgonia's.
type stock struct{ n *G.Node }

func (o stock) Name() string { return fmt.Sprint(o.n.Op()) }

// Infer is never asked: Gorgonia infers shapes of its own operators.
func (o stock) Infer([]Shape) ([]Shape, error) {
	return nil, fmt.Errorf("a stock operator is no operator of this package")
}

// Lower makes one call of the operator's Do on tensors over the arena.
func (o stock) Lower(l *Lowering, out, in []backend.Buf) {
	float64s := o.n.Dtype() == tensor.Float64
	l.Call(backend.Host, out, in, [4]int{}, [4]float64{})
	l.calls[len(l.calls)-1].Host = func(dst, src [][]byte) error {
		if float64s {
			return runStock[float64](o.n, in, dst, src)
		}
		return runStock[float32](o.n, in, dst, src)
	}
}

func runStock[F host.Float](n *G.Node, in []backend.Buf, dst, src [][]byte) error {
	v := n.Value() // of a constant
	if v == nil {
		args := make([]G.Value, len(src))
		it := n.Graph().From(n.ID())
		for i := range src {
			it.Next()
			if in[i].Ld != in[i].Cols {
				return fmt.Errorf("stock operator %v: input %d has gaps between its rows", n.Op(), i)
			}
			args[i] = tensorOver(host.Elements[F](src[i]), it.Node().(*G.Node).Shape())
		}
		var err error
		if v, err = n.Op().Do(args...); err != nil {
			return fmt.Errorf("stock operator %v: %w", n.Op(), err)
		}
	}
	out := host.Elements[F](dst[0])
	switch d := v.Data().(type) {
	case []F:
		if len(d) > len(out) {
			return fmt.Errorf("stock operator %v: a result of %d where %d were planned", n.Op(), len(d), len(out))
		}
		copy(out, d)
	case F:
		out[0] = d
	default:
		return fmt.Errorf("stock operator %v gave %T", n.Op(), d)
	}
	return nil
}

// tensorOver makes a fresh tensor each time: stock operators change their operands' strides.
func tensorOver[F host.Float](d []F, s tensor.Shape) G.Value {
	if s.IsScalar() {
		switch x := any(d[0]).(type) {
		case float32:
			return G.NewF32(x)
		case float64:
			return G.NewF64(x)
		}
	}
	n := s.TotalSize()
	return tensor.New(tensor.WithShape(s...), tensor.WithBacking(d[:n:n]))
}
