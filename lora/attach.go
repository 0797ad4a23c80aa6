package lora

import (
	"fmt"
	"strings"

	"rung/nn/arch"
	"rung/nn/graph"
)

// attacher is a model that saves its adapter instead of itself.
type attacher interface{ Attach(a arch.Adapter) }

// attached lets a model save the adapter that wraps its layers.
type attached struct{ a *Adapter }

func (w attached) Save(dir string, base arch.Base, s *graph.Store) error {
	src := Source{Name: base.Path}
	if base.Ref != "" {
		src.Name, src.Revision, _ = strings.Cut(strings.TrimPrefix(base.Ref, "hf:"), "@")
	}
	return w.a.Save(dir, src, s)
}

// Fingerprint is the configuration.
func (w attached) Fingerprint() string { return fmt.Sprintf("%s %+v", w.a.cfg.Kind, w.a.cfg) }

// Settings are what the adapter was made by, by key.
func (w attached) Settings() map[string]any { return w.a.given.settings() }

// Domains are the domains that the adapter routes by, nil where it does not.
func (w attached) Domains() []string { return w.a.cfg.Mixture.Domains }

// Couples says in what units of a batch share more than the weights, "" if in nothing: privacy asks.
func (w attached) Couples() string { return w.a.cfg.Couples() }

// attach makes the model save a, or itself where a is nil.
func attach(m Model, a *Adapter) {
	t, ok := m.(attacher)
	switch {
	case !ok:
	case a == nil:
		t.Attach(nil)
	default:
		t.Attach(attached{a})
	}
}
