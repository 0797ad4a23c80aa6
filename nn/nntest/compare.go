package nntest

import (
	"math"
	"testing"

	"rung/nn/backend"
)

// Rel is the error of got relative to the norm of want: |got-want| / |want|, or |got| where want is 0.
// It is NaN if an element of either is, and +Inf if the lengths differ.
func Rel[F float32 | float64](got, want []F) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	var d, w float64
	for i, v := range want {
		e := float64(got[i]) - float64(v)
		d, w = d+e*e, w+float64(v)*float64(v)
	}
	if w == 0 {
		return math.Sqrt(d)
	}
	return math.Sqrt(d / w)
}

// Gradient checks that want is the gradient of f by x, relative to its norm within tol. It changes the
// elements of x, one at a time, and puts them back. The differences are of fourth order with steps of
// 1e-3: for a smooth f of moderate size they are good to about 1e-11.
func Gradient(t testing.TB, f func() float64, x, want []float64, tol float64) {
	t.Helper()
	got := make([]float64, len(x))
	for i, v := range x {
		h := 1e-3 * math.Max(1, math.Abs(v))
		at := func(k float64) float64 {
			x[i] = v + k*h
			return f()
		}
		got[i] = (8*(at(1)-at(-1)) - (at(2) - at(-2))) / (12 * h)
		x[i] = v
	}
	if len(x) != len(want) {
		t.Errorf("%d elements, but %d of its gradient", len(x), len(want))
		return
	}
	var d, n float64
	worst := 0
	for i := range got {
		e := math.Abs(got[i] - want[i])
		if !(e <= math.Abs(got[worst]-want[worst])) {
			worst = i
		}
		d, n = d+e*e, n+got[i]*got[i]
	}
	if e := math.Sqrt(d); !(e <= tol*(1+math.Sqrt(n))) {
		t.Errorf("gradient is off by %.3g, its norm being %.3g; element %d is %.12g, differences give %.12g", e, math.Sqrt(n), worst, want[worst], got[worst])
	}
}

// A grid is a matrix with the magnitude of what each element was computed from: the unit in which its
// rounding error is measured.
type grid struct{ v, m []float64 }

// gridOf computes a matrix element by element. f returns value and magnitude.
func gridOf(rows, cols int, f func(i, j int) (v, m float64)) grid {
	g := grid{make([]float64, rows*cols), make([]float64, rows*cols)}
	for i := range rows {
		for j := range cols {
			g.v[i*cols+j], g.m[i*cols+j] = f(i, j)
		}
	}
	return g
}

// zeros is a matrix to be summed up.
func zeros(rows, cols int) grid { return grid{make([]float64, rows*cols), make([]float64, rows*cols)} }

// add adds v to element i, whose magnitude grows by that of m.
func (g grid) add(i int, v, m float64) { g.v[i], g.m[i] = g.v[i]+v, g.m[i]+abs(m) }

func abs(x float64) float64 { return math.Abs(x) }

func one(g grid) []grid { return []grid{g} }

// roundoff is half the distance from 1 to the next number of be.
func roundoff(be backend.Backend) float64 {
	if be.Float() == backend.Float64 {
		return 0x1p-53
	}
	return 0x1p-24
}

// check compares results element by element: the error may be unit times the magnitude. A backend may
// flush denormals, also factors of a result such as a probability, and may overflow where single
// precision does.
func (c *call) check(t *testing.T, what string, got [][]float64, want []grid, unit float64) {
	t.Helper()
	single := unit > 1e-10
	flushed := 0x1p-900
	if single {
		flushed = 0x1p-100
	}
	for k, o := range c.out {
		if o.dead() {
			continue
		}
		if len(got[k]) != len(want[k].v) {
			t.Fatalf("%s: %v: result %d has %d elements, want %d", what, c, k, len(got[k]), len(want[k].v))
		}
		for i, g := range got[k] {
			w, m := want[k].v[i], want[k].m[i]
			switch {
			case g == w, math.IsNaN(g) && math.IsNaN(w):
			case abs(g-w) <= unit*m+flushed:
			case single && abs(w) > math.MaxFloat32 && math.IsInf(g, int(math.Copysign(1, w))):
			default:
				t.Fatalf("%s: %v: result %d, row %d, column %d is %.9g, want %.9g: off by %.3g, allowed %.3g", what, c, k, i/o.cols, i%o.cols, g, w, abs(g-w), unit*m)
			}
		}
	}
}

// same compares bits.
func (c *call) same(t *testing.T, what string, want, got [][]float64) {
	t.Helper()
	for k, o := range c.out {
		for i, w := range want[k] {
			if math.Float64bits(w) != math.Float64bits(got[k][i]) {
				t.Fatalf("%s: %v: result %d, row %d, column %d is %.17g, was %.17g", what, c, k, i/o.cols, i%o.cols, got[k][i], w)
			}
		}
	}
}
