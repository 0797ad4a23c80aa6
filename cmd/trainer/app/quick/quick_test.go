package quick

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rung/checkpoints"
	"rung/data/lingua"
	"rung/nn/device"
	"rung/nn/nntest/shared"
	"rung/train"
	"rung/train/metric"
)

// trains marks a test that trains for half a minute on SIMD kernels, and for minutes on those in plain Go.
func trains(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("trains for half a minute")
	}
	be, err := device.Open("")
	require.NoError(t, err)
	if strings.HasSuffix(be.Name(), "ref") {
		shared.Long(t)
	}
}

// The quickstart keeps its promise, and every number that it prints is that of the files it wrote.
func TestRun(t *testing.T) {
	trains(t)
	out := filepath.Join(t.TempDir(), "quick start")
	steps := 0
	r, err := Run(context.Background(), Options{Out: out, Seed: 1, Progress: func(s train.Step) {
		steps++
		require.Equal(t, steps, s.N)
	}})
	require.NoError(t, err)
	var b bytes.Buffer
	require.NoError(t, Report(&b, r))
	t.Logf("%s", b.String())

	require.Equal(t, r.Steps, steps)
	require.GreaterOrEqual(t, r.Queries, 200)
	require.GreaterOrEqual(t, r.After, r.BM25+.10)
	require.GreaterOrEqual(t, r.After, r.Before+.20)
	require.Less(t, r.OverBM25.P, 1e-3)
	require.Less(t, r.OverBefore.P, 1e-3)
	require.InDelta(t, r.After-r.BM25, r.OverBM25.Difference, 1e-12)
	require.Less(t, r.LastLoss, r.FirstLoss)
	require.Less(t, r.Trained, r.Parameters/4)
	require.Equal(t, r.Queries*r.Candidates, r.Scores)
	require.Equal(t, r.Scores, r.Identical)
	require.Zero(t, r.LargestDifference)

	for _, dir := range []string{"base", "best"} {
		_, err := checkpoints.Verify(filepath.Join(out, dir))
		require.NoError(t, err)
	}
	require.Equal(t, r.BM25, measured(t, out, bm25Run))
	require.Equal(t, r.Before, measured(t, out, beforeRun))
	require.Equal(t, r.After, measured(t, out, afterRun))
	names := map[string]bool{}
	for _, f := range r.Files {
		names[f.Name] = true
	}
	for _, name := range []string{"base/model.safetensors", "best/adapter_model.safetensors", "best/rank.json", queriesFile, corpusFile, qrelsFile, bm25Run} {
		require.True(t, names[name], name)
	}

	_, err = Run(context.Background(), Options{Out: out})
	require.ErrorContains(t, err, "is not empty")
}

// measured is the nDCG@10 of a run file by the judgements beside it.
func measured(t testing.TB, out, name string) float64 {
	qrels, run := metric.Qrels{}, metric.Run{}
	for f := range rows(t, filepath.Join(out, qrelsFile)) {
		if qrels[f[0]] == nil {
			qrels[f[0]] = map[string]int{}
		}
		qrels[f[0]][f[2]] = int(f[3][0] - '0')
	}
	for f := range rows(t, filepath.Join(out, name)) {
		score, err := strconv.ParseFloat(f[4], 32)
		require.NoError(t, err)
		run[f[0]] = append(run[f[0]], metric.Doc{ID: f[2], Score: float32(score)})
	}
	m, err := metric.ParseAll("nDCG@10")
	require.NoError(t, err)
	res, err := metric.Evaluate(qrels, run, m, metric.Options{})
	require.NoError(t, err)
	v, ok := res.Value(m[0])
	require.True(t, ok)
	return v
}

// From labels in random order there is nothing to learn, and nothing is learned: no part of the
// pipeline lets a test label through.
func TestShuffledLabelsTeachNothing(t *testing.T) {
	trains(t)
	r, err := Run(context.Background(), Options{Out: t.TempDir(), Seed: 1, Shuffle: true})
	require.NoError(t, err)
	t.Logf("BM25 %.3f, before %.3f, after %.3f (p %.3f)", r.BM25, r.Before, r.After, r.OverBefore.P)
	require.Less(t, math.Abs(r.After-r.Before), .1)
	require.Less(t, r.After, r.BM25+.05)
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err := Run(ctx, Options{Out: t.TempDir(), Progress: func(train.Step) { cancel() }})
	require.ErrorIs(t, err, context.Canceled)
	_, err = Run(ctx, Options{})
	require.ErrorContains(t, err, "quickstart: ")
}

func TestBM25(t *testing.T) {
	m := newBM25([]string{"a b", "a c c", "d"})
	require.Zero(t, m.score("x ?", "a b"))
	// idf(c) = log(1 + (3-1+.5)/(1+.5)); the passage has 3 words, the mean is 2.
	want := math.Log(1+2.5/1.5) * 2 / (2 + .9*(.6+.4*3/2))
	require.InDelta(t, want, m.score("c", "a c c"), 1e-15)
	require.InDelta(t, want+math.Log(1+1.5/2.5)/(1+.9*(.6+.4*3/2)), m.score("a c", "a c c"), 1e-15)
	require.Greater(t, m.score("d", "d"), m.score("a", "a b"), "a rare word is worth more")
	require.Greater(t, m.score("a", "a b"), m.score("a", "a c c"), "a word of a short passage is worth more")
}

// BM25 finds something, as a query shares some words with its passages, but not most of it.
func TestWordsHelpALittle(t *testing.T) {
	l := lingua.New(1)
	c, err := l.Collection(lingua.Test, testQueries, testCandidates)
	require.NoError(t, err)
	shared, relevant := 0, 0
	for _, q := range c.Queries {
		for _, p := range q.Candidates {
			if p.Label > 0 {
				relevant++
				if newBM25([]string{p.Text}).score(q.Query, p.Text) > 0 {
					shared++
				}
			}
		}
	}
	t.Logf("%d of %d relevant passages share a word with their query", shared, relevant)
	require.Greater(t, shared, relevant/4)
}

func TestReport(t *testing.T) {
	r := &Result{
		Out: "my run", Model: "my run/best", Queries: 300, Candidates: 20, BM25: .445, Before: .27, After: .68,
		OverBM25: Gain{.235, 1e-9}, OverBefore: Gain{.41, .00123}, TrainQueries: 2000, Steps: 10, Trained: 1, Parameters: 8,
		Training: 1500 * time.Millisecond, FirstLoss: 2, LastLoss: 1, Scores: 6000, Identical: 5999, LargestDifference: 1e-7,
		Files: []File{{"base/config.json", 12}},
	}
	var b bytes.Buffer
	require.NoError(t, Report(&b, r))
	require.Equal(t, strings.TrimPrefix(`
nDCG@10 over 300 unseen queries of 20 passages each:

  BM25               0.445
  before training    0.270
  after training     0.680   +0.235 over BM25 (p < 0.0001), +0.410 over before (p = 0.0012)

LoRA trained 1 of 8 parameters (12.5%) on 2000 queries in 1.5 s: 10 steps, loss 2.000 to 1.000.
Saved, reopened with rank: 5999 of 6000 scores identical (largest difference 1.0e-07).

Wrote my run:
         12  base/config.json

Next, rerank BM25's ranking with the adapter and measure it:

  trainer rerank --model 'my run/best' --queries 'my run/test/queries.tsv' --corpus 'my run/test/corpus.tsv' --run 'my run/test/bm25.run' --out 'my run/reranked.run'
  trainer metrics 'my run/test/qrels.txt' 'my run/reranked.run' -m nDCG@10 --compare 'my run/test/bm25.run'
`, "\n"), b.String())
	require.ErrorIs(t, Report(broken{}, r), errBroken)
	require.Equal(t, `'it'\''s'`, quote("it's"))
	require.Equal(t, "runs/a-b_1.x", quote("runs/a-b_1.x"))
}

var errBroken = errors.New("broken")

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errBroken }

func rows(t testing.TB, path string) func(func([]string) bool) {
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return func(yield func([]string) bool) {
		for line := range strings.Lines(string(b)) {
			if !yield(strings.Fields(line)) {
				return
			}
		}
	}
}
