package app

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"rung/data/read"
	"rung/rank"
	"rung/train/metric"
)

// inFlight is how many pairs or texts are given to a model at once: enough for it to sort them by length.
const inFlight = 1024

// modelFlags open a saved model.
type modelFlags struct {
	model, base, device string
	domain              string
	length              int
}

func (m *modelFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&m.model, "model", "", "model or adapter: a `DIR` or hf:org/name@revision")
	f.StringVar(&m.base, "base", "", "the adapter's base, instead of the one that it names: a `DIR` or hf:org/name@revision")
	f.StringVar(&m.device, "device", "auto", "auto, cpu, cpu/bf16, cuda:N, or ref (the reference kernels)")
	f.StringVar(&m.domain, "domain", "", "`NAME` of what texts are of, for an adapter that routes by it")
	f.IntVar(&m.length, "max-length", 0, "tokens of a sequence; 0: as the model says")
	needed(cmd, "model")
}

func (m *modelFlags) open(ctx context.Context) (*rank.Ranker, error) {
	if m.length < 0 {
		return nil, misuse("--max-length %d is negative", m.length)
	}
	return rank.Open(ctx, m.model, rank.Options{Device: m.device, Base: m.base, MaxLength: m.length, Domain: m.domain})
}

func scoreCommand(e *Env) *cobra.Command {
	var m modelFlags
	var raw bool
	cmd := &cobra.Command{
		Use:     "score --model DIR",
		Short:   "Score pairs: query<TAB>passage lines in, one score a line out",
		Example: "  printf 'who wrote dracula\\tBram Stoker did.\\n' | trainer score --model DIR",
		GroupID: "use",
		Args:    positional(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := m.open(cmd.Context())
			if err != nil {
				return err
			}
			defer r.Close()
			return e.score(cmd.Context(), r, raw)
		},
	}
	m.flags(cmd)
	cmd.Flags().BoolVar(&raw, "raw", false, "logits as they are, without the model's transform")
	return cmd
}

// score writes the scores of lines; a classifier's are separated by tabs.
func (e *Env) score(ctx context.Context, r *rank.Ranker, raw bool) error {
	return prefix("score", batches(ctx, e.Stdin, inFlight, func(first int, lines []string) error {
		pairs := make([]rank.Pair, 0, len(lines))
		var bad error
		for i, line := range lines {
			q, p, err := pair(line)
			if err != nil {
				bad = fmt.Errorf("line %d: %w", first+i, err)
				break
			}
			pairs = append(pairs, rank.Pair{Query: q, Passage: p})
		}
		rows, err := r.Logits(ctx, pairs)
		if err != nil {
			return err
		}
		var b strings.Builder
		for _, row := range rows {
			if !raw {
				for k, s := range row {
					row[k] = r.Transform(s)
				}
			}
			b.WriteString(e.scoreLine(row))
		}
		if _, err := io.WriteString(e.Stdout, b.String()); err != nil {
			return err
		}
		return bad
	}))
}

// scoreLine is one line of scores, with the nine digits that hold a float32 exactly.
func (e *Env) scoreLine(row []float32) string {
	if e.JSON {
		if len(row) == 1 {
			return object([]any{"score", row[0]}) + "\n"
		}
		return object([]any{"scores", row}) + "\n"
	}
	cells := make([]string, len(row))
	for i, s := range row {
		cells[i] = strconv.FormatFloat(float64(s), 'g', 9, 32)
	}
	return strings.Join(cells, "\t") + "\n"
}

// A pairScorer scores candidates of queries in bulk, into a run.
type pairScorer struct {
	ranker *rank.Ranker
	run    metric.Run
	pairs  []rank.Pair
	at     [][2]string // query and passage ids of the pairs
}

func newPairScorer(r *rank.Ranker) *pairScorer { return &pairScorer{ranker: r, run: metric.Run{}} }

func (s *pairScorer) add(ctx context.Context, query, id string, p rank.Pair) error {
	s.pairs, s.at = append(s.pairs, p), append(s.at, [2]string{query, id})
	if len(s.pairs) < inFlight {
		return nil
	}
	return s.flush(ctx)
}

func (s *pairScorer) flush(ctx context.Context) error {
	scores, err := s.ranker.ScorePairs(ctx, s.pairs)
	if err != nil {
		return err
	}
	for i, x := range scores {
		q := s.at[i][0]
		s.run[q] = append(s.run[q], metric.Doc{ID: s.at[i][1], Score: x})
	}
	s.pairs, s.at = s.pairs[:0], s.at[:0]
	return nil
}

func rerankCommand(e *Env) *cobra.Command {
	var m modelFlags
	var queries, corpus, run, out string
	var depth int
	cmd := &cobra.Command{
		Use:         "rerank --model DIR --queries FILE --corpus FILE --run FILE",
		Short:       "Score the candidates of a TREC run again",
		GroupID:     "use",
		Annotations: reads,
		Args:        positional(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if depth < 0 {
				return misuse("--depth %d is negative", depth)
			}
			first, err := read.ReadRun(run)
			if err != nil {
				return err
			}
			r, err := m.open(cmd.Context())
			if err != nil {
				return err
			}
			defer r.Close()
			second, err := rerank(cmd.Context(), r, first, queries, corpus, depth)
			if err != nil {
				return prefix("rerank", err)
			}
			return prefix("rerank", e.writeTo(out, func(w io.Writer) error { return read.WriteRun(w, second, "trainer") }))
		},
	}
	m.flags(cmd)
	textFlags(cmd, &queries, &corpus, &out)
	f := cmd.Flags()
	f.StringVar(&run, "run", "", "TREC run `FILE` with the candidates")
	f.IntVar(&depth, "depth", 100, "candidates of a query that are scored, the first; below them the order stays. 0: all")
	needed(cmd, "run")
	return cmd
}

// textFlags are the files of texts, and where results go.
func textFlags(cmd *cobra.Command, queries, corpus, out *string) {
	f := cmd.Flags()
	f.StringVar(queries, "queries", "", "`FILE` of queries: BEIR JSON lines or id<TAB>text, gzip or not")
	f.StringVar(corpus, "corpus", "", "`FILE` of passages, in the same forms")
	f.StringVar(out, "out", "-", "`FILE` of the TREC run; -: the standard output")
	needed(cmd, "queries", "corpus")
}

func rerank(ctx context.Context, r *rank.Ranker, first metric.Run, queries, corpus string, depth int) (metric.Run, error) {
	needQuery, needDoc := map[string]bool{}, map[string]bool{}
	for q, docs := range first {
		if err := metric.Rank(docs); err != nil {
			return nil, err
		}
		needQuery[q] = true
		for _, d := range docs[:within(depth, len(docs))] {
			needDoc[d.ID] = true
		}
	}
	queryText, err := pick(ctx, queries, needQuery)
	if err != nil {
		return nil, err
	}
	docText, err := pick(ctx, corpus, needDoc)
	if err != nil {
		return nil, err
	}
	s := newPairScorer(r)
	for _, q := range slices.Sorted(maps.Keys(first)) {
		docs := first[q]
		for _, d := range docs[:within(depth, len(docs))] {
			if err := s.add(ctx, q, d.ID, rank.Pair{Query: queryText[q], Passage: docText[d.ID]}); err != nil {
				return nil, err
			}
		}
	}
	if err := s.flush(ctx); err != nil {
		return nil, err
	}
	for q, docs := range first {
		s.run[q] = append(s.run[q], below(s.run[q], docs[within(depth, len(docs)):])...)
	}
	return s.run, nil
}

// within is the number of documents to the depth; 0 is no limit.
func within(depth, n int) int {
	if depth == 0 {
		return n
	}
	return min(depth, n)
}

// below gives documents scores that keep their order and lie under all of those above them: whole
// numbers, downwards.
func below(above []metric.Doc, docs []metric.Doc) []metric.Doc {
	floor := float32(0)
	for _, d := range above {
		floor = min(floor, d.Score)
	}
	next := float32(int64(floor)) - 1
	out := slices.Clone(docs)
	for i := range out {
		out[i].Score = next - float32(i)
	}
	return out
}

// pick reads the texts with these ids; one that is not there is an error.
func pick(ctx context.Context, path string, need map[string]bool) (map[string]string, error) {
	have := make(map[string]string, len(need))
	for t, err := range read.Texts(path) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, err
		}
		if !need[t.ID] {
			continue
		}
		if _, twice := have[t.ID]; twice {
			return nil, fmt.Errorf("%s: the id %q comes again", path, t.ID)
		}
		have[t.ID] = t.Text
	}
	for _, id := range slices.Sorted(maps.Keys(need)) {
		if _, ok := have[id]; !ok {
			return nil, fmt.Errorf("%s has no text with the id %q, which the run names", path, id)
		}
	}
	return have, nil
}
