package cpu_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/backend"
	"rung/nn/backend/cpu"
)

// Factors are rounded to the nearest bf16 number, a tie to the even one; what is too large becomes infinite. Each kind
// of product shows its factors where the other one is the unit matrix.
func TestRounding(t *testing.T) {
	if len(cpu.BF16()) == 0 {
		t.Skip("this machine has no instructions that multiply bf16")
	}
	numbers := []struct{ in, out float64 }{
		{0, 0},
		{1, 1},
		{1 + 0x1p-8, 1}, // ties
		{1 + 3*0x1p-8, 1 + 0x1p-6},
		{-1 - 3*0x1p-8, -1 - 0x1p-6},
		{1 + 0x1p-8 + 0x1p-23, 1 + 0x1p-7}, // just above one
		{1 + 0x1p-8 - 0x1p-23, 1},
		{0x1.ffp127, math.Inf(1)},
		{-0x1.fep127, -0x1.fep127},
		{0x1p-120, 0x1p-120},
		{3.14159265, 3.140625},
	}
	n := len(numbers)
	x, w := mat(backend.Tok, n, n, 0), weight(n, n, 0)
	diagonal := func(at func(i int) float64) (v []float64) {
		v = make([]float64, n*n)
		for i := range n {
			v[i*n+i] = at(i)
		}
		return v
	}
	some := diagonal(func(i int) float64 { return numbers[i].in })
	unit := diagonal(func(int) float64 { return 1 })
	for _, op := range []backend.Op{backend.MatNT, backend.MatNN, backend.MatTN} {
		for _, left := range []bool{true, false} {
			x, w := x, w
			x.values, w.values = some, unit
			if !left {
				x.values, w.values = unit, some
			}
			p := probe{op: op, i: [4]int{1}, s: counts(n, 1, 1)}
			switch op {
			case backend.MatNT:
				p.outs, p.ins = []operand{mat(backend.Tok, n, n, 0), dead}, []operand{x, w, dead, dead, dead}
			case backend.MatNN:
				p.outs, p.ins = []operand{mat(backend.Tok, n, n, 0)}, []operand{dead, x, w}
			default:
				w.axis, w.space = backend.Tok, backend.Arena
				p.outs, p.ins, p.i[0] = []operand{weight(n, n, 0)}, []operand{x, w}, 0
			}
			for isa, be := range rounding(t, 1) {
				got := once[float32](t, be, p)[0]
				for i, v := range numbers {
					require.Equal(t, v.out, float64(got[i*n+i]), "%s on %s, left %v: %v", op, isa, left, v.in)
				}
			}
		}
	}
}
