package app

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"rung/data"
	"rung/data/read"
	"rung/nn/backend/philox"
)

// policies are what may become of queries without a positive.
var policies = map[string]read.NoPositives{"drop": read.Drop, "keep": read.Keep, "refuse": read.Refuse}

// openData finds a collection. Bad rows that lenient reading passes over are told.
func (e *Env) openData(ctx context.Context, spec string, d *Data) (*read.Collection, error) {
	s, err := read.ParseSpec(spec)
	if err != nil {
		return nil, err
	}
	o := read.Defaults()
	o.Lenient, o.MaxBad, o.NoPositives = d.Lenient, d.MaxBad, policies[d.NoPositives]
	o.Quarantine = func(r *read.RowError) { e.note("passed over: %v", r) }
	return read.Open(ctx, s, o)
}

// A sifted collection is what a configuration leaves of it.
type sifted struct {
	*read.Collection
	data    *Data
	thin    bool // keep at most data.MaxNegatives wrong candidates
	label   func(y float32, classes int) error
	classes int

	candidates int // of the latest pass
}

// examples yields the examples with their labels and candidates as configured. A label that the loss
// cannot learn from is an error that names query and passage.
func (s *sifted) examples(ctx context.Context) iter.Seq2[data.Example, error] {
	return func(yield func(data.Example, error) bool) {
		s.candidates = 0
		for x, err := range s.Examples(ctx) {
			if err == nil {
				err = s.sift(&x)
			}
			s.candidates += len(x.Candidates)
			if !yield(x, err) || err != nil {
				return
			}
		}
	}
}

func (s *sifted) sift(x *data.Example) error {
	for i := range x.Candidates {
		c := &x.Candidates[i]
		if r := s.data.Relevant; r != 0 {
			y := float32(0)
			if float64(c.Label) >= r {
				y = 1
			}
			c.Label = y
		}
		if s.label == nil {
			continue
		}
		if err := s.label(c.Label, s.classes); err != nil {
			return fmt.Errorf("%v: query %q, passage %q: label %g is out of range: %w", s.Spec, x.ID, c.ID, c.Label, err)
		}
	}
	if s.thin {
		thin(x, s.data.MaxNegatives, s.data.NegativeSeed)
	}
	return nil
}

// thin keeps every positive of an example and at most most of its other candidates, a choice that depends
// on seed and query alone, in their given order.
func thin(x *data.Example, most int, seed uint64) {
	var wrong []int
	for i, c := range x.Candidates {
		if !(c.Label > 0) {
			wrong = append(wrong, i)
		}
	}
	if most == 0 || len(wrong) <= most {
		return
	}
	drop := make([]bool, len(x.Candidates))
	for _, k := range philox.Perm(len(wrong), seed, "negatives of "+x.ID)[most:] {
		drop[wrong[k]] = true
	}
	i := -1
	x.Candidates = slices.DeleteFunc(slices.Clone(x.Candidates), func(data.Candidate) bool { i++; return drop[i] })
}

// summary says what the latest pass read.
func (s *sifted) summary() string {
	st := s.Stats()
	parts := []string{fmt.Sprintf("%s queries, %s candidates, %s positive", grouped(st.Examples), grouped(s.candidates), grouped(st.Positives))}
	for _, p := range []struct {
		n    int
		what string
	}{
		{st.Candidates - s.candidates, "wrong candidates not kept"},
		{st.Dropped, "queries without a positive left out"},
		{st.WithoutPositives, "queries have no positive"},
		{st.NotInRun, "judged queries not in the run"},
		{st.Unjudged, "queries of the run not judged"},
		{st.Merged, "repeated candidates merged"},
		{st.Scores, "rows with teacher scores, which are not read"},
		{st.Quarantined, "bad rows passed over"},
	} {
		if p.n > 0 {
			parts = append(parts, grouped(p.n)+" "+p.what)
		}
	}
	return strings.Join(parts, "; ")
}

// grouped writes n with a comma between thousands.
func grouped(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
