package ptx

import "math/bits"

// memberMask is the operand that names the lanes of a collective.
func (b *builder) memberMask(o operand) func(w *warp, lane int) uint32 {
	row := b.in32(o, "b32")
	return func(w *warp, lane int) uint32 { return w.r32[row][lane] }
}

// opShuffle is shfl.sync: each lane reads another's register.
func opShuffle(b *builder, s *statement, in *instruction) {
	b.allow(s, "sync", "up", "down", "bfly", "idx")
	if !b.want(s, 5, 5) || !s.has("sync") || typeSize(s.typ()) != 4 || len(s.mods) != 2 {
		b.fail("only shfl.sync of 32 bits is known")
		return
	}
	d, x, y, c := b.out32(s.args[0]), b.in32(s.args[1], "b32"), b.in32(s.args[2], "b32"), b.in32(s.args[3], "b32")
	valid := -1
	if s.args[0].second != nil {
		valid = b.outPred(*s.args[0].second)
	}
	in.kind, in.members = kindCollective, b.memberMask(s.args[4])
	mode := s.mods[0]
	if mode == "sync" {
		mode = s.mods[1]
	}
	in.run = func(w *warp, m uint32) {
		v := w.r32[x]
		var ok uint32
		for left := m; left != 0; left &= left - 1 {
			l := lowest(left)
			n, limits := int(w.r32[y][l]&31), int(w.r32[c][l])
			segment, clamp := limits>>8&31, limits&31
			most := l&segment | clamp&^segment
			j, in := 0, false
			switch mode {
			case "up":
				j = l - n
				in = j >= most
			case "down":
				j = l + n
				in = j <= most
			case "bfly":
				j = l ^ n
				in = j <= most
			default:
				j = l&segment | n&^segment
				in = j <= most
			}
			if !in {
				j = l
			}
			if m>>j&1 == 0 {
				w.fault(l, Collective, "reads a register of lane %d, which takes no part", j)
			}
			w.r32[d][l] = v[j]
			ok |= bit(in) << l
		}
		if valid >= 0 {
			w.p[valid] = w.p[valid]&^m | ok&m
		}
	}
}

func opVote(b *builder, s *statement, in *instruction) {
	b.allow(s, "sync", "all", "any", "uni", "ballot")
	if !b.want(s, 3, 3) || !s.has("sync") {
		b.fail("only vote.sync is known")
		return
	}
	p, not := b.inPred(s.args[1])
	in.kind, in.members = kindCollective, b.memberMask(s.args[2])
	if s.has("ballot") {
		d := b.out32(s.args[0])
		in.run = func(w *warp, m uint32) { place{d, 32}.fill(w, m, uint64(w.lanes(p, not)&m)) }
		return
	}
	d, all, any := b.outPred(s.args[0]), s.has("all"), s.has("any")
	in.run = func(w *warp, m uint32) {
		v := w.lanes(p, not) & m
		yes := v == m || !all && v == 0
		if any {
			yes = v != 0
		}
		w.p[d] = w.p[d]&^m | -bit(yes)&m
	}
}

func opActivemask(b *builder, s *statement, in *instruction) {
	b.allow(s)
	if b.want(s, 1, 1) {
		d := b.out32(s.args[0])
		in.run = func(w *warp, m uint32) { place{d, 32}.fill(w, m, uint64(m)) }
	}
}

// opMatch finds the lanes with the same value.
func opMatch(b *builder, s *statement, in *instruction) {
	b.allow(s, "any", "all", "sync")
	if !b.want(s, 3, 3) {
		return
	}
	d, x := b.out32(s.args[0]), b.ins(s.args[1], 1, s.typ())
	same := -1
	if s.args[0].second != nil {
		same = b.outPred(*s.args[0].second)
	}
	in.kind, in.members = kindCollective, b.memberMask(s.args[2])
	if b.err != nil {
		return
	}
	all := s.has("all")
	in.run = func(w *warp, m uint32) {
		var r row32
		for i := m; i != 0; i &= i - 1 {
			for j := m; j != 0; j &= j - 1 {
				if x[0].get(w, lowest(i)) == x[0].get(w, lowest(j)) {
					r[lowest(i)] |= 1 << lowest(j)
				}
			}
		}
		for i := m; i != 0; i &= i - 1 {
			l := lowest(i)
			if all && r[l] != m {
				r[l] = 0
			}
			w.r32[d][l] = r[l]
			if same >= 0 {
				w.p[same] = w.p[same]&^(1<<l) | bit(r[l] != 0)<<l
			}
		}
	}
}

// opRedux is a reduction over lanes.
func opRedux(b *builder, s *statement, in *instruction) {
	b.allow(s, "sync", "add", "min", "max", "and", "or", "xor")
	if !b.want(s, 3, 3) || typeSize(s.typ()) != 4 || isFloat(s.typ()) || len(s.mods) != 2 {
		b.fail("unknown reduction")
		return
	}
	d, x := b.out32(s.args[0]), b.in32(s.args[1], s.typ())
	in.kind, in.members = kindCollective, b.memberMask(s.args[2])
	op := s.mods[1]
	f := integerOp(op, s.typ(), false)
	if g := logic(op); g != nil {
		f = func(x, y int64) int64 { return int64(g(uint32(x), uint32(y))) }
	}
	if f == nil {
		b.fail("unknown reduction")
		return
	}
	get, put := widener(s.typ())
	in.run = func(w *warp, m uint32) {
		l := bits.TrailingZeros32(m) & 31
		r := get(w.r32[x][l])
		for i := m & (m - 1); i != 0; i &= i - 1 {
			r = get(put(f(r, get(w.r32[x][lowest(i)]))))
		}
		place{d, 32}.fill(w, m, uint64(put(r)))
	}
}
