package arch

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
	"rung/nn"
	"rung/nn/device"
	"rung/nn/graph"
)

// A saver is a Model and what the layout of its directory differs in.
type saver interface {
	Model
	// layout is the files beside weights, tokenizer and rank.json, by name.
	layout() (map[string][]byte, error)
	// place says which file holds a parameter, and under which name.
	place(path string) (file, name string)
	// kept are tensors that go into the directory as they came.
	kept() ([]checkpoints.Tensor, error)
	card() Card
}

// Save writes a directory that this package, Transformers and sentence-transformers' CrossEncoder open
// with the same scores; or, with an adapter attached, the adapter's.
func (m *Cross) Save(dir string, s *graph.Store) error { return save(m, dir, s) }

// SaveValues writes the model without its adapter, as Save does.
func (m *Cross) SaveValues(dir string, value func(path string) ([]float32, error)) error {
	plain := NewCross(m.Encoder.Config, m.Labels)
	plain.Text, plain.transform = m.Text, m.transform
	return saveValues(plain, dir, value)
}

// Save writes a directory that this package and sentence-transformers open with the same vectors; or,
// with an adapter attached, the adapter's.
func (m *Bi) Save(dir string, s *graph.Store) error { return save(m, dir, s) }

// SaveValues writes the model without its adapter, as Save does.
func (m *Bi) SaveValues(dir string, value func(path string) ([]float32, error)) error {
	plain := *m
	plain.Encoder, plain.Head = nn.NewEncoder(m.Encoder.Config, ""), slices.Clone(m.Head)
	for i, st := range plain.Head {
		if st.Dense != nil {
			plain.Head[i].Dense = nn.NewLinear(st.Name+".linear", st.In, st.Out, st.Bias)
		}
	}
	return saveValues(&plain, dir, value)
}

func (t *Text) text() *Text { return t }

// saveValues saves m, whose layers are wrapped by nothing, with values of its own.
func saveValues(m saver, dir string, value func(path string) ([]float32, error)) error {
	m.Attach(nil)
	ps := m.Params()
	for _, p := range ps {
		p.Init = func(dst []float32) error {
			v, err := value(p.Path)
			if err == nil && len(v) != len(dst) {
				err = fmt.Errorf("%d values, want %d", len(v), len(dst))
			}
			copy(dst, v)
			return err
		}
	}
	be, err := device.Open("cpu") // a GPU may be in use
	if err != nil {
		return err
	}
	s, err := nn.NewStore(be, ps, false)
	if err != nil {
		return err
	}
	return errors.Join(m.Save(dir, s), s.Close())
}

// save writes the model, or its adapter, and rank.json.
func save(m saver, dir string, s *graph.Store) error {
	t := m.text()
	if t.src == nil || t.Tokenizer == nil {
		return errors.New("arch: save: the model was not opened from a directory, so it has no configuration and no tokenizer")
	}
	write, other := saveModel, adapterFile
	if t.adapter != nil {
		write, other = saveAdapter, checkpoints.ModelFile
	}
	err := os.MkdirAll(dir, 0o777)
	if err == nil {
		err = absent(filepath.Join(dir, other))
	}
	if err == nil {
		err = write(m, dir, s)
	}
	if err == nil {
		err = saveCard(m, dir, s)
	}
	if err != nil {
		return fmt.Errorf("arch: save %s: %w", dir, err)
	}
	return nil
}

// absent refuses a file: a model and an adapter do not share a directory.
func absent(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("the directory holds %s, and a model and an adapter do not share one", filepath.Base(path)), err)
	}
	return nil
}

func saveModel(m saver, dir string, s *graph.Store) error {
	files, err := m.layout()
	if err != nil {
		return err
	}
	if err := m.text().tokenizerFiles(files); err != nil {
		return err
	}
	for name, b := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			return err
		}
		if err := os.WriteFile(path, b, 0o666); err != nil {
			return err
		}
	}
	tensors := map[string][]checkpoints.Tensor{}
	for _, p := range m.Params() {
		v, err := graph.ViewWeight[float32](s, p.Path)
		if err != nil {
			return err
		}
		file, name := m.place(p.Path)
		t, err := checkpoints.NewTensor(name, p.Dims, v)
		if err != nil {
			return err
		}
		tensors[file] = append(tensors[file], t)
	}
	kept, err := m.kept()
	if err != nil {
		return err
	}
	tensors[checkpoints.ModelFile] = append(tensors[checkpoints.ModelFile], kept...)
	for name, ts := range tensors {
		if err := checkpoints.CreateFile(filepath.Join(dir, filepath.FromSlash(name)), ts, nil); err != nil {
			return err
		}
	}
	return nil
}

// tokenizerFiles adds the tokenizer's files. Python libraries take the length from there.
func (t *Text) tokenizerFiles(files map[string][]byte) error {
	fs, err := t.Tokenizer.Files()
	if err != nil {
		return err
	}
	const name = "tokenizer_config.json"
	if fs[name], err = edited(fs[name], map[string]any{"model_max_length": t.MaxLength}); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for name, b := range fs {
		files[name] = b
	}
	return nil
}

func saveAdapter(m saver, dir string, s *graph.Store) error {
	b, err := m.text().base(dir)
	if err != nil {
		return err
	}
	return m.text().adapter.Save(dir, b, s)
}

// saveCard writes rank.json, with golden scores of the weights of s.
func saveCard(m saver, dir string, s *graph.Store) error {
	t, c := m.text(), m.card()
	c.Version, c.MaxLength, c.Transform, c.Tokenizer = cardVersion, t.MaxLength, m.Transform(), t.Tokenizer.Hash()
	c.Privacy = t.claim
	if t.adapter != nil {
		b, err := t.base(dir)
		if err != nil {
			return err
		}
		c.Base = &b
	}
	exact, free, err := exactly(s)
	if err != nil {
		return err
	}
	scorer := NewScorer(exact.Backend(), m, 0, exact)
	g, err := measure(context.Background(), m, scorer)
	if err = errors.Join(err, scorer.Close(), free()); err != nil {
		return err
	}
	c.Golden = g
	b, err := encodeJSON(c)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, CardFile), b, 0o666)
}

// exactly is s, or where its backend rounds a copy on the CPU: golden scores are compared closely wherever
// a model is opened. free frees what was copied.
func exactly(s *graph.Store) (exact *graph.Store, free func() error, err error) {
	if tolerance(s.Backend()) == Tolerance {
		return s, func() error { return nil }, nil
	}
	be, err := device.Open("cpu")
	if err != nil {
		return nil, nil, err
	}
	c, err := graph.NewStore(be, s.Seg, false)
	if err != nil {
		return nil, nil, err
	}
	for _, g := range s.Seg {
		v, err := graph.ReadWeight[float32](s, g.Path)
		if err == nil {
			err = graph.WriteWeight(c, g.Path, v)
		}
		if err != nil {
			return nil, nil, errors.Join(err, c.Close())
		}
	}
	return c, c.Close, nil
}

// base names the directory's model for an adapter that lies in dir.
func (t *Text) base(dir string) (Base, error) {
	b := Base{Ref: t.src.ref}
	var err error
	if b.Ref == "" {
		if b.Path, err = relative(dir, t.src.dir); err != nil {
			return b, err
		}
	}
	b.SHA256, err = t.WeightsHash()
	return b, err
}

// relative is the path from one directory to another, with slashes.
func relative(from, to string) (string, error) {
	from, err := filepath.Abs(from)
	if err != nil {
		return "", err
	}
	if to, err = filepath.Abs(to); err != nil {
		return "", err
	}
	p, err := filepath.Rel(from, to)
	return filepath.ToSlash(p), err
}

func (m *Cross) place(path string) (string, string)  { return checkpoints.ModelFile, path }
func (m *Cross) kept() ([]checkpoints.Tensor, error) { return nil, nil }
func (m *Cross) card() Card                          { return Card{Architecture: CrossEncoder, Labels: m.Labels} }

// place keeps a Dense module's parameters in its own folder.
func (m *Bi) place(path string) (file, name string) {
	for _, st := range m.Head {
		if rest, ok := strings.CutPrefix(path, st.Name+"."); ok && st.Dense != nil {
			return st.Name + "/" + checkpoints.ModelFile, rest
		}
	}
	return checkpoints.ModelFile, path
}

// kept is the pooler, which a bi-encoder does not use: it is there for who makes a cross-encoder of it.
func (m *Bi) kept() ([]checkpoints.Tensor, error) {
	var ts []checkpoints.Tensor
	for _, name := range m.carried {
		bare := strings.TrimPrefix(name, m.Encoder.Config.ModelType+".")
		if !strings.HasPrefix(bare, "pooler.dense.") {
			continue
		}
		t, err := m.src.weights.Tensor(name)
		if err != nil {
			return nil, err
		}
		v, err := checkpoints.Float32s(t)
		if err == nil {
			t, err = checkpoints.NewTensor(bare, t.Shape, v)
		}
		if err != nil {
			return nil, err
		}
		ts = append(ts, t)
	}
	return ts, nil
}

func (m *Bi) card() Card {
	c := Card{Architecture: BiEncoder, Pooling: string(m.Pooling), Dim: m.Dim(), Similarity: m.Similarity}
	for _, st := range m.Head {
		name := "Normalize"
		if st.Dense != nil {
			name = fmt.Sprintf("Dense %d %d %s", st.In, st.Out, st.Activation)
		}
		c.Head = append(c.Head, name)
	}
	return c
}
