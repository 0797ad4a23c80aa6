package rank

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"rung/checkpoints"
	"rung/checkpoints/hub"
	"rung/lora"
	"rung/nn"
	"rung/nn/arch"
)

// loaded is a model whose values are still in mapped files.
type loaded struct {
	dir     string
	model   arch.Model
	adapter *lora.File // nil without one
	applied *lora.Adapter
	card    *arch.Card // of the directory; nil for one of another program
}

func (l *loaded) close() error {
	var errs []error
	if l.adapter != nil {
		errs = append(errs, l.adapter.Close())
	}
	if l.model != nil {
		errs = append(errs, l.model.Close())
	}
	return errors.Join(errs...)
}

// load opens a directory for what it is.
func load(ctx context.Context, ref string, o Options) (*loaded, error) {
	dir, _, err := hub.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	if err := verify(dir, o); err != nil {
		return nil, err
	}
	l := &loaded{dir: dir}
	_, err = os.Stat(filepath.Join(dir, "adapter_config.json"))
	switch {
	case err == nil:
		err = l.openAdapter(ctx, o)
	case !errors.Is(err, fs.ErrNotExist):
	case o.Base != "":
		err = fmt.Errorf("%s: a base was given, but this is no adapter", dir)
	default:
		if l.model, err = arch.Open(ctx, ref, arch.Options{MaxLength: o.MaxLength}); err == nil {
			l.card = l.model.Card()
		}
	}
	if err == nil {
		err = l.checkDomain(o.Domain)
	}
	if err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

// domains are those that the adapter routes by, nil where it does not.
func (l *loaded) domains() []string {
	if d, ok := l.model.(interface{ Domains() []string }); ok {
		return d.Domains()
	}
	return nil
}

// checkDomain refuses a domain that the adapter does not know. One that routes by none needs not know it.
func (l *loaded) checkDomain(domain string) error {
	if known := l.domains(); domain != "" && known != nil && !slices.Contains(known, domain) {
		return fmt.Errorf("%s: domain %q: the adapter knows %s", l.dir, domain, strings.Join(known, ", "))
	}
	return nil
}

// openAdapter opens the adapter's base and puts the adapter into it.
func (l *loaded) openAdapter(ctx context.Context, o Options) (err error) {
	if l.adapter, err = lora.Open(l.dir); err != nil {
		return err
	}
	if l.card, err = arch.ReadCard(l.dir); err != nil {
		return err
	}
	base := o.Base
	if base == "" {
		if base, err = l.base(); err != nil {
			return err
		}
	}
	dir, _, err := hub.Resolve(ctx, base)
	if err != nil {
		return fmt.Errorf("%s: the adapter's base: %w", l.dir, err)
	}
	if err := verify(dir, o); err != nil {
		return err
	}
	if err := l.openBase(ctx, base, o); err != nil {
		return fmt.Errorf("%s: the adapter's base: %w", l.dir, err)
	}
	if l.applied, err = l.adapter.Apply(l.model); err != nil {
		return fmt.Errorf("%s: %w", l.dir, err)
	}
	return nil
}

// openBase opens the base as the architecture that the adapter is of, and compares its weights and its
// tokenizer with those that the adapter was trained on.
func (l *loaded) openBase(ctx context.Context, ref string, o Options) (err error) {
	ao := arch.Options{MaxLength: o.MaxLength, Domain: o.Domain}
	cross := l.adapter.Config.Task == lora.TaskClassify
	if c := l.card; c != nil {
		cross, ao.Labels = c.Architecture == arch.CrossEncoder, c.Labels
		if ao.MaxLength == 0 {
			ao.MaxLength = c.MaxLength
		}
		if !cross {
			unit := len(c.Head) > 0 && c.Head[len(c.Head)-1] == "Normalize"
			ao.Similarity, ao.Pooling, ao.Normalize = c.Similarity, nn.Pooling(c.Pooling), &unit
		}
	} else if cross {
		if ao.Labels, err = labels(l.dir); err != nil {
			return err
		}
	}
	open := func() (arch.Model, error) { return arch.OpenBi(ctx, ref, ao) }
	if cross {
		open = func() (arch.Model, error) { return arch.OpenCross(ctx, ref, ao) }
	}
	m, err := open()
	if err != nil {
		return err
	}
	l.model = m
	if l.card == nil {
		return nil
	}
	return l.card.CheckBase(m)
}

// base is where the adapter's base is: as rank.json says, else as PEFT says, where a path is relative
// to the adapter or to the current directory.
func (l *loaded) base() (string, error) {
	if c := l.card; c != nil && c.Base != nil {
		if c.Base.Ref != "" {
			return c.Base.Ref, nil
		}
		return filepath.Join(l.dir, filepath.FromSlash(c.Base.Path)), nil
	}
	name := l.adapter.Base.Name
	if name == "" {
		return "", fmt.Errorf("%s: the adapter names no base: give one", l.dir)
	}
	beside := filepath.FromSlash(name)
	if !filepath.IsAbs(beside) {
		beside = filepath.Join(l.dir, beside)
	}
	for _, dir := range []string{beside, filepath.FromSlash(name)} {
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			return dir, nil
		}
	}
	if strings.Count(name, "/") > 1 || strings.HasPrefix(name, ".") || filepath.IsAbs(name) {
		return "", fmt.Errorf("%s: the adapter's base %q is not there: give another", l.dir, name)
	}
	if rev := l.adapter.Base.Revision; rev != "" {
		name += "@" + rev
	}
	return "hf:" + name, nil
}

// labels is the number of rows of the classifier that travels with an adapter, 0 where none does.
func labels(dir string) (int, error) {
	d, err := checkpoints.OpenDir(dir)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	w, err := d.Weights(checkpoints.AdapterFile)
	if err != nil {
		return 0, err
	}
	defer w.Close()
	for _, name := range w.Names() {
		if strings.HasSuffix(name, ".classifier.weight") || strings.HasSuffix(name, ".classifier.out_proj.weight") {
			t, err := w.Tensor(name)
			if err != nil || len(t.Shape) != 2 {
				return 0, errors.Join(err, fmt.Errorf("tensor %q is %v, want (C,D)", name, t.Shape))
			}
			return t.Shape[0], nil
		}
	}
	return 0, nil
}
