// Package read opens collections: queries, their candidates, judgements and runs, in the formats in which
// they are published.
//
// A collection is named by a spec, kind:path[#split]. Reading is strict: a bad row stops with
// "file:line: what is wrong". Lenient reading hands bad rows to Options.Quarantine, up to a rate. Nothing is
// left out without being counted in Stats. Every file may be gzip; that is seen from its first bytes.
package read

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strings"

	"rung/data"
	"rung/train/metric"
)

// A Spec names a collection.
type Spec struct {
	Kind  string
	Path  string // a directory or a file, by kind
	Split string // "" where the kind has none
}

func (s Spec) String() string {
	if s.Split == "" {
		return s.Kind + ":" + s.Path
	}
	return s.Kind + ":" + s.Path + "#" + s.Split
}

// A Kind is a form of collection that Open reads.
type Kind struct {
	Name   string
	Syntax string // of the spec
	Needs  string // the files
	About  string
	splits bool // the spec may end in #split
	open   func(*Collection) error
}

// Kinds returns every kind by name.
func Kinds() map[string]Kind {
	return map[string]Kind{
		"wikiqa": {"wikiqa", "wikiqa:DIR#train|dev|test", "WikiQA-train.txt, WikiQA-dev.tsv, WikiQA-test.tsv", "WikiQA answer sentences", true, openWikiQA},
		"jsonl":  {"jsonl", "jsonl:FILE", "one object a line", "Tevatron (positive_passages), FlagEmbedding (pos, neg) or graded candidates", false, openJSONL},
		"beir":   {"beir", "beir:DIR#SPLIT", "corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv", "BEIR: a query with its judged passages", true, openBEIR},
		"trec":   {"trec", "trec:DIR[#SPLIT]", "topics, collection, qrels, optionally run; each as NAME[.SPLIT][.tsv|.txt|.jsonl]", "TREC: a query with the documents of the run, or its judged ones", true, openTREC},
	}
}

func kindNames() string { return strings.Join(slices.Sorted(maps.Keys(Kinds())), ", ") }

// ParseSpec reads kind:path[#split].
func ParseSpec(s string) (Spec, error) {
	name, path, ok := strings.Cut(s, ":")
	if !ok {
		return Spec{}, fmt.Errorf("read: data %q: want kind:path[#split] with one of the kinds %s", s, kindNames())
	}
	kind, ok := Kinds()[name]
	if !ok {
		return Spec{}, fmt.Errorf("read: data %q: unknown kind %q: the kinds are %s", s, name, kindNames())
	}
	spec := Spec{Kind: name, Path: path}
	if i := strings.LastIndexByte(path, '#'); i >= 0 && kind.splits {
		spec.Path, spec.Split = path[:i], path[i+1:]
		if spec.Split == "" {
			return Spec{}, fmt.Errorf("read: data %q: no split after #: want %s", s, kind.Syntax)
		}
	}
	if spec.Path == "" {
		return Spec{}, fmt.Errorf("read: data %q: no path: want %s", s, kind.Syntax)
	}
	return spec, nil
}

// NoPositives says what becomes of a query without a positive candidate.
type NoPositives uint8

const (
	ByKind NoPositives = iota // Refuse for jsonl, Drop for the others
	Drop                      // counted in Stats.Dropped
	Keep                      // counted in Stats.WithoutPositives
	Refuse                    // a bad row
)

// Options says how strictly a collection is read. Start from Defaults.
type Options struct {
	NoPositives NoPositives
	Lenient     bool            // go on after a bad row
	MaxBad      float64         // with Lenient: the share of bad rows that ends reading with an error
	Quarantine  func(*RowError) // with Lenient: is told of every bad row
}

// Defaults is strict reading, and at most 1% of bad rows once Lenient is set.
func Defaults() Options { return Options{MaxBad: .01} }

// Stats counts what the latest pass over Examples saw.
type Stats struct {
	Rows             int // read from all files that the examples come from
	Examples         int
	Candidates       int
	Positives        int // candidates with a label above 0
	WithoutPositives int // examples kept although no candidate is positive
	Dropped          int // queries left out because no candidate is positive
	Unjudged         int // queries of the run left out because nothing judges them
	NotInRun         int // judged queries left out because the run lacks them
	Merged           int // candidates that repeat one of the same query, text and label
	Scores           int // rows with teacher scores, which are not read here
	Quarantined      int // bad rows passed over
}

// A Collection is an opened collection. It may be read any number of times, one pass at a time.
type Collection struct {
	Spec    Spec
	options Options
	files   files // what whole-collection kinds have
	rows    func(context.Context, *pass) error
	stats   Stats
}

// files of a collection; "" where there is none.
type files struct{ corpus, queries, qrels, run string }

// Open finds the files of a collection. Reading starts with a pass.
func Open(ctx context.Context, spec Spec, opts Options) (*Collection, error) {
	kind, ok := Kinds()[spec.Kind]
	if !ok {
		return nil, fmt.Errorf("read: unknown kind %q: the kinds are %s", spec.Kind, kindNames())
	}
	if !(opts.MaxBad >= 0 && opts.MaxBad <= 1) || opts.NoPositives > Refuse {
		return nil, fmt.Errorf("read: %v: max bad %g must be a share from 0 to 1, and no-positives %d one of %d to %d", spec, opts.MaxBad, opts.NoPositives, ByKind, Refuse)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c := &Collection{Spec: spec, options: opts}
	if opts.NoPositives == ByKind {
		c.options.NoPositives = Drop
		if spec.Kind == "jsonl" {
			c.options.NoPositives = Refuse
		}
	}
	if err := kind.open(c); err != nil {
		return nil, err
	}
	return c, nil
}

// Examples yields every query with its candidates, in the order of the collection. An error is the last
// thing that it yields. Breaking off is fine.
func (c *Collection) Examples(ctx context.Context) iter.Seq2[data.Example, error] {
	return func(yield func(data.Example, error) bool) {
		p := &pass{ledger: c.ledger(), policy: c.options.NoPositives, yield: yield}
		err := c.rows(ctx, p)
		if err == nil {
			err = p.ledger.finish()
		}
		if err == nil && p.stats.Examples == 0 {
			err = fmt.Errorf("read: %v has no examples: %d rows, %d bad; %d queries without a positive, %d not judged, %d not in the run",
				c.Spec, p.ledger.rows, p.ledger.bad, p.stats.Dropped, p.stats.Unjudged, p.stats.NotInRun)
		}
		p.stats.Rows, p.stats.Quarantined = p.ledger.rows, p.ledger.bad
		c.stats = p.stats
		if err != nil && !errors.Is(err, errStop) {
			yield(data.Example{}, err)
		}
	}
}

// Stats counts the latest pass over Examples, up to where it ended.
func (c *Collection) Stats() Stats { return c.stats }

// Corpus yields every passage; only beir and trec have one.
func (c *Collection) Corpus(ctx context.Context) iter.Seq2[Text, error] {
	if c.files.corpus == "" {
		return failing[Text](fmt.Errorf("read: %v: the kind %s has no corpus", c.Spec, c.Spec.Kind))
	}
	return texts(ctx, c.files.corpus, c.ledger(), false)
}

// Queries yields every query of the collection, judged or not; where they stand with their candidates, those
// of Examples.
func (c *Collection) Queries(ctx context.Context) iter.Seq2[Text, error] {
	if c.files.queries != "" {
		return texts(ctx, c.files.queries, c.ledger(), true)
	}
	return func(yield func(Text, error) bool) {
		for ex, err := range c.Examples(ctx) {
			if !yield(Text{ex.ID, ex.Query}, err) {
				return
			}
		}
	}
}

// Qrels returns all judgements, also of documents that are in no run and no corpus; where labels stand with
// the candidates, those of Examples.
func (c *Collection) Qrels(ctx context.Context) (metric.Qrels, error) {
	out := metric.Qrels{}
	if c.files.qrels != "" {
		rows, err := readQrels(ctx, c.files.qrels, c.ledger())
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			add(out, r.query, r.doc, r.grade)
		}
		return out, nil
	}
	for ex, err := range c.Examples(ctx) {
		if err != nil {
			return nil, err
		}
		grades, err := Grades(ex)
		if err != nil {
			return nil, err
		}
		out[ex.ID] = grades
	}
	return out, nil
}

// HasRun tells whether there is a first-stage run.
func (c *Collection) HasRun() bool { return c.files.run != "" }

// Run returns the first-stage run; only trec may have one.
func (c *Collection) Run(ctx context.Context) (metric.Run, error) {
	if c.files.run == "" {
		return nil, fmt.Errorf("read: %v has no run", c.Spec)
	}
	return readRun(ctx, c.files.run, c.ledger())
}

// Grades returns an example's labels as judgements by candidate id. A label that is no whole number is an error.
func Grades(ex data.Example) (map[string]int, error) {
	out := make(map[string]int, len(ex.Candidates))
	for _, c := range ex.Candidates {
		g := float64(c.Label)
		if g != math.Trunc(g) || math.Abs(g) > 1e6 {
			return nil, fmt.Errorf("read: query %q, passage %q: the label %g is no grade: want a whole number", ex.ID, c.ID, c.Label)
		}
		out[c.ID] = int(g)
	}
	return out, nil
}

func failing[T any](err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		yield(zero, err)
	}
}

// A pass reads the examples once.
type pass struct {
	ledger *ledger
	policy NoPositives
	stats  Stats
	yield  func(data.Example, error) bool
}

// emit hands an example on. Its error is errStop, or says what is wrong with the example's row.
func (p *pass) emit(ex data.Example) error {
	positives := ex.Positives()
	if positives == 0 {
		switch p.policy {
		case Drop:
			p.stats.Dropped++
			return nil
		case Refuse:
			return fmt.Errorf("query %q has no positive", ex.ID)
		}
		p.stats.WithoutPositives++
	}
	p.stats.Examples++
	p.stats.Candidates += len(ex.Candidates)
	p.stats.Positives += positives
	if !p.yield(ex, nil) {
		return errStop
	}
	return nil
}
