package privacy

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"unicode"
)

// Names that a claim has.
const (
	AddRemove   = "add or remove one unit"
	Poisson     = "Poisson: each unit in each step with probability q, by a cryptographic generator"
	Accountant  = "privacy loss distribution (connect the dots, FFT; an upper bound)"
	CrossCheck  = "Rényi differential privacy"
	FlatClip    = "flat: one norm over all trained tensors"
	LayerClip   = "per layer: each of n trained tensors to C/√n"
	NotCounted  = "choices of hyperparameters by other runs on the same units"
	insecureKey = "the run was seeded with --insecure-seed, for a test: anybody can take its noise away"
)

// Terms are what a claim says beside its numbers.
type Terms struct {
	Unit     string   // what is protected: "a query with all its candidates"
	Units    int64    // how many there are; made public by being stated
	Delta    float64  // below 1/Units
	Clip     float64  // C
	Clipping string   // FlatClip
	Public   []string // what else of the data is taken to be public: "the dev set, which chose the checkpoint"
	Insecure bool     // the key was a seed
}

// A Claim states what a model reveals of the units it was trained on. It is written into checkpoint and
// card.
type Claim struct {
	// ε, rounded up. Nil where nothing is claimed: see Why.
	Epsilon    *float64 `json:"epsilon"`
	Why        string   `json:"why,omitempty"`
	Delta      float64  `json:"delta"`
	Unit       string   `json:"unit"`
	Adjacency  string   `json:"adjacency"`
	Units      int64    `json:"units"`
	Sampler    string   `json:"sampler,omitempty"`
	Phases     []Phase  `json:"phases,omitempty"` // q, σ and steps; one unless a run was resumed with others
	Steps      int64    `json:"steps,omitempty"`
	Clip       float64  `json:"clip,omitempty"`
	Clipping   string   `json:"clipping,omitempty"`
	Accountant string   `json:"accountant"`
	// the bound of the second accountant, never below
	CrossCheck string   `json:"cross_check,omitempty"`
	RDP        *float64 `json:"rdp_epsilon"`
	Order      float64  `json:"rdp_order,omitempty"`
	Public     []string `json:"public"`
	NotCounted string   `json:"not_counted"`
	// Parts are the claims of what the model is made of: see Combined. Units then is the least of theirs.
	Parts []Claim `json:"parts,omitempty"`
}

// NewClaim accounts for phases on terms.
func NewClaim(t Terms, phases []Phase) (Claim, error) {
	c := Claim{
		Delta: t.Delta, Unit: t.Unit, Adjacency: AddRemove, Units: t.Units, Sampler: Poisson, Phases: spent(phases), Clip: t.Clip,
		Clipping: t.Clipping, Accountant: Accountant, CrossCheck: CrossCheck, NotCounted: NotCounted,
		Public: append([]string{"the number of units"}, t.Public...),
	}
	if err := check(phases); err != nil {
		return Claim{}, err
	}
	for _, p := range c.Phases {
		c.Steps += p.Steps
	}
	c.Why = insecureKey
	if !t.Insecure {
		c.Why = ""
	}
	if err := c.Check(); err != nil {
		return Claim{}, err
	}
	if t.Insecure {
		return c, nil
	}
	e, err := Epsilon(phases, t.Delta)
	if err != nil {
		return Claim{}, err
	}
	r, order, err := EpsilonRDP(phases, t.Delta)
	if err != nil {
		return Claim{}, err
	}
	if math.IsInf(e, 1) {
		c.Why = "the noise is too small for any finite ε"
		return c, nil
	}
	c.Epsilon = &e
	if !math.IsInf(r, 1) {
		c.RDP, c.Order = &r, order
	}
	return c, nil
}

// Check refuses what is no claim: a δ at which one unit could be published whole, numbers that are none, no
// noise.
func (c *Claim) Check() error {
	for _, s := range append([]string{c.Why, c.Unit, c.Adjacency, c.Sampler, c.Clipping, c.Accountant, c.CrossCheck, c.NotCounted}, c.Public...) {
		if strings.ContainsFunc(s, unicode.IsControl) { // a second line could claim anything
			return fmt.Errorf("privacy: claim: %q has control characters", s)
		}
	}
	if len(c.Parts) > 0 {
		return c.checkParts()
	}
	if err := checkDelta(c.Delta); err != nil {
		return err
	}
	if err := check(c.Phases); err != nil {
		return err
	}
	switch {
	case c.Unit == "":
		return fmt.Errorf("privacy: claim: no unit: what is protected?")
	case c.Units < 1:
		return fmt.Errorf("privacy: claim: %d units", c.Units)
	case !(c.Clip > 0) || math.IsInf(c.Clip, 1):
		return fmt.Errorf("privacy: claim: clipping norm %g, want a finite number above 0", c.Clip)
	case c.Clipping == "":
		return fmt.Errorf("privacy: claim: no clipping mode")
	}
	if err := c.checkChance(); err != nil {
		return err
	}
	for _, p := range c.Phases {
		if p.Sigma == 0 {
			return fmt.Errorf("privacy: claim: σ is 0 in %d steps, want noise", p.Steps)
		}
	}
	for _, e := range []*float64{c.Epsilon, c.RDP} {
		if e == nil {
			continue
		}
		if err := checkEpsilon(*e); err != nil {
			return err
		}
		if c.Why != "" {
			return fmt.Errorf("privacy: claim: ε %g, though none is claimed: %s", *e, c.Why)
		}
	}
	return nil
}

// checkChance refuses a δ that allows to publish a unit.
func (c *Claim) checkChance() error {
	if c.Delta >= 1/float64(c.Units) {
		return fmt.Errorf("privacy: claim: δ %g, want less than 1/%d, one over the number of units: at that δ a unit may be published", c.Delta, c.Units)
	}
	return nil
}

// Verify computes ε once more, and refuses a claim that says less than its steps cost.
func (c *Claim) Verify() error {
	for i := range c.Parts {
		if err := c.Parts[i].Verify(); err != nil {
			return err
		}
	}
	if c.Epsilon == nil || len(c.Parts) > 0 { // which Check adds up
		return nil
	}
	e, err := Epsilon(c.Phases, c.Delta)
	if err != nil {
		return err
	}
	if *c.Epsilon < e*(1-1e-3) {
		return fmt.Errorf("privacy: claim: it says ε %g, but its steps cost %g", *c.Epsilon, e)
	}
	return nil
}

// UnmarshalJSON reads a claim and checks it.
func (c *Claim) UnmarshalJSON(b []byte) error {
	type plain Claim
	if err := json.Unmarshal(b, (*plain)(c)); err != nil {
		return fmt.Errorf("privacy: claim: %w", err)
	}
	return c.Check()
}

// String is one paragraph for people.
func (c *Claim) String() string {
	if len(c.Parts) > 0 {
		return c.ofParts()
	}
	var b strings.Builder
	if c.Epsilon == nil {
		why := c.Why
		if why == "" {
			why = "no ε was computed"
		}
		fmt.Fprintf(&b, "No privacy is claimed: %s. ", why)
	} else {
		fmt.Fprintf(&b, "Trained with (ε, δ)-differential privacy, ε = %s, δ = %g. ", Up(*c.Epsilon), c.Delta)
	}
	fmt.Fprintf(&b, "The unit is %s; neighbouring data sets: %s. ", c.Unit, c.Adjacency)
	fmt.Fprintf(&b, "There are %d units, a number that is taken to be public. ", c.Units)
	fmt.Fprintf(&b, "Sampling is %s. ", c.Sampler)
	for i, p := range c.Phases {
		if i > 0 {
			b.WriteString("then ")
		}
		fmt.Fprintf(&b, "%d steps with q = %.6g, noise multiplier σ = %.6g%s ", p.Steps, p.Q, p.Sigma, map[bool]string{true: ",", false: ";"}[i+1 < len(c.Phases)])
	}
	fmt.Fprintf(&b, "gradients of a unit are clipped to C = %g (%s). ", c.Clip, c.Clipping)
	fmt.Fprintf(&b, "Accountant: %s", c.Accountant)
	if c.RDP != nil {
		fmt.Fprintf(&b, "; cross-check, %s: ε = %s at order %g", c.CrossCheck, Up(*c.RDP), c.Order)
	}
	fmt.Fprintf(&b, ". Public: %s. Not counted: %s.", strings.Join(c.Public, "; "), c.NotCounted)
	return b.String()
}

// Up writes an ε with three decimals, or three digits where it is small, rounded up.
func Up(e float64) string {
	if math.IsInf(e, 1) {
		return "∞"
	}
	if e >= 1e9 {
		return fmt.Sprintf("%.4g", e*1.0001)
	}
	unit := 1e-3
	if e > 0 && e < .1 {
		unit = math.Pow(10, math.Floor(math.Log10(e))-2)
	}
	up := math.Ceil(e/unit*(1-1e-12)) * unit
	if e < .1 {
		return fmt.Sprintf("%.3g", up)
	}
	return fmt.Sprintf("%.3f", up)
}
