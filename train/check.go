package train

import (
	"errors"
	"fmt"
	"slices"

	"rung/data"
	"rung/nn"
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

// setGroups gives parameters their groups. A group of none would be a rate that nobody learns with.
func (r *Run) setGroups() error {
	var used []int8
	for _, p := range r.model.Params() {
		p.Group = r.cfg.groupOf(p.Path)
		if p.Trainable {
			used = append(used, p.Group)
		}
	}
	for i, g := range r.cfg.Groups {
		if !slices.Contains(used, int8(i+1)) {
			return fmt.Errorf("train: group %q matches no parameter that is trained and in no group before", g.Match)
		}
	}
	return nil
}
