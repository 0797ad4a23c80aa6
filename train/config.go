package train

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"rung/data"
	"rung/nn/backend"
	"rung/train/metric"
)

// Config holds what a run can vary. Start from Defaults: a zero is a zero.
type Config struct {
	Out     string          `yaml:"-"` // directory of the run; "" keeps nothing on disk
	Resume  bool            `yaml:"-"` // go on from the state in Out, if there is one
	Device  string          `yaml:"-"` // as device.Open takes it
	Backend backend.Backend `yaml:"-"` // instead of Device
	Sampler data.Sampler    `yaml:"-"` // nil: data.Shuffled with Batch and Window

	Epochs int    `yaml:"epochs"`
	Steps  int    `yaml:"steps"` // stop after so many updates; 0: when the epochs end
	Batch  int    `yaml:"batch"` // candidates (query-passage pairs) of one update, at least
	Unit   string `yaml:"unit"`  // what is drawn: "query" with all its candidates, or "row"; "" as the objective needs
	Window int    `yaml:"window"`
	Seed   uint64 `yaml:"seed"`

	Optimizer string  `yaml:"optimizer"` // adamw, adam, amsgrad, sgd, adagrad
	LR        float64 `yaml:"lr"`
	Schedule  string  `yaml:"schedule"` // linear, cosine, constant
	Warmup    float64 `yaml:"warmup"`   // below 1: share of all updates; else updates
	Clip      float64 `yaml:"clip"`     // greatest gradient norm; 0: not clipped
	Beta1     float64 `yaml:"beta1"`
	Beta2     float64 `yaml:"beta2"`
	Eps       float64 `yaml:"eps"`
	Momentum  float64 `yaml:"momentum"` // of sgd
	Nesterov  bool    `yaml:"nesterov"`

	WeightDecay  float64  `yaml:"weight_decay"`
	DecayExclude []string `yaml:"decay_exclude"` // parameters whose path contains one of these are not decayed
	Groups       []Group  `yaml:"groups"`
	Dropout      bool     `yaml:"dropout"` // as config.json says; false: none

	Privacy *Privacy `yaml:"-"` // nil: none

	MicroTokens int   `yaml:"micro_tokens"` // tokens of one micro-batch; 0: what fits into memory
	Memory      int64 `yaml:"memory"`       // bytes; 0: what the machine or its cgroup has

	EvalEvery int      `yaml:"-"` // updates between evaluations; 0: at the end of each epoch
	Metrics   []string `yaml:"-"`
	KeepBest  string   `yaml:"-"`          // measure by which the best checkpoint is chosen; "": the last is the best
	Patience  int      `yaml:"-"`          // stop after so many evaluations without a better one; 0: never
	SaveEvery int      `yaml:"save_every"` // updates between saved states; 0: at the end of each epoch. Five minutes at most lie between two
}

// A Group gives the parameters whose path matches a learning rate of their own.
type Group struct {
	Match string  `yaml:"match"` // regular expression
	LR    float64 `yaml:"lr"`
}

// Defaults are those of the README: AdamW as in the BERT paper, decay but for biases and LayerNorms.
func Defaults() Config {
	return Config{
		Epochs: 1, Batch: 32, Window: 32, Seed: 1, Optimizer: "adamw", LR: 2e-5, Schedule: "linear", Warmup: .1, Clip: 1,
		Beta1: .9, Beta2: .999, Eps: 1e-8, WeightDecay: .01, DecayExclude: []string{"bias", "LayerNorm", "layer_norm"}, Dropout: true,
		Metrics: []string{"MAP", "MRR@10", "nDCG@10"},
	}
}

// positive reports a positive number that is one in single precision, in which kernels compute, too.
func positive(x float64) bool { return float32(x) > 0 && x <= math.MaxFloat32 }

// Check refuses what cannot be meant, whatever the model and the data. Start does so by itself.
func (c Config) Check() error {
	pos := func(name string, v float64) error {
		if !(v > 0) || math.IsInf(v, 0) {
			return fmt.Errorf("train: %s is %v, want a positive number", name, v)
		}
		if !positive(v) {
			return fmt.Errorf("train: %s is %v, which single precision does not hold", name, v)
		}
		return nil
	}
	unit := func(name string, v float64) error {
		if !(v >= 0 && v < 1) {
			return fmt.Errorf("train: %s is %v, want a number in [0,1)", name, v)
		}
		return nil
	}
	one := func(name, v string, of ...string) error {
		if !slices.Contains(of, v) {
			return fmt.Errorf("train: %s is %q, want one of %s", name, v, strings.Join(of, ", "))
		}
		return nil
	}
	for _, err := range []error{
		pos("lr", c.LR), pos("eps", c.Eps), unit("beta1", c.Beta1), unit("beta2", c.Beta2), unit("momentum", c.Momentum),
		one("schedule", c.Schedule, "linear", "cosine", "constant"), one("unit", c.Unit, "", "query", "row"),
		one("optimizer", c.Optimizer, "adamw", "adam", "amsgrad", "sgd", "adagrad"),
	} {
		if err != nil {
			return err
		}
	}
	for _, v := range []struct {
		name string
		v    float64
	}{
		{"epochs", float64(c.Epochs)},
		{"steps", float64(c.Steps)},
		{"window", float64(c.Window)},
		{"warmup", c.Warmup},
		{"clip", c.Clip},
		{"weight_decay", c.WeightDecay},
		{"micro_tokens", float64(c.MicroTokens)},
		{"memory", float64(c.Memory)},
		{"eval.every", float64(c.EvalEvery)},
		{"eval.patience", float64(c.Patience)},
		{"save_every", float64(c.SaveEvery)},
	} {
		if !(v.v >= 0) || math.IsInf(v.v, 0) {
			return fmt.Errorf("train: %s is %v, want 0 or more", v.name, v.v)
		}
		if v.v > math.MaxFloat32 {
			return fmt.Errorf("train: %s is %v, which single precision does not hold", v.name, v.v)
		}
	}
	if c.Epochs == 0 && c.Steps == 0 {
		return fmt.Errorf("train: epochs and steps are both 0: there is nothing to do")
	}
	if c.Batch < 1 {
		return fmt.Errorf("train: batch is %d, want 1 or more", c.Batch)
	}
	if c.Patience > 0 && c.KeepBest == "" {
		return fmt.Errorf("train: eval.patience is %d, but no eval.keep_best says which measure has to get better", c.Patience)
	}
	if len(c.Groups) > 7 {
		return fmt.Errorf("train: %d groups, at most 7", len(c.Groups))
	}
	for _, g := range c.Groups {
		if _, err := regexp.Compile(g.Match); err != nil {
			return fmt.Errorf("train: group %q: %w", g.Match, err)
		}
		if err := pos("the lr of group "+g.Match, g.LR); err != nil {
			return err
		}
	}
	if c.Privacy != nil {
		if err := c.Privacy.check(&c); err != nil {
			return err
		}
	}
	_, err := metric.ParseAll(c.measures()...)
	return err
}

// measures are those that an evaluation computes: keep_best is one even if the list lacks it.
func (c *Config) measures() []string {
	if c.KeepBest == "" || slices.Contains(c.Metrics, c.KeepBest) {
		return c.Metrics
	}
	return append(slices.Clone(c.Metrics), c.KeepBest)
}

// lr is the factor of all learning rates in update n of total, counted from 0 (Transformers'
// schedules: with warm-up the first update has rate 0, and the cosine rises again after the end).
func (c *Config) lr(n, total int) float64 {
	warm := c.Warmup
	if warm < 1 {
		warm = math.Floor(warm * float64(total))
	}
	if x := float64(n); x < warm {
		return x / math.Max(1, warm)
	}
	left := math.Max(1, float64(total)-warm)
	switch c.Schedule {
	case "linear":
		return math.Max(0, (float64(total)-float64(n))/left)
	case "cosine":
		return math.Max(0, .5*(1+math.Cos(math.Pi*(float64(n)-warm)/left)))
	}
	return 1
}

// decays tells whether weight decay applies to a parameter.
func (c *Config) decays(path string) bool {
	return !slices.ContainsFunc(c.DecayExclude, func(s string) bool { return strings.Contains(path, s) })
}
