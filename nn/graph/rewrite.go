package graph

import (
	"slices"

	G "gorgonia.org/gorgonia"

	"rung/nn/backend"
)

// A rule returns what replaces e in the new graph, or the zero E.
type rule func(r *rebuild, e E) E

// rebuild copies a graph into another.
type rebuild struct {
	from, to *Builder
	rules    []rule
	uses     map[*G.Node]int // live consumers, and outputs
	users    map[*G.Node][]E // live consumers in creation order
	done     map[*G.Node]E
	rows     map[[2]*G.Node]E    // first rows of a node, by offsets
	chosen   map[*G.Node]*G.Node // nodes of which only first rows are read, and the offsets
}

// Rewrite returns outs rebuilt: row selection pushed down, low-rank terms and activations fused into
// their Linears, then Linears of one input joined.
func Rewrite(outs []E) (*Builder, []E) {
	var b *Builder
	for _, rules := range [][]rule{{pushRows}, {fuseLowRank, fuseGELU, fuseResidual}, {joinLinears}} {
		b, outs = apply(outs, rules...)
	}
	return b, outs
}

func apply(outs []E, rules ...rule) (*Builder, []E) {
	from := New(backend.Float32) // of no outputs, or of one that was never a node
	if len(outs) > 0 && outs[0].b != nil {
		from = outs[0].b
	}
	to := &Builder{g: G.NewGraph(), dt: from.dt, err: from.err, info: map[*G.Node]*info{}, leaves: map[string]E{}}
	r := &rebuild{
		from: from, to: to, rules: rules, uses: map[*G.Node]int{}, users: map[*G.Node][]E{},
		done: map[*G.Node]E{}, rows: map[[2]*G.Node]E{}, chosen: map[*G.Node]*G.Node{},
	}
	res := make([]E, len(outs))
	if from.err != nil {
		for i := range res {
			res[i] = E{b: to}
		}
		return to, res
	}
	for _, o := range outs {
		if !from.owns(o) {
			to.fail("graph: an output to rewrite is no node of the graph")
			for i := range res {
				res[i] = E{b: to}
			}
			return to, res
		}
		r.uses[o.n]++
	}
	for _, n := range slices.Backward(from.nodes) {
		if r.uses[n] > 0 {
			for _, c := range from.info[n].in {
				r.uses[c.n]++
			}
		}
	}
	for _, n := range from.nodes {
		for _, c := range from.info[n].in {
			if r.uses[n] > 0 {
				r.users[c.n] = append(r.users[c.n], E{from, n})
			}
		}
	}
	r.choose()
	for i, o := range outs {
		res[i] = r.get(o)
	}
	return to, res
}

// get returns e's counterpart in the new graph.
func (r *rebuild) get(e E) E {
	if x, ok := r.done[e.n]; ok {
		return x
	}
	x := r.make(e)
	r.done[e.n] = x
	return x
}

func (r *rebuild) make(e E) E {
	for _, f := range r.rules {
		if x := f(r, e); x.b != nil {
			return x
		}
	}
	i := e.info()
	if i.space != backend.None {
		return r.to.leaf(i.space, i.name, i.out[0])
	}
	return r.to.redo(i, r.all(i.in))
}

func (r *rebuild) all(in []E) []E {
	out := make([]E, len(in))
	for i, e := range in {
		out[i] = r.get(e)
	}
	return out
}

// only returns e's operator if e has one consumer.
func (r *rebuild) only(e E) Operator {
	if r.uses[e.n] != 1 {
		return nil
	}
	return e.info().op
}

// choose finds the token rows of which nothing but the first of each sequence is ever read: each
// consumer selects them, or is row-wise and itself read only there, or is an attention read only there
// that takes the node as its queries. An output is not chosen.
func (r *rebuild) choose() {
	for _, n := range slices.Backward(r.from.nodes) {
		i := r.from.info[n]
		if r.uses[n] == 0 || r.uses[n] != len(r.users[n]) || i.out[0].Axis != backend.Tok || len(i.out[0].Dims) != 2 {
			continue
		}
		var offsets *G.Node
		for k, u := range r.users[n] {
			o := r.selects(u, n)
			if o == nil || k > 0 && o != offsets {
				offsets = nil
				break
			}
			offsets = o
		}
		if offsets != nil {
			r.chosen[n] = offsets
		}
	}
}

// selects returns the offsets at which u reads only first rows of n, else nil.
func (r *rebuild) selects(u E, n *G.Node) *G.Node {
	i := u.info()
	switch op := i.op.(type) {
	case pool:
		if op == poolFirst {
			return i.in[1].n
		}
		return nil
	case attention:
		if op.one || i.in[1].n == n || i.in[2].n == n || r.chosen[u.n] != i.in[3].n {
			return nil
		}
		return i.in[3].n
	case dropout: // its rows will be sequences by these offsets, which must be those of its keys
		if o := r.chosen[u.n]; o != nil && i.in[1].Shape().Dims[0] == r.from.info[o].out[0].Dims[0]-1 {
			return o
		}
		return nil
	case RowWise:
		return r.chosen[u.n]
	}
	return nil
}

// pushRows replaces the selection of first rows by computing only those: the last layer of a
// CLS-scored model then has one row a sequence.
func pushRows(r *rebuild, e E) E {
	if i := e.info(); i.op == Operator(poolFirst) {
		return r.firstRows(i.in[0], i.in[1])
	}
	return E{}
}

func (r *rebuild) firstRows(x, offsets E) E {
	key := [2]*G.Node{x.n, offsets.n}
	if y, ok := r.rows[key]; ok {
		return y
	}
	y := r.pushed(x, offsets)
	if y.b == nil {
		y = r.to.First(r.get(x), r.get(offsets))
	}
	r.rows[key] = y
	return y
}

// pushed is first rows of x computed from first rows of its inputs, or the zero E.
func (r *rebuild) pushed(x, offsets E) E {
	if r.chosen[x.n] != offsets.n {
		return E{}
	}
	in := x.info().in
	switch op := x.info().op.(type) {
	case attention:
		op.one = true
		return r.to.Apply(op, append([]E{r.firstRows(in[0], offsets)}, r.all(in[1:])...)...)
	case dropout:
		op.one = true
		return r.to.Apply(op, r.firstRows(in[0], offsets), r.get(in[1]))
	case RowWise:
		args := make([]E, len(in))
		for i, a := range in {
			if a.Shape().Axis == backend.Tok {
				args[i] = r.firstRows(a, offsets)
			} else {
				args[i] = r.get(a)
			}
		}
		return r.to.Apply(x.info().op, args...)
	}
	return E{}
}
