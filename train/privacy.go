package train

import (
	"fmt"

	"rung/data"
	"rung/nn"
)

// Privacy trains with differential privacy (Abadi et al. 2016, "Deep Learning with Differential Privacy"): the saved
// weights tell little of whether any one unit was among the training data. Steps draw each unit with the probability
// q = Config.Batch / units, clip its gradient and add noise to the sum; Config.Clip does not apply, and the batch of
// a step is not of a fixed size.
type Privacy struct {
	Unit     string  `yaml:"unit"`     // what is protected: "query" (or ""), with all its candidates; "row", a query with one; "user", all queries of one
	Epsilon  float64 `yaml:"epsilon"`  // the most that the run may spend; the noise is chosen by it unless Noise says it
	Delta    float64 `yaml:"delta"`    // below 1 over the number of units
	Noise    float64 `yaml:"noise"`    // σ: standard deviation of the noise over Clip; 0: chosen by Epsilon
	Clip     float64 `yaml:"clip"`     // C: greatest norm of a unit's gradient
	Clipping string  `yaml:"clipping"` // flat (or ""): of all tensors together; per_layer: of each of n tensors, at C/√n
	Dev      string  `yaml:"dev"`      // "public" says that the dev data need no protection: without it they may choose nothing

	// Given is what else of the data is taken to be public, for the claim: by what its maker chose them, where that made
	// one unit depend on another.
	Given []string `yaml:"-"`

	// InsecureSeed has draws come from Config.Seed instead of a secret: for tests. Nothing is claimed then.
	InsecureSeed bool `yaml:"-"`

	draws func(step int) chances // of tests, instead
}

// What is protected, and how it is clipped.
const (
	unitQuery, unitRow, unitUser = "query", "row", "user"
	clipFlat, clipPerLayer       = "flat", "per_layer"
)

// check refuses what cannot be meant, whatever the model and the data.
func (p *Privacy) check(c *Config) error {
	fail := func(key, format string, a ...any) error {
		return fmt.Errorf("train: privacy.%s: %s", key, fmt.Sprintf(format, a...))
	}
	switch {
	case p.Unit != "" && p.Unit != unitQuery && p.Unit != unitRow && p.Unit != unitUser:
		return fail("unit", "%q, want %s, %s or %s", p.Unit, unitQuery, unitRow, unitUser)
	case c.Unit != "" && c.Unit != p.drawn():
		return fail("unit", "%s, but train.unit is %s: leave that out", p.unit(), c.Unit)
	case p.Clipping != "" && p.Clipping != clipFlat && p.Clipping != clipPerLayer:
		return fail("clipping", "%q, want %s or %s", p.Clipping, clipFlat, clipPerLayer)
	case p.Dev != "" && p.Dev != "public":
		return fail("dev", `%q, want "public" or nothing`, p.Dev)
	case !positive(p.Clip):
		return fail("clip", "%v, want a positive number: the greatest norm of a unit's gradient", p.Clip)
	case !(p.Delta > 0 && p.Delta < 1):
		return fail("delta", "%v, want a number between 0 and 1", p.Delta)
	case p.Epsilon == 0 && p.Noise == 0:
		return fail("epsilon", "missing: want epsilon, or noise")
	case p.Epsilon != 0 && !positive(p.Epsilon):
		return fail("epsilon", "%v, want a positive number", p.Epsilon)
	case p.Noise != 0 && !(positive(p.Noise) && positive(p.Noise*p.Clip)):
		return fail("noise", "%v, want a positive number, times clip too", p.Noise)
	case c.Sampler != nil:
		return fmt.Errorf("train: privacy: a sampler of its own (%s) does not go with it: units are drawn by chance alone", c.Sampler.Name())
	}
	return nil
}

// unit is what is protected.
func (p *Privacy) unit() string {
	if p.Unit == "" {
		return unitQuery
	}
	return p.Unit
}

// drawn is the data's unit: users are of queries.
func (p *Privacy) drawn() string {
	if p.unit() == unitRow {
		return unitRow
	}
	return unitQuery
}

// coupling is a model of which a unit's gradient depends on the others of its batch.
type coupling interface {
	// Couples says in what, "" if in nothing.
	Couples() string
}

// owned is the training data by what is protected.
func (p *Privacy) owned(e *data.Encoded) (*data.Encoded, error) {
	if p.unit() != unitUser {
		return e, nil
	}
	e, err := e.ByUser()
	if err != nil {
		return nil, fmt.Errorf("train: privacy.unit: user: %w", err)
	}
	return e, nil
}

// refuse finds what couples units, or tells of data what is not accounted for.
func (p *Privacy) refuse(o nn.Objective, m Model, dev bool) error {
	if o.Scope() == nn.Batch {
		return fmt.Errorf("train: privacy: the loss %s compares a unit with others of its batch, so that clipping one does not bound what it changes: use a loss of scope Unit", o.Name())
	}
	if m, ok := m.(coupling); ok {
		if why := m.Couples(); why != "" {
			return fmt.Errorf("train: privacy: %s", why)
		}
	}
	if dev && p.Dev != "public" {
		return fmt.Errorf("train: privacy: evaluations would tell of the dev data: say privacy.dev: public if they need no protection, or leave them out")
	}
	return nil
}
