package graph

import (
	"cmp"
	"slices"

	"rung/nn/backend"
)

// An interval is a buffer of size elements that lives from one node to another, both included.
type interval struct {
	size, from, to int
	off            int
}

// place gives every temporary its offset and writes it into the calls.
func (c *compiler) place() {
	c.p.Arena, c.p.Bound = plan(c.temps), bound(c.temps)
	fix := func(b *backend.Buf) {
		if b.Space == backend.Arena {
			b.Off, b.ID = b.Off+c.temps[b.ID].off, 0
		}
	}
	added := map[int]bool{}
	for i := range c.p.Calls {
		call := &c.p.Calls[i]
		call.Out, call.In = slices.Clone(call.Out), slices.Clone(call.In) // operators may have shared them
		for k := range call.Out {
			fix(&call.Out[k])
			c.first(call, &call.Out[k], added)
		}
		for k := range call.In {
			fix(&call.In[k])
		}
	}
	for name, b := range c.p.Out {
		fix(&b)
		c.p.Out[name] = b
	}
}

// first marks a result that is the first to be added to a gradient. The gradient of a table is not: nearly all of
// it stays zero, which tracked memory knows.
func (c *compiler) first(call *backend.Call, b *backend.Buf, added map[int]bool) {
	if b.Space == backend.Grad {
		b.First = b.Acc && !added[b.ID] && call.Op != backend.EmbedGrad
		added[b.ID] = true
	}
}

// plan sets offsets, largest buffer first, each in the smallest gap that fits among those that live
// with it, and returns the arena's size in elements.
func plan(ts []interval) int {
	order := make([]*interval, len(ts))
	for i := range ts {
		order[i] = &ts[i]
	}
	slices.SortStableFunc(order, func(a, b *interval) int { return cmp.Compare(b.size, a.size) })
	peak := 0
	var placed []*interval // by offset
	for _, t := range order {
		at, best, end := -1, forever, 0
		for _, p := range placed {
			if p.to < t.from || p.from > t.to {
				continue
			}
			if gap := p.off - end; gap >= t.size && gap < best {
				at, best = end, gap
			}
			end = max(end, p.off+p.size)
		}
		if at < 0 {
			at = end
		}
		t.off = at
		i, _ := slices.BinarySearchFunc(placed, at, func(p *interval, off int) int { return cmp.Compare(p.off, off) })
		placed = slices.Insert(placed, i, t)
		peak = max(peak, at+t.size)
	}
	return peak
}

// bound is the most elements that live at one time.
func bound(ts []interval) int {
	peak := 0
	for _, t := range ts {
		sum := 0
		for _, o := range ts {
			if o.from <= t.from && t.from <= o.to {
				sum += o.size
			}
		}
		peak = max(peak, sum)
	}
	return peak
}
