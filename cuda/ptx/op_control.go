package ptx

import "slices"

func opBranch(b *builder, s *statement, in *instruction) {
	b.allow(s, "uni")
	if !b.want(s, 1, 1) {
		return
	}
	in.kind = kindBranch
	b.branches[len(b.k.code)] = b.prefix + s.args[0].text
}

// opReturn ends the thread; in an expanded call it goes to the end of the function.
func opReturn(b *builder, s *statement, in *instruction) {
	b.allow(s, "uni")
	b.want(s, 0, 0)
	if s.op == "ret" && b.end != "" {
		in.kind = kindBranch
		b.branches[len(b.k.code)] = b.end
		return
	}
	in.kind = kindExit
}

func opTrap(b *builder, s *statement, in *instruction) {
	b.allow(s)
	in.run = func(w *warp, m uint32) { w.fault(lowest(m), "trap") }
}

// opCall expands a call: the function's statements stand in the kernel's code, its parameters are the caller's.
func opCall(b *builder, s *statement, in *instruction) {
	b.allow(s, "uni")
	args := s.args
	var returns, params []operand
	if len(args) > 0 && args[0].kind == opVector {
		returns, args = args[0].vector, args[1:]
	}
	if len(args) == 0 || args[0].kind != opName {
		b.fail("indirect calls are unknown")
		return
	}
	name := args[0].text
	if len(args) > 1 && args[1].kind == opVector {
		params = args[1].vector
	}
	f := b.k.module.functions[name]
	switch {
	case name == "__assertfail":
		in.run = func(w *warp, m uint32) { w.fault(lowest(m), "an assertion failed") }
		return
	case f == nil || f.items == nil:
		b.fail("unknown function %s", name)
		return
	case slices.Contains(b.calls, name):
		b.fail("%s calls itself", name)
		return
	case len(returns) != len(f.returns) || len(params) != len(f.params):
		b.fail("%s takes %d parameters and returns %d", name, len(f.params), len(f.returns))
		return
	}
	vars := map[string]*variable{}
	for _, v := range slices.Concat(b.k.module.globals, b.k.module.shared) {
		vars[v.name] = v
	}
	bind := func(formal []*variable, actual []operand) {
		for i, v := range formal {
			if actual[i].kind != opSymbol || actual[i].symbol.space != "local" || actual[i].symbol.size < v.size {
				b.fail("parameter %s of %s is no .param variable of its size", actual[i].text, name)
				return
			}
			vars[v.name] = actual[i].symbol
		}
	}
	bind(f.returns, returns)
	bind(f.params, params)
	if b.err != nil {
		return
	}
	b.expanded++
	prefix := name + "#" + itoa(b.expanded) + " "
	if in.guard >= 0 { // lanes whose guard is false go around
		skip := *in
		skip.kind, skip.negate = kindBranch, !in.negate
		b.branches[len(b.k.code)] = prefix + "end"
		b.k.code = append(b.k.code, skip)
	}
	outer := *b
	b.scopes = []scope{{regs: map[string]register{}, vars: vars}}
	b.prefix, b.end, b.calls = prefix, prefix+"end", append(slices.Clone(b.calls), name)
	b.items(f.items)
	b.scopes, b.prefix, b.end, b.calls = outer.scopes, outer.prefix, outer.end, outer.calls
	b.labels[prefix+"end"] = len(b.k.code)
	in.kind = kindNone
}

// opBarrier is bar.sync, bar.red and bar.warp.sync.
func opBarrier(b *builder, s *statement, in *instruction) {
	if s.has("warp") {
		b.allow(s, "warp", "sync")
		if b.want(s, 1, 1) {
			in.kind, in.members = kindCollective, b.memberMask(s.args[0])
			in.run = func(w *warp, m uint32) {
				if m&w.live == w.live { // among some lanes only, it orders no more than them
					w.epoch++
				}
			}
		}
		return
	}
	b.allow(s, "cta", "sync", "aligned", "red", "popc", "and", "or")
	in.kind, in.votes = kindBarrier, -1
	red := s.has("red")
	barrier := 0
	if red {
		barrier = 1
	}
	if len(s.args) <= barrier || s.args[barrier].kind != opConstant || s.args[barrier].value.bits != 0 {
		b.fail("only barrier 0 is known")
		return
	}
	if !red {
		if b.want(s, 1, 1) && !s.has("sync") {
			b.fail("unknown barrier")
		}
		return
	}
	if !b.want(s, 3, 3) {
		return
	}
	votes, not := b.inPred(s.args[2])
	in.votes, in.against = int32(votes), not
	if s.has("popc") {
		d := b.out32(s.args[0])
		in.run = func(w *warp, m uint32) { place{d, 32}.fill(w, m, uint64(w.b.votes)) }
		return
	}
	d, all := b.outPred(s.args[0]), s.has("and")
	in.run = func(w *warp, m uint32) {
		yes := w.b.votes > 0
		if all {
			yes = w.b.votes == w.b.voters
		}
		w.p[d] = w.p[d]&^m | -bit(yes)&m
	}
}
