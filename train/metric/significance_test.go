package metric

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestStudentTail: closed forms for 1, 2 and 4 degrees of freedom, the normal limit, and a table value.
func TestStudentTail(t *testing.T) {
	for _, x := range []float64{0, .01, .5, 1, 2, 3.7, 10, 100} {
		require.InDelta(t, 1-2/math.Pi*math.Atan(x), studentTail(x, 1), 1e-13)
		require.InDelta(t, 1-x/math.Sqrt(2+x*x), studentTail(x, 2), 1e-13)
		u := x / math.Sqrt(4+x*x)
		require.InDelta(t, 1-u*(3-u*u)/2, studentTail(x, 4), 1e-13)
		require.InDelta(t, math.Erfc(x/math.Sqrt2), studentTail(x, 1e6), 1e-6)
		require.Equal(t, studentTail(x, 7), studentTail(-x, 7))
	}
	require.InDelta(t, .05, studentTail(2.228138852, 10), 1e-10)
	require.InEpsilon(t, 1-1e3/math.Sqrt(2+1e6), studentTail(1e3, 2), 1e-9)
}

// two makes results of one measure with the given values.
func two(t *testing.T, a, b []float64) (*Result, *Result) {
	m := mustParse(t, "MAP")
	queries := make([]string, len(a))
	for i := range queries {
		queries[i] = string(rune('a' + i))
	}
	mk := func(v []float64) *Result {
		return &Result{Measures: []Measure{m}, Queries: queries, Values: [][]float64{v}, All: []float64{mean(v)}}
	}
	return mk(a), mk(b)
}

func TestCompare(t *testing.T) {
	a, b := two(t, []float64{.1, .2, .3, .4, .5}, []float64{.2, .4, .6, .8, .5})
	c, err := Compare(a, b, DefaultCompare())
	require.NoError(t, err)
	require.Len(t, c, 1)
	require.InDelta(t, .3, c[0].A, 1e-15)
	require.InDelta(t, .2, c[0].Diff, 1e-15)
	require.Equal(t, [3]int{4, 0, 1}, [3]int{c[0].Better, c[0].Worse, c[0].Tie})
	// Differences .1 .2 .3 .4 0: mean .2, sd .158114, t = .2/(.158114/√5) = 2√2; p from the closed form for 4.
	require.InDelta(t, 2*math.Sqrt2, c[0].T, 1e-12)
	u := 2 * math.Sqrt2 / math.Sqrt(12)
	require.InDelta(t, 1-u*(3-u*u)/2, c[0].PT, 1e-12)
	// Of 32 sign patterns the 4 that leave |sum| at 1 count: all of one sign, either sign of 0.
	require.Equal(t, 4./32, c[0].PRandom)
	require.Less(t, c[0].Low, .2)
	require.Greater(t, c[0].High, .2)
	require.GreaterOrEqual(t, c[0].Low, 0.)
	require.LessOrEqual(t, c[0].High, .4)

	back, err := Compare(b, a, DefaultCompare())
	require.NoError(t, err)
	require.Equal(t, c[0].PT, back[0].PT)
	require.Equal(t, c[0].PRandom, back[0].PRandom)
	require.InDelta(t, -c[0].High, back[0].Low, .005)
}

func TestCompareDegenerate(t *testing.T) {
	a, b := two(t, []float64{.1, .2, .3}, []float64{.1, .2, .3})
	c, err := Compare(a, b, DefaultCompare())
	require.NoError(t, err)
	require.Equal(t, [4]float64{0, 1, 1, 0}, [4]float64{c[0].T, c[0].PT, c[0].PRandom, c[0].High})
	a, b = two(t, []float64{.1, .2, .3}, []float64{.2, .3, .4})
	c, err = Compare(a, b, DefaultCompare())
	require.NoError(t, err)
	require.True(t, math.IsInf(c[0].T, 1))
	require.Zero(t, c[0].PT)
	require.Equal(t, .25, c[0].PRandom)
}

// TestRandomisation: drawn p values lie where the exact ones do. 20,000 draws: 5 standard deviations.
func TestRandomisation(t *testing.T) {
	for trial := range 10 {
		diff := make([]float64, 14)
		for i := range diff {
			diff[i] = float64(draw(3, uint64(trial), uint64(i))>>11)/(1<<53) - .4
		}
		exact, drawn := make([]Comparison, 1), make([]Comparison, 1)
		randomise(exact, [][]float64{diff}, CompareOptions{Permutations: 1 << 14})
		randomise(drawn, [][]float64{diff}, CompareOptions{Permutations: 1<<14 - 1, Seed: 9})
		p := exact[0].PRandom
		require.InDelta(t, p, drawn[0].PRandom, 5*math.Sqrt(p*(1-p)/(1<<14))+1e-3)
	}
}

// TestBootstrap: for many queries the interval is that of the normal distribution.
func TestBootstrap(t *testing.T) {
	diff, squares := make([]float64, 400), 0.0
	for i := range diff {
		diff[i] = float64(draw(5, 0, uint64(i))>>11) / (1 << 53)
	}
	m := mean(diff)
	for _, d := range diff {
		squares += (d - m) * (d - m)
	}
	se := math.Sqrt(squares) / 400
	out := make([]Comparison, 1)
	bootstrap(out, [][]float64{diff}, DefaultCompare())
	require.InDelta(t, m-1.96*se, out[0].Low, .15*se)
	require.InDelta(t, m+1.96*se, out[0].High, .15*se)
	again := make([]Comparison, 1)
	bootstrap(again, [][]float64{diff}, DefaultCompare())
	require.Equal(t, out, again)
}

func TestHolm(t *testing.T) {
	require.InDeltaSlice(t, []float64{.03, .06, .06, .02}, Holm([]float64{.01, .04, .03, .005}), 1e-15)
	require.Equal(t, []float64{1, 1}, Holm([]float64{.6, .9}))
	require.Empty(t, Holm(nil))
}

func TestCompareErrors(t *testing.T) {
	ok, other := two(t, []float64{1, 2}, []float64{1, 2})
	opts := DefaultCompare()
	short, _ := two(t, []float64{1}, []float64{1})
	lacks := *other
	lacks.Measures = []Measure{mustParse(t, "P@5")}
	deep := *other
	deep.Options.Depth = 5
	for _, c := range []struct {
		a, b *Result
		opts CompareOptions
		want string
	}{
		{ok, short, opts, `metric: compare: query "b" is only in the first result`},
		{short, ok, opts, `metric: compare: query "b" is only in the second result`},
		{short, short, opts, `metric: compare: 1 query is too few`},
		{ok, &lacks, opts, `metric: compare: the second result lacks MAP`},
		{ok, &deep, opts, `metric: compare: the runs were evaluated with different options: {PresentOnly:false CandidatesOnly:false JudgedOnly:false DropSelf:false Depth:0 Rel:0} and {PresentOnly:false CandidatesOnly:false JudgedOnly:false DropSelf:false Depth:5 Rel:0}`},
		{ok, other, CompareOptions{}, `metric: compare: 0 permutations, 0 resamples, confidence 0: want at least 1, 1, and a share between 0 and 1`},
	} {
		_, err := Compare(c.a, c.b, c.opts)
		require.EqualError(t, err, c.want)
	}
}

func BenchmarkCompare(b *testing.B) {
	qrels, run := synthetic(7000, 20)
	m := mustParse(b, "MAP")
	r, err := Evaluate(qrels, run, []Measure{m}, Options{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Compare(r, r, DefaultCompare()); err != nil {
			b.Fatal(err)
		}
	}
}
