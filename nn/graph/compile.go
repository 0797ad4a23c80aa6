package graph

import (
	"fmt"
	"slices"

	G "gorgonia.org/gorgonia"

	"rung/nn/backend"
)

// A Spec says what to compile.
type Spec struct {
	Outputs map[string]E
	Seeds   []Seed
	Wrt     []E  // weights whose gradients the program adds up
	PerUnit bool // keep the gradients of units apart
	Keep    []E  // recomputation: what backward reads of forward; all else is computed again
}

// A Leaf is something that a Run binds: a weight or gradient by path, an input by name.
type Leaf struct {
	Name  string
	Shape Shape
}

// A Program is immutable and shared: it holds neither weights nor memory.
type Program struct {
	Float   backend.Float
	Calls   []backend.Call
	Leaves  [backend.NumSpaces][]Leaf // of weights, gradients, inputs and indexes, by Buf.ID
	Out     map[string]backend.Buf
	Arena   int // elements
	Bound   int // no plan can be smaller: the most elements that live at one time
	PerUnit bool
	Units   [backend.NumAxes]int // per unit: the index input with the first rows of units, by axis
}

// A Lowering collects the calls of one operator after another.
type Lowering struct {
	calls []backend.Call
	node  string
}

// Call appends a call.
func (l *Lowering) Call(op backend.Op, out, in []backend.Buf, i [4]int, f [4]float64) {
	l.calls = append(l.calls, backend.Call{Op: op, Node: l.node, Out: out, In: in, I: i, F: f})
}

// result names one result of one node.
type result struct {
	n   *G.Node
	idx int
}

func resultOf(e E) result {
	i := e.info()
	switch {
	case !i.of.OK():
		return result{e.n, 0}
	case i.col >= 0:
		return resultOf(i.of)
	}
	return result{i.of.n, i.idx}
}

type compiler struct {
	b      *Builder
	p      *Program
	spec   Spec
	live   map[*G.Node]bool
	reads  map[result]int   // by operators, outputs and gradients
	last   map[result]int   // position of the last reader
	sink   map[result][]int // the gradients that a result is added to
	bufs   map[result]backend.Buf
	placed map[result]backend.Buf // decided before its operator is lowered
	temps  []interval
}

// forever is a position after every node.
const forever = 1 << 30

// Compile differentiates, lowers and plans. The Builder is of no use afterwards.
func Compile(b *Builder, s Spec) (*Program, error) {
	c := &compiler{
		b: b, spec: s, p: &Program{Out: map[string]backend.Buf{}, PerUnit: s.PerUnit}, live: map[*G.Node]bool{},
		reads: map[result]int{}, last: map[result]int{}, sink: map[result][]int{},
		bufs: map[result]backend.Buf{}, placed: map[result]backend.Buf{},
	}
	if b.dt.String() == "float64" {
		c.p.Float = backend.Float64
	}
	grads := b.VJP(s.Seeds, s.Wrt, s.Keep...)
	if b.err != nil {
		return nil, b.err
	}
	for name, e := range s.Outputs {
		if !b.owns(e) {
			return nil, fmt.Errorf("graph: output %q is no node of this graph", name)
		}
		c.live[e.n] = true
		c.reads[resultOf(e)]++
		c.last[resultOf(e)] = forever
	}
	asked := map[*G.Node]bool{}
	for i, w := range s.Wrt {
		name := w.info().name
		if w.info().space != backend.Weight {
			return nil, fmt.Errorf("graph: a gradient is asked of %q %v, which is no weight", name, w.Shape())
		}
		if asked[w.n] {
			return nil, fmt.Errorf("graph: the gradient of %q is asked twice", name)
		}
		asked[w.n] = true
		c.p.Leaves[backend.Grad] = append(c.p.Leaves[backend.Grad], Leaf{name, w.Shape()})
		for _, e := range grads[i] {
			if e.info().op == nil && e.info().idx == 0 {
				return nil, fmt.Errorf("graph: the gradient of %q is a seed or columns of another node, which no operator makes", name)
			}
			c.live[e.n] = true
			c.reads[resultOf(e)]++
			c.sink[resultOf(e)] = append(c.sink[resultOf(e)], i)
		}
	}
	c.reach()
	c.elide()
	c.alias()
	if err := c.lower(); err != nil {
		return nil, err
	}
	c.place()
	return c.p, nil
}

// reach marks what outputs and gradients need, and counts readers.
func (c *compiler) reach() {
	for t, n := range slices.Backward(c.b.nodes) {
		if !c.live[n] {
			continue
		}
		i := c.b.info[n]
		for _, e := range i.in {
			c.live[e.n] = true
			if !i.of.OK() {
				r := resultOf(e)
				c.reads[r]++
				c.last[r] = max(c.last[r], t)
			}
		}
	}
}

func (c *compiler) lower() error {
	l := &Lowering{}
	for t, n := range c.b.nodes {
		i := c.b.info[n]
		if !c.live[n] || i.of.OK() {
			continue
		}
		if i.space != backend.None {
			c.bufs[result{n, 0}] = c.bind(i.space, i.name, i.out[0])
			continue
		}
		if err := c.operator(l, t, n, i); err != nil {
			return err
		}
	}
	c.p.Calls = l.calls
	for name, e := range c.spec.Outputs {
		c.p.Out[name] = c.buf(e)
	}
	if c.spec.PerUnit {
		n := len(c.p.Leaves[backend.Index])
		for k, a := range []backend.Axis{backend.Tok, backend.Seq, backend.Unit} {
			c.p.Units[a] = n + k
			c.p.Leaves[backend.Index] = append(c.p.Leaves[backend.Index], Leaf{Name: UnitRows(a)})
		}
	}
	return nil
}

// UnitRows names the index input of a per-unit program that has, for an axis, the first row of each
// unit, and the end.
func UnitRows(a backend.Axis) string { return "units." + a.String() }

// operator lowers one node: its results go to gradients, to decided places or to temporaries.
func (c *compiler) operator(l *Lowering, t int, n *G.Node, i *info) error {
	in, out := make([]backend.Buf, len(i.in)), make([]backend.Buf, len(i.out))
	for k, e := range i.in {
		in[k] = c.buf(e)
	}
	type sum struct{ to, from backend.Buf }
	var late []sum
	for k, s := range i.out {
		r := result{n, k}
		if c.reads[r] == 0 {
			continue // the operator sees no buffer
		}
		sinks := c.sink[r]
		acc, _ := i.op.(Accumulator)
		direct := acc != nil && acc.Accumulates(k) && len(sinks) == 1 && c.reads[r] == 1
		if b, ok := c.placed[r]; ok {
			out[k] = b
		} else if direct {
			out[k] = c.grad(sinks[0], s)
			out[k].Acc = true
		} else {
			if c.spec.PerUnit && len(sinks) > 0 {
				return fmt.Errorf("graph: %s cannot give the gradient of %q per unit", i.op.Name(), c.p.Leaves[backend.Grad][sinks[0]].Name)
			}
			out[k] = c.temp(s, t, max(t, c.last[r]))
		}
		if !direct {
			for _, g := range sinks {
				late = append(late, sum{c.grad(g, s), out[k]})
			}
		}
		c.bufs[r] = out[k]
	}
	l.node = n.Op().String()
	i.op.Lower(l, out, in)
	for _, s := range late {
		l.Call(backend.AddTo, []backend.Buf{s.to}, []backend.Buf{s.from}, [4]int{}, [4]float64{})
	}
	return nil
}

// buf is where e is: a result, or columns of one.
func (c *compiler) buf(e E) backend.Buf {
	if i := e.info(); i.col >= 0 {
		return c.buf(i.of).ColsOf(i.col, i.out[0].Cols())
	}
	return c.bufs[resultOf(e)]
}

func (c *compiler) bind(sp backend.Space, name string, s Shape) backend.Buf {
	b := s.buf()
	b.Space, b.ID = sp, len(c.p.Leaves[sp])
	c.p.Leaves[sp] = append(c.p.Leaves[sp], Leaf{name, s})
	return b
}

func (c *compiler) grad(id int, s Shape) backend.Buf {
	b := s.buf()
	b.Space, b.ID = backend.Grad, id
	return b
}

// temp makes a temporary; its ID is its number until place gives it an offset.
func (c *compiler) temp(s Shape, from, to int) backend.Buf {
	b := s.buf()
	b.Space, b.ID = backend.Arena, len(c.temps)
	c.temps = append(c.temps, interval{size: (s.Size() + 15) &^ 15, from: from, to: to})
	return b
}
