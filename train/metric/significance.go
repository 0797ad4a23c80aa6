package metric

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// CompareOptions says how two runs are compared.
type CompareOptions struct {
	Permutations int     // of the randomisation test; all 2^n where that is not more
	Resamples    int     // of the bootstrap
	Confidence   float64 // of the bootstrap interval
	Seed         uint64
}

// DefaultCompare is 20,000 permutations, 10,000 resamples and a 95% interval.
func DefaultCompare() CompareOptions {
	return CompareOptions{Permutations: 20000, Resamples: 10000, Confidence: .95, Seed: 1}
}

// A Comparison says by how much run B differs from run A in one measure, query by query.
type Comparison struct {
	Measure            Measure
	A, B               float64 // the mean of the queries' values
	Diff               float64 // B - A
	Better, Worse, Tie int     // queries where B is above, below, equal
	T                  float64 // paired t statistic; ±Inf where all differences are equal and not 0
	PT                 float64 // two-sided p of the paired t-test
	PRandom            float64 // two-sided p of the paired randomisation (sign-flip) test
	HolmT, HolmRandom  float64 // the same, corrected for all measures of this Compare by Holm's method
	Low, High          float64 // bootstrap percentile interval of Diff
}

// Compare compares two results in every measure of a; both must hold the same measures' values for the same
// queries. Its draws depend on the options and the number of queries alone.
func Compare(a, b *Result, opts CompareOptions) ([]Comparison, error) {
	if !slices.Equal(a.Queries, b.Queries) {
		return nil, differentQueries(a.Queries, b.Queries)
	}
	if a.Options != b.Options {
		return nil, fmt.Errorf("metric: compare: the runs were evaluated with different options: %+v and %+v", a.Options, b.Options)
	}
	if len(a.Queries) < 2 {
		return nil, fmt.Errorf("metric: compare: %d query is too few", len(a.Queries))
	}
	if opts.Permutations < 1 || opts.Resamples < 1 || !(opts.Confidence > 0 && opts.Confidence < 1) {
		return nil, fmt.Errorf("metric: compare: %d permutations, %d resamples, confidence %g: want at least 1, 1, and a share between 0 and 1",
			opts.Permutations, opts.Resamples, opts.Confidence)
	}
	out := make([]Comparison, len(a.Measures))
	diffs := make([][]float64, len(a.Measures))
	for i, m := range a.Measures {
		vb := b.PerQuery(m)
		if vb == nil {
			return nil, fmt.Errorf("metric: compare: the second result lacks %v", m)
		}
		out[i], diffs[i] = compareOne(m, a.Values[i], vb)
	}
	randomise(out, diffs, opts)
	bootstrap(out, diffs, opts)
	holm(out)
	return out, nil
}

func differentQueries(a, b []string) error {
	for _, q := range a {
		if _, ok := slices.BinarySearch(b, q); !ok {
			return fmt.Errorf("metric: compare: query %q is only in the first result", q)
		}
	}
	for _, q := range b {
		if _, ok := slices.BinarySearch(a, q); !ok {
			return fmt.Errorf("metric: compare: query %q is only in the second result", q)
		}
	}
	return errors.New("metric: compare: the queries of the two results are not in the same order")
}

func compareOne(m Measure, a, b []float64) (Comparison, []float64) {
	c := Comparison{Measure: m, A: mean(a), B: mean(b)}
	diff := make([]float64, len(a))
	for i := range a {
		diff[i] = b[i] - a[i]
		switch {
		case diff[i] > 0:
			c.Better++
		case diff[i] < 0:
			c.Worse++
		default:
			c.Tie++
		}
	}
	c.Diff = mean(diff)
	c.T, c.PT = pairedT(diff)
	return c, diff
}

// pairedT returns Student's t of the differences' mean being 0, and its two-sided p.
func pairedT(diff []float64) (t, p float64) {
	n, m, squares, size := float64(len(diff)), mean(diff), 0.0, 0.0
	for _, d := range diff {
		squares += (d - m) * (d - m)
		size = max(size, math.Abs(d))
	}
	if math.Sqrt(squares/n) <= 1e-14*size { // no spread but rounding
		if size == 0 {
			return 0, 1
		}
		return math.Inf(int(math.Copysign(1, m))), 0
	}
	t = m / math.Sqrt(squares/(n-1)/n)
	return t, studentTail(t, n-1)
}

// randomise flips the sign of each query's difference: under the null hypothesis both signs are equally
// likely. All measures see the same flips. A drawn p counts the observed assignment as one of the draws.
func randomise(out []Comparison, diffs [][]float64, opts CompareOptions) {
	n := len(diffs[0])
	draws, exact := opts.Permutations, false
	if n < 31 && 1<<n <= draws {
		draws, exact = 1<<n, true
	}
	words := (n + 63) / 64
	signs := make([]uint64, words)
	bound, extreme := make([]float64, len(diffs)), make([]int, len(diffs))
	for i, diff := range diffs {
		size := 0.0
		for _, d := range diff {
			size += math.Abs(d)
		}
		bound[i] = math.Abs(sum(diff)) - 1e-12*size // sums that differ in rounding alone are equal
	}
	for k := range draws {
		for w := range signs {
			signs[w] = uint64(k)
			if !exact {
				signs[w] = draw(opts.Seed, streamSigns, uint64(k)*uint64(words)+uint64(w))
			}
		}
		for i, diff := range diffs {
			if math.Abs(flipped(diff, signs)) >= bound[i] {
				extreme[i]++
			}
		}
	}
	for i := range out {
		out[i].PRandom = float64(extreme[i]) / float64(draws)
		if !exact {
			out[i].PRandom = float64(extreme[i]+1) / float64(draws+1)
		}
	}
}

// flipped sums diff with the signs of its bits, without a branch on random bits.
func flipped(diff []float64, signs []uint64) float64 {
	s := 0.0
	for w, bits := range signs {
		for _, d := range diff[64*w : min(64*w+64, len(diff))] {
			s += math.Float64frombits(math.Float64bits(d) ^ bits<<63)
			bits >>= 1
		}
	}
	return s
}

// bootstrap draws queries with replacement and takes the percentiles of the mean difference.
func bootstrap(out []Comparison, diffs [][]float64, opts CompareOptions) {
	n := len(diffs[0])
	picked := make([]int, n)
	means := make([][]float64, len(diffs))
	for i := range means {
		means[i] = make([]float64, opts.Resamples)
	}
	for k := range opts.Resamples {
		for j := range picked {
			high, _ := bits.Mul64(draw(opts.Seed, streamResamples, uint64(k)*uint64(n)+uint64(j)), uint64(n))
			picked[j] = int(high)
		}
		for i, diff := range diffs {
			s := 0.0
			for _, j := range picked {
				s += diff[j]
			}
			means[i][k] = s / float64(n)
		}
	}
	tail := (1 - opts.Confidence) / 2
	for i := range out {
		slices.Sort(means[i])
		out[i].Low, out[i].High = quantile(means[i], tail), quantile(means[i], 1-tail)
	}
}

// quantile interpolates linearly in sorted values.
func quantile(sorted []float64, q float64) float64 {
	x := q * float64(len(sorted)-1)
	i := min(int(x), len(sorted)-1)
	if i+1 == len(sorted) {
		return sorted[i]
	}
	return sorted[i] + (x-float64(i))*(sorted[i+1]-sorted[i])
}

func holm(out []Comparison) {
	p := make([]float64, len(out))
	for i, c := range out {
		p[i] = c.PT
	}
	for i, v := range Holm(p) {
		out[i].HolmT = v
	}
	for i, c := range out {
		p[i] = c.PRandom
	}
	for i, v := range Holm(p) {
		out[i].HolmRandom = v
	}
}

// Holm adjusts p values for being several (Holm, 1979): the i-th smallest of n times n-i+1, never below the one
// before it, never above 1.
func Holm(p []float64) []float64 {
	order := make([]int, len(p))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(p[a], p[b]) })
	out, last := make([]float64, len(p)), 0.0
	for rank, i := range order {
		last = max(last, min(1, p[i]*float64(len(p)-rank)))
		out[i] = last
	}
	return out
}

// Streams of random draws.
const (
	streamSigns uint64 = iota + 1
	streamResamples
)

// draw is the counter-th output of a SplitMix64 generator (Steele, Lea, Flood, OOPSLA 2014) whose start
// depends on seed and stream.
func draw(seed, stream, counter uint64) uint64 {
	return mix(mix(mix(seed)+stream) + (counter+1)*0x9e3779b97f4a7c15)
}

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
