package privacy

import "math"

// Accuracy of the reported ε: the grid is refined until another halving would change ε by less than
// tolerance·ε + finest, or has the largest number of points.
const (
	tolerance = 3e-4
	finest    = 2e-6
	largest   = 1 << 20
	rough     = 1 << 14 // where a first look will do
	few       = 8       // steps
)

// Epsilon returns the ε of phases at δ: the smallest that the privacy loss distribution shows, rounded
// up. It is a bound, not an estimate: discretisation (see grid), truncated mass, what a Fourier
// transform folds and what float64 rounds are all added to δ or ε. It is +Inf where nothing finite can
// be shown. Up to a million steps it is tight to a thousandth or so, and takes a fraction of a second;
// from ten million on it becomes loose.
func Epsilon(phases []Phase, delta float64) (float64, error) {
	if err := check(phases); err != nil {
		return 0, err
	}
	if err := checkDelta(delta); err != nil {
		return 0, err
	}
	return epsilonOf(spent(phases), delta, tolerance), nil
}

func epsilonOf(phases []Phase, delta, tolerance float64) float64 {
	if unseen(phases) <= delta {
		return 0
	}
	if !countable(phases) {
		return math.Inf(1)
	}
	// The loss of a unit that is added is the smaller one, as a rule by far: a rough bound shows it.
	worst := (&spectrum{phases, false, delta, tolerance, largest}).epsilon()
	if (&spectrum{phases, true, delta, .1, rough}).epsilon() > worst {
		worst = max(worst, (&spectrum{phases, true, delta, tolerance, largest}).epsilon())
	}
	return worst
}

// Delta returns the δ of phases at ε, rounded up as Epsilon is.
func Delta(phases []Phase, epsilon float64) (float64, error) {
	if err := check(phases); err != nil {
		return 0, err
	}
	if err := checkEpsilon(epsilon); err != nil {
		return 0, err
	}
	phases = spent(phases)
	most := unseen(phases)
	if most == 0 || !countable(phases) {
		return most, nil
	}
	worst := (&spectrum{phases: phases}).deltaOf(epsilon)
	add := &spectrum{phases: phases, add: true}
	if add.about(epsilon) > worst {
		worst = max(worst, add.deltaOf(epsilon))
	}
	return min(most, max(worst, smallest)), nil
}

// countable tells whether the phases have noise enough for a loss that can be laid on a grid. With less,
// each step that sees a unit shows it: its loss is in the thousands.
func countable(phases []Phase) bool {
	for _, p := range phases {
		if p.Sigma < .01 {
			return false
		}
	}
	return true
}

// A spectrum is the question for one direction.
type spectrum struct {
	phases []Phase
	add    bool    // of a unit that is added, else removed
	delta  float64 // given, or about what is asked for
	// how exactly, and with how many points at most
	tolerance float64
	points    int
}

// spans is how many standard deviations of a phase's noise have to be on the grid, below N(0,σ²) and
// above N(1,σ²), so that what is beyond is a hundred thousandth of δ: P(z > x) ≤ exp(-x²/2).
func (s *spectrum) spans(p Phase) (below, above float64) {
	var steps, seen float64
	for _, p := range s.phases {
		steps += float64(p.Steps)
		seen += float64(p.Steps) * p.Q
	}
	x := func(mass float64) float64 {
		return min(farthest-1, math.Sqrt(2*max(.5, math.Log(mass)+math.Log(1e5)-math.Log(s.delta))))
	}
	// N(0,σ²) has to end above, too
	return x(steps), max(x(seen), x(steps)-1/p.Sigma)
}

func (s *spectrum) compose(h float64) *composition {
	parts := make([]part, len(s.phases))
	for i, p := range s.phases {
		below, above := s.spans(p)
		remove, add := mechanism{p.Q, p.Sigma}.grids(h, -below, above+1/p.Sigma)
		parts[i] = part{remove, p.Steps}
		if s.add {
			parts[i].grid = add
		}
	}
	return compose(parts)
}

// widest is the largest loss of a step on the grid.
func (s *spectrum) widest() (l float64) {
	for _, p := range s.phases {
		m := mechanism{p.Q, p.Sigma}
		below, above := s.spans(p)
		l = max(l, m.loss(above+1/p.Sigma), -m.loss(-below))
	}
	return l
}

// epsilon returns the ε of s.delta. Where the window of the first try ends above it, the second's does not.
func (s *spectrum) epsilon() float64 {
	tilt := func(c *composition) float64 { return c.forDelta(s.delta) }
	e, inside := s.profile(tilt, math.NaN()).epsilon(s.delta)
	if !inside {
		e, _ = s.profile(tilt, 0).epsilon(s.delta)
	}
	return e
}

// deltaOf returns the δ of ε: about first, then with the grid and the tilt for what it is about.
func (s *spectrum) deltaOf(epsilon float64) float64 {
	d := s.about(epsilon)
	s.delta, s.tolerance, s.points = min(.999, max(d/10, smallest)), tolerance, largest
	return min(d, s.profile(func(c *composition) float64 { return c.forDelta(s.delta) }, epsilon).divergence(epsilon))
}

// about is a rough bound on the δ of ε.
func (s *spectrum) about(epsilon float64) float64 {
	s.delta, s.tolerance, s.points = 1e-30, .1, rough
	if c := s.compose(s.widest() / 256); epsilon > float64(c.last)*c.h {
		return c.lost
	}
	return s.profile(func(c *composition) float64 { return c.forEpsilon(epsilon) }, epsilon).divergence(epsilon)
}

// A profile is the tilted distribution of the loss of all steps, in a window.
type profile struct {
	theta, k float64 // the tilt, and K(θ)
	h        float64
	first    int64     // the window is at ℓ = (first+i)·h
	mass     []float64 // tilted
	lost     float64   // bound on P's mass above the window or at ∞
	slack    float64   // masses may be too small by a factor of exp(slack)
	shift    float64   // losses may be too small by this
}

// profile halves h until the answer settles, and composes.
func (s *spectrum) profile(tilt func(*composition) float64, at float64) *profile {
	h := s.widest() / 256
	var levels []*composition // the last three
	var theta, k float64
	for {
		c := s.compose(h)
		if theta == 0 || c.points() < 1<<15 {
			theta = tilt(c)
			if len(levels) > 0 {
				k = levels[len(levels)-1].tilted(theta).k
			}
		}
		now := c.tilted(theta)
		levels = append(levels[max(0, len(levels)-3):], c)
		w := levels[0].window(theta, at)
		n := 1 << 8
		for n < 2*s.points && float64(n)*c.h < w.hi-w.lo+4*c.h {
			n <<= 1
		}
		// By Chernoff's bound ε is (K - log δ)/θ; it is about the mean. Of few steps, which smear nothing, it
		// may be off by h.
		settled := len(levels) > 1 && (k-now.k)/theta <= s.tolerance*max(now.mean, 0)+finest &&
			(c.steps() > few || h <= .002*math.Abs(now.mean)+1e-4)
		if settled || n >= s.points || c.points() >= s.points {
			return c.profile(theta, now.k, w, n)
		}
		k = now.k
		h /= 2
	}
}

func (c *composition) profile(theta, k float64, w window, n int) *profile {
	raw, slack := c.power(theta, n)
	p := &profile{theta: theta, k: k, h: c.h, mass: make([]float64, n), slack: slack, lost: c.lost}
	top := int64(math.Ceil(w.hi / c.h)) // the window ends here
	if top < c.last {
		p.lost += w.above
	}
	p.first = top - int64(n) + 1
	for i := range p.mass {
		p.mass[i] = raw[wrap(p.first+int64(i), n)]
	}
	// e^u has an absolute error of a few units times 1+e^ℓ: so has ℓ. K and θ·ℓ are rounded, too.
	for _, q := range c.parts {
		p.shift += float64(q.steps) * 8 * unit * (1 + q.reach)
	}
	p.slack += 8 * unit * (math.Abs(k) + theta*math.Abs(float64(top)*c.h) + theta*float64(n)*c.h)
	p.slack += 8 * unit * float64(n) // the sums of walk
	return p
}

// walk goes down the window to the first point x where stop holds. It returns it and, of the masses above
// it, d = Σ P̃·(e^{-θ(ℓ-x)} - e^{-(θ+1)(ℓ-x)}) and b = Σ P̃·e^{-(θ+1)(ℓ-x)}: from x to the next point, the
// divergence at ε is e^{K-θx}(d - b·(e^{ε-x}-1)). Both are sums of positive numbers.
func (p *profile) walk(stop func(x, d, b float64) bool) (x, d, b float64, found bool) {
	up := math.Exp(-p.theta * p.h)
	less, both := -up*math.Expm1(-p.h), math.Exp(-(p.theta+1)*p.h)
	for i := len(p.mass) - 1; ; i-- {
		x = float64(p.first+int64(i)) * p.h
		if stop(x, d, b) {
			return x, d, b, true
		}
		if i == 0 {
			return x, d, b, false
		}
		b += p.mass[i]
		d, b = up*d+less*b, both*b
	}
}

// epsilon returns the smallest ε ≥ 0 for which δ is shown, and whether that is inside the window: if not,
// it is the window's end. It is +Inf where lost mass alone is δ.
func (p *profile) epsilon(delta float64) (e float64, inside bool) {
	left := delta - p.lost
	if !(left > 0) { // nor where it is no number
		return math.Inf(1), true
	}
	budget := math.Log(left) - p.slack - p.k
	x, d, b, found := p.walk(func(x, d, _ float64) bool {
		return x < 0 || !(math.Log(d)-p.theta*x <= budget)
	})
	if over := d - math.Exp(budget+p.theta*x); found && over > 0 && b > 0 {
		x += math.Log1p(over / b)
	}
	if math.IsNaN(x + p.shift) {
		return math.Inf(1), true
	}
	return max(0, x) + p.shift, found
}

// divergence returns δ(ε). Above the window it is what is lost.
func (p *profile) divergence(epsilon float64) float64 {
	epsilon -= p.shift
	x, d, b, found := p.walk(func(x, _, _ float64) bool { return x <= epsilon })
	if !found {
		return 1
	}
	if v := p.lost + math.Exp(p.k-p.theta*x+p.slack)*max(0, d-b*math.Expm1(epsilon-x)); v < 1 { // a number
		return v
	}
	return 1
}
