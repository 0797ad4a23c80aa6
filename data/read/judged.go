package read

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"rung/data"
	"rung/train/metric"
)

func openBEIR(c *Collection) error {
	if c.Spec.Split == "" {
		return fmt.Errorf("read: %v: no split: want %s", c.Spec, Kinds()["beir"].Syntax)
	}
	for _, f := range []struct {
		path *string
		name string
	}{
		{&c.files.corpus, "corpus.jsonl"},
		{&c.files.queries, "queries.jsonl"},
		{&c.files.qrels, filepath.Join("qrels", c.Spec.Split+".tsv")},
	} {
		path := filepath.Join(c.Spec.Path, f.name)
		if _, err := os.Stat(path); err != nil {
			if _, zipped := os.Stat(path + ".gz"); zipped != nil {
				return fmt.Errorf("read: %v: %w", c.Spec, err)
			}
			path += ".gz"
		}
		*f.path = path
	}
	c.rows = func(ctx context.Context, p *pass) error { return p.judged(ctx, c.files) }
	return nil
}

func openTREC(c *Collection) error {
	entries, err := os.ReadDir(c.Spec.Path)
	if err != nil {
		return fmt.Errorf("read: %v: %w", c.Spec, err)
	}
	for _, f := range []struct {
		path     *string
		names    string // a regular expression
		split    string
		optional bool
	}{
		{&c.files.corpus, "collection|corpus", "", false},
		{&c.files.queries, "topics|queries", c.Spec.Split, false},
		{&c.files.qrels, "qrels", c.Spec.Split, false},
		{&c.files.run, "run", c.Spec.Split, true},
	} {
		middle := ""
		if f.split != "" {
			middle = regexp.QuoteMeta("." + f.split)
		}
		pattern := regexp.MustCompile(`^(` + f.names + `)` + middle + `(\.(tsv|txt|jsonl|json|trec|run))?(\.gz)?$`)
		var found []string
		for _, e := range entries {
			if !e.IsDir() && pattern.MatchString(e.Name()) {
				found = append(found, e.Name())
			}
		}
		switch {
		case len(found) == 1:
			*f.path = filepath.Join(c.Spec.Path, found[0])
		case len(found) > 1:
			return fmt.Errorf("read: %v: more than one file of %s: %s", c.Spec, f.names, strings.Join(found, ", "))
		case !f.optional:
			return fmt.Errorf("read: %v: no file of %s: want %s", c.Spec, f.names, Kinds()["trec"].Needs)
		}
	}
	c.rows = func(ctx context.Context, p *pass) error { return p.judged(ctx, c.files) }
	return nil
}

// A pooled query is one of a qrels file, with where its rows stand.
type pooled struct {
	id   string
	rows []judgement
}

// judged emits each query of the qrels with the run's documents for it, best first, or, without a run, with
// its judged documents in the order of the file. Only texts that are needed are kept.
func (p *pass) judged(ctx context.Context, f files) error {
	rows, err := readQrels(ctx, f.qrels, p.ledger)
	if err != nil {
		return err
	}
	queries := poolRows(rows)
	var run metric.Run
	if f.run != "" {
		if run, err = readRun(ctx, f.run, p.ledger); err != nil {
			return err
		}
		for _, docs := range run {
			if err := metric.Rank(docs); err != nil {
				return err
			}
		}
		judged := len(queries)
		queries = slices.DeleteFunc(queries, func(q pooled) bool { return len(run[q.id]) == 0 })
		p.stats.NotInRun, p.stats.Unjudged = judged-len(queries), len(run)-len(queries)
	}
	needQuery, needDoc := map[string]string{}, map[string]string{}
	for _, q := range queries {
		needQuery[q.id] = ""
		for _, d := range candidateIDs(q, run) {
			needDoc[d.doc] = ""
		}
	}
	haveQuery, err := p.load(ctx, f.queries, true, needQuery)
	if err != nil {
		return err
	}
	haveDoc, err := p.load(ctx, f.corpus, false, needDoc)
	if err != nil {
		return err
	}
	for _, q := range queries {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read: %s: %w", f.qrels, err)
		}
		if err := p.emitPooled(q, run, f, haveQuery, haveDoc); err != nil {
			return err
		}
	}
	return nil
}

// emitPooled joins a query to the texts of its candidates.
func (p *pass) emitPooled(q pooled, run metric.Run, f files, queries, docs map[string]string) error {
	text, ok := queries[q.id]
	if !ok {
		return p.ledger.refuse(&RowError{f.qrels, q.rows[0].line, fmt.Errorf("query %q is not in %s", q.id, f.queries)})
	}
	ex := data.Example{ID: q.id, Query: text}
	for _, d := range candidateIDs(q, run) {
		text, ok := docs[d.doc]
		if !ok {
			bad := &RowError{f.qrels, d.line, fmt.Errorf("document %q is not in %s", d.doc, f.corpus)}
			if run != nil {
				bad = &RowError{f.run, 0, fmt.Errorf("query %q: document %q is not in %s", q.id, d.doc, f.corpus)}
			}
			if err := p.ledger.refuse(bad); err != nil {
				return err
			}
			continue
		}
		ex.Candidates = append(ex.Candidates, data.Candidate{ID: d.doc, Text: text, Label: float32(max(0, d.grade))})
	}
	err := p.emit(ex)
	if err == nil || errors.Is(err, errStop) {
		return err
	}
	return p.ledger.refuse(&RowError{f.qrels, q.rows[0].line, err})
}

// candidateIDs returns the run's documents with their grades, or the judged ones.
func candidateIDs(q pooled, run metric.Run) []judgement {
	if run == nil {
		return q.rows
	}
	grades := map[string]int{}
	for _, r := range q.rows {
		grades[r.doc] = r.grade
	}
	out := make([]judgement, len(run[q.id]))
	for i, d := range run[q.id] {
		out[i] = judgement{query: q.id, doc: d.ID, grade: grades[d.ID]}
	}
	return out
}

func poolRows(rows []judgement) []pooled {
	var out []pooled
	at := map[string]int{}
	for _, r := range rows {
		i, ok := at[r.query]
		if !ok {
			i = len(out)
			at[r.query] = i
			out = append(out, pooled{id: r.query})
		}
		out[i].rows = append(out[i].rows, r)
	}
	return out
}

// load reads the texts that are needed from a file. An id that comes twice is a bad row.
func (p *pass) load(ctx context.Context, path string, topics bool, need map[string]string) (map[string]string, error) {
	in, err := openLines(path)
	if err != nil {
		return nil, err
	}
	defer in.close()
	have := make(map[string]string, len(need))
	err = p.ledger.texts(ctx, in, topics, func(t Text) error {
		if _, ok := need[t.ID]; !ok {
			return nil
		}
		if _, ok := have[t.ID]; ok {
			return fmt.Errorf("id %q comes again", t.ID)
		}
		have[t.ID] = t.Text
		return nil
	})
	return have, err
}
