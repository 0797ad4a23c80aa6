package rank

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"rung/checkpoints"
	"rung/lora"
)

// A Part is an adapter of a combination: a directory or "hf:org/name@revision", and its weight.
type Part struct {
	Ref    string
	Weight float64
}

// Claims makes one claim of what is claimed of the privacy of several parts, each as its card has it, nil for none. It is
// privacy.CombinedJSON, of which this package, which trains nothing, knows nothing.
type Claims func(parts []json.RawMessage) (json.RawMessage, error)

// Combine writes the adapter that several of one base are together, as lora.Combination says, into the directory dir:
// it opens as any adapter does. The length of texts and the transform of scores are the first part's. Without claims parts
// that claim privacy are refused.
func Combine(ctx context.Context, parts []Part, c lora.Combination, dir string, o Options, claims Claims) error {
	if err := combine(ctx, parts, c, dir, o, claims); err != nil {
		return fmt.Errorf("rank: %w", err)
	}
	return nil
}

func combine(ctx context.Context, parts []Part, c lora.Combination, dir string, o Options, claims Claims) (err error) {
	if len(parts) == 0 {
		return errors.New("combine: no adapters")
	}
	var all []*loaded
	defer func() {
		for _, l := range all {
			err = errors.Join(err, l.close())
		}
	}()
	var files []lora.Part
	for _, p := range parts {
		l, err := load(ctx, p.Ref, o)
		if err != nil {
			return err
		}
		all = append(all, l)
		if l.adapter == nil {
			return fmt.Errorf("%s is no adapter: there is nothing to combine", l.dir)
		}
		if err := sameBase(all[0], l); err != nil {
			return err
		}
		if l != all[0] {
			l.adapter.Base = lora.Source{} // which is the same under whatever name
		}
		files = append(files, lora.Part{File: l.adapter, Weight: p.Weight})
	}
	claim, err := claimOf(all, claims)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "combine")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := c.Combine(tmp, files...); err != nil {
		return err
	}
	all[0].model.Claim(claim)
	return all[0].replaced(ctx, tmp, dir, o)
}

// claimOf is what is claimed of all together.
func claimOf(all []*loaded, claims Claims) (json.RawMessage, error) {
	parts := make([]json.RawMessage, len(all))
	for i, l := range all {
		if l.card == nil || len(l.card.Privacy) == 0 {
			continue
		}
		if parts[i] = l.card.Privacy; claims == nil {
			return nil, fmt.Errorf("combine: %s claims privacy, and nothing says what may be claimed of the whole", l.dir)
		}
	}
	if claims == nil {
		return nil, nil
	}
	c, err := claims(parts)
	if err != nil {
		return nil, fmt.Errorf("combine: %w", err)
	}
	return c, nil
}

// sameBase compares the weights that two adapters are for.
func sameBase(a, b *loaded) error {
	var sums [2]string
	for i, l := range []*loaded{a, b} {
		h, err := l.model.WeightsHash()
		if err != nil {
			return err
		}
		sums[i] = h
	}
	if sums[0] != sums[1] {
		return fmt.Errorf("%s and %s are for different bases: the weights have the hashes %.12s… and %.12s…", a.dir, b.dir, sums[0], sums[1])
	}
	return nil
}

// replaced saves the model of l with the adapter of the directory from in place of its own.
func (l *loaded) replaced(ctx context.Context, from, dir string, o Options) error {
	f, err := lora.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	l.applied.Remove()
	if l.applied, err = f.Apply(l.model); err != nil {
		return err
	}
	st, err := l.store(o)
	if err != nil {
		return err
	}
	return errors.Join(checkpoints.Save(ctx, dir, func(tmp string) error { return l.model.Save(tmp, st) }), st.Close())
}
