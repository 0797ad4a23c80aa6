package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"rung/checkpoints"
	"rung/checkpoints/hub"
	"rung/lora"
	"rung/nn"
	"rung/nn/arch"
	"rung/train/privacy"
)

// Files that tell what a directory is.
const (
	modelConfig   = "config.json"
	adapterConfig = "adapter_config.json"
)

// maxConfig is the most bytes that a configuration or card may have.
const maxConfig = 4 << 20

func inspectCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use:     "inspect DIR",
		Short:   "What a model, an adapter or a run holds",
		GroupID: "look",
		Args:    positional("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.inspect(cmd.Context(), args[0])
		},
	}
}

func (e *Env) inspect(ctx context.Context, ref string) error {
	dir, rev, err := hub.Resolve(ctx, ref)
	if err != nil {
		return err
	}
	d, err := checkpoints.OpenDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	in := inspection{d: d, dir: dir}
	if rev != "" {
		in.add("revision", "%s", rev)
	}
	switch {
	case d.Has(adapterConfig):
		err = in.adapter()
	case d.Has(modelConfig):
		err = in.model()
	case d.Has(checkpoints.StateMetaFile):
		err = in.state()
	case d.Has("state/"+checkpoints.StateMetaFile) || d.Has("private/state/"+checkpoints.StateMetaFile) || d.Has("best/"+arch.CardFile):
		err = in.run()
	default:
		err = errors.New("holds no config.json, adapter_config.json or training state: it is no model, adapter or run")
	}
	if err == nil && len(in.found) > 0 && !in.isRun {
		err = in.manifest()
	}
	if err != nil {
		return fmt.Errorf("inspect: %s: %w", dir, err)
	}
	return in.write(e)
}

// An inspection collects what is found.
type inspection struct {
	d     *checkpoints.Dir
	dir   string
	found [][2]string
	isRun bool
}

func (in *inspection) add(name, format string, a ...any) {
	in.found = append(in.found, [2]string{name, fmt.Sprintf(format, a...)})
}

func (in *inspection) write(e *Env) error {
	if e.JSON {
		var pairs []any
		for _, f := range in.found {
			pairs = append(pairs, strings.ReplaceAll(f[0], " ", "_"), f[1])
		}
		return e.result(pairs...)
	}
	for _, f := range in.found {
		if _, err := fmt.Fprintf(e.Stdout, "%-13s %s\n", f[0], f[1]); err != nil {
			return err
		}
	}
	return nil
}

func (in *inspection) model() error {
	b, err := in.d.ReadFile(modelConfig, maxConfig)
	if err != nil {
		return err
	}
	c, err := nn.ParseConfig(b)
	if err != nil {
		return err
	}
	in.add("kind", "model")
	in.add("encoder", "%s: %d layers, %d wide, %d heads, feed-forward %d, %s tokens, %d positions", c.ModelType, c.Layers, c.Hidden, c.Heads, c.FF, grouped(c.Vocab), c.Positions)
	if c.Head {
		in.add("head", "sequence classifier with %d labels", c.Labels)
	}
	if err := in.tensors(checkpoints.ModelFile); err != nil {
		return err
	}
	return in.card()
}

func (in *inspection) adapter() error {
	f, err := lora.Open(in.dir)
	if err != nil {
		return err
	}
	c := f.Config
	defer f.Close()
	in.add("kind", "adapter (%s)", c.Kind)
	base := f.Base.Name
	if f.Base.Revision != "" {
		base += " at " + f.Base.Revision
	}
	in.add("base", "%s", orDash(base))
	if c.Kind != lora.IA3 {
		in.add("rank", "%d, alpha %g, dropout %g", c.Rank, c.Alpha, c.Dropout)
	}
	if c.Kind == lora.Mixture {
		in.add("experts", "%s", c.Mixture.About())
	}
	targets := strings.Join(c.Targets, ", ")
	if c.TargetPattern != "" {
		targets = c.TargetPattern
	}
	in.add("targets", "%s", targets)
	if len(c.ModulesToSave) > 0 {
		in.add("in full", "%s", strings.Join(c.ModulesToSave, ", "))
	}
	if err := in.tensors(checkpoints.AdapterFile); err != nil {
		return err
	}
	return in.card()
}

// tensors counts what a file holds, by type.
func (in *inspection) tensors(name string) error {
	w, err := in.d.Weights(name)
	if err != nil {
		return err
	}
	defer w.Close()
	var elements, size int
	types := map[checkpoints.DType]int{}
	for _, n := range w.Names() {
		t, err := w.Tensor(n)
		if err != nil {
			return err
		}
		elements += t.Len()
		size += len(t.Data)
		types[t.DType]++
	}
	var of []string
	for _, t := range slices.Sorted(maps.Keys(types)) {
		of = append(of, fmt.Sprintf("%d %s", types[t], t))
	}
	in.add("tensors", "%d (%s): %s elements, %s", len(w.Names()), strings.Join(of, ", "), grouped(elements), bytesText(int64(size)))
	return nil
}

// card tells what rank.json says.
func (in *inspection) card() error {
	b, err := in.d.ReadFile(arch.CardFile, maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		in.add(arch.CardFile, "none: another program wrote the directory")
		return nil
	}
	if err != nil {
		return err
	}
	c, err := arch.ParseCard(b)
	if err != nil {
		return err
	}
	if len(c.Privacy) > 0 {
		var claim privacy.Claim
		if err := json.Unmarshal(c.Privacy, &claim); err != nil {
			return err
		}
		if err := claim.Verify(); err != nil {
			return err
		}
		in.add("privacy", "%s", &claim)
	}
	says := c.Architecture
	switch c.Architecture {
	case arch.CrossEncoder:
		says += fmt.Sprintf(", %d labels", c.Labels)
	case arch.BiEncoder:
		says += fmt.Sprintf(", pooling %s, %d wide, %s", c.Pooling, c.Dim, c.Similarity)
		if len(c.Head) > 0 {
			says += ", then " + strings.Join(c.Head, ", ")
		}
	}
	in.add("architecture", "%s", says)
	in.add("texts", "up to %d tokens, tokenizer %.12s", c.MaxLength, c.Tokenizer)
	in.add("scores", "shown through %s; %d golden pairs in %s", c.Transform, len(c.Golden.Pairs), c.Golden.Precision)
	if c.Base != nil {
		where := c.Base.Ref
		if where == "" {
			where = c.Base.Path
		}
		in.add("base weights", "%s, SHA-256 %.12s", where, c.Base.SHA256)
	}
	return nil
}

func (in *inspection) state() error {
	s, err := checkpoints.OpenState(in.dir)
	if err != nil {
		return err
	}
	defer s.Close()
	in.add("kind", "training state")
	elements := 0
	for _, t := range s.Tensors {
		elements += t.Len()
	}
	in.add("tensors", "%d: %s elements", len(s.Tensors), grouped(elements))
	in.add("meta", "%s", s.Meta)
	return nil
}

// run lists the parts of a run's directory.
func (in *inspection) run() error {
	in.isRun = true
	in.add("kind", "run")
	for _, p := range []struct{ name, file, about string }{
		{"best", arch.CardFile, "a model or adapter: inspect it by itself"},
		{"last", arch.CardFile, "a model or adapter: inspect it by itself"},
		{"state", checkpoints.StateMetaFile, "what train --resume goes on from"},
		{"private/state", checkpoints.StateMetaFile, "what train --resume goes on from; never give private away"},
	} {
		if !in.d.Has(p.name + "/" + p.file) {
			continue
		}
		says := p.about
		if _, err := checkpoints.Verify(in.d.Path() + "/" + p.name); err != nil {
			says = "DAMAGED: " + oneLine(err.Error())
		}
		in.add(p.name, "%s", says)
	}
	return nil
}

// manifest compares the directory with what was saved.
func (in *inspection) manifest() error {
	m, err := checkpoints.Verify(in.dir)
	switch {
	case err != nil:
		return err
	case m == nil:
		in.add("manifest", "none")
	default:
		in.add("manifest", "%d files are as they were saved", len(m.Files))
	}
	return nil
}
