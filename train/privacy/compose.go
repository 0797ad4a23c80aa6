package privacy

import (
	"math"
	"math/cmplx"

	"gonum.org/v1/gonum/dsp/fourier"
)

// A composition is the privacy loss of all steps of all phases, in one direction. The loss L of the
// whole is a sum of independent losses, so that its distribution is a power of Fourier transforms. What
// float64 gets wrong there is relative to the largest masses, and δ asks for those far out in the tail.
// So the masses are tilted first: p(ℓ)·e^{θℓ}/M(θ), where M(θ) = E[e^{θℓ}], has its weight about K'(θ),
// K = T·log M, and θ is chosen to put this where the answer is. (The saddle point of large deviations;
// see Alghamdi et al., "The saddle-point method in differential privacy", ICML 2023.)
type composition struct {
	parts       []part
	h           float64
	first, last int64   // no loss is outside first·h to last·h
	reach       float64 // the sum of the steps' largest losses
	lost        float64 // bound on P's mass at ∞
}

// A part is one phase: a step's grid and the number of steps.
type part struct {
	*grid
	steps int64
}

func compose(parts []part) *composition {
	c := &composition{parts: parts, h: parts[0].h}
	for _, p := range parts {
		t := float64(p.steps)
		c.lost += t * p.beyond * (1 + 1e-9)
		c.reach += t * p.reach
		c.first += p.steps * int64(p.first)
		c.last += p.steps * int64(p.first+len(p.log)-1)
	}
	return c
}

// points is the number of points of all grids.
func (c *composition) points() (n int) {
	for _, p := range c.parts {
		n += len(p.log)
	}
	return n
}

func (c *composition) steps() (n int64) {
	for _, p := range c.parts {
		n += p.steps
	}
	return n
}

// moments of the tilted loss.
type moments struct{ k, mean, variance float64 }

// sd is the standard deviation, and never 0.
func (m moments) sd() float64 { return math.Sqrt(max(m.variance, 1e-300)) }

// tilted returns K(θ) and its derivatives.
func (c *composition) tilted(theta float64) moments {
	var sum moments
	for _, p := range c.parts {
		m, t := p.tilted(theta), float64(p.steps)
		sum.k += t * m.k
		sum.mean += t * m.mean
		sum.variance += t * m.variance
	}
	return sum
}

func (g *grid) tilted(theta float64) moments {
	peak := math.Inf(-1)
	for i, v := range g.log {
		peak = max(peak, v+theta*float64(g.first+i)*g.h)
	}
	var s0, s1, s2 float64
	for i, v := range g.log {
		l := float64(g.first+i) * g.h
		if d := v + theta*l - peak; d > -60 { // the rest is below 2^-53 of the sum even a million times over
			w := math.Exp(d)
			s0 += w
			s1 += w * l
			s2 += w * l * l
		}
	}
	mean := s1 / s0
	return moments{peak + math.Log(s0), mean, max(0, s2/s0-mean*mean)}
}

// saddle finds the θ > 0 at which f, which falls with θ, is 0, to a few per cent: any θ gives the same
// answer but for rounding.
func (c *composition) saddle(f func(theta float64, m moments) float64) float64 {
	lo := math.Log(1e-3 / (1 + c.tilted(0).sd()))
	hi := math.Log(1e12)
	for hi-lo > .03 {
		mid := (lo + hi) / 2
		theta := math.Exp(mid)
		if f(theta, c.tilted(theta)) > 0 {
			lo = mid
		} else {
			hi = mid
		}
	}
	return math.Exp(lo)
}

// forDelta is the θ for the ε of a δ: by the saddle-point approximation
// log δ ≈ K - θK' - log(θ(1+θ)√(2πK”)), which falls with θ.
func (c *composition) forDelta(delta float64) float64 {
	return c.saddle(func(theta float64, m moments) float64 {
		return m.k - theta*m.mean - math.Log(max(1, theta*(1+theta)*math.Sqrt(2*math.Pi)*m.sd())) - math.Log(delta)
	})
}

// forEpsilon is the θ for the δ of an ε: K' = ε.
func (c *composition) forEpsilon(epsilon float64) float64 {
	return c.saddle(func(_ float64, m moments) float64 { return epsilon - m.mean })
}

// A window is the stretch of losses that a transform covers. What lies outside comes back inside, at
// the same place modulo its length: added masses are pessimistic, and what is missing above is bounded.
type window struct {
	lo, hi float64
	above  float64 // bound on P's mass above hi
}

// window covers the loss tilted by θ, but for a negligible part, and the point at unless that is NaN.
// Tails are bounded as Chernoff did: P̃(L > x) ≤ exp(K(s)-K(θ)-(s-θ)x). A grid of 2h dominates that of
// h, so that its K is never smaller, and may stand for it.
func (c *composition) window(theta, at float64) window {
	m := c.tilted(theta)
	small := math.Log(1e-10) - math.Log(max(1, theta*(1+theta)*m.sd()))
	edge := func(sign float64) float64 {
		best := math.Inf(1)
		for s := .05 / m.sd(); s < 40/m.sd(); s *= 2 {
			best = min(best, (c.tilted(theta+sign*s).k-m.k-small)/s)
		}
		return sign * best
	}
	lo, hi := edge(-1), edge(1)
	if !math.IsNaN(at) {
		lo, hi = min(lo, at-c.h), max(hi, at+c.h)
	}
	lo, hi = max(lo, float64(c.first)*c.h), min(hi, float64(c.last)*c.h)
	return window{lo, hi, 2 * math.Exp(min(0, small+m.k-theta*hi))}
}

// power returns the tilted masses of the composition modulo n, a power of two: mass i is that of all
// losses (i + a multiple of n)·h. Each is at least what it is in exact arithmetic, but for a factor of
// exp(slack) common to all.
func (c *composition) power(theta float64, n int) (mass []float64, slack float64) {
	fft := fourier.NewFFT(n)
	product := make([]complex128, n/2+1)
	bound := make([]float64, n/2+1) // of |product| without one factor of each part
	for k := range product {
		product[k], bound[k] = 1, 1
	}
	x, z := make([]float64, n), make([]complex128, n/2+1)
	// A transform of length n errs by at most logn·η in norm, η below 7 units for radix 2 and less for
	// radix 4 (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., theorem 24.2); twice that
	// covers the packing of real data and FFTPACK's twiddle factors.
	transform := 14 * unit * math.Log2(float64(n))
	var wrong float64 // Σ T·‖e‖, e the error of a part's transform
	var total float64
	for _, p := range c.parts {
		clear(x)
		m := p.tilted(theta)
		t := float64(p.steps)
		var norm float64
		for i, v := range p.log {
			l := theta * float64(p.first+i) * c.h
			if d := v + l - m.k; d > -745 {
				x[wrap(int64(p.first+i), n)] += math.Exp(d)
			}
		}
		for _, v := range x {
			norm += v * v
		}
		fft.Coefficients(z, x)
		e := transform * math.Sqrt(float64(n)*norm)
		wrong += t * e
		for k, v := range z {
			product[k] *= pow(v, p.steps)
			bound[k] *= math.Exp((t - 1) * math.Log(cmplx.Abs(v)+e))
		}
		total += t
		// Exponents are rounded, each of at most these sizes; M(θ) cancels, however it is rounded.
		slack += t * (p.wrong + 8*unit*(750+theta*p.reach+math.Abs(m.k)))
	}
	// |Π(z+e)^T - Πz^T| ≤ Σ T|e|·bound, in norm; powers by products err by √5 units a factor.
	var g, s, size float64
	for k, v := range product {
		twice := 2.0
		if k == 0 || k == n/2 {
			twice = 1
		}
		g += twice * bound[k] * bound[k]
		s += twice * cmplx.Abs(v)
		size += twice * real(v*cmplx.Conj(v))
		product[k] = v / complex(float64(n), 0)
	}
	// in each mass: the mean over frequencies, and the error of the transform back
	err := (wrong*math.Sqrt(g)+4*unit*total*s)/float64(n) + transform*math.Sqrt(size/float64(n))
	mass = fft.Sequence(x, product)
	for i, v := range mass {
		mass[i] = max(0, v) + err
	}
	return mass, slack
}

func wrap(i int64, n int) int {
	if i %= int64(n); i < 0 {
		i += int64(n)
	}
	return int(i)
}

// pow is z^t by squaring.
func pow(z complex128, t int64) complex128 {
	p := complex(1, 0)
	for ; t > 0; t >>= 1 {
		if t&1 == 1 {
			p *= z
		}
		z *= z
	}
	return p
}
