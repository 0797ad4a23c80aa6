package quick

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// Report writes what came of a quickstart, for a reader, and ends with the next command to type.
func Report(w io.Writer, r *Result) error {
	e := &printer{w: w}
	e.print("nDCG@10 over %d unseen queries of %d passages each:\n\n", r.Queries, r.Candidates)
	e.print("  BM25               %.3f\n", r.BM25)
	e.print("  before training    %.3f\n", r.Before)
	e.print("  after training     %.3f   %+.3f over BM25 (p %s), %+.3f over before (p %s)\n\n",
		r.After, r.OverBM25.Difference, p(r.OverBM25.P), r.OverBefore.Difference, p(r.OverBefore.P))
	e.print("LoRA trained %d of %d parameters (%.1f%%) on %d queries in %.1f s: %d steps, loss %.3f to %.3f.\n",
		r.Trained, r.Parameters, 100*float64(r.Trained)/float64(r.Parameters), r.TrainQueries, r.Training.Seconds(), r.Steps, r.FirstLoss, r.LastLoss)
	e.print("Saved, reopened with rank: %d of %d scores identical", r.Identical, r.Scores)
	if r.Identical < r.Scores {
		e.print(" (largest difference %.1e)", r.LargestDifference)
	}
	e.print(".\n\nWrote %s:\n", r.Out)
	for _, f := range r.Files {
		e.print("  %9d  %s\n", f.Bytes, f.Name)
	}
	path := func(name string) string { return filepath.Join(r.Out, filepath.FromSlash(name)) }
	e.print("\nNext, rerank BM25's ranking with the adapter and measure it:\n\n")
	e.print("  trainer rerank --model %s --queries %s --corpus %s --run %s --out %s\n",
		quote(r.Model), quote(path(queriesFile)), quote(path(corpusFile)), quote(path(bm25Run)), quote(path("reranked.run")))
	e.print("  trainer metrics %s %s -m nDCG@10 --compare %s\n", quote(path(qrelsFile)), quote(path("reranked.run")), quote(path(bm25Run)))
	return e.err
}

// printer keeps the first error.
type printer struct {
	w   io.Writer
	err error
}

func (e *printer) print(format string, a ...any) {
	if e.err == nil {
		_, e.err = fmt.Fprintf(e.w, format, a...)
	}
}

// p is a p-value as one prints it.
func p(v float64) string {
	if v < .0001 {
		return "< 0.0001"
	}
	return fmt.Sprintf("= %.4f", v)
}

// quote is a path as one argument of a shell.
func quote(path string) string {
	if strings.ContainsFunc(path, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("/._-+:@%,", c))
	}) {
		return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	return path
}
