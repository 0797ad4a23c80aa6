package app

import (
	"fmt"
	"strings"

	"rung/lora"
	"rung/nn/arch"
	"rung/nn/graph"
)

// An Adapter is a kind of adapter.
type Adapter struct {
	// Read decodes the settings of a configuration over the kind's defaults, and returns them and what puts
	// such an adapter into a model.
	Read  func(decode func(into any) error) (settings any, apply Applying, err error)
	About string
}

// Applying puts an adapter into a model, and says in a line what it did.
type Applying func(m arch.Model, seed uint64) (string, error)

func adapters() map[string]Adapter {
	return map[string]Adapter{
		"lora": {About: "low-rank updates of linear layers (Hu et al. 2021), in the format of PEFT", Read: readLoRA},
	}
}

func readLoRA(decode func(into any) error) (any, Applying, error) {
	c := lora.Defaults()
	if err := decode(&c); err != nil {
		return nil, nil, err
	}
	return c, func(m arch.Model, seed uint64) (string, error) {
		a, err := lora.Apply(m, c, seed)
		if err != nil {
			return "", err
		}
		m.Attach(savedLoRA{a, sourceOf(m.Origin())})
		return a.Summary().String(), nil
	}, nil
}

// savedLoRA writes an adapter together with the name of its base.
type savedLoRA struct {
	*lora.Adapter
	base lora.Source
}

func (s savedLoRA) Save(dir string, store *graph.Store) error {
	if err := s.Adapter.Save(dir, s.base, store); err != nil {
		return fmt.Errorf("adapter: %w", err)
	}
	return nil
}

// sourceOf names a base model as PEFT does.
func sourceOf(o arch.Origin) lora.Source {
	if o.Ref == "" {
		return lora.Source{Name: o.Dir}
	}
	name, revision, _ := strings.Cut(strings.TrimPrefix(o.Ref, "hf:"), "@")
	return lora.Source{Name: name, Revision: revision}
}
