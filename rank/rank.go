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
	"rung/nn/arch"
	"rung/nn/backend"
	"rung/nn/device"
	"rung/nn/graph"
)

// Options say how a model is opened. Zero values are the defaults.
type Options struct {
	Device      string // "" or "auto": the best there is; "cpu", "ref"
	Base        string // of an adapter: directory or "hf:org/name@revision", in place of the one that it names
	MaxLength   int    // tokens of a sequence; 0: as the directory says
	MicroTokens int    // tokens that are scored at once, at least one sequence; 0: 4096
	Domain      string // of texts that name none, for an adapter that routes by it; one that Swap puts there may route by none
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
	o    Options
	be   backend.Backend
	base origin
	swap sync.Mutex // held while an adapter is exchanged

	mu   sync.Mutex
	now  *serving                // nil: closed
	kept map[string]*arch.Scorer // scorers whose programs serve adapters of a shape, by shape
	busy sync.WaitGroup          // calls that are running
}

// serving is a model with its adapter. Calls that began with one end with it.
type serving struct {
	model  arch.Model
	store  *graph.Store // of the adapter; nil: there is none
	scorer *arch.Scorer
	calls  int // that are running, and one while it is what new calls take
}

// Open opens a saved model: a directory or "hf:org/name@revision", a model or an adapter. What this
// module saved is verified: sizes and sums of its files, and the scores that it had when it was saved.
func Open(ctx context.Context, ref string, o Options) (*Ranker, error) {
	l, err := load(ctx, ref, o)
	if err != nil {
		return nil, fmt.Errorf("rank: %w", err)
	}
	var r *Ranker
	if o.Domain != "" && l.domains() == nil { // adapters that take this one's place may route by it, but who asks now is mistaken
		err = fmt.Errorf("%s: domain %q was given, but nothing routes by it", l.dir, o.Domain)
	} else if r, err = start(l, o); err == nil {
		err = l.check(ctx, r.now.scorer, o)
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
	r, err := start(&loaded{model: m}, Options{})
	if err != nil {
		return nil, fmt.Errorf("rank: %w", err)
	}
	r.base.ref = "" // its values may be others than those of the directory
	return r, nil
}

// start makes a ranker of a model that is loaded.
func start(l *loaded, o Options) (*Ranker, error) {
	be, err := device.Open(o.Device)
	if err != nil {
		return nil, err
	}
	r := &Ranker{o: o, be: be, kept: map[string]*arch.Scorer{}}
	if r.base, err = l.baseStore(be); err != nil {
		return nil, err
	}
	if r.now, err = r.serve(l); err != nil {
		return nil, errors.Join(err, r.base.store.Close())
	}
	r.kept[l.shape()] = r.now.scorer
	return r, nil
}

// take is what calls that begin now are served by; done ends the call.
func (r *Ranker) take() (s *serving, done func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == nil {
		return nil, nil, errors.New("rank: the ranker is closed")
	}
	s = r.now
	s.calls++
	r.busy.Add(1)
	return s, func() {
		defer r.busy.Done()
		_ = r.release(s) // of memory of the process's own: there is nobody to tell
	}, nil
}

// release ends a use of s, and frees it after the last.
func (r *Ranker) release(s *serving) error {
	r.mu.Lock()
	s.calls--
	last := s.calls == 0
	r.mu.Unlock()
	if !last {
		return nil
	}
	err := s.scorer.Close()
	if s.store != nil {
		err = errors.Join(err, s.store.Close())
	}
	return err
}

// model is the model that is in use.
func (r *Ranker) model() arch.Model {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == nil {
		return r.base.model
	}
	return r.now.model
}

// Labels is the number of scores of a pair: above 1 for a classifier, which only Logits serves.
func (r *Ranker) Labels() int {
	if c, ok := r.model().(*arch.Cross); ok {
		return c.Labels
	}
	return 1
}

// Dim is the width of the vectors of Embed, 0 where the model has none.
func (r *Ranker) Dim() int {
	if b, ok := r.model().(*arch.Bi); ok {
		return b.Dim()
	}
	return 0
}

// Similarity is how vectors of Embed are compared, "" where the model has none.
func (r *Ranker) Similarity() arch.Similarity {
	if b, ok := r.model().(*arch.Bi); ok {
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
	s, done, err := r.take()
	if err != nil {
		return nil, err
	}
	defer done()
	if len(pairs) == 0 {
		return [][]float32{}, ctx.Err()
	}
	rows, err := s.model.ScorePairs(ctx, s.scorer, pairs)
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
	s, done, err := r.take()
	if err != nil {
		return nil, err
	}
	defer done()
	b, ok := s.model.(*arch.Bi)
	if !ok {
		return nil, errors.New("rank: a cross-encoder has no vectors: it reads query and passage together")
	}
	v, err := b.Embed(ctx, s.scorer, texts, role)
	if err != nil {
		return nil, fmt.Errorf("rank: %w", err)
	}
	return v, nil
}

// Transform turns a score into what is shown: for most cross-encoders 1/(1+exp(-score)). The order stays.
func (r *Ranker) Transform(score float32) float32 { return r.model().Transform().Of(score) }

// Close waits for calls that are running and frees the weights. Later calls fail.
func (r *Ranker) Close() error {
	r.swap.Lock()
	defer r.swap.Unlock()
	r.mu.Lock()
	s := r.now
	r.now = nil
	r.mu.Unlock()
	if s == nil {
		return nil
	}
	err := r.release(s)
	r.busy.Wait()
	if err = errors.Join(err, r.base.store.Close()); err != nil {
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
