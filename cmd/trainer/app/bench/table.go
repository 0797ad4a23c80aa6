package bench

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"rung/nn/backend"
)

// table collects the calls of steps, by operator. A round is all batches once.
type table struct {
	now  map[string]*sums
	rows map[string]*rows
}

// sums is an operator's calls in one round.
type sums struct {
	calls int
	time  time.Duration
	work  backend.Work
}

type rows struct {
	sums
	seconds []float64 // by round
}

func newTable() *table { return &table{map[string]*sums{}, map[string]*rows{}} }

func (t *table) add(c *backend.Call, w backend.Work, d time.Duration) {
	key := operatorOf(c)
	s := t.now[key]
	if s == nil {
		s = &sums{}
		t.now[key] = s
	}
	s.calls++
	s.time += d
	s.work.Add(w)
}

// round ends a round.
func (t *table) round() {
	for key, s := range t.now {
		r := t.rows[key]
		if r == nil {
			r = &rows{sums: *s}
			t.rows[key] = r
		}
		r.seconds = append(r.seconds, s.time.Seconds())
	}
	clear(t.now)
}

// operators lists what a step takes, the longest first.
func (t *table) operators(steps int) (out []Operator) {
	n := float64(steps)
	for key, r := range t.rows {
		out = append(out, Operator{
			Name: key, Calls: float64(r.calls) / n, Seconds: median(r.seconds) / n, GFLOP: r.work.FLOP / 1e9 / n, GByte: 4 * r.work.Elems / 1e9 / n,
		})
	}
	slices.SortFunc(out, func(a, b Operator) int {
		return cmp.Or(cmp.Compare(b.Seconds, a.Seconds), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// operatorOf names a kernel and the widths that it works on: rows vary from step to step.
func operatorOf(c *backend.Call) string {
	name := c.Op.String()
	var notes []string
	switch c.Op {
	case backend.MatNT:
		name += fmt.Sprintf(" %d→%d", c.In[0].Cols, c.Out[0].Cols)
		if c.I[1] == backend.ActGELU {
			notes = append(notes, "gelu")
		}
		for k := range c.I[0] {
			if !c.In[3+4*k].Dead() {
				notes = append(notes, "low rank")
				break
			}
		}
	case backend.MatNN:
		width := 0
		for k := range c.I[0] {
			width += c.In[1+2*k].Cols
		}
		name += fmt.Sprintf(" %d→%d", width, c.Out[0].Cols)
		if c.I[1] == backend.ActGELU {
			notes = append(notes, "gelu'")
		}
	case backend.MatTN, backend.GroupTN:
		name += fmt.Sprintf(" %d×%d", c.Out[0].Rows, c.Out[0].Cols)
	case backend.Attn, backend.AttnGrad:
		if c.I[1] == 1 {
			notes = append(notes, "one query")
		}
	}
	if a := axisOf(c); a == backend.Seq || a == backend.Unit {
		notes = append(notes, "per "+map[backend.Axis]string{backend.Seq: "sequence", backend.Unit: "unit"}[a])
	}
	if len(notes) > 0 {
		name += " (" + strings.Join(notes, ", ") + ")"
	}
	return name
}

// axisOf is what the rows of a call's work count.
func axisOf(c *backend.Call) backend.Axis {
	for _, b := range slices.Concat(c.Out, c.In) {
		if !b.Dead() && b.Axis != backend.Fixed {
			return b.Axis
		}
	}
	return backend.Fixed
}

func at(s [][]float64, k int, v float64) [][]float64 {
	for len(s) <= k {
		s = append(s, nil)
	}
	s[k] = append(s[k], v)
	return s
}

func sumOfMedians(s [][]float64) (sum float64) {
	for _, v := range s {
		sum += median(v)
	}
	return sum
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if len(v) == 0 {
		return 0
	}
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
