package ref

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// The table is as good as the library, to a few of the last bits of 1, also where it ends.
func TestNormal(t *testing.T) {
	for x := -12.; x < 12; x += 1. / 4099 {
		cdf, density := normal(x)
		require.InDelta(t, math.Erfc(-x/math.Sqrt2)/2, cdf, 3e-16, x)
		require.InDelta(t, math.Exp(-x*x/2)/math.Sqrt(2*math.Pi), density, 1e-15, x)
	}
	for x, want := range map[float64]float64{math.Inf(-1): 0, -100: 0, 0: .5, 100: 1, math.Inf(1): 1, math.NaN(): math.NaN()} {
		cdf, density := normal(x)
		require.Equal(t, math.IsNaN(want), math.IsNaN(cdf))
		require.True(t, cdf == want || math.IsNaN(want), x)
		require.Equal(t, math.IsNaN(want), math.IsNaN(density))
	}
	last := 0.
	for x := -float64(normalEnd); x <= normalEnd; x += 1. / 1024 {
		cdf, _ := normal(x)
		require.GreaterOrEqual(t, cdf, last-2e-16)
		last = cdf
	}
}
