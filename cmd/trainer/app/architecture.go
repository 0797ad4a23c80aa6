package app

import (
	"context"
	"fmt"

	"rung/nn"
	"rung/nn/arch"
)

// An Architecture turns a directory and a configuration into a model that can be trained.
type Architecture struct {
	Open  func(ctx context.Context, c *Config) (arch.Model, error)
	Loss  string // name of the loss unless the configuration says
	About string
}

func architectures() map[string]Architecture {
	return map[string]Architecture{
		"cross-encoder": {openCross, "bce", "query and passage in one sequence, scored from its first token (Nogueira and Cho 2019)"},
		"bi-encoder":    {openBi, "pairwise", "query and passage become one vector each, scored by similarity (Reimers and Gurevych 2019)"},
	}
}

func openCross(ctx context.Context, c *Config) (arch.Model, error) {
	for _, s := range []struct {
		key string
		set bool
	}{{"pooling", c.Pooling != ""}, {"similarity", c.Similarity != ""}, {"normalize", c.Normalize != nil}, {"scale", c.Scale != 0}} {
		if s.set {
			return nil, &useError{fmt.Errorf("%s: %s is of a bi-encoder: a cross-encoder has none", c.from.at1(s.key), s.key), false}
		}
	}
	o := c.options()
	o.Labels = max(1, o.Labels) // never what the directory's head happens to have: the loss is of one score
	m, err := arch.OpenCross(ctx, c.Model, o)
	if err != nil {
		return nil, err
	}
	return m, nil
}

func openBi(ctx context.Context, c *Config) (arch.Model, error) {
	if c.Labels > 1 {
		return nil, &useError{fmt.Errorf("%s: labels is %d: a bi-encoder has one score", c.from.at1("labels"), c.Labels), false}
	}
	m, err := arch.OpenBi(ctx, c.Model, c.options())
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (c *Config) options() arch.Options {
	return arch.Options{
		Labels: c.Labels, MaxLength: c.Data.MaxLength, Pooling: nn.Pooling(c.Pooling), Similarity: arch.Similarity(c.Similarity),
		Normalize: c.Normalize, Scale: c.Scale, Dropout: c.Dropout, Seed: c.Train.Seed,
	}
}
