package app

import (
	"rung/lora"
	"rung/nn/arch"
)

// An Adapter is a kind of adapter.
type Adapter struct {
	// Read decodes the settings of a configuration over the kind's defaults, and returns them and what puts
	// such an adapter into a model.
	Read  func(decode func(into any) error) (settings any, apply Applying, err error)
	About string
}

// Applying puts an adapter into a model, which from then on saves the adapter, and says in a line what it
// did.
type Applying func(m arch.Model, seed uint64) (string, error)

func adapters() map[string]Adapter {
	return map[string]Adapter{
		"moe-lora": {About: "mixtures of low-rank experts that a router chooses from, by token, sequence, domain or rank", Read: readMixture},
		"lora":     {About: "low-rank updates of linear layers (Hu et al. 2021), in the format of PEFT", Read: readLoRA},
	}
}

// mixture is the settings of lora.Mixture: those of plain LoRA and its own.
type mixture struct {
	lora.Config  `yaml:",inline"`
	lora.Experts `yaml:",inline"`
}

func readMixture(decode func(into any) error) (any, Applying, error) {
	d := lora.MixtureDefaults()
	s := mixture{d, d.Mixture}
	if err := decode(&s); err != nil {
		return nil, nil, err
	}
	c := s.Config
	c.Mixture = s.Experts
	if err := c.Check(); err != nil {
		return nil, nil, err
	}
	return s, applyLoRA(c), nil
}

// applyLoRA puts the adapter of a configuration into a model.
func applyLoRA(c lora.Config) Applying {
	return func(m arch.Model, seed uint64) (string, error) {
		a, err := lora.Apply(m, c, seed)
		if err != nil {
			return "", err
		}
		return a.Summary().String(), nil
	}
}

func readLoRA(decode func(into any) error) (any, Applying, error) {
	c := lora.Defaults()
	if err := decode(&c); err != nil {
		return nil, nil, err
	}
	if err := c.Check(); err != nil {
		return nil, nil, err
	}
	return c, applyLoRA(c), nil
}
