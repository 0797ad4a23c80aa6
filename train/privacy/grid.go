package privacy

import "math"

// A grid is the privacy loss of one step, moved to multiples of h so that nothing is made to look
// better than it is ("connect the dots": Doroshenko, Ghazi, Kamath, Kumar, Manurangsi, "Connect the
// dots: tighter discrete approximations of privacy loss distributions", PETS 2022).
//
// The step's pair of distributions is P = (1-q) N(0,σ²) + q N(1,σ²) and Q = N(0,σ²) (Zhu, Dong, Wang,
// "Optimal accounting of differential privacy via characteristic function", AISTATS 2022): (P,Q)
// dominates what removing a unit shows, (Q,P) what adding one does. Their loss at x is
// ℓ = log(1-q+q·exp(u)), u = (2x-1)/(2σ²). What P and Q have between two grid points goes to these two,
// such that both P's mass and Q's stay the same. As a function of e^ε, the divergence δ(ε) is then
// linear between grid points and equal at them; it is convex, so that the new pair dominates the old,
// and compositions of it dominate compositions of the old one.
//
// Every mass is the integral of a positive function, by Gauss-Legendre: nothing cancels, and masses are
// right to a small relative error, by which those who use them round up.
type grid struct {
	h      float64
	first  int       // masses are at ℓ = (first+i)·h
	log    []float64 // logarithms of P's masses
	beyond float64   // P's mass at ℓ = ∞
	reach  float64   // the largest |ℓ|
	wrong  float64   // bound on the relative error of a mass
}

// unit is the unit roundoff of float64.
const unit = 1.0 / (1 << 53)

// farthest is where a normal distribution has no mass that float64 could hold.
const farthest = 38.6

// half-open nodes and weights on [0,1] of Gauss-Legendre.
var (
	nodes4   = [4]float64{0.06943184420297371239, 0.33000947820757186760, 0.66999052179242813240, 0.93056815579702628761}
	weights4 = [4]float64{0.17392742256872692869, 0.32607257743127307131, 0.32607257743127307131, 0.17392742256872692869}
	nodes8   = [8]float64{
		0.01985507175123188416, 0.10166676129318663020, 0.23723379504183550709, 0.40828267875217509753,
		0.59171732124782490247, 0.76276620495816449291, 0.89833323870681336980, 0.98014492824876811584,
	}
	weights8 = [8]float64{
		0.05061426814518812958, 0.11119051722668723527, 0.15685332293894364367, 0.18134189168918099148,
		0.18134189168918099148, 0.15685332293894364367, 0.11119051722668723527, 0.05061426814518812958,
	}
)

// A mechanism is one step's q and σ.
type mechanism struct{ q, sigma float64 }

// exponent is u where the loss is l; -Inf where no x has so small a loss.
func (m mechanism) exponent(l float64) float64 {
	if l > 30 {
		return l - math.Log(m.q) + math.Log1p(-(1-m.q)*math.Exp(-l))
	}
	if m.q == 1 {
		return l
	}
	if l < -1 {
		return math.Log(max(0, (math.Exp(l)-(1-m.q))/m.q))
	}
	return math.Log1p(max(-1, math.Expm1(l)/m.q))
}

// loss is ℓ at x = σz.
func (m mechanism) loss(z float64) float64 {
	u := m.u(z)
	switch {
	case m.q == 1:
		return u
	case u > 30:
		return u + math.Log(m.q+(1-m.q)*math.Exp(-u))
	case u < -1:
		return math.Log((1 - m.q) + m.q*math.Exp(u))
	}
	return math.Log1p(m.q * math.Expm1(u))
}

func (m mechanism) u(z float64) float64 { return z/m.sigma - 1/(2*m.sigma*m.sigma) }

func (m mechanism) z(u float64) float64 { return m.sigma*u + 1/(2*m.sigma) }

// grids discretises a step, for both directions: remove is of (P,Q), add of (Q,P). What lies outside
// [from, to], in units of σ, goes to ∞, or to the outermost grid point where that is the larger loss.
func (m mechanism) grids(h, from, to float64) (remove, add *grid) {
	first, last := int(math.Floor(m.loss(from)/h)), int(math.Ceil(m.loss(to)/h))
	if last == first {
		last++
	}
	n := last - first + 1
	p := make([]float64, n) // P's masses
	lo := m.exponent(float64(first) * h)
	up, down := 1/-math.Expm1(-h), 1/math.Expm1(h)
	for i := range n - 1 {
		hi := m.exponent(float64(first+i+1) * h)
		e := math.Expm1(float64(first+i)*h) / m.q // e^lo - 1
		a, b := m.cell(lo, hi, e)
		p[i+1] += m.q * a * up
		p[i] += m.q * b * down
		lo = hi
	}
	// Gauss-Legendre 2e-15, a few dozen roundings, and three exponents, none above the square of where
	// the grid ends, each wrong by a few units of itself.
	wrong := 1e-14 + 8*unit*max(from*from, to*to)
	remove = &grid{h: h, first: first, log: p, wrong: wrong}
	add = &grid{h: h, first: -last, log: make([]float64, n), wrong: wrong}
	above, belowAt := m.ends(p, m.exponent(float64(first)*h), lo, float64(first)*h, float64(last)*h)
	remove.beyond, add.beyond = above, belowAt
	for i, v := range p {
		l := float64(first+i) * h
		p[i] = math.Log(v) // -Inf where nothing is
		add.log[n-1-i] = p[i] - l
	}
	remove.reach = max(math.Abs(float64(first)), math.Abs(float64(last))) * h
	add.reach = remove.reach
	return remove, add
}

// cell integrates over u from lo to hi: a of e^u - e^lo, b of e^hi - e^u, both over N(0,σ²). lessOne is
// e^lo - 1, which lies below -1 where lo is -Inf: there the grid point is smaller than any loss.
func (m mechanism) cell(lo, hi, lessOne float64) (a, b float64) {
	if math.IsInf(hi, -1) {
		return 0, 0
	}
	from, to := -farthest, min(m.z(hi), farthest+1/m.sigma)
	if !math.IsInf(lo, -1) {
		from = max(m.z(lo), from)
	}
	near := hi-lo < 1
	width := math.Expm1(hi - lo) // infinite where lo is; used only where near
	m.panels(from, to, func(z, w float64) {
		u := m.u(z)
		if near {
			t := math.Expm1(min(max(u, lo), hi) - lo)
			w *= math.Exp(lo - z*z/2)
			a += w * t
			b += w * (width - t)
			return
		}
		g, e := w*math.Exp(-z*z/2), w*math.Exp(u-z*z/2)
		if math.IsInf(lo, -1) {
			a += e - (1+lessOne)*g
		} else {
			a += max(0, e-w*math.Exp(lo-z*z/2))
		}
		b += w * math.Exp(hi-z*z/2) * -math.Expm1(min(0, u-hi))
	})
	return a / math.Sqrt(2*math.Pi), b / math.Sqrt(2*math.Pi)
}

// panels sums f(z, weight) over pieces of [from, to] that are narrow for integrands such as
// exp(z/σ - z²/2). Their derivatives of order 2n are below s^2n times themselves, s = |z|+1/σ+2.5, and
// n points leave (n!)⁴/((2n+1)(2n)!³)·(s·width)^2n: 2e-15 with 4 points and s·width of 0.2, 1e-18 with
// 8 points and 2.
func (m mechanism) panels(from, to float64, f func(z, w float64)) {
	for from < to {
		s := max(math.Abs(from), math.Abs(min(to, from+1))) + 1/m.sigma + 2.5
		width := min(to-from, 2/s)
		if s*width <= .2 {
			for i, x := range nodes4 {
				f(from+x*width, weights4[i]*width)
			}
		} else {
			for i, x := range nodes8 {
				f(from+x*width, weights8[i]*width)
			}
		}
		if from+width == from {
			return
		}
		from += width
	}
}

// ends adds what lies outside the grid, whose first and last points have the losses first and last and
// the exponents lo and hi: above it, Q's mass goes to the last point and what P has beyond that to ∞;
// below it, P's mass goes to the first and what Q has beyond that to the ∞ of the other direction.
func (m mechanism) ends(p []float64, lo, hi, first, last float64) (remove, add float64) {
	c := 1 / math.Sqrt(2*math.Pi)
	m.panels(m.z(hi), farthest+1/m.sigma, func(z, w float64) {
		u := m.u(z)
		w *= c
		p[len(p)-1] += w * math.Exp(last-z*z/2)
		if d := u - hi; d < 1 {
			remove += w * m.q * math.Exp(hi-z*z/2) * math.Expm1(max(0, d))
		} else {
			remove += w * m.q * (math.Exp(u-z*z/2) - math.Exp(hi-z*z/2))
		}
	})
	if math.IsInf(lo, -1) {
		return remove, 0
	}
	m.panels(-farthest, m.z(lo), func(z, w float64) {
		w *= c * math.Exp(-z*z/2)
		p[0] += w * math.Exp(m.loss(z))
		add += w * -math.Expm1(min(0, m.loss(z)-first))
	})
	return remove, add
}
