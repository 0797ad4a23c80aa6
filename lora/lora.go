// Package lora is adapters: small trained matrices beside the frozen ones of a base model (Hu et al.
// 2021, "LoRA: Low-Rank Adaptation of Large Language Models").
//
// An adapter is a Layer that wraps a Layer. Apply finds layers by the rules of PEFT, wraps them and
// freezes the rest; Open, Save and Merge read and write PEFT's directories and fold an adapter into the
// weights of its base.
//
// Paths: the parameters of the base keep the names that they have in the base's checkpoint, so that one
// store of base weights serves many adapters; those of an adapter are <module>.lora_A.weight and
// <module>.lora_B.weight. Every parameter that is trained travels with the adapter: A and B, biases if
// asked for, modules that are trained in full (a classifier), and whatever the base lacks. In PEFT's
// file all of them stand under "base_model.model.", and a bias beside an adapter under base_layer.
//
// The dimension letters are those of package nn: R is the rank.
package lora

import (
	"fmt"
	"math"
	"reflect"
	"slices"

	"rung/nn"
)

// Kinds of adapters. Each has a file of its own, which says what it computes and where that is from.
const (
	Plain   = "lora"    // Hu et al. 2021: y = W x + b + α/R B A x
	DoRA    = "dora"    // Liu et al. 2024
	IA3     = "ia3"     // Liu et al. 2022
	ALLoRA  = "allora"  // Huang and Balestriero 2024
	Dynamic = "dynamic" // ranks that are dropped while they are trained
)

// How A and B start.
const (
	InitUniform    = ""           // A from U(-1/√in, 1/√in), B at zero, as PEFT
	InitGaussian   = "gaussian"   // A from N(0, 1/R²), B at zero
	InitOrthogonal = "orthogonal" // both drawn, with B A = 0: see orthogonal
	InitPiSSA      = "pissa"      // the greatest singular values of W, which keeps the rest: see pissa
)

// Which biases are trained.
const (
	BiasNone     = "none"
	BiasLoRAOnly = "lora_only" // of the layers with an adapter
	BiasAll      = "all"       // of all layers, LayerNorm too
)

// Tasks, by PEFT's names: what the adapter is for decides whether a classifier is trained with it.
const (
	TaskAuto     = ""                   // TaskClassify where the model has a module "classifier" or "score"
	TaskClassify = "SEQ_CLS"            // "classifier" and "score" are trained in full
	TaskEmbed    = "FEATURE_EXTRACTION" // nothing is trained that is not asked for
	TaskUnnamed  = "none"               // as TaskEmbed; null in adapter_config.json
)

// AllLinear is the target that stands for every Linear but those that are trained in full.
const AllLinear = "all-linear"

// Kinds lists the kinds of adapters that Apply makes.
func Kinds() []string { return []string{Plain, DoRA, IA3, ALLoRA, Dynamic, Mixture} }

// Model is what an adapter is applied to.
type Model interface {
	Slots() []nn.Slot    // the layers that may be wrapped
	Params() []*nn.Param // all parameters, of the layers that the slots hold now
}

// Config says which layers get an adapter, and of what size.
//
// A name in Targets or Exclude means the modules whose path equals it or ends with "." and it; a
// pattern is a regular expression (RE2) that must match the whole path. Keys of RankPattern and
// AlphaPattern are regular expressions for the path or its end, from a dot on; where several match, the
// first in alphabetical order counts, which is the order in which PEFT saves them.
type Config struct {
	Kind      string  `yaml:"kind"`       // one of Kinds; empty is Plain
	Rank      int     `yaml:"rank"`       // R
	Alpha     float64 `yaml:"alpha"`      // α: the product of B and A is scaled by α/R
	Dropout   float64 `yaml:"dropout"`    // of the input of A, in training: probability in [0,1)
	UseRSLoRA bool    `yaml:"use_rslora"` // scale by α/√R (Kalajdzievski 2023, rsLoRA)
	Init      string  `yaml:"init"`       // InitUniform, InitGaussian, InitOrthogonal, InitPiSSA

	FreezeA  bool    `yaml:"freeze_a"`  // A stays as it is drawn, and travels (Zhang et al. 2023, LoRA-FA)
	LoRAPlus float64 `yaml:"lora_plus"` // learning rate of B over that of A (Hayou et al. 2024, LoRA+); 0: 1
	Eta      float64 `yaml:"eta"`       // ALLoRA: η, what stands for α/R where a row of B A is zero
	Shrink   float64 `yaml:"shrink"`    // Dynamic: λ, how much of its learning rate a rank's weight loses in an update

	Feedforward        []string `yaml:"feedforward"`         // IA3: targets whose input is scaled, by the ends of their paths
	FeedforwardPattern string   `yaml:"feedforward_pattern"` // instead of names

	Targets        []string `yaml:"targets"` // names, or AllLinear alone
	TargetPattern  string   `yaml:"target_pattern"`
	Exclude        []string `yaml:"exclude"`
	ExcludePattern string   `yaml:"exclude_pattern"`
	Layers         []int    `yaml:"layers"`         // only in these layers of the encoder, counted from 0; empty: all
	LayersPattern  []string `yaml:"layers_pattern"` // what stands before the layer's number in a path, for example "layer"

	RankPattern  map[string]int     `yaml:"rank_pattern"`
	AlphaPattern map[string]float64 `yaml:"alpha_pattern"`

	Bias          string   `yaml:"bias"`            // BiasNone (or empty), BiasLoRAOnly, BiasAll
	ModulesToSave []string `yaml:"modules_to_save"` // ends of paths of modules that are trained in full
	Task          string   `yaml:"task"`

	Mixture Experts `yaml:"-"` // of kind Mixture
}

// Defaults is rank 16, α 32, no dropout, on every Linear.
func Defaults() Config { return DefaultsOf(Plain) }

// DefaultsOf are those of a kind.
func DefaultsOf(kind string) Config {
	c := Config{Kind: kind, Rank: 16, Alpha: 32, Targets: []string{AllLinear}, Bias: BiasNone}
	switch kind {
	case IA3: // the targets that PEFT has for BERT
		c.Rank, c.Alpha = 0, 0
		c.Targets, c.Feedforward = []string{"key", "value", "output.dense"}, []string{"output.dense"}
	case ALLoRA:
		c.Alpha, c.Eta = 0, 2
	case Dynamic:
		c.Shrink = .1
	case Mixture:
		return MixtureDefaults()
	}
	return c
}

// scale is what B A is multiplied by.
func (c *Config) scale(rank int, alpha float64) float64 {
	switch {
	case c.Kind == ALLoRA:
		return 1
	case c.UseRSLoRA:
		return alpha / math.Sqrt(float64(rank))
	}
	return alpha / float64(rank)
}

// settings are the fields by their keys.
func (c Config) settings() map[string]any {
	out := map[string]any{}
	add := func(v reflect.Value) {
		for i := range v.NumField() {
			if key := v.Type().Field(i).Tag.Get("yaml"); key != "-" {
				out[key] = v.Field(i).Interface()
			}
		}
	}
	if add(reflect.ValueOf(c)); c.Kind == Mixture {
		add(reflect.ValueOf(c.Mixture))
	}
	return out
}

// Check refuses what cannot be meant, whatever the model. Apply does so by itself.
func (c Config) Check() error {
	err := c.check()
	if err == nil {
		_, err = newMatcher(&c, c.ModulesToSave)
	}
	if err != nil {
		return fmt.Errorf("lora: %w", err)
	}
	return nil
}

// check tells what is wrong with the values themselves, whatever the model.
func (c *Config) check() error {
	if err := c.checkKind(); err != nil {
		return err
	}
	switch {
	case !(c.Dropout >= 0 && c.Dropout < 1):
		return fmt.Errorf("dropout %v is not in [0,1)", c.Dropout)
	case !slices.Contains([]string{"", BiasNone, BiasLoRAOnly, BiasAll}, c.Bias):
		return fmt.Errorf("bias %q is none of %s, %s, %s", c.Bias, BiasNone, BiasLoRAOnly, BiasAll)
	case !slices.Contains([]string{TaskAuto, TaskClassify, TaskEmbed, TaskUnnamed}, c.Task):
		return fmt.Errorf("task %q is none of %s, %s, %s", c.Task, TaskClassify, TaskEmbed, TaskUnnamed)
	case len(c.Targets) == 0 && c.TargetPattern == "":
		return fmt.Errorf("no targets: name the modules to adapt, or %q", AllLinear)
	case len(c.Targets) > 0 && c.TargetPattern != "":
		return fmt.Errorf("both targets and a target pattern")
	case len(c.Exclude) > 0 && c.ExcludePattern != "":
		return fmt.Errorf("both names and a pattern to exclude")
	case len(c.Targets) > 1 && slices.Contains(c.Targets, AllLinear):
		return fmt.Errorf("target %q does not stand beside others", AllLinear)
	case c.TargetPattern != "" && len(c.Layers) > 0:
		return fmt.Errorf("layers do not go with a target pattern: let the pattern choose them")
	case len(c.LayersPattern) > 0 && len(c.Layers) == 0:
		return fmt.Errorf("a pattern of layers without layers")
	}
	for _, l := range c.Layers {
		if l < 0 {
			return fmt.Errorf("layer %d: layers count from 0", l)
		}
	}
	for _, names := range [][]string{c.Targets, c.Exclude, c.ModulesToSave, c.LayersPattern} {
		if slices.Contains(names, "") {
			return fmt.Errorf("an empty name among %q", names)
		}
	}
	if c.Kind == IA3 {
		return nil
	}
	if err := c.checkSizes(); err != nil {
		return err
	}
	if c.Kind == Mixture {
		return c.checkMixture()
	}
	return nil
}
