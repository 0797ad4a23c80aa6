package privacy

import "math"

// Sigma returns the noise multiplier for which so many steps at sampling rate q spend at most target at
// δ: Epsilon of it is not above, and that of a σ smaller by 1e-3 is.
func Sigma(q float64, steps int64, delta, target float64) (float64, error) {
	if err := check([]Phase{{q, 1, steps}}); err != nil {
		return 0, err
	}
	if err := checkDelta(delta); err != nil {
		return 0, err
	}
	if err := checkEpsilon(target); err != nil {
		return 0, err
	}
	fits := func(sigma, tolerance float64) bool {
		return epsilonOf(spent([]Phase{{q, sigma, steps}}), delta, tolerance) <= target
	}
	if fits(0, tolerance) {
		return 0, nil
	}
	// A coarse search, then a fine one about where it ended.
	lo, hi, err := bracket(1, 2, func(sigma float64) bool { return fits(sigma, .01) })
	if err != nil {
		return 0, err
	}
	lo, hi = bisect(lo, hi, 1e-2, func(sigma float64) bool { return fits(sigma, .01) })
	exact := func(sigma float64) bool { return fits(sigma, tolerance) }
	if lo, hi, err = bracket(math.Sqrt(lo*hi), 1.005, exact); err != nil {
		return 0, err
	}
	_, hi = bisect(lo, hi, 5e-4, exact)
	return hi, nil
}

// bracket returns lo that does not fit and hi that does, a factor apart, by steps that double from x.
func bracket(x, factor float64, fits func(float64) bool) (lo, hi float64, err error) {
	if fits(x) {
		for hi = x; ; hi = lo {
			if lo = hi / factor; lo < 1e-3 {
				return 0, 0, errNoSigma
			}
			if !fits(lo) {
				return lo, hi, nil
			}
			factor *= factor
		}
	}
	for lo = x; ; lo = hi {
		if hi = lo * factor; hi > 1e9 {
			return 0, 0, errNoSigma
		}
		if fits(hi) {
			return lo, hi, nil
		}
		factor *= factor
	}
}

// bisect narrows lo and hi to a relative distance.
func bisect(lo, hi, to float64, fits func(float64) bool) (float64, float64) {
	for hi > lo*(1+to) {
		if mid := math.Sqrt(lo * hi); fits(mid) {
			hi = mid
		} else {
			lo = mid
		}
	}
	return lo, hi
}

// Steps returns how many steps at q and σ spend at most target at δ; maxSteps where any number does.
func Steps(q, sigma, delta, target float64) (int64, error) {
	if err := check([]Phase{{q, sigma, 1}}); err != nil {
		return 0, err
	}
	if err := checkDelta(delta); err != nil {
		return 0, err
	}
	if err := checkEpsilon(target); err != nil {
		return 0, err
	}
	fits := func(steps int64) bool {
		return epsilonOf(spent([]Phase{{q, sigma, steps}}), delta, tolerance) <= target
	}
	var lo, hi int64 = 0, 1
	for fits(hi) {
		if lo, hi = hi, hi*4; hi > maxSteps {
			return maxSteps, nil
		}
	}
	// A thousandth is below what the accountant resolves, but single steps count where there are few.
	for hi-lo > 1+lo/2000 {
		if mid := lo + (hi-lo)/2; fits(mid) {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo, nil
}
