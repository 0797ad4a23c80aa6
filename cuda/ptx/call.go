package ptx

import "slices"

// call expands a call: the function's statements stand in the kernel's code, its parameters are the caller's.
func (b *builder) call(s *statement) {
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
		s.op, s.args, s.mods = name, nil, nil
		b.list = append(b.list, s)
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
	if s.guard != nil { // lanes whose guard is false go around
		guard := *s.guard
		guard.not = !guard.not
		b.list = append(b.list, &statement{
			text: s.text, line: s.line, op: "bra", kind: kindBranch, label: prefix + "end", guard: &guard, args: []operand{{kind: opName}},
		})
	}
	outer := *b
	b.scopes = []scope{{regs: map[string]register{}, vars: vars}}
	b.prefix, b.end, b.calls = prefix, prefix+"end", append(slices.Clone(b.calls), name)
	b.items(f.items)
	b.scopes, b.prefix, b.end, b.calls = outer.scopes, outer.prefix, outer.end, outer.calls
	b.labels[prefix+"end"] = len(b.list)
}
