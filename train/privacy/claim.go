package privacy

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
)

// A Claim is what is said of the privacy of a run, in full: it goes into what is saved.
type Claim struct {
	Epsilon    float64 `json:"epsilon"`
	Delta      float64 `json:"delta"`
	Accountant string  `json:"accountant"`
	EpsilonRDP float64 `json:"epsilon_rdp"` // of the cross-check, which is looser
	Unit       string  `json:"unit"`        // what is protected
	Units      int     `json:"units"`       // how many there are: public
	Adjacency  string  `json:"adjacency"`
	Sampler    string  `json:"sampler"`
	Phases     []Phase `json:"phases"` // q, σ and steps
	Clip       float64 `json:"clip"`
	Clipping   string  `json:"clipping"`
	Public     string  `json:"public"`
	NotCounted string  `json:"not_counted"`
}

const (
	accountant = "privacy loss distribution, rounded up"
	adjacency  = "one unit more or less"
	notCounted = "other runs on the same data, such as those that settings were chosen by; what somebody sees who watches the machine"
)

// NewClaim is the claim for units units of what unit says, of which phases are all that was and will be spent.
func NewClaim(phases []Phase, delta float64, unit string, units int, clip float64, clipping string, dev bool) (Claim, error) {
	c := Claim{
		Delta: delta, Accountant: accountant, Unit: unit, Units: units, Adjacency: adjacency, Sampler: "poisson",
		Phases: spent(phases), Clip: clip, Clipping: clipping, NotCounted: notCounted,
		Public: "the number of units, the configuration, the base model",
	}
	if dev {
		c.Public += ", and the dev data, by which the best checkpoint is chosen"
	}
	var err, cross error
	c.Epsilon, err = Epsilon(phases, delta)
	c.EpsilonRDP, _, cross = EpsilonRDP(phases, delta)
	if err = errors.Join(err, cross); err == nil {
		err = c.check()
	}
	return c, err
}

// check refuses what is no claim.
func (c *Claim) check() error {
	fail := func(format string, a ...any) error { return fmt.Errorf("privacy: claim: "+format, a...) }
	switch {
	case math.IsInf(c.Epsilon, 0) || math.IsNaN(c.Epsilon):
		return fail("ε %g: nothing finite can be claimed: more noise, or a smaller part of the units a step", c.Epsilon)
	case math.IsInf(c.EpsilonRDP, 0) || math.IsNaN(c.EpsilonRDP):
		return fail("ε by the Rényi accountant %g: nothing finite can be claimed", c.EpsilonRDP)
	case c.EpsilonRDP < c.Epsilon*(1-1e-3)-1e-3:
		return fail("ε %g is above that of the Rényi accountant, %g, which is a bound too: please report it", c.Epsilon, c.EpsilonRDP)
	case c.Units < 1:
		return fail("%d units", c.Units)
	case !(c.Delta > 0) || c.Delta*float64(c.Units) >= 1:
		return fail("δ %g for %d units: want less than 1 over their number", c.Delta, c.Units)
	case !(c.Clip > 0) || math.IsInf(c.Clip, 0):
		return fail("clipping norm %g", c.Clip)
	}
	return check(c.Phases)
}

// ParseClaim reads a claim, and recomputes its ε: one that says less than its phases cost is refused.
func ParseClaim(b []byte) (Claim, error) {
	var c Claim
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("privacy: claim: %w", err)
	}
	if err := c.check(); err != nil {
		return c, err
	}
	e, err := Epsilon(c.Phases, c.Delta)
	if err != nil {
		return c, err
	}
	if c.Epsilon < e*(1-1e-3) {
		return c, fmt.Errorf("privacy: claim: it says ε %g, but its steps cost %g", c.Epsilon, e)
	}
	return c, nil
}

// String is the claim as a paragraph.
func (c Claim) String() string {
	var steps []string
	for _, p := range c.Phases {
		steps = append(steps, fmt.Sprintf("%d steps that draw each unit with probability %.4g and add noise of %.4g times the clipping norm", p.Steps, p.Q, p.Sigma))
	}
	if len(steps) == 0 {
		steps = []string{"no step"}
	}
	return fmt.Sprintf("(ε %.4g, δ %.3g)-differentially private for %s as a unit, of which there are %d; neighbours differ by %s. "+
		"DP-SGD of %s, clipped to %g (%s). Accountant: %s; by Rényi differential privacy ε is %.4g. Public: %s. Not counted: %s.",
		c.Epsilon, c.Delta, c.Unit, c.Units, c.Adjacency, strings.Join(steps, ", and "), c.Clip, c.Clipping, c.Accountant, c.EpsilonRDP, c.Public, c.NotCounted)
}
