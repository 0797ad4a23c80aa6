// Package rank scores passages with a trained ranker: a cross-encoder, a bi-encoder, or an adapter on
// one. It is what a program that serves a ranker imports: it trains nothing, and builds without C.
//
// A score is what the model computes: a logit of a cross-encoder, a similarity of a bi-encoder. More is
// better. Transform turns it into what is shown.
package rank

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"rung/checkpoints"
	"rung/nn"
	"rung/nn/arch"
	"rung/nn/device"
	"rung/nn/graph"
)

// Options say how a model is opened. Zero values are the defaults.
type Options struct {
	Device      string // "" or "auto": the best there is; "cpu", "ref"
	Base        string // of an adapter: directory or "hf:org/name@revision", in place of the one that it names
	MaxLength   int    // tokens of a sequence; 0: as the directory says
	MicroTokens int    // tokens that are scored at once, at least one sequence; 0: 4096
	Domain      string // of texts that name none, for an adapter that routes by it
	SkipVerify  bool   // neither the manifest nor the golden scores are checked
}

// A Pair is a query and a passage.
type Pair = arch.Pair

// A Role is what a text is to a bi-encoder: some put other words before a query than before a passage.
type Role = arch.Role

// The roles.
const (
	Query   = arch.Query
	Passage = arch.Passage
)

// A Hit is one passage of Rerank.
type Hit struct {
	Index int // in the passages given
	Score float32
}

// A Ranker scores texts. It may be used from several goroutines.
//
// A score does not depend on what else is scored in the same call or at the same time.
type Ranker struct {
	model  arch.Model
	store  *graph.Store
	scorer *arch.Scorer
	open   sync.RWMutex // held for reading while scoring
}

// Open opens a saved model: a directory or "hf:org/name@revision", a model or an adapter. What this
// module saved is verified: sizes and sums of its files, and the scores that it had when it was saved.
func Open(ctx context.Context, ref string, o Options) (*Ranker, error) {
	l, err := load(ctx, ref, o)
	if err != nil {
		return nil, fmt.Errorf("rank: %w", err)
	}
	r, err := start(l.model, o)
	if err == nil && l.card != nil && !o.SkipVerify {
		if err = l.card.Check(ctx, l.model, r.scorer); err != nil {
			err = fmt.Errorf("%s: %w", l.dir, err)
		}
	}
	if err = errors.Join(err, l.close()); err != nil {
		if r != nil {
			err = errors.Join(err, r.Close())
		}
		return nil, fmt.Errorf("rank: %w", err)
	}
	return r, nil
}

// New ranks with a model of this program, as its parameters start: what it was opened with, or has
// learned. The model stays the caller's.
func New(m arch.Model) (*Ranker, error) {
	r, err := start(m, Options{})
	if err != nil {
		return nil, fmt.Errorf("rank: %w", err)
	}
	return r, nil
}

func start(m arch.Model, o Options) (*Ranker, error) {
	be, err := device.Open(o.Device)
	if err != nil {
		return nil, err
	}
	st, err := nn.NewStore(be, m.Params(), false)
	if err != nil {
		return nil, err
	}
	return &Ranker{model: m, store: st, scorer: arch.NewScorer(be, m, o.MicroTokens, st)}, nil
}

// Labels is the number of scores of a pair: above 1 for a classifier, which only Logits serves.
func (r *Ranker) Labels() int {
	if c, ok := r.model.(*arch.Cross); ok {
		return c.Labels
	}
	return 1
}

// Dim is the width of the vectors of Embed, 0 where the model has none.
func (r *Ranker) Dim() int {
	if b, ok := r.model.(*arch.Bi); ok {
		return b.Dim()
	}
	return 0
}

// Similarity is how vectors of Embed are compared, "" where the model has none.
func (r *Ranker) Similarity() arch.Similarity {
	if b, ok := r.model.(*arch.Bi); ok {
		return b.Similarity
	}
	return ""
}

// Score returns the score of each passage for the query.
func (r *Ranker) Score(ctx context.Context, query string, passages []string) ([]float32, error) {
	pairs := make([]Pair, len(passages))
	for i, p := range passages {
		pairs[i] = Pair{Query: query, Passage: p}
	}
	return r.ScorePairs(ctx, pairs)
}

// ScorePairs returns the score of each pair.
func (r *Ranker) ScorePairs(ctx context.Context, pairs []Pair) ([]float32, error) {
	if n := r.Labels(); n != 1 {
		return nil, fmt.Errorf("rank: the model has %d labels, not one score", n)
	}
	rows, err := r.Logits(ctx, pairs)
	if err != nil {
		return nil, err
	}
	scores := make([]float32, len(rows))
	for i, row := range rows {
		scores[i] = row[0]
	}
	return scores, nil
}

// Logits returns what the model computes of each pair: one number a label.
func (r *Ranker) Logits(ctx context.Context, pairs []Pair) ([][]float32, error) {
	r.open.RLock()
	defer r.open.RUnlock()
	if len(pairs) == 0 {
		return [][]float32{}, ctx.Err()
	}
	rows, err := r.model.ScorePairs(ctx, r.scorer, pairs)
	if err != nil {
		return nil, fmt.Errorf("rank: %w", err)
	}
	return rows, nil
}

// Rerank scores passages for the query and returns them from the best to the worst. Of equal scores,
// the passage that was given first comes first.
func (r *Ranker) Rerank(ctx context.Context, query string, passages []string) ([]Hit, error) {
	scores, err := r.Score(ctx, query, passages)
	if err != nil {
		return nil, err
	}
	hits := make([]Hit, len(scores))
	for i, s := range scores {
		if s != s {
			return nil, fmt.Errorf("rank: the score of passage %d is not a number", i)
		}
		hits[i] = Hit{i, s}
	}
	slices.SortStableFunc(hits, func(a, b Hit) int { return cmp.Compare(b.Score, a.Score) })
	return hits, nil
}

// Embed returns the vector (D) of each text, as a bi-encoder compares it.
func (r *Ranker) Embed(ctx context.Context, texts []string, role Role) ([][]float32, error) {
	b, ok := r.model.(*arch.Bi)
	if !ok {
		return nil, errors.New("rank: a cross-encoder has no vectors: it reads query and passage together")
	}
	r.open.RLock()
	defer r.open.RUnlock()
	v, err := b.Embed(ctx, r.scorer, texts, role)
	if err != nil {
		return nil, fmt.Errorf("rank: %w", err)
	}
	return v, nil
}

// Transform turns a score into what is shown: for most cross-encoders 1/(1+exp(-score)). The order stays.
func (r *Ranker) Transform(score float32) float32 { return r.model.Transform().Of(score) }

// Close waits for calls that are running and frees the weights. Later calls fail.
func (r *Ranker) Close() error {
	r.open.Lock()
	defer r.open.Unlock()
	err := errors.Join(r.scorer.Close(), r.store.Close())
	if err != nil {
		return fmt.Errorf("rank: %w", err)
	}
	return nil
}

// verify checks a directory against its manifest, if it has one.
func verify(dir string, o Options) error {
	if o.SkipVerify {
		return nil
	}
	_, err := checkpoints.NewVerifier().Verify(dir)
	return err
}
