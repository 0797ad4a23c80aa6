package lora

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/gonum/mat"

	"rung/checkpoints"
)

// How adapters are combined. ΔW is Scale B A.
const (
	Cat  = "cat"    // A and B side by side: ΔW is Σ weight ΔW, exactly; the rank is the sum of all
	SVD  = "svd"    // the best ΔW of a given rank for the same sum
	Sum  = "linear" // A and B summed, each by √|weight Scale|, the sign with A: of equal ranks; products of one adapter's B and another's A remain
	TIES = "ties"   // as linear, of the greatest elements, and where their signs agree with the majority's (Yadav et al. 2023)
)

// Methods lists how adapters are combined.
func Methods() []string { return []string{Cat, SVD, Sum, TIES} }

// A Part is one adapter of a combination, and its weight, which may be negative.
type Part struct {
	File   *File
	Weight float64
}

// A Combination says how parts become one adapter.
type Combination struct {
	Method  string
	Rank    int     // of SVD; 0: the greatest of the parts'
	Density float64 // of TIES: the share of elements of A and of B that are kept, in (0,1]
	// Full is the part whose modules trained in full and biases are taken. Below 0 those of all must be equal: no sum of
	// them means anything that all agree on.
	Full int
}

// Combine writes into the directory dir, which exists, the plain adapter that parts are together, for the base of the
// first. Of one part with weight 1 it is that part, by every method (TIES at density 1). What PEFT's
// add_weighted_adapter does is done here, with scales as they are: α/R or α/√R.
func (c Combination) Combine(dir string, parts ...Part) error {
	if err := c.combine(dir, parts); err != nil {
		return fmt.Errorf("lora: combine: %w", err)
	}
	return nil
}

// low is the plain adapter of a module.
type low struct {
	a, b  *mat.Dense // (R,in), (out,R)
	scale float64
}

func (c *Combination) combine(dir string, parts []Part) error {
	if err := c.check(parts); err != nil {
		return err
	}
	byPart := make([]map[string]low, len(parts))
	var modules []string
	for i, p := range parts {
		var err error
		if byPart[i], err = p.File.lows(); err != nil {
			return err
		}
		modules = append(modules, sortedKeys(byPart[i])...)
	}
	slices.Sort(modules)
	modules = slices.Compact(modules)
	full, saved, err := c.full(parts)
	if err != nil {
		return err
	}
	var sizes []size
	for _, m := range modules {
		var lows []low
		var weights []float64
		for i, p := range parts {
			if l, ok := byPart[i][m]; ok {
				lows, weights = append(lows, l), append(weights, p.Weight)
			}
		}
		l, err := c.module(lows, weights)
		if err != nil {
			return fmt.Errorf("module %q: %w", m, err)
		}
		rank, _ := l.a.Dims()
		out, in := l.b.RawMatrix().Rows, l.a.RawMatrix().Cols
		sizes = append(sizes, size{m, rank, 1})
		full = append(full, tensor{prefix + m + ".lora_A.weight", []int{rank, in}, flat(l.a)}, tensor{prefix + m + ".lora_B.weight", []int{out, rank}, flat(l.b)})
	}
	cfg := Config{Targets: modules, Bias: saved.Bias, ModulesToSave: saved.ModulesToSave, Task: saved.Task}.plain(sizes)
	return writeDir(dir, &cfg, parts[0].File.baseFrom(dir), full)
}

// place is where the file's base is: a directory of this machine, made absolute, or its name and revision.
func (f *File) place() string {
	at := filepath.FromSlash(f.Base.Name)
	if !filepath.IsAbs(at) {
		at = filepath.Join(f.dir, at)
	}
	if abs, err := filepath.Abs(at); err == nil && isDir(abs) {
		return abs
	}
	return f.Base.Name + "@" + f.Base.Revision
}

// baseFrom names the base for an adapter that lies in dir.
func (f *File) baseFrom(dir string) Source {
	abs, err := filepath.Abs(dir)
	if place := f.place(); err == nil && isDir(place) && !filepath.IsAbs(f.Base.Name) {
		if rel, err := filepath.Rel(abs, place); err == nil {
			return Source{Name: filepath.ToSlash(rel)}
		}
	}
	return f.Base
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// noSum is why adapters of a kind are not combined.
var noSum = map[string]string{
	DoRA: "they multiply the base's weights", IA3: "they multiply the base's weights", Mixture: "their routers choose for each input",
}

// Check refuses what cannot be meant, whatever the adapters. Combine does so by itself.
func (c Combination) Check() error {
	if err := c.checkMethod(); err != nil {
		return fmt.Errorf("lora: combine: %w", err)
	}
	return nil
}

// checkMethod tells what is wrong with the method and its settings.
func (c *Combination) checkMethod() error {
	switch {
	case !slices.Contains(Methods(), c.Method):
		return fmt.Errorf("method %q is none of %s", c.Method, strings.Join(Methods(), ", "))
	case c.Rank < 0 || c.Rank > 0 && c.Method != SVD:
		return fmt.Errorf("rank %d: only %s takes one, of 1 or more", c.Rank, SVD)
	case c.Method == TIES && !(c.Density > 0 && c.Density <= 1):
		return fmt.Errorf("density %v is not in (0,1]", c.Density)
	case c.Method != TIES && c.Density != 0:
		return fmt.Errorf("density %v: only %s takes one", c.Density, TIES)
	}
	return nil
}

// check refuses what has no combination.
func (c *Combination) check(parts []Part) error {
	if err := c.checkMethod(); err != nil {
		return err
	}
	switch {
	case len(parts) == 0:
		return fmt.Errorf("no adapters")
	case c.Full >= len(parts):
		return fmt.Errorf("there is no adapter %d of %d to take modules from", c.Full, len(parts))
	}
	for _, p := range parts {
		f := p.File
		switch {
		case math.IsNaN(p.Weight) || math.IsInf(p.Weight, 0):
			return fmt.Errorf("%s: weight %v is no finite number", f.dir, p.Weight)
		case p.Weight != 0 && !single(p.Weight):
			return fmt.Errorf("%s: weight %v: single precision does not hold it", f.dir, p.Weight)
		case f.Config.Kind != Plain:
			return fmt.Errorf("%s: adapters of kind %s have no sum: %s", f.dir, f.Config.Kind, noSum[f.Config.Kind])
		case f.Config.Init == InitPiSSA:
			return fmt.Errorf("%s: its base is not the untouched one (init_lora_weights is pissa): open it and save it here first, which makes it plain LoRA", f.dir)
		case f.place() != parts[0].File.place() && f.Base.Name != "" && parts[0].File.Base.Name != "":
			return fmt.Errorf("%s is for the base %q, %s for %q", f.dir, f.Base.Name, parts[0].File.dir, parts[0].File.Base.Name)
		}
	}
	return nil
}

// lows are the plain adapters of all modules of a file.
func (f *File) lows() (map[string]low, error) {
	match, err := newMatcher(&f.Config, nil)
	if err != nil {
		return nil, err
	}
	all := map[string]low{}
	for _, name := range f.w.Names() {
		path, ok := strings.CutSuffix(strings.TrimPrefix(name, prefix), ".lora_A.weight")
		if !ok {
			continue
		}
		a, err := f.matrix(name)
		if err != nil {
			return nil, err
		}
		b, err := f.matrix(prefix + path + ".lora_B.weight")
		if err != nil {
			return nil, err
		}
		rank, alpha := match.size(path)
		if r, _ := a.Dims(); r != rank || b.RawMatrix().Cols != rank {
			return nil, fmt.Errorf("%s: %q has rank %d, the configuration says %d", f.dir, path, r, rank)
		}
		all[path] = low{a, b, f.Config.scale(rank, alpha)}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: no module has an A and a B", f.dir)
	}
	return all, nil
}

// matrix reads a tensor.
func (f *File) matrix(name string) (*mat.Dense, error) {
	t, err := f.w.Tensor(name)
	if err != nil {
		return nil, err
	}
	if len(t.Shape) != 2 {
		return nil, fmt.Errorf("%s: tensor %q is %v, not a matrix", f.dir, name, t.Shape)
	}
	v, err := checkpoints.Float32s(t)
	if err != nil {
		return nil, err
	}
	for _, x := range v {
		if x-x != 0 { // which trimming would drop
			return nil, fmt.Errorf("%s: tensor %q has a value that is not finite", f.dir, name)
		}
	}
	return mat.NewDense(t.Shape[0], t.Shape[1], widen(v)), nil
}

// full is what the parts trained in full, biases too, and the configuration that says so.
func (c *Combination) full(parts []Part) ([]tensor, *Config, error) {
	from := max(c.Full, 0)
	f := parts[from].File
	names := func(f *File) []string {
		return slices.DeleteFunc(slices.Clone(f.w.Names()), func(n string) bool { return strings.Contains(n, ".lora_A.") || strings.Contains(n, ".lora_B.") })
	}
	mine := names(f)
	for _, p := range parts {
		if c.Full >= 0 {
			break
		}
		if theirs := names(p.File); !slices.Equal(mine, theirs) {
			return nil, nil, fmt.Errorf("%s and %s do not train the same modules in full: say whose to take", f.dir, p.File.dir)
		}
		for _, n := range mine {
			x, err := f.w.Tensor(n)
			if err != nil {
				return nil, nil, err
			}
			y, err := p.File.w.Tensor(n)
			if err != nil {
				return nil, nil, err
			}
			if !bytes.Equal(x.Data, y.Data) {
				return nil, nil, fmt.Errorf("tensor %q, which is trained in full, differs between %s and %s: say whose to take", n, f.dir, p.File.dir)
			}
		}
	}
	var out []tensor
	for _, n := range mine {
		t, err := f.w.Tensor(n)
		if err != nil {
			return nil, nil, err
		}
		v, err := checkpoints.Float32s(t)
		if err != nil {
			return nil, nil, err
		}
		out = append(out, tensor{n, t.Shape, widen(v)})
	}
	return out, &f.Config, nil
}

func flat(m *mat.Dense) []float64 { return m.RawMatrix().Data }
