//go:build unix

package cpu_test

import (
	"testing"

	"rung/nn/backend"
)

// BenchmarkMixtures is what mixtures of experts have for themselves, by bytes read and written: 2 of 8 experts of rank 8,
// and 8 of 64 ranks.
func BenchmarkMixtures(b *testing.B) {
	const rows = 4096
	full := func(c int) operand { return mat(backend.Tok, rows, c, 0) }
	for _, m := range []struct {
		name         string
		k, how, c, r int
	}{{"token", 2, backend.RouteSoftmax, 8, 8}, {"rank", 8, backend.RouteSigmoid, 64, 1}} {
		at := full(m.k)
		for i := range rows * m.k {
			at.values = append(at.values, float64(i%m.c))
		}
		route := [4]int{m.k, m.how, 1}
		one, each := weight(1, 1, 0), weight(1, m.c, 0)
		for _, c := range []struct {
			name   string
			p      probe
			floats int
		}{
			{"route", probe{op: backend.Route, i: route, outs: []operand{full(2 * m.c), full(m.k)}, ins: []operand{full(m.c), dead}}, 3*m.c + m.k},
			{"route's gradient", probe{op: backend.RouteGrad, i: route, outs: []operand{full(m.c)}, ins: []operand{full(2 * m.c), at, dead, full(2 * m.c)}}, 5*m.c + m.k},
			{"gates", probe{op: backend.GateMul, f: [4]float64{2}, outs: []operand{full(m.c * m.r)}, ins: []operand{full(m.c * m.r), full(m.c)}}, m.c * (2*m.r + 1)},
			{"gates' gradients", probe{op: backend.GateMulGrad, f: [4]float64{2}, outs: []operand{full(m.c * m.r), full(m.c)}, ins: []operand{full(m.c * m.r), full(m.c), full(m.c * m.r)}}, m.c * (3*m.r + 2)},
			{"load", probe{op: backend.Load, outs: []operand{each, one}, ins: []operand{at, full(m.c)}}, m.c + m.k},
			{"balance", probe{op: backend.Balance, f: [4]float64{1}, outs: []operand{one, each}, ins: []operand{full(m.c), at}}, m.c + m.k},
			{"z-loss", probe{op: backend.ZLoss, f: [4]float64{1}, outs: []operand{one}, ins: []operand{full(m.c)}}, m.c},
			{"z-loss's gradient", probe{op: backend.ZLossGrad, f: [4]float64{1}, outs: []operand{full(m.c)}, ins: []operand{full(m.c), one}}, 2 * m.c},
		} {
			c.p.s = counts(rows, 1, 1)
			b.Run(m.name+"/"+c.name, func(b *testing.B) { measure(b, c.p, float64(4*rows*c.floats), "B") })
		}
	}
}
