package cpu_test

import (
	"fmt"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/backend"
)

// nt is a MatNT of one block with everything: bias, low-rank term, activation.
func nt(rows, out, in, rank, act int, acc bool) probe {
	y := mat(backend.Tok, rows+3, out, 5)
	y.acc = acc
	return probe{
		op: backend.MatNT, i: [4]int{1, act}, s: counts(rows, 1, 1), floor: 1,
		outs: []operand{y, mat(backend.Tok, rows+3, out, 1)},
		ins:  []operand{mat(backend.Tok, rows+3, in, 3), weight(out, in, 2), weight(1, out, 0), mat(backend.Tok, rows+3, rank, 1), weight(out, rank, 0)},
	}
}

func TestMatNT(t *testing.T) {
	for _, rows := range []int{1, 5, 7, 73} {
		for _, out := range []int{1, 8, 9, 33, 70} {
			for _, in := range []int{1, 31, 500} {
				p := nt(rows, out, in, 8, backend.ActGELU, rows%2 == 0)
				check(t, fmt.Sprint(rows, out, in), p, 2e-6)
			}
		}
	}
}

// Without an activation whole blocks go from registers to the result: parts of k, bias, low-rank term and what is
// there are added on the way.
func TestMatNTPlain(t *testing.T) {
	for _, rows := range []int{29, 100} {
		for _, out := range []int{32, 70} {
			for _, in := range []int{31, 500, 1000} {
				for _, low := range []bool{false, true} {
					for _, acc := range []bool{false, true} {
						p := nt(rows, out, in, 8, backend.Identity, acc)
						p.outs[0].pad = out % 32 // of 32 columns rows follow each other, as those of a block do
						p.outs[1] = dead
						if !low {
							p.ins[2], p.ins[3], p.ins[4] = dead, dead, dead
						}
						check(t, fmt.Sprint(rows, out, in, low, acc), p, 2e-6)
					}
				}
			}
		}
	}
}

func TestMatNTBlocks(t *testing.T) {
	const rows = 50
	p := probe{
		op: backend.MatNT, i: [4]int{3}, s: counts(rows, 1, 1), floor: 1,
		outs: []operand{mat(backend.Tok, rows, 30+17+400, 2), dead},
		ins: []operand{
			mat(backend.Tok, rows, 40, 0),
			weight(30, 40, 0), weight(1, 30, 0), dead, dead,
			weight(17, 40, 9), dead, mat(backend.Tok, rows, 3, 2), weight(17, 3, 0),
			weight(400, 40, 0), dead, dead, dead,
		},
	}
	check(t, "three blocks", p, 2e-6)
	p.outs[0], p.outs[1] = dead, p.outs[0]
	check(t, "only what was before the activation", p, 2e-6)
	p.outs[0], p.outs[1] = p.outs[1], dead
	p.s.Count[backend.Tok] = 0
	check(t, "no rows", p, 0)
}

func TestMatNN(t *testing.T) {
	for _, rows := range []int{1, 7, 75} {
		for _, in := range []int{1, 8, 23, 64, 390} {
			for _, out := range []int{1, 30, 385} {
				dx := mat(backend.Tok, rows+1, in, 4)
				dx.acc = out == 30
				p := probe{
					op: backend.MatNN, i: [4]int{2, out % 2 * backend.ActGELU}, s: counts(rows, 1, 1), floor: 1,
					outs: []operand{dx},
					ins: []operand{
						mat(backend.Tok, rows+1, in, 1),
						mat(backend.Tok, rows+1, out, 1), weight(out, in, 3),
						mat(backend.Tok, rows+1, 5, 1), weight(5, in, 0),
					},
				}
				check(t, fmt.Sprint(rows, in, out), p, 2e-6)
			}
		}
	}
}

func TestMatTN(t *testing.T) {
	type shape struct{ rows, out, in int }
	shapes := []shape{{2100, 390, 50}, {600, 8, 400}}
	for _, rows := range []int{0, 1, 300, 513} {
		for _, out := range []int{1, 8, 45} {
			for _, in := range []int{1, 8, 40, 100} {
				shapes = append(shapes, shape{rows, out, in})
			}
		}
	}
	for _, m := range shapes {
		dw := weight(m.out, m.in, 3)
		dw.acc = m.in == 40
		p := probe{
			op: backend.MatTN, s: counts(m.rows, 1, 1), floor: 1, outs: []operand{dw},
			ins: []operand{mat(backend.Tok, m.rows+2, m.out, 2), mat(backend.Tok, m.rows+2, m.in, 1)},
		}
		p.s.Count[backend.Unit] = 1 // no rows are counts too
		check(t, fmt.Sprint(m), p, 4e-6)
	}
}

func TestMatTNByUnit(t *testing.T) {
	for _, acc := range []bool{false, true} {
		dw := weight(20, 30, 0)
		dw.space, dw.stride, dw.acc = backend.Grad, 700, acc
		p := probe{
			op: backend.MatTN, s: counts(300, 1, 3), outs: []operand{dw}, units: []int32{0, 120, 120, 300},
			ins: []operand{mat(backend.Tok, 300, 20, 2), mat(backend.Tok, 300, 30, 1)},
		}
		check(t, "units", p, 4e-6)
	}
}

// TestRowsAlone shows that a row's bits are the same by itself as among others.
func TestRowsAlone(t *testing.T) {
	all := backends(t, 2)
	maps.Copy(all, rounding(t, 2))
	for isa, be := range all {
		all := once[float32](t, be, nt(101, 70, 500, 4, backend.ActGELU, false))[0]
		for _, n := range []int{1, 2, 50, 100} {
			some := once[float32](t, be, nt(n, 70, 500, 4, backend.ActGELU, false))[0]
			require.Equal(t, all[:n*75], some[:n*75], "%s: %d rows", isa, n)
		}
	}
}

// TestForms changes a weight with and without a new version.
func TestForms(t *testing.T) {
	for isa, be := range backends(t, 2) {
		version := uint64(1)
		p := nt(9, 20, 30, 2, backend.Identity, false)
		p.ins[1].space, p.ins[1].version = backend.Weight, &version
		s, other := encode[float32](t, be, p), encode[float32](t, be, p)
		first := s.run(t)
		require.Equal(t, first, other.run(t))

		floats(s)[s.ins[1]]++
		require.Equal(t, first, s.run(t), "%s: the packed weight of version 1", isa)
		version++
		second := s.run(t)
		require.NotEqual(t, first, second, "%s: version 2", isa)
		require.InDelta(t, first[0][0]+floats(s)[s.ins[0]], second[0][0], 1e-4)
		s.close(t)
		other.close(t)
	}
}

// TestNoAllocation counts what a launch allocates.
func TestNoAllocation(t *testing.T) {
	all := backends(t, 2)
	maps.Copy(all, rounding(t, 2))
	for isa, be := range all {
		s := encode[float32](t, be, nt(200, 70, 100, 4, backend.ActGELU, false))
		require.Zero(t, testing.AllocsPerRun(10, func() { _ = s.x.Launch(t.Context(), &s.p.s) }), isa)
		s.close(t)
	}
}
