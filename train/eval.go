package train

import (
	"fmt"
	"maps"
	"math"

	"rung/data"
	"rung/nn/arch"
	"rung/train/metric"
)

// evaluate scores the dev set with the weights as they are.
func (r *Run) evaluate() (*Evaluation, error) {
	fail := func(err error) (*Evaluation, error) {
		return nil, fmt.Errorf("train: evaluation after step %d: %w", r.pos.Step, err)
	}
	if r.scorer == nil {
		r.scorer = arch.NewScorer(r.be, r.model, 0, r.store)
	}
	scores, err := r.scorer.Score(r.ctx, r.dev)
	if err != nil {
		return fail(err)
	}
	values, err := Evaluate(r.dev, scores, r.cfg.Metrics)
	if err != nil {
		return fail(err)
	}
	e := &Evaluation{Values: values}
	if k := r.cfg.KeepBest; k != "" && (r.pos.BestStep == 0 || values[k] > r.pos.Best) {
		e.Best = true
		if err := r.saveModel("best"); err != nil {
			return fail(err)
		}
	}
	return e, nil
}

// count remembers an evaluation that is complete: the best checkpoint is saved by then.
func (r *Run) count(e *Evaluation) {
	switch {
	case e.Best:
		r.pos.Best, r.pos.BestStep, r.pos.Worse = e.Values[r.cfg.KeepBest], r.pos.Step, 0
	case r.cfg.KeepBest != "":
		r.pos.Worse++
	}
}

// Evaluate computes measures, by the names that metric.Parse takes, of scores of e's units, over the
// queries that have a positive. The keys of the result are the names as given.
func Evaluate(e *data.Encoded, scores [][]float32, names []string) (map[string]float64, error) {
	qrels, run := metric.Qrels{}, metric.Run{}
	for i := range e.Units {
		u := &e.Units[i]
		for k, id := range u.IDs {
			if qrels[u.ID] == nil {
				qrels[u.ID] = map[string]int{}
			}
			qrels[u.ID][id] = grade(u.Labels[k])
			run[u.ID] = append(run[u.ID], metric.Doc{ID: id, Score: scores[i][k]})
		}
	}
	maps.DeleteFunc(qrels, func(_ string, docs map[string]int) bool {
		for _, g := range docs {
			if g > 0 {
				return false
			}
		}
		return true
	})
	if len(qrels) == 0 {
		return nil, fmt.Errorf("no query has a positive")
	}
	measures, err := metric.ParseAll(names...)
	if err != nil {
		return nil, err
	}
	res, err := metric.Evaluate(qrels, run, measures, metric.Options{})
	if err != nil {
		return nil, err
	}
	out := map[string]float64{}
	for i, m := range measures {
		v, ok := res.Value(m)
		if !ok {
			return nil, fmt.Errorf("measure %s has no value", names[i])
		}
		out[names[i]] = v
	}
	return out, nil
}

// grade is a label as a whole number: what is above 0 counts at least 1.
func grade(label float32) int {
	if label > 0 && label < 1 {
		return 1
	}
	return int(math.Round(float64(label)))
}
