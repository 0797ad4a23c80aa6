package privacy

import "fmt"

// A Charge is one noisy step, as the ledger has it. Two that are equal are one release: what they draw is
// the same.
type Charge struct {
	Step    int64   `json:"step"`
	Q       float64 `json:"q"`
	Sigma   float64 `json:"sigma"`
	Clip    float64 `json:"clip"`    // C
	Key     string  `json:"key"`     // fingerprint
	Domain  string  `json:"domain"`  // how draws are made of the key
	Context string  `json:"context"` // what else the step's value depends on: a digest of configuration, data and backend
}

// maxText bounds a charge's texts, so that a line has a bound.
const maxText = 256

func (c *Charge) check() error {
	if err := check([]Phase{{c.Q, c.Sigma, 1}}); err != nil {
		return err
	}
	switch {
	case c.Step < 0:
		return fmt.Errorf("privacy: step %d is negative", c.Step)
	case !(c.Clip >= 1e-30 && c.Clip <= 1e30):
		return fmt.Errorf("privacy: step %d: clipping norm %g, want 1e-30 to 1e30", c.Step, c.Clip)
	case !(c.Sigma <= 1e9):
		return fmt.Errorf("privacy: step %d: noise multiplier σ %g, want at most 1e9", c.Step, c.Sigma)
	}
	for _, s := range []string{c.Key, c.Domain, c.Context} {
		if len(s) > maxText {
			return fmt.Errorf("privacy: step %d: a text of %d bytes, above the limit of %d", c.Step, len(s), maxText)
		}
		for _, r := range s {
			if r < ' ' || r > '~' {
				return fmt.Errorf("privacy: step %d: %q is not printable ASCII", c.Step, s)
			}
		}
	}
	return nil
}
