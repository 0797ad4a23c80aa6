package read

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/nntest/shared"
	"rung/train/metric"
)

// TestWikiQAFloor reads WikiQA and measures its own order of the sentences: a published floor.
func TestWikiQAFloor(t *testing.T) {
	dir := shared.Path(t, "data", "wikiqa")
	for _, c := range []struct {
		split                             string
		questions, with, candidates, rows int
		ap, rr                            string
	}{
		{"train", 2118, 873, 8672, 20360, "", ""},
		{"dev", 296, 126, 1130, 2733, "0.673", "0.675"},
		{"test", 633, 243, 2351, 6165, "0.642", "0.643"},
	} {
		t.Run(c.split, func(t *testing.T) {
			got, stats, err := examples(t, "wikiqa:"+dir+"#"+c.split, Defaults())
			require.NoError(t, err)
			require.Len(t, got, c.with)
			require.Equal(t, c.questions-c.with, stats.Dropped)
			require.Equal(t, c.rows, stats.Rows)
			require.Equal(t, c.candidates, stats.Candidates)
			if c.ap == "" {
				return
			}
			qrels, run := metric.Qrels{}, metric.Run{}
			for _, ex := range got {
				qrels[ex.ID], err = Grades(ex)
				require.NoError(t, err)
				for i, cand := range ex.Candidates {
					run[ex.ID] = append(run[ex.ID], metric.Doc{ID: cand.ID, Score: -float32(i)})
				}
			}
			ms, err := metric.ParseAll("MAP", "MRR")
			require.NoError(t, err)
			r, err := metric.Evaluate(qrels, run, ms, metric.Options{})
			require.NoError(t, err)
			require.Equal(t, c.ap, fmt.Sprintf("%.3f", r.All[0]))
			require.Equal(t, c.rr, fmt.Sprintf("%.3f", r.All[1]))
		})
	}
}

func TestNFCorpus(t *testing.T) {
	dir := shared.Path(t, "data", "nfcorpus")
	for split, want := range map[string]Stats{
		"train": {Rows: 110575 + 2914 + 3633, Examples: 2590, Candidates: 110575, Positives: 110575},
		"dev":   {Rows: 11385 + 2914 + 3633, Examples: 324, Candidates: 11385, Positives: 11385},
	} {
		_, stats, err := examples(t, "beir:"+dir+"#"+split, Defaults())
		require.NoError(t, err)
		require.Equal(t, want, stats)
	}
	c, err := Open(context.Background(), Spec{"beir", dir, "dev"}, Defaults())
	require.NoError(t, err)
	n := 0
	for x, err := range c.Corpus(context.Background()) {
		require.NoError(t, err)
		require.NotEmpty(t, x.Text)
		n++
	}
	require.Equal(t, 3633, n)
}

// TestTrecEvalFiles reads trec_eval's own inputs, comments and trailing columns included, and measures them.
func TestTrecEvalFiles(t *testing.T) {
	dir := shared.Path(t, "data", "trec_eval_test")
	for _, c := range []struct {
		qrels, run, ap string
		present        bool
	}{
		{"qrels.test", "results.test", "0.1785", true},
		{"qrels.test.with-comments", "results.test", "0.1785", true},
		{"qrels.comment.test", "results.comment.test", "0.2689", true},
		{"qrels.test", "results.trunc", "0.1016", false},
	} {
		qrels, err := ReadQrels(dir + "/" + c.qrels)
		require.NoError(t, err)
		run, err := ReadRun(dir + "/" + c.run)
		require.NoError(t, err)
		ms, err := metric.ParseAll("map")
		require.NoError(t, err)
		r, err := metric.Evaluate(qrels, run, ms, metric.Options{PresentOnly: c.present})
		require.NoError(t, err)
		require.Equal(t, c.ap, fmt.Sprintf("%.4f", r.All[0]))
	}
}
