package privacy

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// charge is a step of the tests' run.
func charge(k *Key, step int64) Charge {
	return Charge{Step: step, Q: .05, Sigma: 1.1, Clip: .5, Key: k.Fingerprint(), Domain: Domain, Context: "run a"}
}

func draws(t testing.TB, k *Key, c Charge) *Draws {
	d, err := k.Draws(c)
	require.NoError(t, err)
	return d
}

// zOf is how far a count of n trials with probability p is from its mean, in standard deviations. Limits
// are at α = 1e-6 and below, two-sided: 4.9, more where many are compared.
func zOf(count, n int, p float64) float64 {
	return math.Abs(float64(count)-float64(n)*p) / math.Sqrt(float64(n)*p*(1-p))
}

// chiLimit is above the 1-1e-7 quantile of χ² with df degrees of freedom (Wilson, Hilferty).
func chiLimit(df float64) float64 {
	v := 1 - 2/(9*df) + 5.3*math.Sqrt(2/(9*df))
	return df * v * v * v
}

func TestSampleCounts(t *testing.T) {
	const units, steps = 1000, 1500
	k := Insecure(1)
	for _, q := range []float64{.003, .05, .5} {
		perUnit, pairs := make([]int, units), make([]int, units)
		perStep := map[bool]int{}
		var total, again int
		var before []int
		for s := range int64(steps) {
			c := charge(k, s)
			c.Q = q
			b := draws(t, k, c).Sample(units)
			require.True(t, slices.IsSorted(b))
			in := make([]bool, units)
			for _, u := range b {
				perUnit[u]++
				in[u] = true
			}
			for u := range units { // neighbours in a block of the generator, and across blocks
				if in[u] && in[(u+1)%units] {
					pairs[u]++
				}
			}
			for _, u := range before {
				if in[u] {
					again++
				}
			}
			total, before = total+len(b), b
			perStep[len(b) == 0]++
		}
		require.Less(t, zOf(total, units*steps, q), 5., "q %g", q)
		require.Less(t, zOf(again, units*(steps-1), q*q), 5., "q %g: a step depends on the one before", q)
		var chi, chiPairs float64
		for u := range units {
			chi += math.Pow(zOf(perUnit[u], steps, q), 2)
			chiPairs += math.Pow(float64(pairs[u])-steps*q*q, 2) / (steps * q * q * (1 - q*q))
		}
		require.Less(t, chi, chiLimit(units), "q %g", q)
		require.Greater(t, chi, units-5.3*math.Sqrt(2*units), "q %g: more even than chance", q)
		if q >= .05 { // a count of pairs with a mean of 7 or more
			require.Less(t, chiPairs, chiLimit(units)*1.1, "q %g: pairs", q)
		}
	}
}

func TestSampleEdges(t *testing.T) {
	k := Insecure(1)
	of := func(q float64, units int) []int {
		c := charge(k, 7)
		c.Q = q
		return draws(t, k, c).Sample(units)
	}
	require.Empty(t, of(0, 1000))
	require.Empty(t, of(.5, 0))
	require.Empty(t, of(.5, -1))
	require.Len(t, of(1, 1000), 1000)
	require.Empty(t, of(1e-12, 1000), "an empty batch is one")
	require.Equal(t, of(.3, 100), of(.3, 100), "a step that is redone")
	// more units change nothing for those that were there
	long := of(.3, 5001)
	n, _ := slices.BinarySearch(long, 3000)
	require.Equal(t, long[:n], of(.3, 3000))
}

// What a step draws depends on all that its charge says, and on the key.
func TestDrawsAreSeparate(t *testing.T) {
	a, b := Insecure(1), Insecure(2)
	seen := map[string]string{}
	note := func(name string, k *Key, change func(*Charge)) {
		c := charge(k, 3)
		c.Q = .5
		change(&c)
		d := draws(t, k, c)
		z := make([]float64, 1)
		d.Fill(z, 0)
		for kind, v := range map[string]string{"noise": fmt.Sprint(z), "sample": fmt.Sprint(d.Sample(100))} {
			require.Empty(t, seen[kind+v], "%s draws as", name)
			seen[kind+v] = name
		}
	}
	note("a", a, func(*Charge) {})
	note("another key", b, func(*Charge) {})
	note("a secret key", NewKey(), func(*Charge) {})
	note("step", a, func(c *Charge) { c.Step++ })
	note("q", a, func(c *Charge) { c.Q = .49 })
	note("σ", a, func(c *Charge) { c.Sigma = 2 })
	note("C", a, func(c *Charge) { c.Clip = 2 })
	note("context", a, func(c *Charge) { c.Context = "run b" })
	for _, spoil := range []func(*Charge){
		func(c *Charge) { c.Key = b.Fingerprint() },
		func(c *Charge) { c.Domain = "other" },
		func(c *Charge) { c.Clip = 0 },
		func(c *Charge) { c.Clip = math.NaN() },
		func(c *Charge) { c.Sigma = math.Inf(1) },
		func(c *Charge) { c.Q = 2 },
		func(c *Charge) { c.Step = -1 },
		func(c *Charge) { c.Context = "two\nlines" },
	} {
		c := charge(a, 3)
		spoil(&c)
		_, err := a.Draws(c)
		require.ErrorContains(t, err, "privacy: ")
	}
}

// normal is P(N(0,1) ≤ z).
func normal(z float64) float64 { return math.Erfc(-z/math.Sqrt2) / 2 }

func TestNoiseIsNormal(t *testing.T) {
	const n = 1 << 20
	d := draws(t, Insecure(3), charge(Insecure(3), 1))
	z := make([]float64, n)
	d.Fill(z, 0)
	var m1, m2, m3, m4, lag1, lag2 float64
	for i, v := range z {
		m1, m2, m3, m4 = m1+v, m2+v*v, m3+v*v*v, m4+v*v*v*v
		if i >= 2 {
			lag1, lag2 = lag1+v*z[i-1], lag2+v*z[i-2]
		}
	}
	root := math.Sqrt(n)
	for name, v := range map[string]float64{
		"mean": m1 / root, "variance": (m2 - n) / (root * math.Sqrt(2)), "skewness": m3 / (root * math.Sqrt(15)),
		"kurtosis": (m4 - 3*n) / (root * math.Sqrt(96)), "neighbours": lag1 / root, "second neighbours": lag2 / root,
	} {
		require.Less(t, math.Abs(v), 5.5, name)
	}
	// the signs and sizes of a pair are independent, too
	var squares float64
	for i := 0; i < n; i += 2 {
		squares += (z[i]*z[i] - 1) * (z[i+1]*z[i+1] - 1) / 2
	}
	require.Less(t, math.Abs(squares)/math.Sqrt(n/2), 6.)

	// tails, against binomial counts
	for _, x := range []float64{1, 2, 3, 4} {
		var up, down int
		for _, v := range z {
			if v > x {
				up++
			} else if v < -x {
				down++
			}
		}
		require.Less(t, zOf(up, n, normal(-x)), 5.5, "above %g", x)
		require.Less(t, zOf(down, n, normal(-x)), 5.5, "below %g", x)
	}

	// Kolmogorov, Smirnov: P(√n·D > x) < 2·exp(-2x²), 1e-7 at 2.9
	slices.Sort(z)
	var far float64
	for i, v := range z {
		p := normal(v)
		far = max(far, p-float64(i)/n, float64(i+1)/n-p)
	}
	require.Less(t, far*root, 2.9)
	require.Greater(t, far*root, .2, "more even than chance")
}

func TestNoiseOfStepsIsIndependent(t *testing.T) {
	const n = 1 << 18
	k := Insecure(4)
	var all [4][]float64
	for s := range all {
		all[s] = make([]float64, n)
		draws(t, k, charge(k, int64(s))).Fill(all[s], 0)
	}
	for a := range all {
		for b := range a {
			var sum, squares float64
			for i := range n {
				sum += all[a][i] * all[b][i]
				squares += (all[a][i]*all[a][i] - 1) * (all[b][i]*all[b][i] - 1) / 2
			}
			require.Less(t, math.Abs(sum)/math.Sqrt(n), 5.5, "steps %d and %d", a, b)
			require.Less(t, math.Abs(squares)/math.Sqrt(n), 6.5, "steps %d and %d", a, b)
		}
	}
}

// However a tensor is cut, and by however many goroutines, elements get the same noise.
func TestNoiseInPieces(t *testing.T) {
	const n = 10007
	k := Insecure(5)
	d := draws(t, k, charge(k, 1))
	want := make([]float64, n)
	d.Fill(want, 3)
	for _, pieces := range []int{1, 2, 3, 7, 100, n} {
		got := make([]float64, n)
		var wg sync.WaitGroup
		for p := range pieces {
			lo, hi := n*p/pieces, n*(p+1)/pieces
			wg.Go(func() { d.Fill(got[lo:hi], 3+uint64(lo)) })
		}
		wg.Wait()
		require.Equal(t, want, got, "%d pieces", pieces)
	}
	far := make([]float64, 4)
	d.Fill(far, 1<<40)
	require.NotEqual(t, want[:4], far)
}

func TestAddTo(t *testing.T) {
	const n = 5000
	k := Insecure(6)
	c := charge(k, 1)
	d := draws(t, k, c)
	z := make([]float64, n)
	d.Fill(z, 8)
	g := make([]float32, n)
	for i := range g {
		g[i] = float32(math.Sin(float64(i)) * .3)
	}
	sum := slices.Clone(g)
	d.AddTo(sum, 8)
	scale := c.Sigma * c.Clip
	grid := math.Ldexp(1, -21) // .55 is below 1
	for i := range g {
		require.InDelta(t, float64(g[i])+scale*z[i], float64(sum[i]), grid/2+1e-12)
		require.Zero(t, math.Remainder(float64(sum[i]), grid), "off the grid")
	}
	// the same where neighbours differ by less than the grid
	g2 := slices.Clone(g)
	for i := range g2 {
		g2[i] += float32(1e-9)
	}
	d.AddTo(g2, 8)
	same := 0
	for i := range g2 {
		if g2[i] == sum[i] {
			same++
		}
	}
	require.Greater(t, same, n*9/10)

	inf := []float32{float32(math.Inf(1)), float32(math.NaN())}
	d.AddTo(inf, 0)
	require.True(t, math.IsInf(float64(inf[0]), 1) && math.IsNaN(float64(inf[1])))

	c.Sigma = 0
	still := []float32{.1}
	draws(t, k, c).AddTo(still, 0)
	require.Equal(t, []float32{.1}, still)
}

// Bits that are drawn today are drawn by every machine, and by every version of Domain.
func TestNoiseIsPinned(t *testing.T) {
	k := Insecure(7)
	d := draws(t, k, charge(k, 42))
	z := make([]float64, 4)
	d.Fill(z, 0)
	require.Equal(t, []float64{1.4994316492188386, 0.8406548829754259, 0.47118272389678606, -1.1730318258449748}, z)
	require.Equal(t, []int{6, 7, 17, 19, 68}, d.Sample(100))
	later := d.Sample(2100)
	require.Equal(t, []int{2004, 2006, 2009, 2082, 2091}, later[len(later)-5:])
	require.Equal(t, "insecure-", k.Fingerprint()[:9])
}

func TestLogUniform(t *testing.T) {
	for _, hi := range []uint64{0, 1, 2, 3, 1 << 20, 1<<52 - 1, 1 << 52, 1<<63 - 1, 1 << 63, 0xb504f333f9de6484, 0xb504f333f9de6485, math.MaxUint64} {
		for _, lo := range []uint64{0, 1, 1000, 2047} {
			u := math.Ldexp(float64(hi), -64) + math.Ldexp(float64(lo)+.5, -75)
			want := math.Log(u)
			if hi > 1<<63 { // close to 1, where log is of the difference
				want = math.Log1p(-math.Ldexp(float64(-hi)-(float64(lo)+.5)/2048, -64))
			}
			require.InDelta(t, want, logUniform(hi, lo), 3e-16+1e-15*math.Abs(want), "%#x %d", hi, lo)
			require.LessOrEqual(t, logUniform(hi, lo), 0.)
		}
	}
	require.Greater(t, math.Sqrt(-2*logUniform(0, 0)), 10.2)
}

func TestSinCos(t *testing.T) {
	for n := uint64(0); n < 1<<53; n += 1<<53/4099 + 1 {
		s, c := sinCos(n)
		ws, wc := math.Sincos(2 * math.Pi * math.Ldexp(float64(n), -53))
		require.InDelta(t, ws, s, 1e-15, "%d", n)
		require.InDelta(t, wc, c, 1e-15, "%d", n)
	}
	for i, want := range [][2]float64{{0, 1}, {1, 0}, {0, -1}, {-1, 0}} {
		s, c := sinCos(uint64(i) << 51)
		require.InDelta(t, want[0], s, 1e-16)
		require.InDelta(t, want[1], c, 1e-16)
	}
}

func BenchmarkNoise(b *testing.B) {
	k := Insecure(1)
	d := draws(b, k, charge(k, 1))
	g := make([]float32, 100_000)
	for b.Loop() {
		d.AddTo(g, 0)
	}
}

func BenchmarkSample(b *testing.B) {
	k := Insecure(1)
	d := draws(b, k, charge(k, 1))
	for b.Loop() {
		d.Sample(1_000_000)
	}
}
