// Package metric measures rankings against judgements, with trec_eval's numbers and ir-measures' names.
//
// A ranking is ordered by score as float32, descending; equal scores by document id, descending by
// bytes. A grade of at least the relevance level (1 unless said otherwise) is relevant; a negative grade
// means "in the pool, not judged" and gains nothing. A judged query that the run lacks counts 0, and so
// does a query without relevant documents. The arithmetic is that of trec_eval 10.0.
package metric

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
)

// A Doc is a document in a ranking.
type Doc struct {
	ID    string
	Score float32
}

// A Run holds the scored documents of each query, by query id, in any order.
type Run map[string][]Doc

// Qrels holds the judgements: query id, document id, grade.
type Qrels map[string]map[string]int

// Options says what is evaluated. The zero value is trec_eval -c.
type Options struct {
	PresentOnly    bool // leave out judged queries that the run lacks (trec_eval without -c)
	CandidatesOnly bool // forget judgements of documents that the run lacks: not comparable with other runs
	JudgedOnly     bool // take unjudged documents out of the ranking (trec_eval -J)
	DropSelf       bool // take a document whose id is the query's out of the ranking (BEIR)
	Depth          int  // keep only the first documents of each ranking (trec_eval -M); 0: all
	Rel            int  // grade from which a document is relevant (trec_eval -l); 0: 1
}

// A Result holds the value of every measure for every query, and over all of them.
type Result struct {
	Options  Options
	Measures []Measure
	Queries  []string    // the evaluated queries, ascending by bytes
	Values   [][]float64 // (measures, queries)
	All      []float64   // (measures): the mean; the sum of counts; the geometric mean of GMAP and GBpref
	Missing  []string    // judged queries that the run lacks: counted 0, or left out with PresentOnly
	Unjudged []string    // queries of the run without judgements: not evaluated
}

// Value returns a measure's value over all queries, and whether it was evaluated.
func (r *Result) Value(m Measure) (float64, bool) {
	i := slices.Index(r.Measures, m)
	if i < 0 {
		return 0, false
	}
	return r.All[i], true
}

// PerQuery returns a measure's values in the order of r.Queries, or nil if it was not evaluated.
func (r *Result) PerQuery(m Measure) []float64 {
	i := slices.Index(r.Measures, m)
	if i < 0 {
		return nil
	}
	return r.Values[i]
}

// Evaluate measures a run. Errors name the query, and the document where there is one: a score that is not
// a number, a document listed twice, a grade that an exponential gain cannot hold.
func Evaluate(qrels Qrels, run Run, measures []Measure, opts Options) (*Result, error) {
	if opts.Depth < 0 || opts.Rel < 0 {
		return nil, fmt.Errorf("metric: depth %d and relevance level %d must not be negative", opts.Depth, opts.Rel)
	}
	compiled, err := compile(measures, opts)
	if err != nil {
		return nil, err
	}
	r := &Result{Options: opts, Measures: slices.Clone(measures)}
	if err := r.selectQueries(qrels, run); err != nil {
		return nil, err
	}
	r.Values = make([][]float64, len(measures))
	for i := range r.Values {
		r.Values[i] = make([]float64, len(r.Queries))
	}
	if err := r.measure(qrels, run, compiled); err != nil {
		return nil, err
	}
	r.All = make([]float64, len(measures))
	for i, c := range compiled {
		r.All[i] = c.def.over(r.Values[i])
	}
	return r, nil
}

func (r *Result) selectQueries(qrels Qrels, run Run) error {
	if len(qrels) == 0 {
		return errors.New("metric: no judgements")
	}
	common := 0
	for _, q := range slices.Sorted(maps.Keys(qrels)) {
		if _, ok := run[q]; ok {
			common++
		} else {
			r.Missing = append(r.Missing, q)
			if r.Options.PresentOnly {
				continue
			}
		}
		r.Queries = append(r.Queries, q)
	}
	for _, q := range slices.Sorted(maps.Keys(run)) {
		if _, ok := qrels[q]; !ok {
			r.Unjudged = append(r.Unjudged, q)
		}
	}
	switch {
	case common > 0:
		return nil
	case len(run) == 0:
		return errors.New("metric: the run is empty")
	}
	return fmt.Errorf("metric: run and judgements share no query: the run has %q, the judgements have %q", r.Unjudged[0], r.Missing[0])
}

// measure fills r.Values. Each worker takes a contiguous share of the queries, so the error that is
// reported is always that of the first bad query.
func (r *Result) measure(qrels Qrels, run Run, compiled []compiled) error {
	n := len(r.Queries)
	workers := min(runtime.GOMAXPROCS(0), (n+63)/64)
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { errs[w] = r.measureRange(qrels, run, compiled, n*w/workers, n*(w+1)/workers) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *Result) measureRange(qrels Qrels, run Run, compiled []compiled, lo, hi int) error {
	var rk ranking
	for i := lo; i < hi; i++ {
		q := r.Queries[i]
		if err := rk.set(q, run[q], qrels[q], r.Options); err != nil {
			return err
		}
		for j := range compiled {
			c := &compiled[j]
			if c.exp && len(rk.judged) > 0 && rk.judged[0] > maxExpGrade {
				return fmt.Errorf("metric: query %q: grade %d is too large for %v (at most %d)", q, rk.judged[0], c.Measure, maxExpGrade)
			}
			r.Values[j][i] = c.def.value(&rk, c)
		}
	}
	return nil
}
