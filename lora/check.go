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
		return fmt.Errorf("lora_plus %v: %s", c.LoRAPlus, wantPositive)
	case kind == ALLoRA && !(positive(c.Eta) && single(1/(c.Eta*c.Eta))):
		return fmt.Errorf("eta %v: %s, and so that of 1/eta²", c.Eta, wantPositive)
	case kind == Dynamic && !positive(c.Shrink):
		return fmt.Errorf("shrink %v: %s", c.Shrink, wantPositive)
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

const wantPositive = "want a positive number of single precision"

// positive reports a positive number that is one in single precision, too.
func positive(x float64) bool { return x > 0 && single(x) }

// single reports that x is neither 0 nor infinite in single precision, in which kernels compute.
func single(x float64) bool {
	f := math.Abs(float64(float32(x)))
	return f > 0 && f <= math.MaxFloat32
}

// checkSizes tells what is wrong with ranks and α: every rank may meet every α.
func (c *Config) checkSizes() error {
	type rank struct {
		what string
		r    int
	}
	ranks, alphas := []rank{{"rank", c.Rank}}, []float64{c.Alpha}
	for _, k := range sortedKeys(c.RankPattern) {
		ranks = append(ranks, rank{fmt.Sprintf("rank for %q", k), c.RankPattern[k]})
	}
	for _, k := range sortedKeys(c.AlphaPattern) {
		alphas = append(alphas, c.AlphaPattern[k])
	}
	if c.Kind == ALLoRA { // which has none
		alphas = []float64{1}
	}
	for _, r := range ranks {
		switch {
		case r.r < 1:
			return fmt.Errorf("%s is %d, below 1", r.what, r.r)
		case c.Init == InitOrthogonal && r.r%2 != 0:
			return fmt.Errorf("%s is %d: init orthogonal wants an even one", r.what, r.r)
		}
		for _, a := range alphas {
			switch {
			case !single(a) || !single(c.scale(r.r, a)):
				return fmt.Errorf("alpha %v: want a finite number that is not 0, in single precision and over %s %d, too", a, r.what, r.r)
			case c.Init == InitPiSSA && a < 0:
				return fmt.Errorf("init pissa wants a positive alpha, not %v", a)
			}
		}
	}
	return nil
}
