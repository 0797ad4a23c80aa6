package graph

import (
	"slices"

	G "gorgonia.org/gorgonia"
)

// A Seed is an output and the gradient that flows into it.
type Seed struct{ Out, Grad E }

// VJP is reverse-mode differentiation: the contributions to the gradient of each of wrt, not summed,
// so that their producers can add them straight into the gradient. Nothing is built on paths that
// lead to no wrt: that is all that freezing needs.
//
// With keep, backward reads only those results of forward; the rest is computed again from them when
// the reverse pass gets there. Creation order is the schedule, so nothing else has to know.
func (b *Builder) VJP(seeds []Seed, wrt []E, keep ...E) [][]E {
	if b.err != nil {
		return nil
	}
	d := &reverse{b: b, need: map[*G.Node]bool{}, grads: map[*G.Node][]E{}, pieces: map[*G.Node][]piece{}, keep: keep, again: b.again(keep)}
	for _, w := range wrt {
		if !b.owns(w) {
			b.fail("graph: a gradient is asked of no node of this graph")
			return nil
		}
		d.need[w.n] = true
	}
	for _, e := range keep {
		if !b.owns(e) {
			b.fail("graph: what recomputation keeps is no node of this graph")
			return nil
		}
	}
	order := slices.Clone(b.nodes)
	for _, n := range order {
		for _, c := range b.info[n].in {
			d.need[n] = d.need[n] || d.need[c.n]
		}
	}
	for _, s := range seeds {
		if !b.owns(s.Out) || !b.owns(s.Grad) {
			b.fail("graph: an output or its seed is no node of this graph")
			return nil
		}
		if !s.Out.Shape().Equal(s.Grad.Shape()) {
			b.fail("graph: a seed of %v for an output of %v", s.Grad.Shape(), s.Out.Shape())
			return nil
		}
		d.grads[s.Out.n] = append(d.grads[s.Out.n], s.Grad)
	}
	for _, n := range slices.Backward(order) {
		d.node(n)
	}
	if b.err != nil {
		return nil
	}
	out := make([][]E, len(wrt))
	for k, w := range wrt {
		out[k] = d.grads[w.n]
	}
	return out
}

type reverse struct {
	b      *Builder
	need   map[*G.Node]bool
	grads  map[*G.Node][]E
	pieces map[*G.Node][]piece // gradients of column views
	keep   []E
	again  func(E) E
}

// node sends the gradient of n to its inputs.
func (d *reverse) node(n *G.Node) {
	b := d.b
	i := b.info[n]
	if ps := d.pieces[n]; len(ps) > 0 { // n may be a weight: then this is a contribution like any other
		d.grads[n] = append(d.grads[n], b.pack(ps, i.out[0]))
	}
	gs := d.grads[n]
	if b.err != nil || !d.need[n] || len(gs) == 0 || len(i.in) == 0 {
		return
	}
	dy := b.fanIn(gs)
	if i.col >= 0 {
		d.pieces[i.of.n] = append(d.pieces[i.of.n], piece{i.col, dy})
		return
	}
	if i.of.OK() {
		b.fail("graph: result %d of %v is saved for backward and has no gradient", i.idx, i.of.n.Op())
		return
	}
	children, twins := make(G.Nodes, len(i.in)), make(G.Nodes, len(i.in))
	for k, c := range i.in {
		children[k], twins[k] = c.n, d.again(c).n
	}
	twin := n // an operator's own value and saved results are at hand
	if len(d.keep) > 0 {
		twin = d.again(E{b, n}).n
	}
	op, ok := n.Op().(G.SDOp)
	if !ok {
		b.fail("graph: %v has no gradient", n.Op())
		return
	}
	which := op.DiffWRT(len(children))
	if b.err != nil {
		return
	}
	var ds G.Nodes
	err := caught(func() (err error) { ds, err = twin.Op().(G.SDOp).SymDiff(twins, twin, dy.n); return err })
	if err != nil {
		b.fail("graph: gradient of %v: %w", n.Op(), err)
		return
	}
	b.adopt()
	for k, c := range children {
		if which[k] && d.need[c] && ds[k] != nil {
			d.grads[c] = append(d.grads[c], E{b, ds[k]})
		}
	}
}

// fanIn is the sum of gradients. Those that matmuls give are one call, which sums while it multiplies and adds to
// the others; the calls that it replaces are pruned.
func (b *Builder) fanIn(gs []E) E {
	var products, sum E
	for _, g := range gs {
		to := &sum
		if o := (linearDX{}); g.info().op == Operator(o) {
			if to = &products; products.OK() {
				products = b.Apply(o, slices.Concat(products.info().in, g.info().in)...)
				continue
			}
		}
		if o, ok := g.info().op.(groupOut); to.OK() && ok && !o.plus {
			g = b.Apply(groupOut{o.group, true}, append(slices.Clone(g.info().in), *to)...)
		} else if to.OK() {
			g = b.Add(*to, g)
		}
		*to = g
	}
	switch {
	case b.err != nil:
		return E{b: b}
	case !products.OK():
		return sum
	case !sum.OK():
		return products
	}
	return b.Apply(linearDX{plus: true}, append([]E{sum}, products.info().in...)...)
}

// cheaply returns a function that gives a node of forward, or the same value made once more where one
// pass over another saved result does it: GELU of the pre-activation, LayerNorm of the sum. Backward
// needs those results anyway, so that the value need not outlive forward: a third of what training
// keeps.
func (b *Builder) cheaply() func(E) E {
	done := map[*G.Node]E{}
	return func(e E) E {
		if x, ok := done[e.n]; ok {
			return x
		}
		i := e.info()
		switch op := i.op.(type) {
		case linear:
			if op.gelu {
				done[e.n] = b.GELU(b.Saved(e, 1))
				return done[e.n]
			}
		case norm:
			if op.res {
				done[e.n] = b.LayerNorm(b.Saved(e, 3), i.in[2], i.in[3], op.eps)
				return done[e.n]
			}
		}
		return e
	}
}

// again returns a function that gives a node of forward, or its copy computed from keep.
func (b *Builder) again(keep []E) func(E) E {
	if len(keep) == 0 {
		return b.cheaply()
	}
	done := map[*G.Node]E{}
	for _, e := range keep {
		done[e.n] = e
	}
	var f func(e E) E
	f = func(e E) E {
		if x, ok := done[e.n]; ok {
			return x
		}
		i := e.info()
		if len(i.in) == 0 {
			return e
		}
		in := make([]E, len(i.in))
		for k, c := range i.in {
			in[k] = f(c)
		}
		done[e.n] = b.redo(i, in)
		return done[e.n]
	}
	return f
}

// redo makes what i is once more, of other inputs: in this graph or in another.
func (b *Builder) redo(i *info, in []E) E {
	switch o, isStock := i.op.(stock); {
	case i.col >= 0:
		return b.Cols(in[0], i.col, i.out[0].Cols())
	case i.of.OK():
		return b.Saved(in[0], i.idx)
	case isStock:
		return b.restock(o, in)
	}
	return b.Apply(i.op, in...)
}
