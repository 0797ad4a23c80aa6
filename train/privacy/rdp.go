package privacy

import "math"

// orders are the Rényi orders that EpsilonRDP tries.
var orders = func() (all []float64) {
	for a := 1.02; a < 1.1; a += .02 {
		all = append(all, a)
	}
	for a := 11; a < 120; a++ {
		all = append(all, float64(a)/10)
	}
	for a := 12.; a < 4096; a = math.Ceil(a * 1.05) {
		all = append(all, a)
	}
	return all
}()

// EpsilonRDP returns the ε of phases at δ by Rényi differential privacy, and the order that gives it: a
// looser bound than Epsilon, by other arithmetic. It is the cross-check. Composition adds up; the
// conversion is Canonne, Kamath, Steinke, "The discrete Gaussian for differential privacy" (NeurIPS
// 2020), proposition 12: ε = RDP(α) + log((α-1)/α) - (log δ + log α)/(α-1).
func EpsilonRDP(phases []Phase, delta float64) (epsilon, order float64, err error) {
	if err := check(phases); err != nil {
		return 0, 0, err
	}
	if err := checkDelta(delta); err != nil {
		return 0, 0, err
	}
	phases = spent(phases)
	epsilon = math.Inf(1)
	if len(phases) == 0 {
		epsilon = 0
	}
	if len(phases) == 0 || !countable(phases) {
		return epsilon, orders[0], nil
	}
	rises := 0
	for _, a := range orders {
		e := convert(renyi(phases, a), a, delta)
		if e < epsilon {
			epsilon, order, rises = e, a, 0
		} else if rises++; rises > 12 { // it falls, then rises
			break
		}
	}
	return epsilon, order, nil
}

func convert(rdp, a, delta float64) float64 {
	return max(0, rdp+math.Log1p(-1/a)-(math.Log(delta)+math.Log(a))/(a-1))
}

// renyi is the Rényi divergence of order a > 1 of phases.
func renyi(phases []Phase, a float64) (rdp float64) {
	for _, p := range phases {
		rdp += float64(p.Steps) * renyiStep(mechanism{p.Q, p.Sigma}, a)
	}
	return rdp
}

// renyiStep is log E_Q[(P/Q)^α] / (α-1) of one step (Mironov, Talwar, Zhang, "Rényi differential privacy
// of the sampled Gaussian mechanism", 2019: the other direction is never larger). The integrand is
// analytic and falls off as a normal density, so that the trapezoidal rule converges exponentially:
// exp(-2πs/width), s the distance of its nearest singularity from the real line, πσ in units of σ.
func renyiStep(m mechanism, a float64) float64 {
	if m.q == 1 {
		return a / (2 * m.sigma * m.sigma)
	}
	width := min(.1, m.sigma/4)
	// The value is 1 + α(α-1)·variance/2 and more, and may be next to 1: what is above 1 is summed, of
	// which each term is positive, because E[P/Q - 1] is 0. Where terms are huge, they are logarithms.
	var excess, most float64
	var huge []float64
	for z := -farthest; z < farthest+a/m.sigma; z += width {
		l, g := m.loss(z), z*z/2
		if a*l < 30 {
			excess += math.Exp(-g) * (math.Expm1(a*l) - a*math.Expm1(l))
			continue
		}
		excess -= math.Exp(-g)*(1-a) + a*math.Exp(l-g)
		huge = append(huge, a*l-g)
		most = max(most, a*l-g)
	}
	c := width / math.Sqrt(2*math.Pi)
	if most < 300 {
		for _, x := range huge {
			excess += math.Exp(x)
		}
		return max(0, math.Log1p(c*excess)) / (a - 1)
	}
	var sum float64 // of the huge alone: the rest is 1e-100 of it
	for _, x := range huge {
		sum += math.Exp(x - most)
	}
	return (most + math.Log(c*sum)) / (a - 1)
}
