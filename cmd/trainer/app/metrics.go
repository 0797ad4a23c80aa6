package app

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"rung/data/read"
	"rung/train/metric"
)

// scoring is the flags of evaluations.
type scoring struct {
	measures []string
	perQuery bool
	compare  string
	seed     uint64
	options  metric.Options
}

func (s *scoring) flags(cmd *cobra.Command, measures []string) {
	s.measures = measures
	f := cmd.Flags()
	f.VarP(&measureList{&s.measures, false}, "metrics", "m", "`MEASURES` with commas between them, such as nDCG@10,MAP(rel=2) (may be given again)")
	f.BoolVar(&s.perQuery, "per-query", false, "every query's values too")
	f.StringVar(&s.compare, "compare", "", "TREC run `FILE` to compare with: is the difference significant?")
	f.Uint64Var(&s.seed, "seed", 1, "of the randomisation test and the bootstrap")
	f.BoolVar(&s.options.PresentOnly, "present-only", false, "leave out judged queries that the run lacks, which else count 0")
	f.BoolVar(&s.options.CandidatesOnly, "candidates-only", false, "forget judgements of documents that the run lacks: not comparable with other runs")
	f.BoolVar(&s.options.JudgedOnly, "judged-only", false, "take documents without a judgement out of the ranking")
	f.IntVar(&s.options.Depth, "depth", 0, "look only at so many documents a query; 0: all")
}

// measureList is a flag of measures, which may have commas in parentheses: SetF(rel=1,beta=2). The first
// use takes the place of the default.
type measureList struct {
	list  *[]string
	given bool
}

func (l *measureList) Type() string { return "measures" }

func (l *measureList) String() string {
	if l.list == nil { // as pflag asks of a zero value
		return ""
	}
	return strings.Join(*l.list, ",")
}

// Set adds the measures of one use of the flag.
func (l *measureList) Set(s string) error {
	if !l.given {
		*l.list, l.given = nil, true
	}
	depth, from := 0, 0
	for i, c := range s + "," {
		switch {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth <= 0:
			*l.list = append(*l.list, strings.TrimSpace(s[from:i]))
			from = i + 1
		}
	}
	if depth > 0 { // an open parenthesis: what is wrong with it is said by who reads the measure
		*l.list = append(*l.list, s[from:])
	}
	return nil
}

func metricsCommand(e *Env) *cobra.Command {
	var s scoring
	cmd := &cobra.Command{
		Use:         "metrics QRELS RUN",
		Short:       "Measure a run: trec_eval's numbers, ir-measures' names",
		Example:     "  trainer metrics qrels.txt run.txt -m nDCG@10,MAP --compare other.txt",
		GroupID:     "measure",
		Annotations: reads,
		Args:        positional("QRELS", "RUN"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := s.parse(); err != nil {
				return err
			}
			qrels, err := read.ReadQrels(args[0])
			if err != nil {
				return err
			}
			run, err := read.ReadRun(args[1])
			if err != nil {
				return err
			}
			return s.report(e, qrels, run)
		},
	}
	s.flags(cmd, []string{"MAP", "MRR", "nDCG@10", "R@1000"})
	return cmd
}

// parse refuses unknown measures before anything is read.
func (s *scoring) parse() error {
	if len(s.measures) == 0 {
		return misuse("no metrics")
	}
	if _, err := metric.ParseAll(s.measures...); err != nil {
		return &useError{err, false}
	}
	if s.options.Depth < 0 {
		return misuse("--depth %d is negative", s.options.Depth)
	}
	return nil
}

// report writes the values of a run, and how it compares.
func (s *scoring) report(e *Env, qrels metric.Qrels, run metric.Run) error {
	measures, err := metric.ParseAll(s.measures...)
	if err != nil {
		return err
	}
	r, err := metric.Evaluate(qrels, run, measures, s.options)
	if err != nil {
		return err
	}
	var differences []metric.Comparison
	if s.compare != "" { // read before anything is written
		if differences, err = s.differences(qrels, run, measures); err != nil {
			return err
		}
	}
	if err := s.values(e, r); err != nil {
		return err
	}
	if err := e.differences(differences, s.compare); err != nil {
		return err
	}
	if n := len(r.Missing); n > 0 {
		does := "count 0"
		if s.options.PresentOnly {
			does = "are left out"
		}
		e.note("%d of %d judged queries are not in the run and %s", n, len(qrels), does)
	}
	if n := len(r.Unjudged); n > 0 {
		e.note("%d queries of the run have no judgement and are not evaluated", n)
	}
	return nil
}

// values writes a line for each measure: name, query (or all), value.
func (s *scoring) values(e *Env, r *metric.Result) error {
	var b strings.Builder
	for i, m := range r.Measures {
		if s.perQuery {
			for k, q := range r.Queries {
				if e.JSON {
					fmt.Fprintln(&b, object([]any{"measure", m.String(), "query", q, "value", r.Values[i][k]}))
				} else {
					fmt.Fprintf(&b, "%s\t%s\t%.4f\n", m, q, r.Values[i][k])
				}
			}
		}
		if e.JSON {
			fmt.Fprintln(&b, object([]any{"measure", m.String(), "value", r.All[i], "queries", len(r.Queries)}))
		} else {
			fmt.Fprintf(&b, "%s\tall\t%.4f\n", m, r.All[i])
		}
	}
	_, err := io.WriteString(e.Stdout, b.String())
	return err
}

// differences compares the run with the one to compare with: B is the run, A the other.
func (s *scoring) differences(qrels metric.Qrels, run metric.Run, measures []metric.Measure) ([]metric.Comparison, error) {
	other, err := read.ReadRun(s.compare)
	if err != nil {
		return nil, err
	}
	if s.options.PresentOnly { // the same queries for both
		for q := range qrels {
			if run[q] == nil || other[q] == nil {
				delete(run, q)
				delete(other, q)
			}
		}
	}
	a, err := metric.Evaluate(qrels, other, measures, s.options)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.compare, err)
	}
	b, err := metric.Evaluate(qrels, run, measures, s.options)
	if err != nil {
		return nil, err
	}
	o := metric.DefaultCompare()
	o.Seed = s.seed
	return metric.Compare(a, b, o)
}

func (e *Env) differences(cs []metric.Comparison, other string) error {
	var b strings.Builder
	for _, c := range cs {
		if e.JSON {
			fmt.Fprintln(&b, object([]any{
				"measure", c.Measure.String(), "run", c.B, "other", c.A, "difference", c.Diff, "low", c.Low, "high", c.High, "better", c.Better,
				"worse", c.Worse, "tie", c.Tie, "t", c.T, "p_t", c.PT, "p_randomisation", c.PRandom, "holm_t", c.HolmT, "holm_randomisation", c.HolmRandom,
			}))
			continue
		}
		fmt.Fprintf(&b, "%s\t%+.4f over %s (%.4f), 95%% interval %+.4f to %+.4f\tp %s (t %s)", c.Measure, c.Diff, other, c.A, c.Low, c.High, pValue(c.PRandom), pValue(c.PT))
		if len(cs) > 1 {
			fmt.Fprintf(&b, ", for %d measures %s (Holm)", len(cs), pValue(c.HolmRandom))
		}
		fmt.Fprintf(&b, "\t%d better, %d worse, %d equal\n", c.Better, c.Worse, c.Tie)
	}
	_, err := io.WriteString(e.Stdout, b.String())
	return err
}

func pValue(p float64) string {
	if p < 1e-4 {
		return "<0.0001"
	}
	return fmt.Sprintf("%.4f", p)
}
