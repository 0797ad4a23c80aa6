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
		"lora":     {About: "low-rank updates of linear layers (Hu et al. 2021), in the format of PEFT", Read: low(lora.Plain)},
		"dora":     {About: "lora that learns lengths and directions of a weight's rows apart (Liu et al. 2024); PEFT's use_dora", Read: low(lora.DoRA)},
		"ia3":      {About: "a factor for each activation of the targets (Liu et al. 2022), in the format of PEFT", Read: low(lora.IA3)},
		"allora":   {About: "lora without alpha and dropout, whose rows learn at rates of their own (Huang and Balestriero 2024)", Read: low(lora.ALLoRA)},
		"dynamic":  {About: "lora that drops the ranks that a module does not need (after Lu et al. 2024)", Read: low(lora.Dynamic)},
	}
}

// low reads the settings of a kind of package lora.
func low(kind string) func(decode func(into any) error) (any, Applying, error) {
	return func(decode func(into any) error) (any, Applying, error) {
		c := lora.DefaultsOf(kind)
		if err := decode(&c); err != nil {
			return nil, nil, err
		}
		if c.Kind = kind; c.Check() != nil {
			return nil, nil, c.Check()
		}
		return c, applyLoRA(c), nil
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
