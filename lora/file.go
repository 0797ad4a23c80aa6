package lora

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"rung/checkpoints"
	"rung/nn"
	"rung/nn/graph"
)

// prefix stands before every name in an adapter's file.
const prefix = "base_model.model."

// configFile describes an adapter beside checkpoints.AdapterFile.
const (
	configFile     = "adapter_config.json"
	maxConfigBytes = 1 << 20
)

// A File is an adapter directory of PEFT that is open for reading.
type File struct {
	Config Config
	Base   Source

	dir string
	w   *checkpoints.Weights
}

// Open reads adapter_config.json of a directory and opens its tensors. What PEFT knows and this package
// does not is refused by name. Close releases the file.
func Open(dir string) (*File, error) {
	f, err := open(dir)
	if err != nil {
		return nil, fmt.Errorf("lora: %w", err)
	}
	return f, nil
}

func open(dir string) (*File, error) {
	d, err := checkpoints.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	data, err := d.ReadFile(configFile, maxConfigBytes)
	if err != nil {
		return nil, err
	}
	f := &File{dir: dir}
	if f.Config, f.Base, err = parseConfig(data); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", dir, configFile, err)
	}
	if f.w, err = d.Weights(checkpoints.AdapterFile); err != nil {
		return nil, err
	}
	return f, nil
}

// Close releases the tensors: initial values of a model that the file was applied to cannot be read
// any more, but what stores hold stays.
func (f *File) Close() error { return f.w.Close() }

// Apply wraps m's layers as the file says, and lets the parameters of the adapter start from the file.
// The model must be of the base: every tensor must find its place, with its shape. After an error the
// model is as it was.
func (f *File) Apply(m Model) (*Adapter, error) {
	a, err := apply(m, f.Config, 0, false)
	if err == nil {
		if err = f.fill(a); err != nil {
			a.Remove()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("lora: %s: %w", f.dir, err)
	}
	return a, nil
}

// fill checks all tensors, then gives them to the adapter's parameters.
func (f *File) fill(a *Adapter) error {
	tensors, left := map[*nn.Param]checkpoints.Tensor{}, map[string]bool{}
	for _, name := range f.w.Names() {
		left[name] = !f.shadow(name)
	}
	names := a.names()
	for _, p := range a.params {
		left[names[p]] = false
	}
	unused := sortedKeys(left)
	unused = slices.DeleteFunc(unused, func(n string) bool { return !left[n] })
	for _, p := range a.params {
		if !f.w.Has(names[p]) {
			return f.missing(names[p], p.Created, unused)
		}
		t, err := f.w.Tensor(names[p])
		if err != nil {
			return err
		}
		if !slices.Equal(t.Shape, p.Dims) {
			return fmt.Errorf("tensor %q is %v, the model's is %v: the adapter is for another base%s", t.Name, t.Shape, p.Dims, f.baseName())
		}
		tensors[p] = t
	}
	if len(unused) > 0 {
		return fmt.Errorf("tensor %q has no place in the model: the adapter is for another base%s", unused[0], f.baseName())
	}
	for p, t := range tensors {
		p.Created = false // a checkpoint has it
		p.Init = func(dst []float32) error { return checkpoints.CopyFloat32s(dst, t) }
	}
	a.info.Created = nil
	return nil
}

// missing says that a tensor is not in the file, and what may be the reason.
func (f *File) missing(name string, created bool, unused []string) error {
	switch {
	case created:
		return fmt.Errorf("neither the adapter nor the base has a tensor %q", name)
	case len(unused) > 0:
		return fmt.Errorf("there is no tensor %q, but %q: the adapter is for another base%s", name, unused[0], f.baseName())
	}
	return fmt.Errorf("there is no tensor %q", name)
}

// shadow reports a tensor that PEFT writes for nothing: with biases of all layers it also saves those of
// the copies that it keeps of modules that are trained in full.
func (f *File) shadow(name string) bool {
	return f.Config.Bias == BiasAll && strings.HasSuffix(name, ".bias") &&
		(strings.Contains(name, ".original_module.") || strings.Contains(name, ".modules_to_save."))
}

func (f *File) baseName() string {
	if f.Base.Name == "" {
		return ""
	}
	return fmt.Sprintf(" (it names %q)", f.Base.Name)
}

// names are the names in the file of all parameters of the model: prefix and path, but that a wrapped
// layer is called base_layer of its adapter.
func (a *Adapter) names() map[*nn.Param]string {
	names := map[*nn.Param]string{}
	for _, p := range a.params {
		names[p] = prefix + p.Path
	}
	for _, s := range a.sites {
		if s.base.B != nil {
			names[s.base.B] = prefix + s.slot.Path + ".base_layer.bias"
		}
	}
	return names
}

// Save writes adapter_config.json and adapter_model.safetensors into the directory dir, which exists,
// as PEFT does. The stores have the adapter's values; base names the model that the adapter is for.
// The same adapter gives the same bytes. Files are written in place: checkpoints.Save makes it atomic.
func (a *Adapter) Save(dir string, base Source, stores ...*graph.Store) error {
	if err := a.save(dir, base, stores); err != nil {
		return fmt.Errorf("lora: save: %w", err)
	}
	return nil
}

func (a *Adapter) save(dir string, base Source, stores []*graph.Store) error {
	cfg, saved, err := a.saved(valuesOf(stores))
	if err != nil {
		return err
	}
	return writeDir(dir, &cfg, base, saved)
}

// writeDir writes both files of an adapter.
func writeDir(dir string, cfg *Config, base Source, saved []tensor) error {
	data, err := encodeConfig(cfg, base)
	if err != nil {
		return fmt.Errorf("%s: %w", configFile, err)
	}
	var tensors []checkpoints.Tensor
	for _, s := range saved {
		t, err := checkpoints.NewTensor(s.name, s.dims, narrow(s.v))
		if err != nil {
			return err
		}
		tensors = append(tensors, t)
	}
	if err := os.WriteFile(filepath.Join(dir, configFile), data, 0o666); err != nil {
		return err
	}
	return checkpoints.CreateFile(filepath.Join(dir, checkpoints.AdapterFile), tensors, nil)
}
