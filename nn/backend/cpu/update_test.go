package cpu_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/backend"
	"rung/nn/backend/ref"
)

// update is one step on n weights. Updates read what they write.
func update(op backend.Op, n, moments int, i [4]int, f [4]float64, factor float64) probe {
	p := probe{op: op, i: i, f: f, s: counts(1, 1, 1)}
	p.s.LR[i[0]] = 1e-2
	for k := range 1 + moments {
		o := weight(1, n, 0)
		o.drawn = true
		if k > 1 {
			for j := range n {
				o.values = append(o.values, float64(j%13)/8)
			}
		}
		p.outs = append(p.outs, o)
	}
	scale := weight(1, 2, 0)
	scale.values = []float64{factor, 1}
	p.ins = []operand{weight(1, n, 0), scale}
	return p
}

// TestUpdates demands what package ref gives in float32, to 2 units in the last place.
func TestUpdates(t *testing.T) {
	adam := [4]float64{.9, .999, 1e-8, .01}
	for _, n := range []int{1, 13, 4096, 100_000} {
		shrink := update(backend.Shrink, n, 0, [4]int{3}, [4]float64{40}, 1) // by .4, where weights are drawn from N(0,1)
		shrink.ins[0] = dead
		for name, p := range map[string]probe{
			"shrink":   shrink,
			"adamw":    update(backend.AdamW, n, 2, [4]int{2, 0}, adam, .5),
			"adam":     update(backend.AdamW, n, 2, [4]int{0, 1}, adam, 1),
			"amsgrad":  update(backend.AdamW, n, 3, [4]int{0, 0}, adam, 1),
			"sgd":      update(backend.SGD, n, 1, [4]int{1, 0}, [4]float64{.9, 0, 0, .01}, .5),
			"nesterov": update(backend.SGD, n, 1, [4]int{1, 1}, [4]float64{.9, 0, 0, .01}, 1),
			"poisoned": update(backend.AdamW, n, 2, [4]int{0, 0}, adam, math.NaN()),
		} {
			want := once[float32](t, ref.New[float32](), p)
			for _, workers := range []int{1, 3} {
				for isa, be := range backends(t, workers) {
					for k, out := range once[float32](t, be, p) {
						for j, v := range out {
							if d := int32(math.Float32bits(v)) - int32(math.Float32bits(want[k][j])); d < -2 || d > 2 {
								t.Fatalf("%s on %s, %d weights: result %d at %d is %v, want %v", name, isa, n, k, j, v, want[k][j])
							}
						}
					}
				}
			}
		}
	}
}

func TestSumSq(t *testing.T) {
	p := probe{op: backend.SumSq, s: counts(1, 1, 1), outs: []operand{weight(1, 4, 0)}}
	for _, n := range []int{1, 37, 1 << 15, 100_001} {
		p.ins = append(p.ins, weight(1, n, 0))
	}
	p.ins[1] = weight(300, 211, 3)
	check(t, "sums of squares", p, 1e-7)
}

// TestNoAllocationAnywhere launches one of every shape of kernel.
func TestNoAllocationAnywhere(t *testing.T) {
	s, mean, rstd, dy := normGrad(300, 40)
	f := attention([]int{9, 33}, 2, 8, false, .1, 1)
	probes := []probe{
		f, backward(t, f), norm(30, 40),
		{op: backend.NormDG, s: counts(300, 1, 1), outs: []operand{weight(1, 40, 0), weight(1, 40, 0)}, ins: []operand{s, mean, rstd, dy}},
		{op: backend.ColSum, s: counts(300, 1, 1), outs: []operand{weight(1, 40, 0)}, ins: []operand{dy}},
		{op: backend.MatTN, s: counts(300, 1, 1), outs: []operand{weight(40, 40, 0)}, ins: []operand{dy, s}},
		{op: backend.Add, s: counts(300, 1, 1), outs: []operand{s}, ins: []operand{s, dy}},
		{op: backend.EmbedGrad, s: counts(3, 1, 1), outs: []operand{weight(10, 40, 0)}, ins: []operand{index(backend.Tok, 3, 0, 3), mat(backend.Tok, 3, 40, 0)}},
		{op: backend.Max, s: counts(40, 1, 1), outs: []operand{mat(backend.Seq, 1, 9, 0), dead}, ins: []operand{mat(backend.Tok, 40, 9, 0), index(backend.Seq, 0, 40)}},
		update(backend.AdamW, 100_000, 2, [4]int{}, [4]float64{.9, .999, 1e-8, .01}, 1),
	}
	for _, p := range probes {
		for isa, be := range backends(t, 2) {
			s := encode[float32](t, be, p)
			allocs := testing.AllocsPerRun(10, func() { _ = s.x.Launch(t.Context(), &s.p.s) })
			require.Zero(t, allocs, fmt.Sprint(p.op, " on ", isa))
			s.close(t)
		}
	}
}
