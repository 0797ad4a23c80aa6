package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"

	"rung/train/privacy"
)

// An account is what a run with privacy spends: its secret, its record and what may be claimed.
type account struct {
	draws  draws
	id     string          // of the draws
	ledger *privacy.Ledger // nil: nothing is kept on disk, or nothing is claimed
	claim  *privacy.Claim  // nil: none
	key    *privacy.Key    // that begin has to write
}

// what is protected, in words.
var unitWords = map[string]string{unitQuery: "a query with its candidates", unitRow: "a query with one candidate", unitUser: "a user with all queries"}

// noise chooses σ: the one that is told, or the least that keeps to ε.
func (v *private) noise(c *Config) (err error) {
	p := v.cfg
	if v.sigma = p.Noise; v.sigma == 0 {
		if v.sigma, err = privacy.Sigma(v.q, int64(c.Steps), p.Delta, p.Epsilon); err != nil {
			return fmt.Errorf("train: privacy.epsilon: %g for %d steps of %d of %d units: %w", p.Epsilon, c.Steps, c.Batch, v.units, err)
		}
	}
	return nil
}

// open takes the secret and the record of a run.
func (v *private) open(c *Config, backend string) error {
	switch {
	case v.cfg.draws != nil:
		v.draws = v.cfg.draws
		return nil
	case v.cfg.InsecureSeed:
		v.draws = privacy.Insecure(c.Seed)
		return nil
	}
	var k privacy.Key
	err := fs.ErrNotExist
	if c.Resume {
		dir := filepath.Join(c.Out, privateDir)
		if k, err = privacy.OpenKey(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
			if _, none := os.Stat(dir); none == nil {
				var bad error
				if v.ledger, bad = privacy.OpenLedger(dir); bad != nil {
					err = bad
				}
			}
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		k, err = privacy.NewKey()
		v.key = &k
	}
	if err != nil {
		return fmt.Errorf("train: %w", err)
	}
	d := k.Draws(backend + "\n" + build())
	v.draws, v.id = d, d.ID()
	return nil
}

// begin puts the secret and the record of a new run into its directory, once nothing of the setup can fail any more.
func (v *private) begin(c *Config) (err error) {
	if v.id == "" || c.Out == "" {
		return nil
	}
	dir := filepath.Join(c.Out, privateDir)
	if v.key != nil {
		err = v.key.Save(dir)
	}
	if err == nil && v.ledger == nil {
		v.ledger, err = privacy.OpenLedger(dir)
	}
	if err != nil {
		return fmt.Errorf("train: %w", err)
	}
	return nil
}

// build is what else decides the bits of a step: how the program was made.
func build() string {
	s := runtime.Version() + " " + runtime.GOARCH
	if info, ok := debug.ReadBuildInfo(); ok {
		s += " " + info.Main.Version
		for _, set := range info.Settings {
			if set.Key == "vcs.revision" || set.Key == "vcs.modified" {
				s += " " + set.Value
			}
		}
	}
	return s
}

// settle finds what the run will have spent at its end, the steps that are left included, and refuses what is above ε.
// mark is what the training state remembers of the ledger.
func (r *Run) settle(mark privacy.Mark, total int) error {
	v := r.private
	if v == nil || v.id == "" { // nothing is claimed
		return nil
	}
	done := r.pos.Step
	if v.ledger != nil {
		if err := v.ledger.Follows(mark); err != nil {
			return fmt.Errorf("train: resume: %w", err)
		}
	} else if mark.Lines > 0 {
		return fmt.Errorf("train: resume: %s has no ledger, so that nobody knows what was spent", filepath.Join(r.cfg.Out, privateDir))
	}
	p := v.cfg
	var phases []privacy.Phase
	again := 0
	if v.ledger != nil {
		phases = v.ledger.Phases()
		for _, x := range phases {
			again += int(x.Steps)
		}
	}
	left := 0
	for s := done; s < total; s++ {
		if v.ledger == nil || !v.ledger.Spent(uint64(s), v.id) {
			left++
		}
	}
	again += left - total
	phases = append(phases, privacy.Phase{Q: v.q, Sigma: v.sigma, Steps: int64(left)})
	c, err := privacy.NewClaim(phases, p.Delta, unitWords[p.unit()], v.units, p.Clip, p.clipping(), p.Dev == "public")
	if err != nil {
		return fmt.Errorf("train: %w", err)
	}
	if p.Epsilon > 0 && c.Epsilon > p.Epsilon {
		if again > 0 {
			return fmt.Errorf("train: privacy: %d steps have to be drawn anew and count twice (the key was lost, or the device or program is another one): the run would spend ε %.4g of the %g that privacy.epsilon allows", again, c.Epsilon, p.Epsilon)
		}
		return fmt.Errorf("train: privacy.noise: %d steps with σ %g spend ε %.4g, above the %g that privacy.epsilon allows", total, v.sigma, c.Epsilon, p.Epsilon)
	}
	v.claim = &c
	if again > 0 {
		r.warnings = append(r.warnings, fmt.Sprintf("privacy: %d steps are drawn anew and count twice, as the key was lost, or the device or program is another one", again))
		r.pos.Best, r.pos.BestStep, r.pos.Worse = 0, 0, 0 // what was best claims less
	}
	return nil
}

// charge writes that a step is taken.
func (v *private) charge(step int) error {
	if v.ledger == nil {
		return nil
	}
	return v.ledger.Spend(privacy.Spending{Step: uint64(step), Draws: v.id, Q: v.q, Sigma: v.sigma, Clip: v.cfg.Clip})
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
	if r.private == nil || r.private.claim == nil {
		m.Claim(nil)
		return nil
	}
	b, err := json.Marshal(r.private.claim)
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
