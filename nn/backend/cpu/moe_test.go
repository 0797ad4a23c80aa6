package cpu_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/backend"
	"rung/nn/backend/philox"
	"rung/nn/backend/ref"
)

// someOf is n of the values, with repetitions.
func someOf(name string, n int, of ...float64) (v []float64) {
	for _, i := range philox.Perm(n, 3, name) {
		v = append(v, of[i%len(of)])
	}
	return v
}

// likeRef holds a probe to the reference in the same precision: results of whole numbers, zeros, infinities and NaN are
// the same, others are near.
func likeRef(t *testing.T, name string, p probe) {
	t.Helper()
	want := once[float32](t, ref.New[float32](), p)
	for isa, be := range backends(t, 2) {
		for k, out := range once[float32](t, be, p) {
			for i, g := range out {
				w := want[k][i]
				near := w != 0 && w != float32(math.Trunc(float64(w))) && math.Abs(float64(g-w)) <= 4e-6*math.Abs(float64(w))
				if g != w && !(g != g && w != w) && !near {
					ld := p.outs[k].cols + p.outs[k].pad
					t.Fatalf("%s on %s: result %d, row %d, column %d is %v, want %v", name, isa, k, i/ld, i%ld, g, w)
				}
			}
		}
	}
}

// TestRouteExtremes routes rows with infinities and NaN, equal logits, and biases that pull scores to 0 and below: the
// choice is that of the reference, gates of others are 0.
func TestRouteExtremes(t *testing.T) {
	const rows, cols = 83, 6
	inf := math.Inf(1)
	for how, values := range [][]float64{
		backend.RouteSoftmax: {inf, -inf, math.NaN(), 0, 1, 1, -1, -inf, 300, -300, 3000, -inf, 2},
		backend.RouteSigmoid: {inf, -inf, math.NaN(), 0, 1, 1, -1, -2, 300, -300, 3000},
	} {
		for each := 1; each <= 1+how; each++ {
			for _, k := range []int{1, 3, cols * each} {
				for _, biased := range []bool{false, true} {
					z, bias := mat(backend.Tok, rows+1, cols, 1), dead
					z.values = someOf(fmt.Sprint(how, k), rows*cols, values...)
					for i := range cols { // nothing, the same, and no number
						z.values[i], z.values[cols+i], z.values[2*cols+i] = -inf, .5, math.NaN()
					}
					if biased {
						bias = weight(1, cols*each, 0)
						bias.values = someOf("bias", cols*each, 0, -1, .25, -.5, -3)
					}
					likeRef(t, fmt.Sprint(how, each, k, biased), probe{
						op: backend.Route, i: [4]int{k, how, each}, s: counts(rows, 1, 1), ins: []operand{z, bias},
						outs: []operand{mat(backend.Tok, rows+1, cols*each+cols, 2), mat(backend.Tok, rows+1, k, 1)},
					})
				}
			}
		}
	}
}

// TestRouteMany routes to as many experts as there can be, with many that are equal.
func TestRouteMany(t *testing.T) {
	const cols = backend.MaxExperts
	for _, k := range []int{1, 7, cols} {
		z := mat(backend.Tok, 21, cols, 3)
		z.values = someOf("many", 21*cols, 1.5, -2, 0, .25, .25, -.75)
		outs := []operand{mat(backend.Tok, 21, 2*cols, 0), mat(backend.Tok, 21, k, 0)}
		p := probe{op: backend.Route, i: [4]int{k, backend.RouteSoftmax, 1}, s: counts(21, 1, 1), outs: outs, ins: []operand{z, dead}}
		likeRef(t, fmt.Sprint(k), p)
		p.outs = []operand{dead, outs[1]}
		likeRef(t, fmt.Sprint("only the choice of ", k), p)
		p.outs = []operand{outs[0], dead}
		likeRef(t, fmt.Sprint("only the gates of ", k), p)
	}
}

// TestRouteGradFew has scores whose sum a bias pulls to 0: there gates are 1 and have no gradient.
func TestRouteGradFew(t *testing.T) {
	const rows, cols, k = 5, 9, 2
	y, dy, at, bias := mat(backend.Tok, rows, 2*cols, 1), mat(backend.Tok, rows, 2*cols, 0), mat(backend.Tok, rows, k, 0), weight(1, cols, 0)
	for i := range rows {
		y.values = append(y.values, someOf("gates", cols, 0, 1)...)
		y.values = append(y.values, someOf("probabilities", cols, .5, .25, .75)...)
		at.values = append(at.values, float64(i), float64(i+3))
	}
	bias.values = someOf("bias", cols, -1, 1, -.5)
	likeRef(t, "few", probe{op: backend.RouteGrad, i: [4]int{k, backend.RouteSigmoid, 1}, s: counts(rows, 1, 1), outs: []operand{mat(backend.Tok, rows, cols, 1)}, ins: []operand{y, at, bias, dy}})
}

// TestEntropyAccuracy sweeps the entropy of two probabilities that divide exactly: its relative error is that of the
// logarithm, and three roundings.
func TestEntropyAccuracy(t *testing.T) {
	at, x := mat(backend.Tok, 1, 1, 0), mat(backend.Tok, 1, 2, 0)
	at.values, x.values = []float64{0}, []float64{0, 1}
	p := probe{op: backend.Load, s: counts(1, 1, 1), outs: []operand{weight(1, 2, 0), weight(1, 1, 0)}, ins: []operand{at, x}}
	for isa, be := range backends(t, 1) {
		s, worst := encode[float32](t, be, p), 0.
		for i := 0; i <= 1<<23; i += 1 + i>>10 {
			q := float64(i) / (1 << 24)
			copy(floats(s)[s.ins[1]:], []float32{float32(q), float32(1 - q)})
			require.NoError(t, s.x.Launch(t.Context(), &p.s))
			want, got := -(1-q)*math.Log(1-q), float64(floats(s)[s.offs[1]])
			if i == 0 {
				require.Zero(t, got, isa)
				continue
			}
			want -= q * math.Log(q)
			worst = max(worst, math.Abs(got-want)/want)
		}
		t.Logf("%s: relative error %.2g", isa, worst)
		require.LessOrEqual(t, worst, 2.5e-7, isa)
		s.close(t)
	}
}

// TestEntropyExtremes has probabilities of nothing, and with infinities and NaN, which count nothing.
func TestEntropyExtremes(t *testing.T) {
	at, x := mat(backend.Tok, 1, 1, 0), mat(backend.Tok, 1, 3, 0)
	at.values = []float64{2}
	for i, v := range [][]float64{{0, 0, 0}, {0, 1, 3}, {1, math.NaN(), 2}, {math.Inf(1), 1, 2}, {1e-30, 0, 2e-30}} {
		x.values = v
		likeRef(t, fmt.Sprint(i), probe{op: backend.Load, s: counts(1, 1, 1), outs: []operand{weight(1, 3, 0), weight(1, 1, 0)}, ins: []operand{at, x}})
	}
}

// TestTallies sums up more rows than a part has, fewer, and none.
func TestTallies(t *testing.T) {
	const cols = 9
	each, one := weight(1, cols, 0), weight(1, 1, 0)
	for _, rows := range []int{0, 1, 127, 128, 129, 700} {
		at, x := mat(backend.Tok, rows+2, 2, 1), mat(backend.Tok, rows+2, cols, 3)
		for i := range rows {
			at.values = append(at.values, float64(i%cols), float64(i*i%cols))
			x.values = append(x.values, someOf(fmt.Sprint(i), cols, .05, .1, .3, .01, 0)...)
		}
		s := counts(rows, 1, 1)
		check(t, fmt.Sprint("load ", rows), probe{op: backend.Load, s: s, outs: []operand{each, one}, ins: []operand{at, x}}, 1e-6)
		check(t, fmt.Sprint("load less the mean ", rows), probe{op: backend.Load, i: [4]int{1}, s: s, floor: 1, outs: []operand{each, dead}, ins: []operand{at, dead}}, 1e-6)
		for how := range backend.BalanceCV + 1 {
			check(t, fmt.Sprint("balance ", how, rows), probe{op: backend.Balance, i: [4]int{how}, f: [4]float64{3}, s: s, outs: []operand{one, each}, ins: []operand{x, at}}, 1e-6)
		}
		check(t, fmt.Sprint("z-loss ", rows), probe{op: backend.ZLoss, f: [4]float64{3}, s: s, outs: []operand{one}, ins: []operand{x}}, 1e-6)
	}
}

// TestTallyOfNone sums up no rows after some, whose sums are still in scratch.
func TestTallyOfNone(t *testing.T) {
	z := mat(backend.Tok, 200, 3, 0)
	for isa, be := range backends(t, 1) {
		s := encode[float32](t, be, probe{op: backend.ZLoss, f: [4]float64{1}, s: counts(200, 1, 1), outs: []operand{weight(1, 1, 0)}, ins: []operand{z}})
		require.NotZero(t, s.run(t)[0][0], isa)
		s.p.s = counts(0, 1, 1)
		require.Zero(t, s.run(t)[0][0], isa)
		s.close(t)
	}
}

// TestZLossExtremes gives it rows of nothing, and with infinities and NaN.
func TestZLossExtremes(t *testing.T) {
	inf := math.Inf(1)
	for i, v := range [][]float64{{-inf, -inf, -inf}, {-inf, 2, -3}, {inf, 1, 2}, {1, math.NaN(), 2}, {500, -500, 500}} {
		z := mat(backend.Tok, 1, 3, 0)
		z.values = v
		p := probe{op: backend.ZLoss, f: [4]float64{.5}, s: counts(1, 1, 1), outs: []operand{weight(1, 1, 0)}, ins: []operand{z}}
		likeRef(t, fmt.Sprint("z-loss ", i), p)
		p.op, p.outs, p.ins = backend.ZLossGrad, []operand{mat(backend.Tok, 1, 3, 0)}, []operand{z, weight(1, 1, 0)}
		likeRef(t, fmt.Sprint("gradient ", i), p)
	}
}

// TestGates has NaN where gates are 0, and a sum over all experts where one group is all of theirs.
func TestGates(t *testing.T) {
	const rows, experts = 7, 19
	for _, rank := range []int{1, 3, 8, 37} {
		for _, shared := range []bool{false, true} {
			width := rank * experts
			if shared {
				width = rank
			}
			h, g, y := mat(backend.Tok, rows, width, 1), mat(backend.Tok, rows, experts, 2), mat(backend.Tok, rows, rank*experts, 3)
			g.values = someOf("gates", rows*experts, 0, .25, math.Copysign(0, -1), 1.5)
			p := probe{op: backend.GateMul, f: [4]float64{-2}, s: counts(rows, 1, 1), outs: []operand{y}, ins: []operand{h, g}}
			if !shared {
				p.ins[0].values = someOf("h", rows*width, 1, -2, .5)
				for j := range p.ins[0].values {
					if g.values[j/width*experts+j%width/rank] == 0 {
						p.ins[0].values[j] = math.NaN()
					}
				}
			}
			check(t, fmt.Sprint(rank, shared), p, 1e-7)
			p.ins[0] = h
			p.op, p.floor, p.outs, p.ins = backend.GateMulGrad, 1, []operand{h, g}, append(p.ins, y)
			p.outs[1].values = nil
			check(t, fmt.Sprint("gradients ", rank, shared), p, 1e-6)
			p.outs = []operand{h, dead}
			check(t, fmt.Sprint("without gates ", rank, shared), p, 1e-6)
			p.outs = []operand{dead, g}
			check(t, fmt.Sprint("gates alone ", rank, shared), p, 1e-6)
		}
	}
}
