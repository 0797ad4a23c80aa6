package train

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"rung/data"
	"rung/nn"
	"rung/nn/backend"
)

var errNumber = errors.New("not a finite number")

// checkLabels refuses labels that an objective cannot learn from, for a model of so many classes.
func checkLabels(o nn.Objective, e *data.Encoded, classes int) error {
	check := func(float32) error { return nil }
	if c, ok := o.(nn.Labelled); ok {
		check = func(y float32) error { return c.CheckLabel(y, classes) }
	}
	for i := range e.Units {
		u := &e.Units[i]
		for k, y := range u.Labels {
			err := errNumber
			if finite(y) {
				err = check(y)
			}
			if err != nil {
				return fmt.Errorf("train: train data: query %q, candidate %q: label %v: %w", u.ID, u.IDs[k], y, err)
			}
		}
	}
	return nil
}

// checkDev finds what the first evaluation would fail on.
func (r *Run) checkDev(scores bool) error {
	if !scores {
		return errors.New("train: dev data: the model computes no single score of a candidate, so that rankings cannot be measured")
	}
	none := make([][]float32, len(r.dev.Units))
	for i, u := range r.dev.Units {
		none[i] = make([]float32, len(u.Seqs))
		for k, y := range u.Labels {
			if !finite(y) {
				return fmt.Errorf("train: dev data: query %q, candidate %q: label %v: %w", u.ID, u.IDs[k], y, errNumber)
			}
		}
	}
	if _, err := Evaluate(r.dev, none, r.cfg.Metrics); err != nil {
		return fmt.Errorf("train: dev data: %w", err)
	}
	return nil
}

// setGroups gives parameters their groups: a learning rate for each that some ask for. A group of the configuration
// that is of none would be a rate that nobody learns with.
func (r *Run) setGroups() error {
	r.rates = []rate{{0, 1}} // what is reported
	used := map[int8]bool{}
	for _, p := range r.model.Params() {
		if p.Group = 0; !p.Trainable {
			continue
		}
		of := rate{r.cfg.groupOf(p.Path), cmp.Or(p.Rate, 1)}
		lr := r.cfg.LR
		if of.group > 0 {
			lr = r.cfg.Groups[of.group-1].LR
		}
		if !positive(of.times * lr) {
			return fmt.Errorf("train: %s asks for %v times its learning rate, %v: want a product that single precision holds", p.Path, of.times, lr)
		}
		used[of.group] = true
		at := slices.Index(r.rates, of)
		if at < 0 {
			at = len(r.rates)
			r.rates = append(r.rates, of)
		}
		p.Group = int8(min(at, 127))
	}
	if n := len(backend.Scalars{}.LR); len(r.rates) > n {
		return fmt.Errorf("train: %d learning rates, at most %d: the groups, each once more where an adapter asks for another rate (lora_plus)", len(r.rates), n)
	}
	for i, g := range r.cfg.Groups {
		if !used[int8(i+1)] {
			return fmt.Errorf("train: group %q matches no parameter that is trained and in no group before", g.Match)
		}
	}
	return nil
}
