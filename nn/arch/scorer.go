package arch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"rung/data"
	"rung/nn"
	"rung/nn/backend"
	"rung/nn/graph"
)

// A Scorer computes a model's outputs for encoded texts. It compiles a program for each size that
// comes up, rounded up so that there are few, and keeps some of their memory for later calls. It may be
// used from several goroutines.
type Scorer struct {
	be     backend.Backend
	model  nn.Model
	stores []*graph.Store
	budget int // tokens of a micro-batch

	programs *programs

	mu     sync.Mutex
	idle   []idleRun // the latest used last
	bytes  int64     // of those
	closed bool
}

// programs are what a model has been compiled to, by size.
type programs struct {
	mu sync.Mutex
	at map[graph.Dims]*graph.Program
}

func (p *programs) get(d graph.Dims, m nn.Model, be backend.Backend) (*graph.Program, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if q := p.at[d]; q != nil {
		return q, nil
	}
	q, err := nn.Compile(m, nn.Plan{Dims: d, Float: be.Float()})
	if err == nil {
		p.at[d] = q
	}
	return q, err
}

// idleRun is the memory of a program that is not running.
type idleRun struct {
	d     graph.Dims
	r     *graph.Run
	bytes int64
}

// idleBytes is how much memory of programs is kept for later calls.
const idleBytes = 64 << 20

// NewScorer scores with weights from stores, the first that has a weight counts. budget is the tokens of
// one micro-batch; 0 means 4096.
func NewScorer(be backend.Backend, m nn.Model, budget int, stores ...*graph.Store) *Scorer {
	if budget <= 0 {
		budget = 4096
	}
	return &Scorer{be: be, model: m, stores: stores, budget: budget, programs: &programs{at: map[graph.Dims]*graph.Program{}}}
}

// With returns a scorer of the same programs with weights from other stores: of a model m that differs from this
// one's in nothing but values.
func (s *Scorer) With(m nn.Model, stores ...*graph.Store) *Scorer {
	return &Scorer{be: s.be, model: m, stores: stores, budget: s.budget, programs: s.programs}
}

// Programs is how many programs have been compiled.
func (s *Scorer) Programs() int {
	s.programs.mu.Lock()
	defer s.programs.mu.Unlock()
	return len(s.programs.at)
}

// Score returns the scores of every unit's candidates, in order.
func (s *Scorer) Score(ctx context.Context, e *data.Encoded) ([][]float32, error) {
	out := make([][]float32, len(e.Units))
	err := s.each(ctx, e, nn.OutScores, func(units []int, d graph.Dims, v []float32) {
		for i, u := range units {
			out[u] = slices.Clone(v[i*d.K : i*d.K+len(e.Units[u].Seqs)])
		}
	})
	return out, err
}

// Logits returns the logits (C) of every unit, each of which has one sequence.
func (s *Scorer) Logits(ctx context.Context, e *data.Encoded) ([][]float32, error) {
	return s.rows(ctx, e, nn.OutLogits)
}

// Embed returns one vector (D) for every unit, each of which has one sequence.
func (s *Scorer) Embed(ctx context.Context, e *data.Encoded) ([][]float32, error) {
	return s.rows(ctx, e, nn.OutEmbed)
}

func (s *Scorer) rows(ctx context.Context, e *data.Encoded, name string) ([][]float32, error) {
	for i := range e.Units {
		u := &e.Units[i]
		if n := len(u.Seqs); n > 1 || (n == 1) == (u.Query != data.None) {
			return nil, fmt.Errorf("arch: scoring: unit %d has not one sequence", i)
		}
	}
	out := make([][]float32, len(e.Units))
	err := s.each(ctx, e, name, func(units []int, _ graph.Dims, v []float32) {
		w := len(v) / len(units)
		for i, u := range units {
			out[u] = slices.Clone(v[i*w : (i+1)*w])
		}
	})
	return out, err
}

// each runs all units in micro-batches of like lengths and hands out the rows of one output.
func (s *Scorer) each(ctx context.Context, e *data.Encoded, name string, got func(units []int, d graph.Dims, v []float32)) error {
	order := make([]int, len(e.Units))
	for i := range order {
		order[i] = i
	}
	if len(order) == 0 {
		return nil
	}
	length := func(i int) int { return e.Tokens(&e.Units[i]) }
	slices.SortStableFunc(order, func(i, j int) int { return length(i) - length(j) })
	var v []float32
	for _, units := range e.Split(order, s.budget) {
		size := e.Sizes(units)
		d := bucket(size, s.budget)
		r, err := s.borrow(d)
		if err != nil {
			return err
		}
		var n backend.Scalars
		if _, err = Feed(r, d, e, units, &n); err == nil {
			err = r.Do(ctx, &n, false)
		}
		if err == nil {
			rows := size.B
			if name != nn.OutScores {
				rows = size.N
			}
			v, err = graph.Output[float32](r, name, rows, v[:0])
		}
		if err = errors.Join(err, s.giveBack(d, r)); err != nil {
			return fmt.Errorf("arch: scoring: %w", err)
		}
		got(units, d, v)
	}
	return nil
}

// bucket rounds sizes up: to a power of two below the budget, where it stops.
func bucket(s data.Sizes, budget int) graph.Dims {
	up := func(n, least int) int {
		p := least
		for p < n {
			p *= 2
		}
		return p
	}
	t := up(s.T, 32)
	if s.T <= budget {
		t = min(t, budget)
	}
	return graph.Dims{T: t, N: up(s.N, 1), B: up(s.B, 1), K: up(s.K, 1)}
}

func (s *Scorer) borrow(d graph.Dims) (*graph.Run, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("arch: the scorer is closed")
	}
	for i, f := range slices.Backward(s.idle) {
		if f.d == d {
			s.idle, s.bytes = slices.Delete(s.idle, i, i+1), s.bytes-f.bytes
			return f.r, nil
		}
	}
	p, err := s.programs.get(d, s.model, s.be)
	if err != nil {
		return nil, err
	}
	r, err := p.NewRun(s.be, 0)
	if err != nil {
		return nil, err
	}
	if err := r.Bind(s.stores...); err != nil {
		_ = r.Close()
		return nil, err
	}
	return r, nil
}

// giveBack keeps r, and frees what has not been used for longest where that is too much.
func (s *Scorer) giveBack(d graph.Dims, r *graph.Run) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return r.Close()
	}
	f := idleRun{d, r, r.Program().Bytes()}
	s.idle, s.bytes = append(s.idle, f), s.bytes+f.bytes
	var err error
	for s.bytes > idleBytes && len(s.idle) > 1 {
		oldest := s.idle[0]
		s.idle, s.bytes = slices.Delete(s.idle, 0, 1), s.bytes-oldest.bytes
		err = errors.Join(err, oldest.r.Close())
	}
	return err
}

// Close frees the memory of programs that are not running; those that are free theirs when they end.
func (s *Scorer) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var errs []error
	for _, f := range s.idle {
		errs = append(errs, f.r.Close())
	}
	s.idle, s.bytes = nil, 0
	return errors.Join(errs...)
}
