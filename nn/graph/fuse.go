package graph

import (
	G "gorgonia.org/gorgonia"

	"rung/nn/backend"
)

// fuseLowRank: linear(x, w) + linear(h, u) is one Linear with a low-rank term.
func fuseLowRank(r *rebuild, e E) E {
	if e.info().op != Operator(elementwise{backend.Add}) {
		return E{}
	}
	in := e.info().in
	for k := range 2 {
		base, low := in[k], in[1-k]
		o, ok := r.only(base).(linear)
		l, lok := r.only(low).(linear)
		if !ok || !lok || o.gelu || len(o.blocks) != 1 || o.blocks[0].low || l.gelu || len(l.blocks) != 1 || l.blocks[0] != (block{}) {
			continue
		}
		bi, li := base.info().in, low.info().in
		if li[0].Shape().Cols() >= bi[0].Shape().Cols() {
			continue // not a low rank
		}
		o.blocks = []block{{bias: o.blocks[0].bias, low: true}}
		return r.to.Apply(o, append(r.all(bi), r.get(li[0]), r.get(li[1]))...)
	}
	return E{}
}

// fuseGELU: gelu(linear(x)) is one operator that saves the pre-activation.
func fuseGELU(r *rebuild, e E) E {
	if e.info().op != Operator(unary{backend.GELU}) {
		return E{}
	}
	x := e.info().in[0]
	if r.only(x) == Operator(elementwise{backend.Add}) {
		if y := fuseLowRank(r, x); y.b != nil {
			return gelued(r.to, y)
		}
	}
	lin, ok := r.only(x).(linear)
	if !ok || lin.gelu {
		return E{}
	}
	lin.gelu = true
	return r.to.Apply(lin, r.all(x.info().in)...)
}

// gelued is linear y, just built and read by nobody else, with GELU on top.
func gelued(b *Builder, y E) E {
	if !y.OK() {
		return y
	}
	lin := y.info().op.(linear)
	lin.gelu = true
	return b.Apply(lin, y.info().in...)
}

// fuseResidual: layernorm(a + b) is one operator that saves the sum.
func fuseResidual(r *rebuild, e E) E {
	ln, ok := e.info().op.(norm)
	if !ok || ln.res {
		return E{}
	}
	in := e.info().in
	if r.only(in[0]) != Operator(elementwise{backend.Add}) {
		return E{}
	}
	ab := in[0].info().in
	ln.res = true
	return r.to.Apply(ln, r.get(ab[0]), r.get(ab[1]), r.get(in[1]), r.get(in[2]))
}

// joinLinears: the Linears of one input become one; each consumer reads its columns. Those that lead
// to a low-rank term of another are joined among themselves, one depth lower.
func joinLinears(r *rebuild, e E) E {
	if !joinable(r, e) {
		return E{}
	}
	x := e.info().in[0]
	depth, memo := r.depth(e, x), []E(nil)
	for _, u := range r.users[x.n] {
		if joinable(r, u) && u.info().in[0] == x && r.depth(u, x) == depth {
			memo = append(memo, u)
		}
	}
	if len(memo) < 2 {
		return E{}
	}
	var all linear
	args := []E{r.get(x)}
	for _, u := range memo {
		all.blocks = append(all.blocks, u.info().op.(linear).blocks...)
		args = append(args, r.all(u.info().in[1:])...)
	}
	y := r.to.Apply(all, args...)
	j := 0
	for _, u := range memo {
		n := u.Shape().Cols()
		r.done[u.n] = r.to.Cols(y, j, n)
		j += n
	}
	return r.done[e.n]
}

// joinable is a Linear without an activation.
func joinable(_ *rebuild, e E) bool {
	lin, ok := e.info().op.(linear)
	return ok && !lin.gelu
}

// depth is how many joinable Linears of x lie on the longest path from x to e, e not counted.
func (r *rebuild) depth(e, x E) int {
	memo := map[*G.Node]int{}
	var f func(n E) int
	f = func(n E) int {
		if n.n == x.n || n.info().at < x.info().at {
			return 0
		}
		if d, ok := memo[n.n]; ok {
			return d
		}
		d := 0
		for _, c := range n.info().in {
			k := f(c)
			if c.n != x.n && joinable(r, c) && c.info().in[0] == x {
				k++
			}
			d = max(d, k)
		}
		memo[n.n] = d
		return d
	}
	return f(e)
}
