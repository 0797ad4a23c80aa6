package app

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"rung/data/read"
	"rung/nn"
	"rung/train"
	"rung/train/metric"
)

// A Config is a configuration file. Paths are relative to the file's directory.
type Config struct {
	Model        string   `yaml:"model"`        // a directory, or hf:org/name@revision
	Architecture string   `yaml:"architecture"` // a name of Registry.Architectures
	Labels       int      `yaml:"labels"`       // cross-encoder: classes; 0: 1, a score
	Pooling      string   `yaml:"pooling"`      // bi-encoder; "": as the model has, else mean
	Similarity   string   `yaml:"similarity"`   // bi-encoder: cosine or dot; "": as the model has, else cosine
	Normalize    *bool    `yaml:"normalize"`    // bi-encoder: vectors of length 1; absent: as the model has
	Scale        float64  `yaml:"scale"`        // bi-encoder: what similarities are multiplied by for the loss; 0: 1
	Dropout      *float64 `yaml:"dropout"`      // of the model's layers; absent: as its config.json says
	Adapter      section  `yaml:"adapter"`      // kind, and what that kind has
	Data         Data     `yaml:"data"`
	Loss         section  `yaml:"loss"` // name, and the loss's parameters

	Train   train.Config   `yaml:"train"`
	Privacy *train.Privacy `yaml:"privacy"` // absent: none
	Eval    Eval           `yaml:"eval"`
	Out     string         `yaml:"out"`
	Device  string         `yaml:"device"`

	from      *tree
	lossName  string
	objective nn.Objective
	adapter   string   // its kind, "" for none
	settings  any      // of the adapter
	apply     Applying // of the adapter
}

// Data says what is learned from.
type Data struct {
	Train        string  `yaml:"train"` // kind:path[#split]
	Dev          string  `yaml:"dev"`
	MaxLength    int     `yaml:"max_length"`     // tokens of a sequence; 0: as the model has, else 256
	MaxNegatives int     `yaml:"max_negatives"`  // wrong candidates kept of a training query; 0: all
	NegativeSeed uint64  `yaml:"negatives_seed"` // of their choice
	Relevant     float64 `yaml:"relevant"`       // labels from here on are 1, the others 0; 0: labels stay as they are
	NoPositives  string  `yaml:"no_positives"`   // of training queries without a positive: drop, keep, refuse; "" by kind
	Sampler      string  `yaml:"sampler"`
	Lenient      bool    `yaml:"lenient"`
	MaxBad       float64 `yaml:"max_bad"` // share of bad rows that lenient reading passes over
}

// Eval says how and when the dev data are evaluated.
type Eval struct {
	Every    int      `yaml:"every"` // updates between evaluations; 0: at the end of each epoch
	Metrics  []string `yaml:"metrics"`
	KeepBest string   `yaml:"keep_best"` // measure of the best checkpoint; "": the last is the best
	Patience int      `yaml:"patience"`  // evaluations without a better one that end the run; 0: never
}

// Learning rates unless the configuration says otherwise: Devlin et al. 2019 for all parameters, ten times
// that for adapters.
const (
	fullLR    = 2e-5
	adapterLR = 2e-4
)

// loadConfig reads a configuration file with the changes of --set, over defaults that depend on what it
// configures, and checks what can be checked without opening anything.
func (r Registry) loadConfig(path string, sets []string) (*Config, error) {
	t, err := readTree(path)
	if err != nil {
		return nil, err
	}
	for _, s := range sets {
		if err := t.set(s); err != nil {
			return nil, err
		}
	}
	for key, name := range shorthand {
		if kid := t.kids[key]; kid != nil && kid.kind == scalar {
			t.put(key, kid.expand(name))
		}
	}
	c, err := r.defaults(t)
	if err != nil {
		return nil, err
	}
	if err := t.decode(c); err != nil {
		return nil, err
	}
	c.from = t
	for _, step := range []func() error{func() error { return r.chooseLoss(c) }, func() error { return r.chooseAdapter(c) }, c.check} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	c.passOn()
	if err := c.Train.Check(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, c.rebase(filepath.Dir(path))
}

// defaults are the values of what the file does not say.
func (r Registry) defaults(t *tree) (*Config, error) {
	d := train.Defaults()
	c := &Config{
		Architecture: "cross-encoder", Train: d, Device: "auto",
		Data: Data{Sampler: "shuffled", MaxBad: read.Defaults().MaxBad},
		Eval: Eval{Metrics: d.Metrics},
	}
	c.Train.LR = fullLR
	if a := t.kids["adapter"]; a != nil && a.kind != null {
		c.Train.LR = adapterLR
	}
	if a := t.kids["architecture"]; a != nil && a.kind == scalar {
		c.Architecture = a.text
	}
	a, ok := r.Architectures[c.Architecture]
	if !ok {
		return nil, fmt.Errorf("%s: unknown architecture %q%s", t.at1("architecture"), c.Architecture, suggest(c.Architecture, sortedKeys(r.Architectures)))
	}
	c.lossName = a.Loss
	if p := t.kids["privacy"]; p != nil && p.kind != null {
		c.Data.Sampler = "poisson"
	}
	return c, nil
}

// at1 is where a key of the top stands.
func (t *tree) at1(key string) string {
	if kid := t.kids[key]; kid != nil {
		return kid.at
	}
	file, _, _ := strings.Cut(t.at, ":")
	return file
}

// named is the name in a section such as {name: bce, …}.
func (s section) named(key, fallback string) (string, error) {
	if s.tree == nil {
		return fallback, nil
	}
	if s.kind != mapping {
		return "", s.want("a name, or a mapping with " + key)
	}
	kid := s.kids[key]
	if kid == nil && fallback != "" {
		return fallback, nil
	}
	if kid == nil || kid.kind != scalar {
		return "", fmt.Errorf("%s: %s has no %s", s.at, s.path, key)
	}
	return kid.text, nil
}

func (r Registry) chooseLoss(c *Config) error {
	name, err := c.Loss.named("name", c.lossName)
	if err != nil {
		return err
	}
	l, ok := r.Losses[name]
	if !ok {
		return fmt.Errorf("%s: unknown loss %q%s", c.from.at1("loss"), name, suggest(name, sortedKeys(r.Losses)))
	}
	c.lossName, c.objective = name, l.Objective
	if c.Loss.tree != nil {
		c.objective, err = l.with(c.Loss.tree)
	}
	switch {
	case err != nil:
		return err
	case l.Classes && c.Labels < 2:
		return fmt.Errorf("%s: the loss %s is of classes: labels is %d, want 2 or more", c.from.at1("labels"), name, c.Labels)
	case !l.Classes && c.Labels > 1:
		return fmt.Errorf("%s: labels is %d, but the loss %s is of one score: want 1, or a loss of classes (ce)", c.from.at1("labels"), c.Labels, name)
	case l.Classes && c.Data.Dev != "":
		return fmt.Errorf("%s: data.dev: classes are no scores to rank by, so that there are no metrics: leave it out", c.from.at1("data"))
	}
	return nil
}

func (r Registry) chooseAdapter(c *Config) error {
	if c.Adapter.tree == nil {
		return nil
	}
	kind, err := c.Adapter.named("kind", "")
	if err != nil {
		return err
	}
	a, ok := r.Adapters[kind]
	if !ok {
		return fmt.Errorf("%s: unknown adapter %q%s", c.Adapter.at, kind, suggest(kind, sortedKeys(r.Adapters)))
	}
	c.adapter = kind
	var said error // where it stands is in it already
	c.settings, c.apply, err = a.Read(func(into any) error {
		said = c.Adapter.decode(into, "kind")
		return said
	})
	if err != nil && said == nil {
		err = fmt.Errorf("%s: adapter: %w", c.Adapter.at, err)
	}
	return err
}

// check refuses what cannot be meant, but for what train.Config holds and checks.
func (c *Config) check() error {
	bad := func(key, format string, a ...any) error {
		top, _, _ := strings.Cut(key, ".")
		return fmt.Errorf("%s: %s: %s", c.from.at1(top), key, fmt.Sprintf(format, a...))
	}
	switch d := &c.Data; {
	case c.Model == "":
		return bad("model", "missing: want a directory or hf:org/name@revision")
	case d.Train == "":
		return bad("data.train", "missing: want kind:path[#split]")
	case c.Labels < 0:
		return bad("labels", "%d is negative", c.Labels)
	case d.MaxLength < 0:
		return bad("data.max_length", "%d is negative", d.MaxLength)
	case d.MaxNegatives < 0:
		return bad("data.max_negatives", "%d is negative", d.MaxNegatives)
	case !(d.MaxBad >= 0 && d.MaxBad <= 1):
		return bad("data.max_bad", "%g is no share from 0 to 1", d.MaxBad)
	case math.IsNaN(d.Relevant) || math.IsInf(d.Relevant, 0):
		return bad("data.relevant", "%g is no number", d.Relevant)
	case c.Dropout != nil && !(*c.Dropout >= 0 && *c.Dropout < 1):
		return bad("dropout", "%g is not in [0,1)", *c.Dropout)
	case !(c.Scale >= 0 && c.Scale <= math.MaxFloat32):
		return bad("scale", "%g, want 0 or more, in single precision", c.Scale)
	case c.Eval.KeepBest != "" && d.Dev == "":
		return bad("eval.keep_best", "%s needs data.dev", c.Eval.KeepBest)
	case c.Eval.Patience > 0 && c.Eval.KeepBest == "":
		return bad("eval.patience", "needs keep_best: the measure that has to get better")
	case d.NoPositives != "" && policies[d.NoPositives] == 0:
		return bad("data.no_positives", "%q%s", d.NoPositives, suggest(d.NoPositives, sortedKeys(policies)))
	}
	if private := c.Privacy != nil; private != (c.Data.Sampler == "poisson") {
		if private {
			return bad("data.sampler", "%s: privacy accounts for batches that are drawn by chance: want poisson, or leave it out", c.Data.Sampler)
		}
		return bad("data.sampler", "poisson is what privacy draws by: want a section privacy")
	}
	for key, spec := range map[string]string{"data.train": c.Data.Train, "data.dev": c.Data.Dev} {
		if spec == "" {
			continue
		}
		if _, err := read.ParseSpec(spec); err != nil {
			return bad(key, "%v", err)
		}
	}
	if _, err := metric.ParseAll(c.Eval.Metrics...); err != nil {
		return bad("eval.metrics", "%v", err)
	}
	if k := c.Eval.KeepBest; k != "" {
		if _, err := metric.Parse(k); err != nil {
			return bad("eval.keep_best", "%v", err)
		}
	}
	return nil
}

// passOn gives package train what stands elsewhere in the file.
func (c *Config) passOn() {
	if p := c.Privacy; p != nil && p.Unit == "row" {
		p.Given = c.Data.given()
	}
	c.Train.Privacy = c.Privacy
	c.Train.EvalEvery, c.Train.Metrics, c.Train.KeepBest, c.Train.Patience = c.Eval.Every, c.Eval.Metrics, c.Eval.KeepBest, c.Eval.Patience
}

// given is what else than a row itself decides whether it is trained on: the claim for rows takes that to be public.
func (d *Data) given() (out []string) {
	if d.NoPositives == "drop" || d.NoPositives == "" && !strings.HasPrefix(d.Train, "jsonl:") {
		out = append(out, "which queries have a positive: others are left out (data.no_positives)")
	}
	if d.MaxNegatives > 0 {
		out = append(out, "how many wrong candidates a query has, of which some are left out (data.max_negatives)")
	}
	return out
}

// rebase makes paths that are relative to dir relative to where the process is.
func (c *Config) rebase(dir string) error {
	at := func(p string) string {
		if p == "" || filepath.IsAbs(p) {
			return p
		}
		return filepath.Join(dir, p)
	}
	if !strings.HasPrefix(c.Model, "hf:") {
		c.Model = at(c.Model)
	}
	c.Out = at(c.Out)
	for _, spec := range []*string{&c.Data.Train, &c.Data.Dev} {
		if *spec == "" {
			continue
		}
		s, err := read.ParseSpec(*spec)
		if err != nil {
			return err
		}
		s.Path = at(s.Path)
		*spec = s.String()
	}
	return nil
}

// snapshot is the configuration as it is used, every default written out, for a file in the directory of
// the run: what reads it there starts the same run.
func (c *Config) snapshot() ([]byte, error) {
	s := *c
	dir, err := filepath.Abs(c.Out)
	if err != nil {
		return nil, err
	}
	from := func(p string) string {
		abs, err := filepath.Abs(p)
		if err != nil {
			return p
		}
		rel, err := filepath.Rel(dir, abs)
		if err != nil {
			return abs
		}
		return filepath.ToSlash(rel)
	}
	if !strings.HasPrefix(s.Model, "hf:") {
		s.Model = from(s.Model)
	}
	s.Out = "."
	for _, spec := range []*string{&s.Data.Train, &s.Data.Dev} {
		if p, err := read.ParseSpec(*spec); err == nil {
			p.Path = from(p.Path)
			*spec = p.String()
		}
	}
	out := encode(s)
	out = append(out, yaml.MapItem{Key: "loss", Value: lossSettings(c)})
	if c.adapter != "" {
		settings := encode(c.settings)
		for i := len(settings) - 1; i >= 0; i-- {
			if settings[i].Key == "kind" {
				settings = append(settings[:i], settings[i+1:]...)
			}
		}
		out = append(out, yaml.MapItem{Key: "adapter", Value: append(yaml.MapSlice{{Key: "kind", Value: c.adapter}}, settings...)})
	}
	b, err := yaml.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return b, nil
}

func lossSettings(c *Config) yaml.MapSlice {
	return append(yaml.MapSlice{{Key: "name", Value: c.lossName}}, Loss{Objective: c.objective}.settings()...)
}

// measures are those that an evaluation computes: keep_best is one even if the list lacks it.
func (c *Config) measures() []string {
	if k := c.Eval.KeepBest; k != "" && !slices.Contains(c.Eval.Metrics, k) {
		return append(slices.Clone(c.Eval.Metrics), k)
	}
	return c.Eval.Metrics
}
