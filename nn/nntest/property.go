package nntest

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"rung/nn/backend"
)

// testAlone checks that a row, or a sequence, gets the same bits alone, among others, and elsewhere.
func testAlone(t *testing.T, be backend.Backend, size Size) {
	for _, r := range kernels() {
		if r.alone == apart {
			continue
		}
		t.Run(r.op.String(), func(t *testing.T) {
			for i, c := range newGen(r.op, size).all(r) {
				n := c.s.Count[c.axis]
				if i%3 == 2 || n == 0 || c.out[0].rows*c.out[0].cols > 1<<16 {
					continue
				}
				want := c.run(t, be, strided)
				for _, some := range [][]int{{n - 1}, {n / 2}, backwards(n)} {
					d, tokens := c, []int(nil)
					if r.alone == bySeq {
						d, tokens = c.pickSeqs(some)
					} else {
						d = c.pick(some)
					}
					d.spare = c.spare + 2
					got := d.run(t, be, layout(i)%layouts)
					picked := make([][]float64, len(want))
					for k, o := range c.out {
						rows := some
						if o.axis == backend.Tok && r.alone == bySeq {
							rows = tokens
						}
						picked[k] = pickRows(want[k], rows, o.cols)
					}
					d.same(t, fmt.Sprintf("%d of %d", len(some), n), picked, got)
				}
			}
		})
	}
}

// backwards is every number below n but every third, from the last to the first.
func backwards(n int) (all []int) {
	for i := n - 1; i >= 0; i-- {
		if i%3 != 1 {
			all = append(all, i)
		}
	}
	return all
}

func pickRows(v []float64, rows []int, cols int) (out []float64) {
	if len(v) == 0 {
		return nil
	}
	for _, r := range rows {
		out = append(out, v[r*cols:(r+1)*cols]...)
	}
	return out
}

// testDropout checks how often elements are kept, and that a mask depends on seed, step, key, site and
// element alone.
func testDropout(t *testing.T, be backend.Backend) {
	const rows, cols = 64, 250
	mask := func(seed, step uint64, key int32, site, pos int, rate float64) []float64 {
		c := (&gen{op: backend.Dropout}).call(backend.Tok, rows)
		c.F[0], c.I[0], c.s.Seed, c.s.Step = rate, site, seed, step
		x := operand{axis: backend.Tok, space: backend.Arena, rows: rows, cols: cols, v: slices.Repeat([]float64{1}, rows*cols)}
		seqs, places := make([]int32, rows), make([]int32, rows)
		for i := range places {
			places[i] = int32(pos + i)
		}
		keys := index([]int32{key})
		keys.perRow = false
		c.in, c.out = []operand{x, keys, index(seqs), index(places)}, []operand{{axis: backend.Tok, space: backend.Arena, rows: rows, cols: cols}}
		return c.run(t, be, strided)[0]
	}
	for _, rate := range []float64{.1, .5, .9} {
		kept := 0
		for _, v := range mask(7, 3, 11, 2, 0, rate) {
			if v != 0 {
				kept++
			}
		}
		n := float64(rows * cols)
		if z := (float64(kept) - n*(1-rate)) / math.Sqrt(n*rate*(1-rate)); abs(z) > 6 {
			t.Errorf("rate %g keeps %d of %g elements: %.1f standard errors off", rate, kept, n, z)
		}
	}
	base := mask(7, 3, 11, 2, 0, .5)
	if moved := mask(7, 3, 11, 2, 1, .5); !slices.Equal(base[cols:], moved[:len(base)-cols]) {
		t.Error("the mask of a position depends on the row that has it")
	}
	for what, other := range map[string][]float64{
		"seed":          mask(8, 3, 11, 2, 0, .5),
		"high seed":     mask(7|1<<32, 3, 11, 2, 0, .5),
		"step":          mask(7, 4, 11, 2, 0, .5),
		"key":           mask(7, 3, 12, 2, 0, .5),
		"site":          mask(7, 3, 11, 3, 0, .5),
		"position":      mask(7, 3, 11, 2, 1, .5),
		"position (64)": mask(7, 3, 11, 2, rows, .5),
	} {
		agree := 0
		for i, v := range other {
			if v == base[i] {
				agree++
			}
		}
		n := float64(len(base))
		if z := (float64(agree) - n/2) / math.Sqrt(n/4); abs(z) > 6 {
			t.Errorf("another %s leaves %d of %g elements as they were: %.1f standard errors off", what, agree, n, z)
		}
	}
}
