package ptx

func opBranch(b *builder, s *statement, _ *instruction) {
	b.allow(s, "uni")
	b.want(s, 1, 1)
}

// opReturn ends the thread, or goes to the end of an expanded function.
func opReturn(b *builder, s *statement, _ *instruction) {
	b.allow(s, "uni")
	b.want(s, 0, 0)
}

func opTrap(b *builder, s *statement, in *instruction) {
	b.allow(s)
	in.run = func(w *warp, m uint32) { w.fault(lowest(m), Assertion, "trap") }
}

// opAssert stands for a call of the function that ends a failed assertion.
func opAssert(_ *builder, _ *statement, in *instruction) {
	in.run = func(w *warp, m uint32) { w.fault(lowest(m), Assertion, "an assertion failed") }
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
