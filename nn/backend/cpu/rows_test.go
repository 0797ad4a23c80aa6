package cpu_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/backend"
	"rung/nn/backend/ref"
)

// widths of rows: one, odd, and around the vectors and what is unrolled.
var widths = []int{1, 8, 17, 100}

func TestElements(t *testing.T) {
	for _, op := range []backend.Op{backend.Add, backend.Sub, backend.Mul} {
		for _, c := range widths {
			y := mat(backend.Tok, 9, c, 2)
			y.acc = c%2 == 0
			check(t, fmt.Sprint(op, c), probe{
				op: op, s: counts(7, 1, 1), outs: []operand{y}, ins: []operand{mat(backend.Tok, 9, c, 1), mat(backend.Tok, 9, c, 0)},
			}, 1e-7)
		}
	}
	for _, op := range []backend.Op{backend.Scale, backend.AddTo, backend.Fill} {
		y := mat(backend.Tok, 300, 200, 2)
		y.drawn = op == backend.AddTo
		p := probe{op: op, f: [4]float64{-1.75}, s: counts(299, 1, 1), outs: []operand{y}, ins: []operand{mat(backend.Tok, 300, 200, 1)}}
		if op == backend.Fill {
			p.ins = nil
		}
		check(t, op.String(), p, 1e-7)
	}
}

func TestUnary(t *testing.T) {
	for f := backend.GELU; f < backend.NumFuncs; f++ {
		for _, c := range widths {
			x := mat(backend.Tok, 30, c, 3)
			x.scale = 4
			p := probe{op: backend.Unary, i: [4]int{int(f)}, s: counts(28, 1, 1), outs: []operand{mat(backend.Tok, 30, c, 1)}, ins: []operand{x}}
			check(t, fmt.Sprint("function ", f, c), p, 1e-6)
			if f == backend.Positive {
				continue
			}
			y, dx := mat(backend.Tok, 30, c, 1), mat(backend.Tok, 30, c, 0)
			dx.acc = c == 17
			p.op, p.outs, p.ins = backend.UnaryGrad, []operand{dx}, []operand{x, y, mat(backend.Tok, 30, c, 0)}
			check(t, fmt.Sprint("derivative ", f, c), p, 1e-6)
			switch f {
			case backend.Tanh, backend.Sigmoid, backend.Exp, backend.InvSqrt:
				p.ins[0] = dead
			default:
				p.ins[1] = dead
			}
			check(t, fmt.Sprint("derivative of one input ", f, c), p, 1e-6)
		}
	}
}

// TestUnaryAccuracy sweeps the functions densely against float64, with bounds relative to the result
// and absolute.
func TestUnaryAccuracy(t *testing.T) {
	bounds := map[backend.Func]struct{ lo, hi, rel, abs float64 }{
		backend.GELU:     {-10, 10, 2e-6, 1e-9},
		backend.Tanh:     {-12, 12, 3e-7, 0},
		backend.Sigmoid:  {-80, 80, 4e-7, 0},
		backend.Softplus: {-60, 60, 3e-7, 0},
		backend.Exp:      {-86, 88, 2e-7, 0},
	}
	const n = 200_000
	for f, b := range bounds {
		x := mat(backend.Tok, n/1000, 1000, 0)
		for i := range n {
			x.values = append(x.values, float64(float32(b.lo+(b.hi-b.lo)*float64(i)/n)))
		}
		p := probe{op: backend.Unary, i: [4]int{int(f)}, s: counts(n/1000, 1, 1), outs: []operand{mat(backend.Tok, n/1000, 1000, 0)}, ins: []operand{x}}
		want := once[float64](t, ref.New[float64](), p)[0]
		for isa, be := range backends(t, 1) {
			worst, at := 0.0, 0.0
			for i, y := range once[float32](t, be, p)[0] {
				if e := math.Abs(float64(y)-want[i]) - b.abs; e > worst*math.Abs(want[i]) {
					worst, at = e/math.Abs(want[i]), x.values[i]
				}
			}
			t.Logf("%s: function %d: relative error %.2g at %g", isa, f, worst, at)
			require.LessOrEqual(t, worst, b.rel, "%s: function %d at %g", isa, f, at)
		}
		if f != backend.GELU {
			continue
		}
		p.op = backend.UnaryGrad
		one := mat(backend.Tok, n/1000, 1000, 0)
		for range n {
			one.values = append(one.values, 1)
		}
		p.ins = []operand{x, dead, one}
		want = once[float64](t, ref.New[float64](), p)[0]
		for isa, be := range backends(t, 1) {
			for i, y := range once[float32](t, be, p)[0] {
				require.InDelta(t, want[i], float64(y), 2.5e-7, "%s: derivative of GELU at %g", isa, x.values[i])
			}
		}
	}
}

// TestUnaryExtremes gives infinities and NaN to functions.
func TestUnaryExtremes(t *testing.T) {
	inf := math.Inf(1)
	for f, want := range map[backend.Func][]float64{
		backend.GELU:     {inf, 0, math.NaN(), 1e30, 0},
		backend.Tanh:     {1, -1, math.NaN(), 1, -1},
		backend.ReLU:     {inf, 0, math.NaN(), 1e30, 0},
		backend.Sigmoid:  {1, 0, math.NaN(), 1, 0},
		backend.Softplus: {inf, 0, math.NaN(), 1e30, 0},
		backend.Exp:      {inf, 0, math.NaN(), inf, 0},
	} {
		x := mat(backend.Tok, 1, 5, 0)
		x.values = []float64{inf, -inf, math.NaN(), 1e30, -1e30}
		p := probe{op: backend.Unary, i: [4]int{int(f)}, s: counts(1, 1, 1), outs: []operand{mat(backend.Tok, 1, 5, 0)}, ins: []operand{x}}
		for isa, be := range backends(t, 1) {
			for j, y := range once[float32](t, be, p)[0] {
				if f == backend.GELU && j == 1 {
					continue // -inf times 0, as torch has it
				}
				if w := float32(want[j]); y != w && !(y != y && w != w) {
					t.Errorf("%s: function %d of %v is %v, want %v", isa, f, x.values[j], y, w)
				}
			}
		}
	}
}

func TestDropout(t *testing.T) {
	for _, c := range []int{1, 3, 32, 33, 384, 385} {
		for _, rows := range []int{1, 11} {
			seqs, pos := make([]int32, rows), make([]int32, rows)
			for i := range rows {
				seqs[i], pos[i] = int32(i/4), int32(i%4)
			}
			y := mat(backend.Tok, rows, c, 1)
			y.acc = c == 33
			p := probe{
				op: backend.Dropout, i: [4]int{5}, f: [4]float64{.3}, s: counts(rows, 4, 1), outs: []operand{y},
				ins: []operand{mat(backend.Tok, rows, c, 2), index(backend.Seq, 9, 8, 7, 6), index(backend.Tok, seqs...), index(backend.Tok, pos...)},
			}
			check(t, fmt.Sprint(rows, c), p, 2e-7)
		}
	}
	p := probe{
		op: backend.Dropout, f: [4]float64{.5}, s: counts(1, 3, 1), outs: []operand{mat(backend.Seq, 4, 50, 0)},
		ins: []operand{mat(backend.Seq, 4, 50, 2), index(backend.Seq, 9, 8, 7, 6), dead, dead},
	}
	check(t, "rows are sequences", p, 2e-7)
}

func norm(rows, cols int) probe {
	x := mat(backend.Tok, rows+1, cols, 1)
	x.scale = 3
	return probe{
		op: backend.Norm, f: [4]float64{1e-12}, s: counts(rows, 1, 1), floor: 1,
		outs: []operand{mat(backend.Tok, rows+1, cols, 2), mat(backend.Tok, rows+1, 1, 0), mat(backend.Tok, rows+1, 1, 3), mat(backend.Tok, rows+1, cols, 0)},
		ins:  []operand{x, mat(backend.Tok, rows+1, cols, 5), weight(1, cols, 0), weight(1, cols, 0)},
	}
}

func TestNorm(t *testing.T) {
	for _, c := range []int{2, 7, 8, 17, 384, 385} {
		for _, rows := range []int{1, 300} {
			p := norm(rows, c)
			if c == 2 {
				p.f[0] = 1e-3 // two equal numbers divide by ε alone
			}
			check(t, fmt.Sprint(rows, c), p, 5e-6)
			p.outs[1], p.outs[2], p.outs[3], p.ins[1] = dead, dead, dead, dead
			check(t, fmt.Sprint("only y ", rows, c), p, 5e-6)
			p.outs[0], p.outs[1] = p.outs[1], mat(backend.Tok, rows+1, 1, 2)
			p.outs[0] = dead
			check(t, fmt.Sprint("only the mean ", rows, c), p, 5e-6)
		}
	}
}

// normGrad is the operands that gradients of Norm read; rstd is positive.
func normGrad(rows, cols int) (s, mean, rstd, dy operand) {
	rstd = mat(backend.Tok, rows+2, 1, 1)
	for i := range rows {
		rstd.values = append(rstd.values, .5+float64(i%7)/8)
	}
	return mat(backend.Tok, rows+2, cols, 1), mat(backend.Tok, rows+2, 1, 0), rstd, mat(backend.Tok, rows+2, cols, 4)
}

func TestNormGradients(t *testing.T) {
	for _, c := range widths {
		for _, rows := range []int{0, 127, 128, 300} {
			s, mean, rstd, dy := normGrad(rows, c)
			dx := mat(backend.Tok, rows+2, c, 3)
			dx.acc = rows == 127
			p := probe{op: backend.NormDX, s: counts(rows, 1, 1), floor: 1, outs: []operand{dx}, ins: []operand{s, mean, rstd, weight(1, c, 0), dy}}
			p.s.Count[backend.Unit] = 1
			check(t, fmt.Sprint("dx ", rows, c), p, 2e-6)
			dg, db := weight(1, c, 0), weight(1, c, 1)
			dg.acc = rows == 128
			p.op, p.outs, p.ins = backend.NormDG, []operand{dg, db}, []operand{s, mean, rstd, dy}
			check(t, fmt.Sprint("dg ", rows, c), p, 4e-6)
			p.outs = []operand{dead, db}
			check(t, fmt.Sprint("db ", rows, c), p, 4e-6)
			p.op, p.outs, p.ins = backend.ColSum, []operand{dg}, []operand{dy}
			check(t, fmt.Sprint("sums ", rows, c), p, 4e-6)
		}
	}
	s, mean, rstd, dy := normGrad(20, 9)
	dg, db := weight(1, 9, 0), weight(1, 9, 0)
	dg.space, dg.stride, db.space, db.stride, db.acc = backend.Grad, 30, backend.Grad, 30, true
	p := probe{op: backend.NormDG, s: counts(20, 1, 3), floor: 1, outs: []operand{dg, db}, ins: []operand{s, mean, rstd, dy}, units: []int32{0, 3, 3, 20}}
	check(t, "dg by unit", p, 4e-6)
	p.op, p.outs, p.ins = backend.ColSum, []operand{db}, []operand{dy}
	check(t, "sums by unit", p, 4e-6)
}

func TestEmbed(t *testing.T) {
	for _, c := range []int{5, 64, 100} {
		ids, pos, types := index(backend.Tok, 3, 0, 3, 9), index(backend.Tok, 0, 1, 2, 3), index(backend.Tok, 0, 0, 1, 1)
		p := probe{
			op: backend.Embed, s: counts(3, 1, 1), outs: []operand{mat(backend.Tok, 4, c, 1)},
			ins: []operand{ids, pos, types, weight(10, c, 2), weight(4, c, 0), weight(2, c, 0)},
		}
		check(t, fmt.Sprint("rows of tables ", c), p, 1e-7)
		p.ins[5] = dead
		check(t, fmt.Sprint("no types ", c), p, 1e-7)
		for _, acc := range []bool{false, true} {
			d := weight(10, c, 1)
			d.acc = acc
			g := probe{op: backend.EmbedGrad, s: counts(3, 1, 1), outs: []operand{d}, ins: []operand{ids, mat(backend.Tok, 4, c, 3)}}
			check(t, fmt.Sprint("gradient ", c, acc), g, 2e-7)
			g.outs[0].space, g.outs[0].stride, g.units = backend.Grad, 10*(c+1), []int32{0, 1, 3}
			g.s.Count[backend.Unit] = 2
			check(t, fmt.Sprint("gradient by unit ", c, acc), g, 2e-7)
		}
	}
	p := probe{
		op: backend.Embed, s: counts(1, 1, 1), outs: []operand{mat(backend.Tok, 1, 4, 0)},
		ins: []operand{index(backend.Tok, 10), index(backend.Tok, 0), index(backend.Tok, 0), weight(10, 4, 0), weight(1, 4, 0), dead},
	}
	for _, be := range backends(t, 1) {
		s := encode[float32](t, be, p)
		require.ErrorContains(t, s.x.Launch(t.Context(), &p.s), "id 10 at row 0 of probe: the table has 10 rows")
		s.close(t)
	}
}

func TestPooling(t *testing.T) {
	offs := index(backend.Seq, 0, 1, 1, 14, 40, 40)
	for _, c := range []int{1, 9, 100, 2100} {
		x, y := mat(backend.Tok, 40, c, 1), mat(backend.Seq, 5, c, 2)
		p := probe{op: backend.Mean, s: counts(40, 4, 1), outs: []operand{y}, ins: []operand{x, offs}}
		check(t, fmt.Sprint("mean ", c), p, 1e-6)
		p.op, p.outs, p.ins = backend.MeanGrad, []operand{x}, []operand{y, offs}
		check(t, fmt.Sprint("mean's gradient ", c), p, 1e-6)
		p.op, p.outs, p.ins = backend.Max, []operand{y, y}, []operand{x, offs}
		check(t, fmt.Sprint("max ", c), p, 0)
		taken := once[float64](t, ref.New[float64](), p)[1]
		at := y
		for i := range 4 {
			at.values = append(at.values, taken[i*(c+2):i*(c+2)+c]...)
		}
		p.op, p.outs, p.ins = backend.MaxGrad, []operand{x}, []operand{y, at, offs}
		check(t, fmt.Sprint("max's gradient ", c), p, 0)
	}
}

func TestNormRowsAlone(t *testing.T) {
	for isa, be := range backends(t, 2) {
		all, some := once[float32](t, be, norm(200, 384))[0], once[float32](t, be, norm(3, 384))[0]
		require.Equal(t, all[:3*386], some[:3*386], isa)
	}
}
