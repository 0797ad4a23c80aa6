package ptx

import (
	"cmp"
	"math/bits"
	"slices"
)

// NVRTC names thousands of registers, each for a short while. This file gives them rows of the register file that are used
// again when a value is dead: a warp's registers then fit into a cache. A lane has its own column, so that what is live in
// one thread at a time decides, however the warp diverges.

// noResult are opcodes whose first operand is not written.
var noResult = []string{"st", "red", "cp", "membar", "fence", "prefetch", "prefetchu", "discard", "nanosleep", "bra", "ret", "exit", "trap"}

// effects calls back for each register that a statement reads and writes.
func (s *statement) effects(read, write func(o *operand)) {
	var all func(o *operand, f func(o *operand))
	all = func(o *operand, f func(o *operand)) {
		switch {
		case o.kind == opRegister:
			f(o)
		case o.kind == opAddress && o.based:
			read(o)
		}
		for i := range o.vector {
			all(&o.vector[i], f)
		}
		if o.second != nil {
			all(o.second, f)
		}
	}
	written := !slices.Contains(noResult, s.op) && (s.op != "bar" && s.op != "barrier" || s.has("red"))
	for i := range s.args {
		if i > 0 || !written {
			all(&s.args[i], read)
		}
	}
	if written && len(s.args) > 0 {
		all(&s.args[0], write)
	}
}

// A span is the part of the code where a register is live or named.
type span struct{ from, to int32 }

func (s *span) add(at int) {
	if s.to < 0 {
		s.from, s.to = int32(at), int32(at)
	}
	s.from, s.to = min(s.from, int32(at)), max(s.to, int32(at))
}

// A basic block is instructions from first to last, with where they go on.
type basic struct {
	first, last int
	next        []int
	use, kill   []uint64 // of registers that some block reads before it writes them
	live        []uint64 // at the start
}

// allocate gives registers their rows: a linear scan over spans.
func (b *builder) allocate() {
	ids := [3]int{0, b.k.rows32, b.k.rows32 + b.k.rows64}
	id := func(r register) int { return ids[r.class] + r.row }
	spans := make([]span, b.k.rows32+b.k.rows64+b.k.preds)
	for i := range spans {
		spans[i] = span{0, -1}
	}
	for at := range b.list {
		note := func(o *operand) { spans[id(o.reg)].add(at) }
		b.list[at].effects(note, note)
		if g := b.list[at].guard; g != nil {
			note(g)
		}
	}
	b.extend(spans, id)

	row := make([]int, len(spans))
	for c, n := range []*int{&b.k.rows32, &b.k.rows64, &b.k.preds} {
		*n = scan(spans[ids[c]:ids[c]+*n], row[ids[c]:ids[c]+*n])
	}
	for at := range b.list {
		rename := func(o *operand) { o.reg.row = row[id(o.reg)] }
		b.list[at].effects(rename, rename)
		if g := b.list[at].guard; g != nil {
			rename(g)
		}
	}
}

// scan fills in rows for spans and returns how many it needed.
func scan(spans []span, row []int) (rows int) {
	order := make([]int, 0, len(spans))
	for i, s := range spans {
		if s.to >= 0 {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(i, j int) int { return cmp.Compare(spans[i].from, spans[j].from) })
	var free []int
	ends := map[int32][]int{} // rows by the end of their spans
	at := int32(0)
	for _, i := range order {
		for ; at < spans[i].from; at++ {
			free = append(free, ends[at]...)
			delete(ends, at)
		}
		if n := len(free); n > 0 {
			row[i], free = free[n-1], free[:n-1]
		} else {
			row[i] = rows
			rows++
		}
		ends[spans[i].to] = append(ends[spans[i].to], row[i])
	}
	return rows
}

// extend lengthens spans to where registers are live from block to block.
func (b *builder) extend(spans []span, id func(register) int) {
	blocks := b.basics()
	index := map[int]int{} // of registers that are live somewhere between blocks
	var names []int
	seen := make([]int, len(spans)) // block, from 1, that wrote a register last
	for n := range blocks {
		for at := blocks[n].first; at <= blocks[n].last; at++ {
			b.list[at].flow(id, func(r int) {
				if seen[r] != n+1 {
					if _, known := index[r]; !known {
						index[r] = len(names)
						names = append(names, r)
					}
				}
			}, func(r int) { seen[r] = n + 1 })
		}
	}
	words := (len(names) + 63) / 64
	for n := range blocks {
		k := &blocks[n]
		k.use, k.kill, k.live = make([]uint64, words), make([]uint64, words), make([]uint64, words)
		for at := k.first; at <= k.last; at++ {
			b.list[at].flow(id, func(r int) {
				if i, ok := index[r]; ok && k.kill[i>>6]>>(i&63)&1 == 0 {
					k.use[i>>6] |= 1 << (i & 63)
				}
			}, func(r int) {
				if i, ok := index[r]; ok {
					k.kill[i>>6] |= 1 << (i & 63)
				}
			})
		}
	}
	for changed := true; changed; {
		changed = false
		for n := len(blocks) - 1; n >= 0; n-- {
			k := &blocks[n]
			for i := range words {
				var out uint64
				for _, s := range k.next {
					out |= blocks[s].live[i]
				}
				if live := k.use[i] | out&^k.kill[i]; live != k.live[i] {
					k.live[i], changed = live, true
				}
			}
		}
	}
	for n := range blocks {
		k := &blocks[n]
		eachBit(k.live, func(i int) { spans[names[i]].add(k.first) })
		for _, s := range k.next {
			eachBit(blocks[s].live, func(i int) { spans[names[i]].add(k.last) })
		}
	}
}

func eachBit(set []uint64, f func(i int)) {
	for w, word := range set {
		for ; word != 0; word &= word - 1 {
			f(w*64 + bits.TrailingZeros64(word))
		}
	}
}

// flow calls back for what a statement reads, then for what it surely writes: a guarded write leaves the old value in some
// lanes, and counts as a read.
func (s *statement) flow(id func(register) int, read, write func(r int)) {
	reads := func(o *operand) { read(id(o.reg)) }
	if s.guard != nil {
		reads(s.guard)
		s.effects(reads, reads)
		return
	}
	s.effects(reads, func(*operand) {})
	s.effects(func(*operand) {}, func(o *operand) { write(id(o.reg)) })
}

// basics cuts the code into blocks.
func (b *builder) basics() []basic {
	starts := make([]bool, len(b.list)+1)
	starts[0] = true
	for at, s := range b.list {
		if s.kind == kindBranch || s.kind == kindExit {
			starts[at+1] = true
		}
		if s.kind == kindBranch {
			starts[b.target(s)] = true
		}
	}
	var blocks []basic
	number := make([]int, len(b.list)+1)
	for at := range b.list {
		if starts[at] {
			blocks = append(blocks, basic{first: at})
		}
		number[at] = len(blocks) - 1
		blocks[len(blocks)-1].last = at
	}
	for n := range blocks {
		last := b.list[blocks[n].last]
		if last.kind == kindBranch {
			if to := b.target(last); to < len(b.list) {
				blocks[n].next = append(blocks[n].next, number[to])
			}
		}
		if (last.kind != kindBranch && last.kind != kindExit || last.guard != nil) && n+1 < len(blocks) {
			blocks[n].next = append(blocks[n].next, n+1)
		}
	}
	return blocks
}

func (b *builder) target(s *statement) int {
	to, ok := b.labels[s.label]
	if !ok {
		b.failAt(s, "no label %s", s.label)
	}
	return to
}
