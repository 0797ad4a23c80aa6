package nntest

import (
	"testing"

	"rung/nn/backend"
	"rung/nn/backend/ref"
	"rung/nn/nntest/golden"
)

// TestOptimizers follows torch.optim for twelve updates of two tensors, one of them with no gradient.
func TestOptimizers(t *testing.T) {
	file := golden.File(t, "optim", "optimizers.safetensors")
	adam := []backend.Space{backend.Moment1, backend.Moment2}
	for _, o := range []struct {
		name    string
		op      backend.Op
		lr      float64
		f       [4]float64
		variant int
		moments []backend.Space
	}{
		{"adam", backend.AdamW, .01, [4]float64{.9, .999, 1e-8, 0}, 0, adam},
		{"adam_l2", backend.AdamW, .01, [4]float64{.9, .999, 1e-8, .1}, 1, adam},
		{"adamw", backend.AdamW, .01, [4]float64{.9, .999, 1e-8, .1}, 0, adam},
		{"adamw_b", backend.AdamW, .02, [4]float64{.8, .95, 1e-6, .01}, 0, adam},
		{"amsgrad", backend.AdamW, .01, [4]float64{.9, .999, 1e-8, .01}, 0, append(adam, backend.Moment2)},
		{"sgd_momentum", backend.SGD, .1, [4]float64{.9}, 0, adam[:1]},
		{"sgd_nesterov", backend.SGD, .1, [4]float64{.9}, 1, adam[:1]},
		{"adagrad", backend.Adagrad, .1, [4]float64{2: 1e-10}, 0, adam[1:]},
	} {
		t.Run(o.name, func(t *testing.T) {
			be := ref.New[float64]()
			for _, p := range []string{"0", "1"} {
				start, g, want := golden.Floats(t, file, "p"+p), golden.Floats(t, file, "g"+p), golden.Floats(t, file, o.name+".p"+p+".f64")
				n := len(start)
				if n == 0 || len(want) != 12*n {
					t.Fatalf("p%s has %d elements, its history %d", p, n, len(want))
				}
				c := &call{op: o.op, I: [4]int{2, o.variant}, F: o.f}
				c.s.LR[2] = o.lr
				c.out = []operand{{space: backend.Weight, rows: 1, cols: n, v: start}}
				for _, s := range o.moments {
					c.out = append(c.out, operand{space: s, rows: 1, cols: n, v: make([]float64, n)})
				}
				for step := range 12 {
					c.s.Step = uint64(step)
					c.in = []operand{
						{space: backend.Grad, rows: 1, cols: n, v: g[step*n : (step+1)*n]},
						{space: backend.Arena, rows: 1, cols: 2, v: []float64{1, 0}},
					}
					for k, v := range c.run(t, be, strided) {
						c.out[k].v = v
					}
					if e := Rel(c.out[0].v, want[step*n:(step+1)*n]); !(e <= 1e-12) {
						t.Errorf("p%s is off by %.3g after update %d", p, e, step)
					}
				}
			}
		})
	}
}
