package ptx

import (
	"fmt"
	"math"
	"math/bits"
	"strings"
)

type kind uint8

const (
	kindPlain kind = iota
	kindBranch
	kindExit
	kindBarrier    // of the block
	kindCollective // of lanes of a warp
)

// An instruction is compiled.
type instruction struct {
	run     func(w *warp, mask uint32)
	members func(w *warp, lane int) uint32 // lanes that take part in a collective; nil: the whole warp
	votes   int32                          // predicate that a barrier counts, -1: none
	guard   int32                          // predicate, -1: none
	target  int32
	line    int32
	kind    kind
	negate  bool // the guard
	against bool // votes are negated
	text    string
}

const nowhere = math.MaxInt32

// A warp is 32 threads. Those at one place in the code run together; the others are parked, and the group that is farthest
// behind runs next, so that groups meet again where branches join.
type warp struct {
	b   *block
	id  int // in the block
	r32 []row32
	r64 []row64
	p   []uint32 // predicates: a bit for each lane

	mask    uint32 // lanes that run, at
	pc      int32
	live    uint32 // lanes that exist and have not ended
	parked  uint32 // lanes that could run, at their
	lanePC  [32]int32
	stop    int32  // lowest place of a parked lane
	waiting uint32 // lanes that wait at the barrier or collective at their lanePC

	epoch uint16 // counts warp barriers
	page  uint64 // that is locked, where blocks run in parallel; 0: none
	seg   *segment
	local []byte // of all lanes, one behind the other, and what of it is written
	wrote []bool
	async [32]asyncCopies
}

// park leaves lanes to be run later.
func (w *warp) park(lanes uint32, pc int32) {
	w.parked |= lanes
	for m := lanes; m != 0; m &= m - 1 {
		w.lanePC[bits.TrailingZeros32(m)&31] = pc
	}
	w.stop = min(w.stop, pc)
}

// next makes the parked lanes that are farthest behind the ones that run; false where there are none.
func (w *warp) next() bool {
	if w.parked == 0 {
		w.mask, w.stop = 0, nowhere
		return false
	}
	first, second, group := int32(nowhere), int32(nowhere), uint32(0)
	for m := w.parked; m != 0; m &= m - 1 {
		l := bits.TrailingZeros32(m) & 31
		switch pc := w.lanePC[l]; {
		case pc < first:
			first, second, group = pc, first, 1<<l
		case pc == first:
			group |= 1 << l
		case pc < second:
			second = pc
		}
	}
	w.mask, w.pc, w.stop = group, first, second
	w.parked &^= group
	return true
}

// run executes up to n instructions, until no lane can run.
func (w *warp) run(n int) (done int) {
	code, hits := w.b.k.code, w.b.hits
	for done = 0; done < n; done++ {
		if w.mask == 0 || w.pc >= w.stop {
			if w.mask != 0 {
				w.park(w.mask, w.pc)
			}
			if !w.next() {
				return done
			}
		}
		in := &code[w.pc]
		m := w.mask
		if in.guard >= 0 {
			p := w.p[in.guard]
			if in.negate {
				p = ^p
			}
			if m &= p; m == 0 {
				w.pc++
				continue
			}
		}
		hits[w.pc] += uint64(bits.OnesCount32(m))
		switch in.kind {
		case kindPlain:
			in.run(w, m)
			w.pc++
		case kindBranch:
			rest := w.mask &^ m
			switch {
			case rest == 0:
				w.pc = in.target
			case in.target > w.pc:
				w.park(m, in.target)
				w.mask = rest
				w.pc++
			default:
				w.park(rest, w.pc+1)
				w.mask, w.pc = m, in.target
			}
		case kindExit:
			w.live &^= m
			w.mask &^= m
			w.pc++
		case kindBarrier:
			w.wait(m)
		case kindCollective:
			w.collect(in, m)
		}
	}
	return done
}

// wait stops lanes where they are.
func (w *warp) wait(lanes uint32) {
	w.waiting |= lanes
	for m := lanes; m != 0; m &= m - 1 {
		w.lanePC[bits.TrailingZeros32(m)&31] = w.pc
	}
	w.mask &^= lanes
	w.pc++
}

// collect runs a collective for those of the lanes whose partners are all there, and makes the others wait.
func (w *warp) collect(in *instruction, lanes uint32) {
	pc := w.pc
	for m := w.waiting; m != 0; m &= m - 1 {
		if l := bits.TrailingZeros32(m) & 31; w.lanePC[l] == pc {
			lanes |= 1 << l
		}
	}
	var ran uint32
	for left := lanes; left != 0; {
		l := bits.TrailingZeros32(left) & 31
		members := allLanes
		if in.members != nil {
			members = in.members(w, l)
		}
		if members>>l&1 == 0 {
			w.fault(l, Collective, "the calling lane %d is not in its own mask %#x", l, members)
		}
		group := members & lanes
		if in.members != nil { // lanes with another mask are another group
			for m := group; m != 0; m &= m - 1 {
				if o := bits.TrailingZeros32(m) & 31; in.members(w, o) != members {
					group &^= 1 << o
				}
			}
		}
		left &^= group
		if members&w.live == group {
			in.run(w, group)
			ran |= group
		}
	}
	w.waiting &^= ran
	w.wait(lanes &^ ran &^ w.waiting)
	w.pc = pc + 1
	w.mask |= ran
}

// retry runs collectives that lanes wait at and whose missing partners have ended.
func (w *warp) retry() bool {
	for m := w.waiting; m != 0; m &= m - 1 {
		pc := w.lanePC[bits.TrailingZeros32(m)&31]
		in := &w.b.k.code[pc]
		if in.kind != kindCollective {
			continue
		}
		w.pc = pc
		if w.collect(in, 0); w.mask != 0 {
			return true
		}
	}
	return false
}

// A block is a thread block that runs.
type block struct {
	*launch
	index  Dim
	run    uint32 // number of this run, over all launches in the memory
	epoch  uint32 // counts block barriers
	warps  []*warp
	order  []int
	hits   []uint64 // lanes that executed each instruction, over all blocks of a worker
	shared []byte
	cells  []cell // of shared memory
	rng    uint64
	steps  int64             // warp instructions
	fenced map[uint32]uint32 // blocks whose writes, up to an epoch, this one has seen ordered
	fence  uint32            // epoch of the last fence, 0: none
	votes  int               // lanes whose predicate was true at the last barrier
	voters int
}

// execute runs one block to its end.
func (b *block) execute() {
	for {
		b.shuffle()
		moved, live := false, false
		for _, i := range b.order {
			w := b.warps[i]
			n := w.run(quantum)
			b.steps += int64(n)
			moved = moved || n > 0 || w.retry()
			live = live || w.live != 0
		}
		if b.steps > b.limit {
			w := b.busy()
			w.fault(bits.TrailingZeros32(w.live), Endless, "the block does not end: it has run %d instructions", b.steps)
		}
		if !live {
			return
		}
		if !moved && !b.release() {
			b.deadlock()
		}
	}
}

// quantum is how many instructions a warp runs before the next one's turn.
const quantum = 2048

func (b *block) busy() *warp {
	for _, w := range b.warps {
		if w.live != 0 {
			if w.mask == 0 {
				w.next()
			}
			return w
		}
	}
	return b.warps[0]
}

// shuffle changes the order of the warps, where the launch has a seed.
func (b *block) shuffle() {
	if b.seed == 0 {
		return
	}
	for i := len(b.order) - 1; i > 0; i-- {
		b.rng = mix(b.rng + 1)
		j := int(b.rng % uint64(i+1))
		b.order[i], b.order[j] = b.order[j], b.order[i]
	}
}

// mix is the finaliser of SplitMix64.
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// release opens the block's barrier if all live threads wait at it.
func (b *block) release() bool {
	at, first := int32(-1), (*warp)(nil)
	for _, w := range b.warps {
		if w.waiting != w.live {
			return false
		}
		for m := w.live; m != 0; m &= m - 1 {
			pc := w.lanePC[bits.TrailingZeros32(m)&31]
			if b.k.code[pc].kind != kindBarrier {
				return false
			}
			if at < 0 {
				at, first = pc, w
			}
			if pc != at {
				w.pc = pc
				w.fault(bits.TrailingZeros32(m), Deadlock, "barrier divergence: this thread waits here, thread %s at line %d",
					first.thread(bits.TrailingZeros32(first.live)), b.k.code[at].line)
			}
		}
	}
	if at < 0 {
		return false
	}
	in := &b.k.code[at]
	b.votes, b.voters = 0, 0
	for _, w := range b.warps {
		if in.votes >= 0 {
			p := w.p[in.votes]
			if in.against {
				p = ^p
			}
			b.votes += bits.OnesCount32(p & w.live)
			b.voters += bits.OnesCount32(w.live)
		}
	}
	b.epoch++
	for _, w := range b.warps {
		if w.live == 0 {
			continue
		}
		if in.run != nil {
			in.run(w, w.live)
		}
		w.mask, w.pc, w.waiting = w.live, at+1, 0
	}
	return true
}

// deadlock reports where the threads wait.
func (b *block) deadlock() {
	type place struct{ pc, threads int }
	var places []place
	var last *warp
	for _, w := range b.warps {
		for m := w.waiting; m != 0; m &= m - 1 {
			pc := int(w.lanePC[bits.TrailingZeros32(m)&31])
			found := false
			for i := range places {
				if places[i].pc == pc {
					places[i].threads++
					found = true
				}
			}
			if !found {
				places = append(places, place{pc, 1})
				last = w
				w.pc = int32(pc)
			}
		}
	}
	var text []string
	for _, p := range places {
		in := b.k.code[p.pc]
		text = append(text, fmt.Sprintf("%d threads wait at line %d (%s)", p.threads, in.line, in.text))
	}
	lane := 0
	for m := last.waiting; m != 0; m &= m - 1 {
		if l := bits.TrailingZeros32(m) & 31; last.lanePC[l] == last.pc {
			lane = l
		}
	}
	last.fault(lane, Deadlock, "deadlock: %s", strings.Join(text, ", "))
}
