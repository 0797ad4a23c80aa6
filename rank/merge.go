package rank

import (
	"context"
	"errors"
	"fmt"

	"rung/checkpoints"
	"rung/nn"
	"rung/nn/arch"
	"rung/nn/device"
	"rung/nn/graph"
)

// Merge writes the model that an adapter and its base are together: a directory of its own, which opens
// without either. Before it takes its place it is opened and its golden scores are compared with the
// adapter's.
func Merge(ctx context.Context, ref, dir string, o Options) error {
	l, err := load(ctx, ref, o)
	if err != nil {
		return fmt.Errorf("rank: %w", err)
	}
	if l.applied == nil {
		err = fmt.Errorf("%s is no adapter: there is nothing to merge", l.dir)
	} else {
		err = l.merge(ctx, dir, o)
	}
	if err = errors.Join(err, l.close()); err != nil {
		return fmt.Errorf("rank: %w", err)
	}
	return nil
}

func (l *loaded) merge(ctx context.Context, dir string, o Options) error {
	st, err := l.store(o)
	if err != nil {
		return err
	}
	merged, err := l.applied.Merge(st)
	if err = errors.Join(err, st.Close()); err != nil {
		return err
	}
	at := map[string]*nn.Param{}
	for _, p := range merged {
		at[p.Path] = p
	}
	value := func(path string) ([]float32, error) {
		p, ok := at[path]
		if !ok {
			return nil, fmt.Errorf("the merged model lacks %q", path)
		}
		v := make([]float32, p.Size())
		if p.Init == nil {
			return v, nil
		}
		return v, p.Init(v)
	}
	if l.card != nil {
		l.model.Claim(l.card.Privacy)
	}
	return checkpoints.Save(ctx, dir, func(tmp string) error {
		if err := l.model.SaveValues(tmp, value); err != nil {
			return err
		}
		return l.sameScores(ctx, tmp, o)
	})
}

// store is the values of the model with its adapter.
func (l *loaded) store(o Options) (*graph.Store, error) {
	be, err := device.Open(o.Device)
	if err != nil {
		return nil, err
	}
	return nn.NewStore(be, l.model.Params(), false)
}

// sameScores compares a merged directory with the adapter.
func (l *loaded) sameScores(ctx context.Context, dir string, o Options) error {
	if l.card == nil {
		return nil
	}
	m, err := arch.Open(ctx, dir, arch.Options{})
	if err != nil {
		return err
	}
	r, err := start(&loaded{model: m}, o)
	if err == nil {
		err = errors.Join(l.card.Check(ctx, m, r.now.scorer), r.Close())
	}
	return errors.Join(err, m.Close())
}
