package quick

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"rung/train/metric"
)

// A File is something that was written.
type File struct {
	Name  string // below the run's directory, with slashes
	Bytes int64
}

// The test data, as rerank and metrics take them.
const (
	queriesFile = "test/queries.tsv"
	corpusFile  = "test/corpus.tsv"
	qrelsFile   = "test/qrels.txt"
	bm25Run     = "test/bm25.run"
	beforeRun   = "test/before.run"
	afterRun    = "test/after.run"
)

// judged is the test queries' judgements, and a run for each of their scores, from the best to the worst.
func (s *story) judged() (qrels metric.Qrels, runs map[string]metric.Run, err error) {
	qrels, runs = metric.Qrels{}, map[string]metric.Run{bm25Run: {}, beforeRun: {}, afterRun: {}}
	by := map[string][][]float32{bm25Run: s.bm25, beforeRun: s.untrained, afterRun: s.trained}
	for i, q := range s.test.Queries {
		qrels[q.ID] = map[string]int{}
		for k, c := range q.Candidates {
			qrels[q.ID][c.ID] = int(c.Label)
			for name, scores := range by {
				runs[name][q.ID] = append(runs[name][q.ID], metric.Doc{ID: c.ID, Score: scores[i][k]})
			}
		}
		for name := range by {
			err = errors.Join(err, metric.Rank(runs[name][q.ID]))
		}
	}
	return qrels, runs, err
}

// compare measures the three rankings.
func (s *story) compare() error {
	measures, err := metric.ParseAll("nDCG@10")
	if err != nil {
		return err
	}
	qrels, runs, err := s.judged()
	if err != nil {
		return err
	}
	at := map[string]*metric.Result{}
	for name, run := range runs {
		if at[name], err = metric.Evaluate(qrels, run, measures, metric.Options{}); err != nil {
			return err
		}
	}
	r := s.res
	r.Queries, r.Candidates = testQueries, testCandidates
	for _, x := range []struct {
		run   string
		value *float64
		gain  *Gain
	}{{bm25Run, &r.BM25, &r.OverBM25}, {beforeRun, &r.Before, &r.OverBefore}} {
		c, err := metric.Compare(at[x.run], at[afterRun], metric.DefaultCompare())
		if err != nil {
			return err
		}
		*x.value, r.After, *x.gain = c[0].A, c[0].B, Gain{c[0].Diff, c[0].PT}
	}
	return nil
}

// write writes the test data and the three rankings, and lists what lies in the run's directory.
func (s *story) write(context.Context) error {
	if err := os.MkdirAll(filepath.Join(s.Out, "test"), 0o777); err != nil {
		return err
	}
	qrels, runs, err := s.judged()
	if err != nil {
		return err
	}
	for name, lines := range map[string]func(w *bufio.Writer){
		queriesFile: func(w *bufio.Writer) {
			for _, q := range s.test.Queries {
				fmt.Fprintf(w, "%s\t%s\n", q.ID, q.Query)
			}
		},
		corpusFile: func(w *bufio.Writer) {
			for _, p := range s.test.Passages {
				fmt.Fprintf(w, "%s\t%s\n", p.ID, p)
			}
		},
		qrelsFile: func(w *bufio.Writer) {
			for _, q := range s.test.Queries {
				for _, c := range q.Candidates {
					fmt.Fprintf(w, "%s 0 %s %d\n", q.ID, c.ID, qrels[q.ID][c.ID])
				}
			}
		},
		bm25Run:   s.trec(runs[bm25Run], "bm25"),
		beforeRun: s.trec(runs[beforeRun], "before"),
		afterRun:  s.trec(runs[afterRun], "after"),
	} {
		if err := writeFile(filepath.Join(s.Out, filepath.FromSlash(name)), lines); err != nil {
			return err
		}
	}
	return s.list()
}

// trec writes a run as trec_eval reads it.
func (s *story) trec(run metric.Run, tag string) func(w *bufio.Writer) {
	return func(w *bufio.Writer) {
		for _, q := range s.test.Queries {
			for i, d := range run[q.ID] {
				fmt.Fprintf(w, "%s Q0 %s %d %.9g %s\n", q.ID, d.ID, i+1, d.Score, tag)
			}
		}
	}
}

func writeFile(path string, lines func(w *bufio.Writer)) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	lines(w)
	return errors.Join(w.Flush(), f.Close())
}

// list finds what lies in the run's directory.
func (s *story) list() error {
	return filepath.WalkDir(s.Out, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasPrefix(d.Name(), ".") { // a lock is no result
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(s.Out, path)
		s.res.Files = append(s.res.Files, File{filepath.ToSlash(name), info.Size()})
		return err
	})
}
