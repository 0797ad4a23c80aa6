package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"rung/checkpoints"
	"rung/data"
	"rung/nn/arch"
	"rung/train"
	"rung/train/privacy"
	"rung/train/report"
)

// Files of a run's directory.
const (
	snapshotFile = "config.yaml" // the configuration
	lockFile     = ".lock"       // of package checkpoints
)

func trainCommand(e *Env) *cobra.Command {
	var sets []string
	var out string
	var resume, dry, insecure bool
	cmd := &cobra.Command{
		Use:   "train CONFIG.yaml",
		Short: "Fine-tune a model as a configuration says",
		Long: `Fine-tunes a model as a configuration says. The run's directory gets best and last (models),
state (what resuming needs), metrics.jsonl and config.yaml (the configuration as it was used).

SIGINT and SIGTERM stop it after the state is saved, with exit code 3; a second one stops it at once.
Paths in the configuration and in --set are relative to the configuration's directory.`,
		Example: "  trainer train examples/wikiqa-lora.yaml --set train.epochs=1 --out run",
		GroupID: "train",
		Args:    positional("CONFIG.yaml"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.Registry.loadConfig(args[0], sets)
			if err != nil {
				return &useError{fmt.Errorf("config: %w", err), false}
			}
			if cmd.Flags().Changed("out") {
				c.Out = out
			}
			if c.Out == "" && !dry {
				return misuse("train: no directory for the run: out in the configuration, or --out")
			}
			c.Train.Out, c.Train.Resume, c.Train.Device = c.Out, resume, c.Device
			switch {
			case c.Privacy != nil:
				c.Privacy.InsecureSeed = insecure
			case insecure:
				return misuse("train: --insecure-seed is of runs with privacy, which the configuration has not")
			}
			if dry {
				c.Train.Out, c.Train.Resume = "", false
			}
			return e.train(cmd.Context(), c, dry)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&sets, "set", nil, "change the configuration: `KEY=VALUE`, such as train.lr=1e-4 (may be given again)")
	f.StringVar(&out, "out", "", "`DIR` of the run, instead of the configuration's out")
	f.BoolVar(&resume, "resume", false, "go on from the state saved in the directory of the run")
	f.BoolVar(&insecure, "insecure-seed", false, "for tests: with privacy, draw by train.seed instead of a secret, and claim nothing")
	f.BoolVar(&dry, "dry-run", false, "print what the run would do and need, and write nothing")
	return cmd
}

// A job is a run with all that it is made of.
type job struct {
	*Env
	config     *Config
	model      *counting
	train, dev *sifted
	about      string // of the adapter
}

// counting remembers what a model encodes, for the number of tokens that were cut.
type counting struct {
	arch.Model
	sets []*data.Encoded
}

func (m *counting) Encode(e *data.Encoded, x data.Example) error {
	if n := len(m.sets); n == 0 || m.sets[n-1] != e {
		m.sets = append(m.sets, e)
	}
	return m.Model.Encode(e, x)
}

func (e *Env) train(ctx context.Context, c *Config, dry bool) (err error) {
	j := &job{Env: e, config: c}
	if err := j.open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.model.Close()) }()
	d := train.Data{Train: j.train.examples(ctx)}
	if j.dev != nil {
		d.Dev = j.dev.examples(ctx)
	}
	undo := createdBy(c.Train.Out)
	r, err := train.Start(ctx, j.model, c.objective, d, c.Train)
	if err != nil {
		undo()
		return err
	}
	defer func() {
		if closed := r.Close(); err == nil { // a device that failed cannot free its memory either: no news
			err = closed
		}
	}()
	j.setup(r)
	if dry {
		return j.plan(r)
	}
	if err := c.writeSnapshot(); err != nil {
		return err
	}
	if n := r.Done(); n > 0 {
		e.note("resumed after step %d of %d", n, r.Total())
	}
	p := newProgress(e, r, c.measures())
	for s := range r.Steps() {
		p.step(s)
	}
	p.done()
	return j.finish(ctx, r, p)
}

// open opens model and data: the faults that need no training are found here.
func (j *job) open(ctx context.Context) error {
	c := j.config
	l := j.Registry.Losses[c.lossName]
	source := func(spec string, train bool) (*sifted, error) {
		d := c.Data
		if !train {
			d.NoPositives = ""
		}
		col, err := j.openData(ctx, spec, &d)
		if err != nil {
			return nil, err
		}
		return &sifted{Collection: col, data: &c.Data, thin: train, label: l.Label, classes: c.Labels}, nil
	}
	var err error
	if j.train, err = source(c.Data.Train, true); err != nil {
		return err
	}
	if c.Data.Dev != "" {
		if j.dev, err = source(c.Data.Dev, false); err != nil {
			return err
		}
	}
	s, ok := j.Registry.Samplers[c.Data.Sampler]
	if !ok {
		return &useError{fmt.Errorf("config: %s: unknown sampler %q%s", c.from.at1("data"), c.Data.Sampler, suggest(c.Data.Sampler, sortedKeys(j.Registry.Samplers))), false}
	}
	c.Train.Sampler = s.New(c.Train)
	m, err := j.Registry.Architectures[c.Architecture].Open(ctx, c)
	if err != nil {
		return err
	}
	if c.apply != nil {
		if j.about, err = c.apply(m, c.Train.Seed); err != nil {
			return errors.Join(err, m.Close())
		}
	}
	j.model = &counting{Model: m}
	return nil
}

// setup tells what was read and opened.
func (j *job) setup(r *train.Run) {
	j.note("train: %s", j.train.summary())
	if j.dev != nil {
		j.note("dev: %s", j.dev.summary())
	}
	cut := 0
	for _, s := range j.model.sets {
		cut += s.Truncated
	}
	if cut > 0 {
		j.note("%s tokens were cut: sequences are at most max_length long", grouped(cut))
	}
	if j.about != "" {
		j.note("adapter: %s", j.about)
	}
	if c := r.Claim(); c != nil {
		j.note("privacy: ε %s at δ %.3g for %s, σ %.4g, q %.4g, %s steps", privacy.Up(*c.Epsilon), c.Delta, c.Unit, c.Phases[0].Sigma, c.Phases[0].Q, grouped(r.Total()))
	}
	for _, w := range r.Warnings() {
		j.note("warning: %s", w)
	}
}

// plan prints what a run would do and need.
func (j *job) plan(r *train.Run) error {
	p := r.Plan()
	if j.JSON {
		return j.result("steps", p.Steps, "trainable", p.Trainable, "parameters", p.Parameters, "micro_tokens", p.MicroTokens,
			"capacity_tokens", p.Dims.T, "capacity_sequences", p.Dims.N, "capacity_units", p.Dims.B, "capacity_candidates", p.Dims.K,
			"bytes", p.Bytes, "calls", p.Calls)
	}
	_, err := fmt.Fprintf(j.Stdout, `steps         %s
parameters    %s trained of %s
micro-batch   up to %s tokens: %s in %s sequences, %s units of at most %s candidates
memory        %s at most: weights, gradients, moments and activations
calls         %s of kernels a micro-batch
`, grouped(p.Steps), grouped(p.Trainable), grouped(p.Parameters), grouped(p.MicroTokens), grouped(p.Dims.T), grouped(p.Dims.N), grouped(p.Dims.B),
		grouped(p.Dims.K), bytesText(p.Bytes), grouped(p.Calls))
	return err
}

// finish says how the run ended, what it wrote and what to do next.
func (j *job) finish(ctx context.Context, r *train.Run, p *progress) error {
	out := j.config.Out
	if err := r.Err(); err != nil {
		if ctx.Err() != nil && onlyCanceled(err) {
			return &savedError{fmt.Sprintf("interrupted after step %d of %d; the state is saved, go on with: trainer train %s --resume",
				r.Done(), r.Total(), quoted(filepath.Join(out, snapshotFile)))}
		}
		return err
	}
	best := ""
	if k := j.config.Eval.KeepBest; k != "" && p.best != nil {
		best = fmt.Sprintf(" (step %d, %s %.4f)", p.best.N, k, p.best.Evaluation.Values[k])
	}
	next := "trainer inspect " + quoted(r.Best())
	if dev := j.config.Data.Dev; dev != "" {
		next = fmt.Sprintf("trainer eval --model %s --data %s", quoted(r.Best()), quoted(dev))
	}
	if j.JSON {
		pairs := []any{"steps", r.Done(), "total", r.Total(), "best", r.Best(), "last", filepath.Join(out, "last"), "next", next}
		if p.last != nil && !p.last.Withheld {
			pairs = append(pairs, "loss", p.last.Loss)
		}
		if c := r.Claim(); c != nil {
			pairs = append(pairs, "privacy", c)
		}
		if p.evaluated != nil {
			pairs = append(pairs, "metrics", p.evaluated.Values)
		}
		return j.result(pairs...)
	}
	if c := r.Claim(); c != nil {
		j.note("privacy: %s", c)
	} else if j.config.Privacy != nil {
		j.note("privacy: the draws came from an insecure seed: nothing is claimed")
	}
	if r.Done() < r.Total() {
		j.note("stopped after step %d of %d: no better %s in %d evaluations", r.Done(), r.Total(), j.config.Eval.KeepBest, j.config.Eval.Patience)
	}
	_, err := fmt.Fprintf(j.Stdout, "wrote %s%s, %s\nnext: %s\n", r.Best(), best,
		strings.Join([]string{filepath.Join(out, "last"), filepath.Join(out, report.File), filepath.Join(out, snapshotFile)}, ", "), next)
	return err
}

// onlyCanceled tells that every part of a joined error is the end of the context.
func onlyCanceled(err error) bool {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			if !onlyCanceled(e) {
				return false
			}
		}
		return true
	}
	return errors.Is(err, context.Canceled)
}

// writeSnapshot keeps the configuration beside what is made from it.
func (c *Config) writeSnapshot() error {
	b, err := c.snapshot()
	if err != nil {
		return err
	}
	return prefix("train", writeWhole(filepath.Join(c.Out, snapshotFile), b))
}

// createdBy returns what removes the directory dir again, with the parents that it needed, if it did not
// exist yet and nothing but a lock is in it: a run that could not start leaves nothing behind.
func createdBy(dir string) (undo func()) {
	if dir == "" {
		return func() {}
	}
	var made []string
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		if _, err := os.Lstat(d); err == nil || d == filepath.Dir(d) {
			break
		}
		made = append(made, d)
	}
	return func() {
		if len(made) == 0 {
			return
		}
		files, err := os.ReadDir(made[0])
		if err == nil && len(files) == 1 && files[0].Name() == lockFile {
			l, err := checkpoints.Lock(made[0])
			if err != nil { // another run has it by now
				return
			}
			defer l.Close()
			_ = os.Remove(filepath.Join(made[0], lockFile))
		}
		for _, d := range made {
			if os.Remove(d) != nil { // not empty: somebody else's
				return
			}
		}
	}
}

// quoted is an argument as a shell takes it.
func quoted(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+=@%,:#", r)
	}
	if s != "" && s[0] != '#' && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
