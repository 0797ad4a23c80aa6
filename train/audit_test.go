package train

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn"
	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/backend/ref"
	"rung/nn/nntest/golden"
	"rung/train/privacy"
)

// An audited mechanism is the steps of a run on its own: batches, clipping, noise. What is wrong with it is planted.
type audited struct {
	q, sigma   float64
	steps      int
	clip       float64 // as the run has it
	noise      float64 // σ as the run has it
	mean       float64
	noiseLater bool // noise is added to the mean, and divided once more
}

// canary is the norm of the unit whose presence is to be found out, in units of C: a gradient that is all in one element.
const canary = 10

// released returns what a run tells of the canary: the sum of the element over its steps, in units of C. With as in
// the data set there is the canary, or not.
func (m audited) released(t testing.TB, k *privacy.Key, with bool, trials int) []float64 {
	const units, width = 4, 16
	be := ref.New[float32]()
	s := golden.Store(t, be, []*nn.Param{{Path: "w", Dims: []int{width}, Trainable: true}}, true)
	gradients, err := be.Reserve(4 * units * width)
	require.NoError(t, err)
	defer gradients.Free()
	sigma := m.noise
	if m.noiseLater {
		sigma /= m.mean
	}
	c, err := newClipper(&Privacy{Clip: m.clip}, s, gradients, width, units, m.mean)
	require.NoError(t, err)
	defer func() { require.NoError(t, c.close()) }()
	out := make([]float64, trials)
	g := make([]float32, units*width)
	var scalars backend.Scalars
	step := int64(0)
	for i := range out {
		for range m.steps {
			clear(g)
			n := 0
			d, err := k.Draws(privacy.Charge{Step: step, Q: m.q, Sigma: sigma, Clip: m.clip, Key: k.Fingerprint(), Domain: privacy.Domain})
			require.NoError(t, err)
			for _, u := range d.Sample(units) {
				row := g[n*width : (n+1)*width]
				if u == 0 && with {
					row[0] = canary
				} else if u == 0 {
					continue
				} else {
					row[1+u] = 3 // others, which the element does not see
				}
				n++
			}
			require.NoError(t, c.begin())
			require.NoError(t, gradients.WriteAt(host.Bytes(g), 0))
			require.NoError(t, c.micro(context.Background(), &scalars, n))
			require.NoError(t, c.end(context.Background(), &scalars, d.AddTo))
			out[i] += float64(golden.Grad[float32](t, s, "w")[0]) * m.mean
			step++
		}
	}
	return out
}

// lowerBound is what ε is at least, with 95% confidence, if a threshold tells the two apart so well: the threshold is
// chosen on one half of the trials and measured on the other (Jagielski et al. 2020, "Auditing differentially private
// machine learning"; Clopper and Pearson 1934 for the two rates, 97.5% each).
func lowerBound(without, with []float64, delta float64) float64 {
	half := len(with) / 2
	bound := func(a, b []float64, at float64) float64 {
		fp, tp := above(a, at), above(b, at)
		most := clopperPearson(fp, len(a), .025, true)   // of false alarms
		least := clopperPearson(tp, len(b), .025, false) // of true ones
		missed := clopperPearson(len(b)-tp, len(b), .025, true)
		quiet := clopperPearson(len(a)-fp, len(a), .025, false)
		return max(math.Log((least-delta)/most), math.Log((quiet-delta)/missed))
	}
	best, at := math.Inf(-1), 0.
	sorted := slices.Clone(without[:half])
	slices.Sort(sorted)
	for _, p := range []float64{.5, .8, .9, .95, .98, .99, .995, .998, .999, .9995} {
		x := sorted[int(p*float64(half))]
		if b := bound(without[:half], with[:half], x); b > best {
			best, at = b, x
		}
	}
	return bound(without[half:], with[half:], at)
}

func above(v []float64, at float64) (n int) {
	for _, x := range v {
		if x > at {
			n++
		}
	}
	return n
}

// clopperPearson is the bound of a probability of which k of n were seen: the one beyond which as many, or as few,
// would be seen with a probability of alpha.
func clopperPearson(k, n int, alpha float64, upper bool) float64 {
	if upper && k == n {
		return 1
	}
	if !upper && k == 0 {
		return 0
	}
	lo, hi := 0., 1.
	for range 60 {
		p := (lo + hi) / 2
		tail := atMost(k, n, p)
		if !upper {
			tail = 1 - atMost(k-1, n, p)
		}
		if (tail > alpha) == upper {
			lo = p
		} else {
			hi = p
		}
	}
	return (lo + hi) / 2
}

// atMost is the probability of k or fewer of n, each of probability p.
func atMost(k, n int, p float64) (sum float64) {
	ln, _ := math.Lgamma(float64(n + 1))
	for i := 0; i <= k; i++ {
		a, _ := math.Lgamma(float64(i + 1))
		b, _ := math.Lgamma(float64(n - i + 1))
		sum += math.Exp(ln - a - b + float64(i)*math.Log(p) + float64(n-i)*math.Log1p(-p))
	}
	return min(sum, 1)
}

// At the σ that is claimed an audit finds no more than what is claimed, and with each fault that is planted it does.
func TestAudit(t *testing.T) {
	const delta, trials = 1e-3, 20000
	for _, c := range []struct {
		name   string
		m      audited
		broken func(m *audited)
	}{
		{"honest", audited{q: 1, sigma: 1.5, steps: 1}, nil},
		{"honest, sampled", audited{q: .5, sigma: 1.2, steps: 4}, nil},
		{"no clipping", audited{q: 1, sigma: 1.5, steps: 1}, func(m *audited) { m.clip, m.noise = 1e9, m.noise/1e9 }},
		{"half the noise", audited{q: 1, sigma: 1.5, steps: 1}, func(m *audited) { m.noise /= 2 }},
		{"noise divided twice", audited{q: 1, sigma: 1.5, steps: 1}, func(m *audited) { m.noiseLater = true }},
		{"more steps than told", audited{q: 1, sigma: 3, steps: 1}, func(m *audited) { m.steps = 9 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			claimed, err := privacy.Epsilon([]privacy.Phase{{Q: c.m.q, Sigma: c.m.sigma, Steps: int64(c.m.steps)}}, delta)
			require.NoError(t, err)
			c.m.clip, c.m.noise, c.m.mean = 1, c.m.sigma, 8
			if c.broken != nil {
				c.broken(&c.m)
			}
			n := trials / c.m.steps
			found := lowerBound(c.m.released(t, privacy.Insecure(1), false, n), c.m.released(t, privacy.Insecure(2), true, n), delta)
			t.Logf("claimed ε %.3f, found at least %.3f", claimed, found)
			if c.broken == nil {
				require.LessOrEqual(t, found, claimed)
				require.Greater(t, found, claimed/3, "an audit that finds nothing proves nothing")
			} else {
				require.Greater(t, found, claimed)
			}
		})
	}
}
