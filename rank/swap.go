package rank

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"rung/nn"
	"rung/nn/arch"
	"rung/nn/backend"
	"rung/nn/graph"
)

// origin is the base of a ranker: what its adapters are for.
type origin struct {
	model arch.Model
	ref   string           // where it was opened from; "": it was not
	store *graph.Store     // its parameters
	dims  map[string][]int // by path
	lacks string           // a parameter that it has not, and that every adapter brings; "": none
}

// baseStore fills a store with the values of the base, an adapter left out.
func (l *loaded) baseStore(be backend.Backend) (origin, error) {
	o := origin{model: l.model, dims: map[string][]int{}}
	ps := l.model.Params()
	if l.applied != nil {
		ps = l.applied.Original()
	}
	for _, p := range ps {
		if o.dims[p.Path] = p.Dims; p.Created && o.lacks == "" {
			o.lacks = p.Path
		}
	}
	if at := l.model.Origin(); at.Ref != "" {
		o.ref = at.Ref
	} else {
		o.ref = at.Dir
	}
	var err error
	o.store, err = nn.NewStore(be, ps, false)
	return o, err
}

// shape is what programs of the model depend on.
func (l *loaded) shape() string {
	if l.applied == nil {
		return ""
	}
	return l.applied.Shape()
}

// check compares golden scores, where there are any.
func (l *loaded) check(ctx context.Context, s *arch.Scorer, o Options) error {
	if l.card == nil || o.SkipVerify {
		return nil
	}
	if err := l.card.Check(ctx, l.model, s); err != nil {
		return fmt.Errorf("%s: %w", l.dir, err)
	}
	return nil
}

// serve makes a model that is loaded ready for calls: its adapter's values have a store of their own, and programs are
// those of an adapter of the same shape where there was one.
func (r *Ranker) serve(l *loaded) (*serving, error) {
	s := &serving{model: l.model, calls: 1}
	stores := []*graph.Store{r.base.store}
	if l.applied != nil {
		var err error
		if s.store, err = nn.NewStore(r.be, l.applied.Own(), false); err != nil {
			return nil, err
		}
		stores = slices.Insert(stores, 0, s.store)
	}
	if like := r.kept[l.shape()]; like != nil {
		s.scorer = like.With(l.model, stores...)
	} else {
		s.scorer = arch.NewScorer(r.be, l.model, r.o.MicroTokens, stores...)
	}
	return s, nil
}

// Swap puts another adapter in the place of the ranker's: a directory or "hf:org/name@revision", for the same base;
// "" leaves the base by itself, where it scores. Calls that are running end with the adapter that they began with; each
// sees one adapter whole. An adapter like one before, in its kind, modules, ranks and scales, takes that one's programs;
// another compiles its own, once. After an error the old one serves.
func (r *Ranker) Swap(ctx context.Context, ref string) error {
	r.swap.Lock()
	defer r.swap.Unlock()
	if err := r.exchange(ctx, ref); err != nil {
		return fmt.Errorf("rank: swap: %w", err)
	}
	return nil
}

func (r *Ranker) exchange(ctx context.Context, ref string) error {
	if r.base.ref == "" {
		return errors.New("the ranker is of a model of this program, not of one that was opened")
	}
	r.mu.Lock()
	now := r.now
	r.mu.Unlock()
	if now == nil {
		return errors.New("the ranker is closed")
	}
	l, err := r.loadLike(ctx, ref)
	if err != nil {
		return err
	}
	s, err := r.serve(l)
	if err == nil {
		if err = l.check(ctx, s.scorer, r.o); err != nil {
			err = errors.Join(err, r.release(s))
		}
	}
	if err = errors.Join(err, l.close()); err != nil {
		return err
	}
	if r.kept[l.shape()] == nil {
		r.kept[l.shape()] = s.scorer
	}
	r.mu.Lock()
	r.now = s
	r.mu.Unlock()
	return r.release(now)
}

// loadLike loads an adapter with the ranker's base, or the base alone, and refuses what is not of this base.
func (r *Ranker) loadLike(ctx context.Context, ref string) (*loaded, error) {
	o := r.o
	o.Base = r.base.ref
	if ref == "" {
		ref, o.Base = r.base.ref, ""
		if r.base.lacks != "" {
			return nil, fmt.Errorf("%s by itself has no scores: it lacks %s", ref, r.base.lacks)
		}
	}
	l, err := load(ctx, ref, o)
	if err != nil {
		return nil, err
	}
	ps := l.model.Params()
	if l.applied != nil {
		ps = l.applied.Original()
	}
	for _, p := range ps {
		if d, ok := r.base.dims[p.Path]; !ok || !slices.Equal(d, p.Dims) {
			err = fmt.Errorf("%s: the model has %q %v, the ranker's base %v: they are not of one architecture", l.dir, p.Path, p.Dims, d)
			break
		}
	}
	if err == nil && len(ps) != len(r.base.dims) {
		err = fmt.Errorf("%s: the model has %d parameters, the ranker's base %d: they are not of one architecture", l.dir, len(ps), len(r.base.dims))
	}
	if err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

// Programs is how many programs have been compiled so far, of all adapters that the ranker has had.
func (r *Ranker) Programs() int {
	r.swap.Lock()
	defer r.swap.Unlock()
	n := 0
	for _, s := range r.kept {
		n += s.Programs()
	}
	return n
}
