package nntest

import (
	"fmt"
	"math"
	"testing"
)

func TestRel(t *testing.T) {
	for _, c := range []struct {
		got, want []float64
		rel       float64
	}{
		{[]float64{3, 4}, []float64{3, 4}, 0},
		{[]float64{3, 4.5}, []float64{3, 4}, .1},
		{[]float64{3, 4}, []float64{0, 0}, 5},
		{nil, nil, 0},
		{[]float64{1}, []float64{1, 2}, math.Inf(1)},
	} {
		if e := Rel(c.got, c.want); math.Abs(e-c.rel) > 1e-15 && e != c.rel {
			t.Errorf("Rel(%v, %v) = %g, want %g", c.got, c.want, e, c.rel)
		}
	}
	if e := Rel([]float32{1, float32(math.NaN())}, []float32{1, 2}); !math.IsNaN(e) {
		t.Errorf("Rel with a NaN = %g", e)
	}
}

// A witness counts what a check reports.
type witness struct {
	testing.TB
	errors int
}

func (*witness) Helper() {}

func (w *witness) Errorf(string, ...any) { w.errors++ }

func TestGradientFindsErrors(t *testing.T) {
	x := []float64{.3, -2, 5}
	f := func() float64 { return math.Sin(x[0])*x[1] + x[2]*x[2]*x[2] }
	right := []float64{math.Cos(.3) * -2, math.Sin(.3), 75}
	Gradient(t, f, x, right, 1e-9)
	for i := range right {
		for _, wrong := range []float64{right[i] * (1 + 1e-4), right[i] + 1e-4, math.NaN()} {
			w := &witness{TB: t}
			bad := append([]float64(nil), right...)
			bad[i] = wrong
			Gradient(w, f, x, bad, 1e-7)
			if w.errors == 0 {
				t.Errorf("element %d as %g passes for %g", i, wrong, right[i])
			}
		}
	}
	w := &witness{TB: t}
	Gradient(w, f, x, right[:2], 1e-7)
	if w.errors == 0 {
		t.Error("a gradient too short passes")
	}
	if got := fmt.Sprint(x); got != "[0.3 -2 5]" {
		t.Errorf("x is left as %s", got)
	}
}
