package privacy

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Composition is the accountant of what is made of several models (Dwork and Roth 2014, theorem 3.16).
const Composition = "basic composition: ε and δ of the parts add up, whether their data overlap or not"

// Combined is what may be claimed of a model that is made of others, whose claims are parts: nil for one that has none.
// However it is made of them (weights, trimming), that costs nothing more. Where nothing holds it says why; of parts that
// all claim nothing it is nil.
func Combined(parts []*Claim) *Claim {
	if len(parts) == 1 {
		return parts[0]
	}
	c := &Claim{Accountant: Composition, NotCounted: NotCounted, Units: math.MaxInt64}
	why := func(format string, a ...any) {
		if c.Why == "" {
			c.Why = fmt.Sprintf(format, a...)
		}
	}
	sum := 0.
	for i, p := range parts {
		if p == nil {
			why("part %d of %d has no claim, so that nothing bounds what it tells", i+1, len(parts))
			continue
		}
		if c.Parts = append(c.Parts, *p); p.Epsilon == nil {
			why("of part %d of %d none is", i+1, len(parts))
		} else {
			sum = math.Nextafter(sum+*p.Epsilon, math.Inf(1))
		}
		c.Delta, c.Units = math.Nextafter(c.Delta+p.Delta, 1), min(c.Units, p.Units)
		if first := &c.Parts[0]; p.Unit != first.Unit || p.Adjacency != first.Adjacency {
			why("the parts protect different units, %s and %s", first.Unit, p.Unit)
		}
		for _, s := range p.Public {
			if !slices.Contains(c.Public, s) {
				c.Public = append(c.Public, s)
			}
		}
	}
	if len(c.Parts) == 0 {
		return nil
	}
	if c.Delta >= 1/float64(c.Units) {
		why("δ adds up to %.3g, at which one of %d units may be published", c.Delta, c.Units)
	}
	if c.Why != "" {
		c.Delta, c.Units, c.Accountant = 0, 0, ""
		return c
	}
	c.Epsilon, c.Unit, c.Adjacency = &sum, c.Parts[0].Unit, c.Parts[0].Adjacency
	return c
}

// CombinedJSON is Combined of claims as cards of models have them; an empty one is none. One that says less than its steps
// cost is refused.
func CombinedJSON(parts []json.RawMessage) (json.RawMessage, error) {
	claims := make([]*Claim, len(parts))
	for i, b := range parts {
		if len(b) == 0 {
			continue
		}
		claims[i] = new(Claim)
		err := json.Unmarshal(b, claims[i])
		if err == nil {
			err = claims[i].Verify()
		}
		if err != nil {
			return nil, fmt.Errorf("part %d of %d: %w", i+1, len(parts), err)
		}
	}
	c := Combined(claims)
	if c == nil {
		return nil, nil
	}
	return json.Marshal(c)
}

// checkParts refuses a claim that says less than its parts cost together.
func (c *Claim) checkParts() error {
	var parts []*Claim
	for i := range c.Parts {
		if err := c.Parts[i].Check(); err != nil {
			return err
		}
		parts = append(parts, &c.Parts[i])
	}
	want := Combined(parts)
	switch {
	case c.Epsilon == nil && c.Why != "":
		return nil
	case c.Epsilon == nil:
		return fmt.Errorf("privacy: claim: no ε, and not why none is claimed")
	case want.Epsilon == nil || c.Why != "":
		return fmt.Errorf("privacy: claim: ε %g, though none is claimed: %s%s", *c.Epsilon, c.Why, want.Why)
	case !(*c.Epsilon >= *want.Epsilon) || !(c.Delta >= want.Delta) || c.Unit != want.Unit:
		return fmt.Errorf("privacy: claim: it says ε %g, δ %g for %s, but its parts cost ε %g, δ %g for %s", *c.Epsilon, c.Delta, c.Unit, *want.Epsilon, want.Delta, want.Unit)
	case c.Units != want.Units || c.Adjacency != want.Adjacency:
		return fmt.Errorf("privacy: claim: it says %d units, neighbours are %s, but its parts %d, %s", c.Units, c.Adjacency, want.Units, want.Adjacency)
	}
	return c.checkChance()
}

// ofParts is one paragraph for people.
func (c *Claim) ofParts() string {
	var b strings.Builder
	if c.Epsilon == nil {
		fmt.Fprintf(&b, "No privacy is claimed of the whole: %s. ", c.Why)
	} else {
		fmt.Fprintf(&b, "Made of models with (ε, δ)-differential privacy, together ε = %s, δ = %.6g. The unit is %s; neighbouring data sets: %s. Accountant: %s. ",
			Up(*c.Epsilon), c.Delta, c.Unit, c.Adjacency, c.Accountant)
	}
	b.WriteString("What is claimed of parts:")
	for i := range c.Parts {
		fmt.Fprintf(&b, " (%d) %s", i+1, &c.Parts[i])
	}
	return b.String()
}
