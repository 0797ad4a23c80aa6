package app

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"runtime"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"rung/data/read"
	"rung/nn/arch"
	"rung/rank"
	"rung/train/metric"
)

func searchCommand(e *Env) *cobra.Command {
	var m modelFlags
	var queries, corpus, out string
	var s search
	cmd := &cobra.Command{
		Use:         "search --model DIR --queries FILE --corpus FILE",
		Short:       "Exact retrieval with a bi-encoder, into a TREC run",
		GroupID:     "use",
		Annotations: reads,
		Args:        positional(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if s.top < 1 {
				return misuse("--top %d, want 1 or more", s.top)
			}
			ctx := cmd.Context()
			r, err := m.open(ctx)
			if err != nil {
				return err
			}
			defer r.Close()
			s.ranker, s.progress = r, func(n int) { e.note("search: %s passages", grouped(n)) }
			run, err := s.run(ctx, read.Texts(queries), read.Texts(corpus))
			if err != nil {
				return prefix("search", err)
			}
			return prefix("search", e.writeTo(out, func(w io.Writer) error { return read.WriteRun(w, run, "trainer") }))
		},
	}
	m.flags(cmd)
	textFlags(cmd, &queries, &corpus, &out)
	f := cmd.Flags()
	f.IntVar(&s.top, "top", 1000, "passages kept of a query")
	f.BoolVar(&s.dropSelf, "drop-self", false, "leave out a passage whose id is the query's, as BEIR does")
	return cmd
}

// A search compares every query with every passage. Passages stream: what is kept is the queries' vectors
// and the best passages of each.
type search struct {
	ranker   *rank.Ranker
	top      int
	dropSelf bool
	progress func(passages int) // now and then; may be nil
}

// chunk is how many passages are embedded at once.
const chunk = 4 * inFlight

func (s *search) run(ctx context.Context, queries, corpus iter.Seq2[read.Text, error]) (metric.Run, error) {
	if s.ranker.Dim() == 0 {
		return nil, errors.New("the model is a cross-encoder, which has no vectors: search with a bi-encoder, and rerank")
	}
	var asked []query
	seen := map[string]bool{}
	err := s.each(ctx, queries, rank.Query, func(ts []read.Text, vs []vector) error {
		for i, t := range ts {
			if seen[t.ID] {
				return fmt.Errorf("the query id %q comes again", t.ID)
			}
			seen[t.ID] = true
			asked = append(asked, query{id: t.ID, vector: vs[i]})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	n := 0
	ids := map[string]bool{}
	err = s.each(ctx, corpus, rank.Passage, func(ts []read.Text, vs []vector) error {
		for _, t := range ts {
			if ids[t.ID] {
				return fmt.Errorf("the passage id %q comes again", t.ID)
			}
			ids[t.ID] = true
		}
		s.compare(asked, ts, vs)
		if n += len(ts); s.progress != nil {
			s.progress(n)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	run := metric.Run{}
	for i := range asked {
		if len(asked[i].best) > 0 {
			run[asked[i].id] = asked[i].best
		}
	}
	return run, nil
}

// A vector knows its length, so that a cosine costs one product.
type vector struct {
	v    []float32 // (D)
	norm float64
}

// A query with its best passages so far: a heap whose top is the worst of them.
type query struct {
	id string
	vector
	best worstFirst
}

// each embeds texts chunk by chunk.
func (s *search) each(ctx context.Context, texts iter.Seq2[read.Text, error], role rank.Role, do func([]read.Text, []vector) error) error {
	var ts []read.Text
	flush := func() error {
		if len(ts) == 0 {
			return nil
		}
		words := make([]string, len(ts))
		for i, t := range ts {
			words[i] = t.Text
		}
		vs, err := s.ranker.Embed(ctx, words, role)
		if err != nil {
			return err
		}
		known := make([]vector, len(vs))
		for i, v := range vs {
			known[i] = vector{v, 1}
			if s.ranker.Similarity() == arch.Cosine {
				known[i].norm = max(math.Sqrt(dot(v, v)), 1e-12)
			}
		}
		if err := do(ts, known); err != nil {
			return err
		}
		ts = ts[:0]
		return nil
	}
	for t, err := range texts {
		if err != nil {
			return err
		}
		if ts = append(ts, t); len(ts) == chunk {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// compare offers passages to every query. Queries are shared out among the processors: a query's result
// does not depend on how.
func (s *search) compare(asked []query, ts []read.Text, vs []vector) {
	var wg sync.WaitGroup
	workers := max(1, min(runtime.GOMAXPROCS(0), len(asked)))
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(asked); i += workers {
				q := &asked[i]
				for k, t := range ts {
					if s.dropSelf && t.ID == q.id {
						continue
					}
					score := float32(dot(q.v, vs[k].v) / (q.norm * vs[k].norm))
					q.best.offer(metric.Doc{ID: t.ID, Score: score}, s.top)
				}
			}
		})
	}
	wg.Wait()
}

// dot sums in float64, as arch.Similarity does.
func dot(a, b []float32) (sum float64) {
	b = b[:len(a)]
	for i, x := range a {
		sum += float64(x) * float64(b[i])
	}
	return sum
}

// worstFirst is a heap of documents in the order of metric.Rank, the last on top.
type worstFirst []metric.Doc

func (h worstFirst) Len() int { return len(h) }
func (h worstFirst) Less(i, j int) bool {
	if h[i].Score != h[j].Score {
		return h[i].Score < h[j].Score
	}
	return strings.Compare(h[i].ID, h[j].ID) < 0
}
func (h worstFirst) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *worstFirst) Push(x any)   { *h = append(*h, x.(metric.Doc)) }

// Pop is never called: what does not belong is replaced.
func (h *worstFirst) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// offer keeps a document if it is among the best top.
func (h *worstFirst) offer(d metric.Doc, top int) {
	if len(*h) < top {
		heap.Push(h, d)
		return
	}
	if worst := (*h)[0]; d.Score > worst.Score || d.Score == worst.Score && d.ID > worst.ID {
		(*h)[0] = d
		heap.Fix(h, 0)
	}
}
