package app

import (
	"context"
	"fmt"
	"io"
	"iter"

	"github.com/spf13/cobra"

	"rung/data"
	"rung/data/read"
	"rung/rank"
	"rung/train/metric"
)

// beirDepth is how deep a ranking of a whole corpus goes (Thakur et al. 2021).
const beirDepth = 1000

func evalCommand(e *Env) *cobra.Command {
	var m modelFlags
	var s scoring
	var spec, out string
	d := Data{MaxBad: read.Defaults().MaxBad}
	cmd := &cobra.Command{
		Use:   "eval --model DIR --data SPEC",
		Short: "Measure a model on a collection",
		Long: `Measures a model on a collection. The candidates of each query are scored and ranked; where the
collection has a corpus but no candidates (beir, or trec without a run), a bi-encoder ranks the whole corpus.
Queries without a positive are left out unless --no-positives keep says otherwise.`,
		Example:     "  trainer eval --model runs/wikiqa-lora/best --data wikiqa:DIR#test -m MAP,MRR --run test.run",
		GroupID:     "measure",
		Annotations: reads,
		Args:        positional(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.parse(); err != nil {
				return err
			}
			if d.NoPositives != "" && policies[d.NoPositives] == 0 {
				return misuse("--no-positives %q%s", d.NoPositives, suggest(d.NoPositives, sortedKeys(policies)))
			}
			if _, err := read.ParseSpec(spec); err != nil {
				return &useError{err, false}
			}
			ctx := cmd.Context()
			c, err := e.openData(ctx, spec, &d)
			if err != nil {
				return err
			}
			r, err := m.open(ctx)
			if err != nil {
				return err
			}
			defer r.Close()
			qrels, run, err := e.rankAll(ctx, r, c)
			if err != nil {
				return prefix("eval", err)
			}
			if out != "" {
				if err := e.writeTo(out, func(w io.Writer) error { return read.WriteRun(w, run, "trainer") }); err != nil {
					return prefix("eval", err)
				}
			}
			return s.report(e, qrels, run)
		},
	}
	m.flags(cmd)
	s.flags(cmd, []string{"MAP", "MRR@10", "nDCG@10"})
	f := cmd.Flags()
	f.StringVar(&spec, "data", "", "collection: `KIND:PATH[#SPLIT]`; trainer list data tells the kinds")
	f.StringVar(&out, "run", "", "write the ranking to `FILE`, as a TREC run")
	f.StringVar(&d.NoPositives, "no-positives", "", "queries without a positive: drop, keep or refuse (jsonl refuses, the others drop)")
	f.BoolVar(&d.Lenient, "lenient", false, "pass over bad rows, at most --max-bad")
	f.Float64Var(&d.MaxBad, "max-bad", d.MaxBad, "share of bad rows that --lenient passes over")
	needed(cmd, "data")
	return cmd
}

// rankAll ranks the candidates of a collection, or its corpus.
func (e *Env) rankAll(ctx context.Context, r *rank.Ranker, c *read.Collection) (metric.Qrels, metric.Run, error) {
	whole, err := hasNoCandidates(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	if !whole {
		return e.rankCandidates(ctx, r, c)
	}
	if r.Dim() == 0 {
		return nil, nil, fmt.Errorf("%v has no candidates, and a cross-encoder cannot search: rerank a run of another model", c.Spec)
	}
	qrels, err := c.Qrels(ctx)
	if err != nil {
		return nil, nil, err
	}
	judged := func(yield func(read.Text, error) bool) {
		for t, err := range c.Queries(ctx) {
			if _, ok := qrels[t.ID]; (ok || err != nil) && !yield(t, err) {
				return
			}
		}
	}
	s := search{ranker: r, top: beirDepth, dropSelf: c.Spec.Kind == "beir", progress: func(n int) { e.note("eval: %s passages", grouped(n)) }}
	run, err := s.run(ctx, judged, c.Corpus(ctx))
	return qrels, run, err
}

// hasNoCandidates tells that a collection judges documents of a corpus without saying which to rank.
func hasNoCandidates(ctx context.Context, c *read.Collection) (bool, error) {
	switch c.Spec.Kind {
	case "beir":
		return true, nil
	case "trec":
		return !c.HasRun(), ctx.Err()
	}
	return false, nil
}

// rankCandidates scores the candidates of every query. Judgements are those of the collection, also of
// documents that are no candidates.
func (e *Env) rankCandidates(ctx context.Context, r *rank.Ranker, c *read.Collection) (metric.Qrels, metric.Run, error) {
	qrels := metric.Qrels{}
	s := newPairScorer(r)
	all := &sifted{Collection: c, data: &Data{}}
	err := eachExample(all.examples(ctx), func(x data.Example) error {
		grades, err := read.Grades(x)
		if err != nil {
			return err
		}
		qrels[x.ID] = grades
		for _, d := range x.Candidates {
			if err := s.add(ctx, x.ID, d.ID, rank.Pair{Query: x.Query, Passage: d.Text, Domain: x.Domain}); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = s.flush(ctx)
	}
	if err != nil {
		return nil, nil, err
	}
	e.note("eval: %s", all.summary())
	if c.Spec.Kind == "trec" {
		qrels, err = c.Qrels(ctx)
	}
	return qrels, s.run, err
}

func eachExample(examples iter.Seq2[data.Example, error], do func(data.Example) error) error {
	for x, err := range examples {
		if err == nil {
			err = do(x)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
