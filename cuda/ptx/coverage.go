package ptx

import (
	"slices"
	"sync"
)

// Coverage counts which instructions launches have executed. Its zero value is ready; several launches may use one.
type Coverage struct {
	mu   sync.Mutex
	hits map[*Kernel][]uint64
}

// A Line is an instruction of the PTX text.
type Line struct {
	Kernel string
	Number int // from 1
	Text   string
}

func (c *Coverage) add(k *Kernel, hits []uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hits == nil {
		c.hits = map[*Kernel][]uint64{}
	}
	if c.hits[k] == nil {
		c.hits[k] = make([]uint64, len(hits))
	}
	for i, n := range hits {
		c.hits[k][i] += n
	}
}

// Unrun lists the instructions of a kernel that no thread has executed, in the text's order; a guard that was never true
// counts as not executed.
func (c *Coverage) Unrun(k *Kernel) []Line { return c.lines(k, false) }

// Ran lists the instructions of a kernel that some thread has executed.
func (c *Coverage) Ran(k *Kernel) []Line { return c.lines(k, true) }

func (c *Coverage) lines(k *Kernel, ran bool) (out []Line) {
	c.mu.Lock()
	defer c.mu.Unlock()
	hits := c.hits[k]
	executed := map[Line]bool{} // a function that is called twice stands twice in the code
	for i := range k.code[:len(k.code)-1] {
		in := &k.code[i]
		line := Line{k.Name, int(in.line), in.text}
		executed[line] = executed[line] || hits != nil && hits[i] > 0
	}
	for line, yes := range executed {
		if yes == ran {
			out = append(out, line)
		}
	}
	slices.SortFunc(out, func(a, b Line) int { return a.Number - b.Number })
	return out
}

// Instructions is how many instructions the threads of all launches have executed.
func (c *Coverage) Instructions() (n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, hits := range c.hits {
		for _, h := range hits {
			n += h
		}
	}
	return n
}
