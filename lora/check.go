package lora

import (
	"fmt"
	"math"
	"slices"
)

// checkKind tells which settings do not go with the kind, or with each other.
func (c *Config) checkKind() error {
	kind := c.Kind
	if kind == "" {
		kind = Plain
	}
	if !slices.Contains(Kinds(), kind) {
		return fmt.Errorf("kind %q is not supported, only %v", c.Kind, Kinds())
	}
	for _, s := range []struct {
		key   string
		set   bool
		kinds []string // that have the setting
	}{
		{"rank", c.Rank != 0, []string{Plain, DoRA, ALLoRA, Dynamic, Mixture}},
		{"rank_pattern", len(c.RankPattern) > 0, []string{Plain, DoRA, ALLoRA, Dynamic, Mixture}},
		{"alpha", c.Alpha != 0, []string{Plain, DoRA, Dynamic, Mixture}},
		{"alpha_pattern", len(c.AlphaPattern) > 0, []string{Plain, DoRA, Dynamic, Mixture}},
		{"dropout", c.Dropout != 0, []string{Plain, DoRA, Dynamic, Mixture}},
		{"use_rslora", c.UseRSLoRA, []string{Plain, DoRA, Dynamic, Mixture}},
		{"bias", c.Bias != "" && c.Bias != BiasNone, []string{Plain, DoRA, ALLoRA, Dynamic, Mixture}},
		{"layers", len(c.Layers) > 0, []string{Plain, DoRA, ALLoRA, Dynamic, Mixture}},
		{"init", c.Init != InitUniform, []string{Plain, DoRA, ALLoRA, Dynamic}},
		{"init: pissa", c.Init == InitPiSSA, []string{Plain}},
		{"freeze_a", c.FreezeA, []string{Plain, DoRA, ALLoRA, Dynamic}},
		{"lora_plus", c.LoRAPlus != 0, []string{Plain, DoRA, ALLoRA, Dynamic}},
		{"eta", c.Eta != 0, []string{ALLoRA}},
		{"shrink", c.Shrink != 0, []string{Dynamic}},
		{"feedforward", len(c.Feedforward) > 0, []string{IA3}},
		{"feedforward_pattern", c.FeedforwardPattern != "", []string{IA3}},
	} {
		if s.set && !slices.Contains(s.kinds, kind) {
			return fmt.Errorf("%s does not go with kind %s, only with %v", s.key, kind, s.kinds)
		}
	}
	switch {
	case !slices.Contains([]string{InitUniform, InitGaussian, InitOrthogonal, InitPiSSA}, c.Init):
		return fmt.Errorf("init %q is none of %s, %s, %s", c.Init, InitGaussian, InitOrthogonal, InitPiSSA)
	case c.FreezeA && c.LoRAPlus != 0:
		return fmt.Errorf("lora_plus is the learning rate of B over that of A, which freeze_a does not train")
	case c.LoRAPlus != 0 && !positive(c.LoRAPlus):
		return fmt.Errorf("lora_plus %v: want a positive number", c.LoRAPlus)
	case kind == ALLoRA && !positive(c.Eta):
		return fmt.Errorf("eta %v: want a positive number", c.Eta)
	case kind == Dynamic && !positive(c.Shrink):
		return fmt.Errorf("shrink %v: want a positive number", c.Shrink)
	case len(c.Feedforward) > 0 && c.FeedforwardPattern != "":
		return fmt.Errorf("both feedforward names and a pattern")
	}
	if len(c.Targets) > 0 && !slices.Contains(c.Targets, AllLinear) {
		for _, f := range c.Feedforward {
			if !slices.Contains(c.Targets, f) {
				return fmt.Errorf("feedforward %q is no target", f)
			}
		}
	}
	return nil
}

func positive(x float64) bool { return x > 0 && !math.IsInf(x, 0) }
