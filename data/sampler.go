package data

import (
	"cmp"
	"fmt"
	"slices"

	"rung/nn/backend/philox"
)

// A Sampler draws the batches of an epoch: a pure function of seed and epoch, so that a resumed run
// draws what it would have drawn.
type Sampler interface {
	Name() string
	// Epoch returns batches of units of e, by index.
	Epoch(e *Encoded, seed uint64, epoch int) [][]int
}

// Shuffled draws every unit once an epoch, in random order, until a batch has at least Batch
// candidates. With Window above 1, units are sorted by length inside windows of that many batches and
// the batches are shuffled: sequences of like length then share a batch.
type Shuffled struct {
	Batch  int
	Window int
}

// Name is "shuffled".
func (Shuffled) Name() string { return "shuffled" }

// Epoch draws batches.
func (s Shuffled) Epoch(e *Encoded, seed uint64, epoch int) [][]int {
	order := philox.Perm(len(e.Units), seed, fmt.Sprintf("epoch %d: units", epoch))
	var batches [][]int
	for len(order) > 0 {
		n := len(order)
		if s.Window > 1 {
			n = s.take(e, order, s.Batch*s.Window)
			slices.SortStableFunc(order[:n], func(a, b int) int { return cmp.Compare(e.Tokens(&e.Units[a]), e.Tokens(&e.Units[b])) })
		}
		for w := order[:n]; len(w) > 0; {
			k := s.take(e, w, s.Batch)
			batches = append(batches, w[:k:k])
			w = w[k:]
		}
		order = order[n:]
	}
	if s.Window > 1 {
		shuffled := make([][]int, len(batches))
		for i, j := range philox.Perm(len(batches), seed, fmt.Sprintf("epoch %d: batches", epoch)) {
			shuffled[i] = batches[j]
		}
		batches = shuffled
	}
	return batches
}

// take is how many units, from the first on, have at least rows candidates together.
func (s Shuffled) take(e *Encoded, units []int, rows int) int {
	n := 0
	for i, u := range units {
		if n += len(e.Units[u].Seqs); n >= rows {
			return i + 1
		}
	}
	return len(units)
}

// InOrder draws the units as they come, Batch of them at a time.
type InOrder struct{ Batch int }

// Name is "in order".
func (InOrder) Name() string { return "in order" }

// Epoch draws batches: the same in every epoch.
func (s InOrder) Epoch(e *Encoded, _ uint64, _ int) (batches [][]int) {
	for i := range e.Units {
		if i%max(1, s.Batch) == 0 {
			batches = append(batches, nil)
		}
		last := &batches[len(batches)-1]
		*last = append(*last, i)
	}
	return batches
}
