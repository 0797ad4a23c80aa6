package privacy

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// alpha is the chance of each statistical test to fail if all is right; draws are fixed, so that it fails always or never.
const alpha = 1e-6

// fixed is a key that is the same every time.
func fixed(n byte) Key { return Key{[32]byte{n}} }

// normalTail is P(|z| > x).
func normalTail(x float64) float64 { return math.Erfc(x / math.Sqrt2) }

// chiSquared bounds P(χ² of n degrees of freedom, many, is off by so much) by Wilson and Hilferty's normal.
func chiSquared(x float64, n int) float64 {
	v := 2. / 9 / float64(n)
	return normalTail(math.Abs(math.Cbrt(x/float64(n))-1+v) / math.Sqrt(v))
}

// Units are drawn as often as q says, each by itself: over steps, and together with any other.
func TestSample(t *testing.T) {
	const units, steps = 500, 4000
	for _, q := range []float64{.01, .3, .9} {
		d := fixed(1).Draws("test")
		counts, sizes, pairs := make([]float64, units), make([]float64, steps), 0.
		for s := range steps {
			drawn := d.Sample(uint64(s), q, units)
			require.True(t, slices.IsSorted(drawn))
			sizes[s] = float64(len(drawn))
			for i, u := range drawn {
				counts[u]++
				if i > 0 && drawn[i-1] == u-1 {
					pairs++
				}
			}
		}
		spread := func(v []float64, n float64) (x float64) { // χ² of counts of n chances each
			for _, c := range v {
				x += (c - n*q) * (c - n*q) / (n * q * (1 - q))
			}
			return x
		}
		require.Greater(t, chiSquared(spread(counts, steps), units), alpha, "q %g: units", q)
		require.Greater(t, chiSquared(spread(sizes, units), steps), alpha, "q %g: sizes of batches", q)
		n, p := float64(steps*(units-1)), q*q // neighbours share at most one unit: nearly independent
		sd := math.Sqrt(n * (p*(1-p) + 2*(q*p-p*p)))
		require.Greater(t, normalTail((pairs-n*p)/sd), alpha, "q %g: neighbours", q)
	}
}

// The test above finds batches that are shuffled and billed as drawn: every unit comes as often as any other.
func TestSampleFindsShuffling(t *testing.T) {
	const units, steps, q = 500, 4000, .1
	var x float64
	for range units { // each unit is in one batch of ten
		c := float64(steps) / 10
		x += (c - steps*q) * (c - steps*q) / (steps * q * (1 - q))
	}
	require.Less(t, chiSquared(x, units), alpha)
}

func TestSampleEdges(t *testing.T) {
	d := fixed(1).Draws("test")
	require.Empty(t, d.Sample(0, 0, 1000))
	require.Len(t, d.Sample(0, 1, 1000), 1000)
	require.Empty(t, d.Sample(0, .5, 0))
	require.Empty(t, d.Sample(0, 1e-300, 1000))
	require.Greater(t, len(d.Sample(0, math.Nextafter(1, 0), 1000)), 990)
	require.Equal(t, d.Sample(5, .5, 2000)[:3], d.Sample(5, .5, 10)[:3], "the number of units changes no unit's chance")
	empty := 0
	for s := range uint64(1000) {
		if len(d.Sample(s, .001, 1000)) == 0 {
			empty++
		}
	}
	require.InDelta(t, 368, empty, 80) // 1/e
}

// Noise is N(0,1): its distribution function, moments and tails; elements, steps, keys and contexts do not correlate.
func TestNoise(t *testing.T) {
	const n = 1 << 20
	draw := func(k Key, context string, step uint64) []float32 {
		v := make([]float32, n)
		k.Draws(context).Noise(step, v)
		return v
	}
	z := draw(fixed(1), "a", 0)
	sorted := slices.Clone(z)
	slices.Sort(sorted)
	far := 0.
	for i, x := range sorted { // Kolmogorov and Smirnov
		p := math.Erfc(-float64(x)/math.Sqrt2) / 2
		far = max(far, math.Abs(p-float64(i)/n), math.Abs(p-float64(i+1)/n))
	}
	require.Greater(t, 2*math.Exp(-2*far*far*n), alpha)
	for _, m := range []struct{ power, want, variance float64 }{{1, 0, 1}, {2, 1, 2}, {3, 0, 15}, {4, 3, 96}} {
		var sum float64
		for _, x := range z {
			sum += math.Pow(float64(x), m.power)
		}
		require.Greater(t, normalTail((sum/n-m.want)/math.Sqrt(m.variance/n)), alpha, "moment %g", m.power)
	}
	for _, x := range []float64{3, 4} {
		p := normalTail(x)
		over := 0.
		for _, v := range z {
			if math.Abs(float64(v)) > x {
				over++
			}
		}
		require.Greater(t, normalTail((over-n*p)/math.Sqrt(n*p)), alpha, "beyond %g", x)
	}
	require.Less(t, sorted[0], float32(-4.2))
	require.Greater(t, sorted[n-1], float32(4.2))
	correlate := func(a, b []float32) float64 {
		var sum float64
		for i := range a {
			sum += float64(a[i]) * float64(b[i])
		}
		return sum / math.Sqrt(float64(len(a)))
	}
	for name, other := range map[string][]float32{
		"the next step": draw(fixed(1), "a", 1), "another context": draw(fixed(1), "b", 0), "another key": draw(fixed(2), "a", 0),
		"step 2^32": draw(fixed(1), "a", 1<<32),
	} {
		require.NotEqual(t, z, other)
		require.Greater(t, normalTail(correlate(z, other)), alpha, name)
	}
	for _, lag := range []int{1, 2, 3, noiseBlock} {
		require.Greater(t, normalTail(correlate(z[lag:], z[:n-lag])), alpha, "lag %d", lag)
	}
}

// The number of processors and of elements changes no element.
func TestNoiseIsAFunction(t *testing.T) {
	d := fixed(3).Draws("")
	want := make([]float32, 3*noiseBlock+17)
	d.Noise(9, want)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, n := range []int{0, 1, noiseBlock, noiseBlock + 1, len(want)} {
		got := make([]float32, n)
		d.Noise(9, got)
		require.Equal(t, want[:n], got)
	}
	require.NotEqual(t, Insecure(1), Insecure(2))
	require.NotEqual(t, d.ID(), fixed(3).Draws("x").ID())
	require.Equal(t, d.ID(), fixed(3).Draws("").ID())
}

// A key is kept for its owner, and nothing that prints it shows it.
func TestKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run", "private")
	_, err := OpenKey(dir)
	require.ErrorIs(t, err, fs.ErrNotExist)
	k, err := NewKey()
	require.NoError(t, err)
	require.NoError(t, k.Save(dir))
	again, err := OpenKey(dir)
	require.NoError(t, err)
	require.Equal(t, k, again)
	require.ErrorIs(t, k.Save(dir), fs.ErrExist)
	other, err := NewKey()
	require.NoError(t, err)
	require.NotEqual(t, k, other)
	require.NotEqual(t, k.Fingerprint(), other.Fingerprint())

	path := filepath.Join(dir, keyFile)
	for _, p := range []string{dir, path} {
		info, err := os.Stat(p)
		require.NoError(t, err)
		require.Zero(t, info.Mode().Perm()&0o077, p)
	}
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 1)

	secret := hex.EncodeToString(k.secret[:])
	shown := fmt.Sprintf("%v %+v %#v %s %q %x %X %d %v %+v", k, k, k, k, k, k, k, k, []Key{k}, struct{ K Key }{k})
	require.NotContains(t, shown, secret)
	require.False(t, k.Holds([]byte(shown)))
	require.Contains(t, shown, k.Fingerprint())
	_, err = json.Marshal(k)
	require.Error(t, err)
	require.True(t, k.Holds([]byte("x"+secret)))
	require.True(t, k.Holds(append([]byte("ab"), k.secret[:]...)))

	for name, damage := range map[string]func() error{
		"others may use it":           func() error { return os.Chmod(path, 0o640) },
		"want 64 hexadecimal digits":  func() error { return os.WriteFile(path, []byte(secret[:63]+"\n"), 0o600) },
		"want 64 hexadecimal digits ": func() error { return os.WriteFile(path, []byte(secret+"00\n"), 0o600) },
		"no key":                      func() error { return os.WriteFile(path, nil, 0o600) },
		"no plain file":               func() error { return errors.Join(os.Remove(path), os.Symlink("/dev/null", path)) },
	} {
		_ = os.Remove(path)
		require.NoError(t, os.WriteFile(path, []byte(secret+"\n"), 0o600))
		require.NoError(t, os.Chmod(path, 0o600))
		require.NoError(t, damage())
		_, err = OpenKey(dir)
		require.ErrorContains(t, err, name[:min(len(name), 26)])
		require.NotContains(t, err.Error(), secret[:20])
	}
}

func BenchmarkNoise(b *testing.B) {
	v := make([]float32, 100_000)
	d := Insecure(1)
	for b.Loop() {
		d.Noise(1, v)
	}
}
