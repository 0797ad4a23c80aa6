// Package quick is the quickstart: the whole story of a ranker in under a minute, without a download.
// An encoder that knows a made-up language (package lingua) becomes a cross-encoder by a LoRA adapter;
// it is compared with BM25 and with itself before training, saved, reopened, and compared again.
package quick

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"rung/cmd/trainer/app/quick/base"
	"rung/data"
	"rung/data/lingua"
	"rung/lora"
	"rung/nn/arch"
	"rung/nn/loss"
	"rung/rank"
	"rung/train"
)

// Options say what a quickstart varies.
type Options struct {
	Out      string           // directory of the run
	Seed     uint64           // of the adapter, the head and the order of the examples
	Shuffle  bool             // learn from labels in random order: a check that then nothing is learned
	Progress func(train.Step) // after every update; nil: nobody looks
}

// Sizes of the data, and how the adapter is trained: a high rate and small batches, as there is little
// time.
const (
	trainQueries, trainCandidates = 4000, 8
	testQueries, testCandidates   = 300, 20
	epochs, batch, learningRate   = 3, 32, 2e-3
	loraRank, loraAlpha           = 8, 16
)

// A Result is what came of it. Ranks are nDCG@10 over unseen queries; p-values are of paired two-sided
// t-tests over these.
type Result struct {
	Out, Model string // directories of the run and of the trained adapter in it

	Queries, Candidates  int     // test queries, and candidates of each
	BM25, Before, After  float64 // nDCG@10
	OverBM25, OverBefore Gain    // of After

	TrainQueries, Steps  int
	Trained, Parameters  int           // of the model with its adapter
	Training, Altogether time.Duration // wall-clock time
	FirstLoss, LastLoss  float64       // of the first and the last tenth of the updates
	Scores, Identical    int           // test scores, and those that the reopened model repeats bit for bit
	LargestDifference    float64       // between any two of them
	Files                []File        // what was written, in the order of their names
}

// A Gain is by how much one ranking is better than another.
type Gain struct{ Difference, P float64 }

// Run does it all. Options.Out must be empty or not there.
func Run(ctx context.Context, o Options) (*Result, error) {
	r, err := run(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("quickstart: %w", err)
	}
	return r, nil
}

func run(ctx context.Context, o Options) (*Result, error) {
	began := time.Now()
	if err := vacant(o.Out); err != nil {
		return nil, err
	}
	s := &story{Options: o, language: lingua.New(base.Seed)}
	s.res = &Result{Out: o.Out, Model: filepath.Join(o.Out, "best")}
	for _, step := range []func(context.Context) error{s.collect, s.before, s.learn, s.after, s.reopen, s.write} {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	s.res.Altogether = time.Since(began)
	return s.res, s.close()
}

// vacant refuses a directory that holds something: nothing of a user's is ever overwritten.
func vacant(dir string) error {
	if dir == "" {
		return errors.New("no directory to write to")
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("%s is not empty: choose another directory", dir)
	}
	return nil
}

// A story is a quickstart under way.
type story struct {
	Options
	language    *lingua.Language
	train, test *lingua.Collection
	model       *arch.Cross
	res         *Result

	bm25, untrained, trained [][]float32 // scores of the test queries' candidates
}

func (s *story) close() error {
	if s.model == nil {
		return nil
	}
	return s.model.Close()
}

// collect makes the data, writes the base and opens it, and scores with BM25.
func (s *story) collect(ctx context.Context) (err error) {
	if s.train, err = s.language.Collection(lingua.Train, trainQueries, trainCandidates); err != nil {
		return err
	}
	if s.Shuffle {
		s.train = s.train.Shuffled(s.Seed)
	}
	if s.test, err = s.language.Collection(lingua.Test, testQueries, testCandidates); err != nil {
		return err
	}
	texts := make([]string, len(s.test.Passages))
	for i, p := range s.test.Passages {
		texts[i] = p.String()
	}
	m := newBM25(texts)
	for _, q := range s.test.Queries {
		var row []float32
		for _, c := range q.Candidates {
			row = append(row, float32(m.score(q.Query, c.Text)))
		}
		s.bm25 = append(s.bm25, row)
	}
	dir := filepath.Join(s.Out, "base")
	if err := base.Write(ctx, dir); err != nil {
		return err
	}
	s.model, err = arch.OpenCross(ctx, dir, arch.Options{Labels: 1, Seed: s.Seed})
	return err
}

// before scores with the base as it is, under a head that has learned nothing.
func (s *story) before(ctx context.Context) (err error) {
	s.untrained, err = s.score(ctx)
	return err
}

// score is the scores of the model as its parameters are now.
func (s *story) score(ctx context.Context) ([][]float32, error) {
	r, err := rank.New(s.model)
	if err != nil {
		return nil, err
	}
	v, err := scores(ctx, r, s.test.Queries)
	return v, errors.Join(err, r.Close())
}

func scores(ctx context.Context, r *rank.Ranker, queries []data.Example) ([][]float32, error) {
	var pairs []rank.Pair
	for _, q := range queries {
		for _, c := range q.Candidates {
			pairs = append(pairs, rank.Pair{Query: q.Query, Passage: c.Text})
		}
	}
	flat, err := r.ScorePairs(ctx, pairs)
	if err != nil {
		return nil, err
	}
	var rows [][]float32
	for _, q := range queries {
		n := len(q.Candidates)
		rows, flat = append(rows, flat[:n:n]), flat[n:]
	}
	return rows, nil
}

// learn trains a LoRA adapter on every linear layer, and the head.
func (s *story) learn(ctx context.Context) error {
	cfg := lora.Defaults()
	cfg.Rank, cfg.Alpha = loraRank, loraAlpha
	a, err := lora.Apply(s.model, cfg, s.Seed)
	if err != nil {
		return err
	}
	s.res.Trained, s.res.Parameters = a.Summary().Trainable, a.Summary().All
	c := train.Defaults()
	c.Out, c.Seed = s.Out, s.Seed
	c.Epochs, c.Batch, c.LR = epochs, batch, learningRate
	r, err := train.Start(ctx, s.model, loss.Listwise{}, train.Data{Train: s.train.Examples()}, c)
	if err != nil {
		return err
	}
	began := time.Now()
	tenth := max(1, r.Total()/10)
	for step := range r.Steps() {
		if step.N <= tenth {
			s.res.FirstLoss += step.Loss / float64(tenth)
		}
		if step.N > step.Total-tenth {
			s.res.LastLoss += step.Loss / float64(tenth)
		}
		if s.Progress != nil {
			s.Progress(step)
		}
	}
	s.res.Training, s.res.Steps, s.res.TrainQueries = time.Since(began), r.Total(), trainQueries
	return errors.Join(r.Err(), r.Close())
}

// after scores with what was learned, in memory.
func (s *story) after(ctx context.Context) (err error) {
	if s.trained, err = s.score(ctx); err != nil {
		return err
	}
	return s.compare()
}

// reopen reads the saved adapter back and counts the scores that are the same to the last bit.
func (s *story) reopen(ctx context.Context) error {
	r, err := rank.Open(ctx, s.res.Model, rank.Options{})
	if err != nil {
		return err
	}
	again, err := scores(ctx, r, s.test.Queries)
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	for i, row := range s.trained {
		for k, v := range row {
			s.res.Scores++
			if v == again[i][k] {
				s.res.Identical++
			}
			s.res.LargestDifference = max(s.res.LargestDifference, math.Abs(float64(v)-float64(again[i][k])))
		}
	}
	return nil
}
