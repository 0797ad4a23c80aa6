package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"rung/nn/arch"
	"rung/train/privacy"
)

// An account is what a run with privacy draws, spends and may claim.
type account struct {
	key    *privacy.Key
	fresh  bool            // nobody has the key yet
	ledger *privacy.Ledger // nil: nothing is kept on disk, or nothing is claimed
	claim  *privacy.Claim  // nil: none
	charge privacy.Charge  // of each step, but for its number
	trail  trail           // on which the weights came to where they are
}

// chances are the draws of one step.
type chances interface {
	// Sample returns the units of the step's batch, of 0 to units-1, in order.
	Sample(units int) []int
	// AddTo adds noise to elements first, first+1, … of a sum of clipped gradients.
	AddTo(dst []float32, first uint64)
}

// what is protected, in words.
var unitWords = map[string]string{unitQuery: "a query with all its candidates", unitRow: "a query with one of its candidates", unitUser: "a user with all queries"}

// noise chooses σ: the one that is told, or the least that keeps to ε.
func (v *private) noise(c *Config) (err error) {
	p := v.cfg
	if v.sigma = p.Noise; v.sigma == 0 {
		if v.sigma, err = privacy.Sigma(v.q, int64(c.Steps), p.Delta, p.Epsilon); err != nil {
			return fmt.Errorf("train: privacy.epsilon: %g for %d steps with a batch of %d of %d units: %w", p.Epsilon, c.Steps, c.Batch, v.units, err)
		}
	}
	return nil
}

// openAccount takes the secret of a run, and the record of one that is resumed.
func (r *Run) openAccount() error {
	v, c := r.private, &r.cfg
	v.key, v.fresh = privacy.NewKey(), true
	if v.cfg.InsecureSeed {
		v.key = privacy.Insecure(c.Seed)
	} else if c.Resume {
		k, err := privacy.OpenKey(c.Out)
		switch {
		case err == nil:
			v.key, v.fresh = k, false
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("train: %w", err)
		}
		if _, err := os.Stat(filepath.Join(c.Out, privacy.Dir)); err == nil {
			if v.ledger, err = privacy.OpenLedger(c.Out); err != nil {
				return fmt.Errorf("train: %w", err)
			}
		}
	}
	if err := r.openTrail(); err != nil {
		return err
	}
	v.charge = privacy.Charge{Q: v.q, Sigma: v.sigma, Clip: v.cfg.Clip, Key: v.key.Fingerprint(), Domain: privacy.Domain, Context: v.trail.context()}
	_, err := v.draw(0)
	return err
}

// of is the charge of a step.
func (v *private) of(step int) privacy.Charge {
	c := v.charge
	c.Step = int64(step)
	return c
}

// draw is the chances of a step.
func (v *private) draw(step int) (chances, error) {
	if v.cfg.draws != nil {
		return v.cfg.draws(step), nil
	}
	d, err := v.key.Draws(v.of(step))
	if err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	return d, nil
}

// settle finds what the run will have spent at its end, the steps that are left included, and refuses what is above ε.
// saved tells that there is a training state, and mark what that remembers of the ledger.
func (r *Run) settle(saved bool, mark privacy.Mark, total int) error {
	v := r.private
	if v == nil || v.key.Seeded() || v.cfg.draws != nil { // nothing is claimed
		return nil
	}
	p := v.cfg
	if saved {
		if v.ledger == nil {
			return fmt.Errorf("train: resume: %s has no ledger, so that nobody knows what was spent", filepath.Join(r.cfg.Out, privacy.Dir))
		}
		if err := v.ledger.Verify(mark); err != nil {
			return fmt.Errorf("train: resume: %w", err)
		}
	} else if v.ledger != nil && len(v.ledger.Charges()) > 0 { // a run saves its state before it charges a step
		return fmt.Errorf("train: resume: %s has charged %d steps, but there is no state to tell of what: choose another directory", filepath.Join(r.cfg.Out, privacy.Dir), len(v.ledger.Charges()))
	}
	var phases []privacy.Phase
	again, left := 0, 0
	if v.ledger != nil {
		phases = v.ledger.Phases()
		again = len(v.ledger.Charges())
	}
	for s := r.pos.Step; s < total; s++ {
		if v.ledger == nil || !v.ledger.Charged(v.of(s)) {
			left++
		}
	}
	again += left - total
	phases = append(phases, privacy.Phase{Q: v.q, Sigma: v.sigma, Steps: int64(left)})
	terms := privacy.Terms{Unit: unitWords[p.unit()], Units: int64(v.units), Delta: p.Delta, Clip: p.Clip, Clipping: privacy.FlatClip, Public: []string{"the configuration", "the base model"}}
	if p.Clipping == clipPerLayer {
		terms.Clipping = privacy.LayerClip
	}
	if says, warning := claimOfBase(r.model); says != "" {
		terms.Public[1] = says
		r.warnings = append(r.warnings, warning)
	}
	terms.Public = append(terms.Public, p.Given...)
	if p.Dev == "public" && r.dev != nil {
		terms.Public = append(terms.Public, "the dev data, by which the best checkpoint is chosen")
	}
	c, err := privacy.NewClaim(terms, phases)
	switch {
	case err != nil:
		return fmt.Errorf("train: %w", err)
	case c.Epsilon == nil:
		return fmt.Errorf("train: privacy.noise: σ %g for %d steps: no finite ε can be claimed: want more", v.sigma, total)
	case p.Epsilon > 0 && *c.Epsilon > p.Epsilon && again > 0:
		return fmt.Errorf("train: privacy: %d steps have to be drawn anew and count twice (the key was lost, or data, device or program are others): the run would spend ε %s of the %g that privacy.epsilon allows", again, privacy.Up(*c.Epsilon), p.Epsilon)
	case p.Epsilon > 0 && *c.Epsilon > p.Epsilon:
		return fmt.Errorf("train: privacy.noise: %d steps with σ %g spend ε %s, above the %g that privacy.epsilon allows", total, v.sigma, privacy.Up(*c.Epsilon), p.Epsilon)
	}
	v.claim = &c
	if again > 0 {
		r.warnings = append(r.warnings, fmt.Sprintf("privacy: %d steps are drawn anew and count twice, as the key was lost, or data, device or program are others", again))
		r.pos.Best, r.pos.BestStep, r.pos.Worse = 0, 0, 0 // what was best claims less
	}
	return nil
}

// claimOfBase is what a claim says of a base whose directory claims privacy, or tells that parts of it do, and a warning; ""
// where it does neither.
func claimOfBase(m Model) (says, warning string) {
	x, ok := m.(interface{ Card() *arch.Card })
	if !ok || x.Card() == nil || len(x.Card().Privacy) == 0 {
		return "", ""
	}
	var c privacy.Claim
	if err := json.Unmarshal(x.Card().Privacy, &c); err == nil && c.Epsilon == nil {
		return fmt.Sprintf("the base model, of which as a whole no privacy is claimed (%s): what it tells of the same units is not counted", c.Why),
			fmt.Sprintf("privacy: no privacy is claimed of the base model as a whole (%s): where it saw the same units, ε does not hold", c.Why)
	}
	return "the base model, which has a claim of its own: what both say of the same units adds up",
		"privacy: the base model was trained with privacy itself: on the same units, what it spent adds to ε"
}

// begin puts the secret and the record of a new run into its directory, once nothing of the setup can fail any more. The
// state goes there too: what is resumed before the first step was saved is the same run, or refused.
func (r *Run) begin(saved bool) (err error) {
	v, c := r.private, &r.cfg
	if v.key.Seeded() || v.cfg.draws != nil || c.Out == "" {
		return nil
	}
	if v.fresh {
		err = v.key.Keep(c.Out)
	}
	if err == nil && v.ledger == nil {
		v.ledger, err = privacy.OpenLedger(c.Out)
	}
	if err != nil {
		return fmt.Errorf("train: %w", err)
	}
	if saved {
		return nil
	}
	return r.saveState()
}

// spend writes that a step is taken and, once that is on the disk, gives its draws.
func (v *private) spend(step int) (chances, error) {
	if v.ledger == nil {
		return v.draw(step)
	}
	return v.ledger.Spend(v.key, v.of(step))
}

func (v *private) close() error {
	var errs []error
	if v.clip != nil {
		errs = append(errs, v.clip.close())
	}
	if v.ledger != nil {
		errs = append(errs, v.ledger.Close())
	}
	return errors.Join(errs...)
}

// claims lets the model write the run's claim into what it saves.
func (r *Run) claims() error {
	m, ok := r.model.(interface{ Claim(json.RawMessage) })
	if !ok {
		return nil
	}
	if r.Claim() == nil {
		m.Claim(nil)
		return nil
	}
	b, err := json.Marshal(r.Claim())
	if err != nil {
		return fmt.Errorf("train: privacy: claim: %w", err)
	}
	m.Claim(b)
	return nil
}

// Claim is what may be said of the run's privacy once it is at its end, nil where nothing may.
func (r *Run) Claim() *privacy.Claim {
	if r.private == nil {
		return nil
	}
	return r.private.claim
}
