// Package privacy is the part of differentially private training that needs no engine: what a run
// reveals (accountants), the secret that its draws come from (Key), which units a step sees (Sampler),
// the noise of a step (Noise), the record of what was spent, written before it is spent (Ledger), and
// the statement that goes with a checkpoint (Claim).
//
// The mechanism is DP-SGD's (Abadi et al., "Deep learning with differential privacy", CCS 2016) with
// Poisson sampling: a step sees each unit with probability q, independently; clips each unit's gradient
// to the norm C; and releases the sum plus N(0, (σC)²) in each element, divided by a constant. ε and δ
// are of add/remove adjacency: two data sets are neighbours if one is the other and one more unit.
//
// Symbols: q sampling rate, σ noise multiplier, C clipping norm, T steps, ℓ privacy loss, α order.
package privacy

import (
	"errors"
	"fmt"
	"math"
)

// A Phase is so many steps of one mechanism. Runs that were resumed with another σ, and several runs on
// the same units, are lists of phases: they compose.
type Phase struct {
	Q     float64 `json:"q"`     // a unit's chance to be in a step's batch
	Sigma float64 `json:"sigma"` // standard deviation of the noise over the clipping norm
	Steps int64   `json:"steps"`
}

// maxSteps bounds the steps of all phases together: beyond it the bounds on rounding mean nothing.
const maxSteps = 1e12

// check refuses what is no mechanism. σ = 0 is one, of ε = ∞.
func check(phases []Phase) error {
	var steps int64
	for _, p := range phases {
		switch {
		case !(p.Q >= 0 && p.Q <= 1):
			return fmt.Errorf("privacy: sampling rate q %g, want 0 to 1", p.Q)
		case !(p.Sigma >= 0) || math.IsInf(p.Sigma, 1):
			return fmt.Errorf("privacy: noise multiplier σ %g, want a finite number from 0", p.Sigma)
		case p.Steps < 0 || p.Steps > maxSteps:
			return fmt.Errorf("privacy: %d steps, want 0 to %g", p.Steps, float64(maxSteps))
		}
		steps += p.Steps // cannot overflow before it is refused
		if steps > maxSteps {
			return fmt.Errorf("privacy: more than %g steps", float64(maxSteps))
		}
	}
	return nil
}

// smallest is the least δ: far below it, float64 has no masses.
const smallest = 1e-200

// StepsOf is how many steps draw each unit so often on average: epochs/q, rounded up but for what dividing rounds.
func StepsOf(epochs, q float64) int64 { return int64(math.Ceil(epochs / q * (1 - 1e-12))) }

func checkDelta(delta float64) error {
	if !(delta >= smallest && delta < 1) {
		return fmt.Errorf("privacy: δ %g, want a number between 0 and 1 (from %g)", delta, smallest)
	}
	return nil
}

func checkEpsilon(epsilon float64) error {
	if !(epsilon >= 0) || math.IsInf(epsilon, 1) {
		return fmt.Errorf("privacy: ε %g, want a finite number from 0", epsilon)
	}
	return nil
}

var errNoSigma = errors.New("privacy: no noise multiplier reaches the target")

// spent are the phases that spend anything, those of one mechanism together.
func spent(phases []Phase) []Phase {
	var out []Phase
next:
	for _, p := range phases {
		if p.Steps == 0 || p.Q == 0 {
			continue
		}
		for i := range out {
			if out[i].Q == p.Q && out[i].Sigma == p.Sigma {
				out[i].Steps += p.Steps
				continue next
			}
		}
		out = append(out, p)
	}
	return out
}

// unseen bounds δ(ε) of every ε by the chance that a unit is in any batch at all: 1 - Π (1-q)^T. It is
// rounded up.
func unseen(phases []Phase) float64 {
	var log float64
	for _, p := range phases {
		if p.Q == 1 {
			return 1
		}
		log += float64(p.Steps) * math.Log1p(-p.Q)
	}
	return min(1, -math.Expm1(log)*(1+1e-12))
}
