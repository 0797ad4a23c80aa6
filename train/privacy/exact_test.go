package privacy

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// tail is P(N(0,1) > z).
func tail(z float64) float64 { return math.Erfc(z/math.Sqrt2) / 2 }

// oneStep is δ(ε) of one step by error functions, for a unit that is removed and one that is added. ε may
// be negative.
func oneStep(m mechanism, e float64) (remove, add float64) {
	remove = -math.Expm1(e)
	if u := m.exponent(e); !math.IsInf(u, -1) {
		z := m.z(u)
		remove = m.q*tail(z-1/m.sigma) - (math.Expm1(e)+m.q)*tail(z)
	}
	if u := m.exponent(-e); !math.IsInf(u, -1) {
		z := m.z(u)
		below := tail(-z)
		add = below - math.Exp(e)*((1-m.q)*below+m.q*tail(1/m.sigma-z))
	}
	return remove, max(0, add)
}

// twoSteps is δ(ε) of two steps: the mean of one step's δ at what the other leaves of ε.
func twoSteps(a, b mechanism, e float64) (remove, add float64) {
	const width = .002
	for z := -14.; z < 14+1/a.sigma; z += width {
		l := a.loss(z)
		density := math.Exp(-z*z/2) * width / math.Sqrt(2*math.Pi)
		r, _ := oneStep(b, e-l)
		_, d := oneStep(b, e+l)
		remove += density * math.Exp(l) * r
		add += density * d
	}
	return remove, add
}

func TestOneStepIsExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	tight := 0
	for range 80 {
		m := mechanism{math.Exp(-9 * rng.Float64()), math.Exp(-1.5 + 3*rng.Float64())}
		if rng.IntN(4) == 0 {
			m.q = 1
		}
		phases := []Phase{{m.q, m.sigma, 1}}
		e := math.Exp(-4 + 5*rng.Float64())
		for i, want := range func() [2]float64 { r, a := oneStep(m, e); return [2]float64{r, a} }() {
			if want < 1e-14 {
				continue
			}
			s := spectrum{phases: phases, add: i == 1}
			got := s.deltaOf(e)
			require.GreaterOrEqual(t, got, want*(1-1e-9), "%+v ε %g add %d", m, e, i)
			require.LessOrEqual(t, got, want*1.02+1e-15, "%+v ε %g add %d", m, e, i)
			s = spectrum{phases, i == 1, want, tolerance, largest}
			back := s.epsilon()
			require.GreaterOrEqual(t, back, e*(1-1e-9), "%+v ε %g add %d", m, e, i)
			require.LessOrEqual(t, back, e*1.001+5e-4, "%+v ε %g add %d", m, e, i)
			tight++
		}
	}
	require.Greater(t, tight, 50)
}

func TestTwoStepsAreExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	seen := 0
	for range 40 {
		a := mechanism{math.Exp(-6 * rng.Float64()), math.Exp(-1 + 2*rng.Float64())}
		b := mechanism{math.Exp(-6 * rng.Float64()), math.Exp(-1 + 2*rng.Float64())}
		phases := []Phase{{a.q, a.sigma, 1}, {b.q, b.sigma, 1}}
		if rng.IntN(2) == 0 {
			b, phases = a, []Phase{{a.q, a.sigma, 2}}
		}
		e := math.Exp(-3 + 4*rng.Float64())
		r, d := twoSteps(a, b, e)
		for i, want := range []float64{r, d} {
			if want < 1e-11 {
				continue
			}
			s := spectrum{phases: phases, add: i == 1}
			got := s.deltaOf(e)
			require.GreaterOrEqual(t, got, want*(1-1e-6), "%+v ε %g add %d", phases, e, i)
			require.LessOrEqual(t, got, want*1.02, "%+v ε %g add %d", phases, e, i)
			seen++
		}
	}
	require.Greater(t, seen, 30)
}

// With q = 1, T steps at σ are one at σ/√T: the analytic Gaussian mechanism (Balle, Wang, "Improving the
// Gaussian mechanism for differential privacy", ICML 2018, theorem 8).
func TestAnalyticGaussian(t *testing.T) {
	for _, steps := range []int64{1, 1e6} {
		for _, mu := range []float64{.01, .1, 1, 5} { // √T/σ
			for _, delta := range []float64{.3, 1e-3, 1e-6, 1e-40} {
				of := func(e float64) float64 { return tail(e/mu-mu/2) - math.Exp(e)*tail(e/mu+mu/2) }
				lo, hi := 0., 1e3
				for range 100 {
					if mid := (lo + hi) / 2; of(mid) > delta {
						lo = mid
					} else {
						hi = mid
					}
				}
				got, err := Epsilon([]Phase{{1, math.Sqrt(float64(steps)) / mu, steps}}, delta)
				require.NoError(t, err)
				require.GreaterOrEqual(t, got, lo*(1-1e-9), "%d steps, μ %g, δ %g", steps, mu, delta)
				require.LessOrEqual(t, got, lo*1.001+1e-5, "%d steps, μ %g, δ %g", steps, mu, delta)
			}
		}
	}
}

// The transforms' masses are no smaller than those of plain convolution, and hardly larger; what a window
// leaves out above is no more than its bound.
func TestPowerIsPessimistic(t *testing.T) {
	s := spectrum{phases: []Phase{{.1, .8, 37}}, delta: 1e-9}
	c := s.compose(.05)
	g := c.parts[0].grid
	for _, theta := range []float64{.1, 3, 20} {
		k := g.tilted(theta).k
		one := make([]float64, len(g.log))
		for i, v := range g.log {
			one[i] = math.Exp(v + theta*float64(g.first+i)*g.h - k)
		}
		sum := []float64{1}
		for range 37 {
			next := make([]float64, len(sum)+len(one)-1)
			for i, a := range sum {
				for j, b := range one {
					next[i+j] += a * b
				}
			}
			sum = next
		}
		w := c.window(theta, math.NaN())
		var above, bulk float64
		for i, v := range sum {
			if l := float64(37*g.first+i) * c.h; l > w.hi {
				above += v * math.Exp(37*k-theta*l)
			} else if l > w.lo {
				bulk += v
			}
		}
		require.LessOrEqual(t, above, w.above, "θ %g", theta)
		require.InDelta(t, 1, bulk, 1e-8, "θ %g", theta)
		require.Equal(t, theta < 10, above > 0, "θ %g: what is left out", theta)

		const n = 1 << 12
		want := make([]float64, n)
		for i, v := range sum {
			want[wrap(int64(37*g.first+i), n)] += v
		}
		got, slack := c.power(theta, n)
		require.Less(t, slack, 1e-10)
		for i, v := range want {
			require.GreaterOrEqual(t, got[i], v*(1-1e-13), "θ %g, %d", theta, i)
			require.LessOrEqual(t, got[i], v*(1+1e-9)+1e-9, "θ %g, %d", theta, i)
		}
	}
}

func TestMonotone(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	eps := func(q, sigma float64, steps int64, delta float64) float64 {
		e, err := Epsilon([]Phase{{q, sigma, steps}}, delta)
		require.NoError(t, err)
		require.False(t, math.IsNaN(e) || e < 0, "%g %g %d %g", q, sigma, steps, delta)
		return e
	}
	for range 12 {
		q, sigma := math.Exp(-9*rng.Float64()), math.Exp(-1.2+3.5*rng.Float64())
		steps, delta := int64(math.Exp(7*rng.Float64())), math.Exp(-5-20*rng.Float64())
		e := eps(q, sigma, steps, delta)
		less := e*(1+tolerance) + 2e-5 // what another grid may add
		require.LessOrEqual(t, eps(q*.9, sigma, steps, delta), less, "q %g σ %g T %d δ %g", q, sigma, steps, delta)
		require.LessOrEqual(t, eps(q, sigma*1.1, steps, delta), less, "q %g σ %g T %d δ %g", q, sigma, steps, delta)
		require.LessOrEqual(t, eps(q, sigma, steps-steps/10, delta), less, "q %g σ %g T %d δ %g", q, sigma, steps, delta)
		require.LessOrEqual(t, eps(q, sigma, steps, delta*1.5), less, "q %g σ %g T %d δ %g", q, sigma, steps, delta)
		r, _, err := EpsilonRDP([]Phase{{q, sigma, steps}}, delta)
		require.NoError(t, err)
		require.GreaterOrEqual(t, r, e, "q %g σ %g T %d δ %g", q, sigma, steps, delta)
		split, err := Epsilon([]Phase{{q, sigma, steps / 3}, {q, sigma * (1 + 1e-12), steps - steps/3}}, delta)
		require.NoError(t, err)
		require.InDelta(t, e, split, 1e-3*e+1e-4, "two phases alike: q %g σ %g T %d δ %g", q, sigma, steps, delta)
	}
}

func TestExtremes(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		phases   []Phase
		delta    float64
		min, max float64
	}{
		{nil, 1e-5, 0, 0},
		{[]Phase{{.1, 1, 0}}, 1e-5, 0, 0},
		{[]Phase{{0, 1, 1000}, {0, 0, 5}}, 1e-5, 0, 0},
		{[]Phase{{.1, 0, 1}}, 1e-5, inf, inf},
		{[]Phase{{1e-7, 0, 10}}, 1e-5, 0, 0}, // hardly ever seen at all
		{[]Phase{{1e-7, 0, 10}}, 9e-7, inf, inf},
		{[]Phase{{.1, 1e-300, 1}}, 1e-5, inf, inf},
		{[]Phase{{1, .01, 1}}, 1e-5, 5000, 6000},
		{[]Phase{{.5, .01, 10}}, 1e-5, 40000, 60000},
		{[]Phase{{1, 1e9, 1}}, 1e-12, 0, 1e-4},
		{[]Phase{{.01, 1e12, 1e9}}, 1e-5, 0, 1e-4},
		{[]Phase{{1e-12, 1, 1e6}}, 1e-5, 0, 0},
		{[]Phase{{1e-15, .5, 1e6}}, 1e-12, 0, 1},
		{[]Phase{{math.Nextafter(1, 0), 1, 1}}, 1e-5, 4.377, 4.379},
		{[]Phase{{1, 1, 1}}, 1e-200, 30, 31},
		{[]Phase{{1, 1, 1}}, .9999, 0, 1e-9},
		{[]Phase{{.01, 1, 1e9}, {1, 3, 1}}, 1e-6, 1e4, 1e6},
	} {
		e, err := Epsilon(c.phases, c.delta)
		require.NoError(t, err)
		require.True(t, e >= c.min && e <= c.max, "%v δ %g: %g", c.phases, c.delta, e)
		r, _, err := EpsilonRDP(c.phases, c.delta)
		require.NoError(t, err)
		require.True(t, r >= e || e < 1e-4 || c.phases[0].Steps >= 1e9, "%v δ %g: %g, RDP %g", c.phases, c.delta, e, r)
		d, err := Delta(c.phases, 1)
		require.NoError(t, err)
		require.True(t, d >= 0 && d <= 1, "%v: %g", c.phases, d)
	}
	for _, p := range [][]Phase{
		{{-.1, 1, 1}},
		{{1.1, 1, 1}},
		{{math.NaN(), 1, 1}},
		{{.1, -1, 1}},
		{{.1, inf, 1}},
		{{.1, math.NaN(), 1}},
		{{.1, 1, -1}},
		{{.1, 1, 2e12}},
		{{.1, 1, 9e11}, {.1, 1, 9e11}},
	} {
		_, err := Epsilon(p, 1e-5)
		require.ErrorContains(t, err, "privacy: ", "%v", p)
		_, _, err = EpsilonRDP(p, 1e-5)
		require.Error(t, err)
		_, err = Delta(p, 1)
		require.Error(t, err)
	}
	for _, d := range []float64{0, 1, -1, 1e-300, math.NaN(), inf} {
		_, err := Epsilon(nil, d)
		require.ErrorContains(t, err, "privacy: δ")
	}
}

func TestSolve(t *testing.T) {
	n, err := Steps(.01, 1, 1e-5, 2)
	require.NoError(t, err)
	for _, c := range []struct {
		steps int64
		fits  bool
	}{{n, true}, {n + 2 + n/1000, false}} {
		e, err := Epsilon([]Phase{{.01, 1, c.steps}}, 1e-5)
		require.NoError(t, err)
		require.Equal(t, c.fits, e <= 2, "%d steps: %g", c.steps, e)
	}
	n, err = Steps(.5, .3, 1e-5, .1)
	require.NoError(t, err)
	require.Zero(t, n)
	n, err = Steps(0, 1, 1e-5, .1)
	require.NoError(t, err)
	require.EqualValues(t, maxSteps, n)
	sigma, err := Sigma(1e-9, 10, 1e-5, 1)
	require.NoError(t, err)
	require.Zero(t, sigma)
	_, err = Sigma(1, 1000, 1e-5, 0)
	require.ErrorIs(t, err, errNoSigma)
	for _, bad := range []float64{-1, math.NaN(), math.Inf(1)} {
		_, err = Sigma(.1, 1, 1e-5, bad)
		require.ErrorContains(t, err, "privacy: ε")
		_, err = Steps(.1, 1, 1e-5, bad)
		require.ErrorContains(t, err, "privacy: ε")
	}
}

func BenchmarkEpsilon(b *testing.B) {
	for _, p := range []Phase{{.01, 1, 1000}, {.001, 1, 100_000}, {.01, 2, 1_000_000}, {.1, .3, 100}, {.001, .3, 1000}} {
		b.Run(fmt.Sprintf("q=%g/sigma=%g/steps=%d", p.Q, p.Sigma, p.Steps), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Epsilon([]Phase{p}, 1e-6); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
