package checkpoints

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Names of the files that hold a training state.
const (
	StateFile     = "state.safetensors"
	StateMetaFile = "state.json"
)

const maxStateMeta = 256 << 20

// A State is what an unfinished training run goes on from: named tensors (moments, masters, loss
// tables), and whatever else as JSON. It comes back bit for bit.
type State struct {
	Meta    json.RawMessage
	Tensors []Tensor // sorted by name when read

	file *File
}

// WriteState writes the state's files into a directory, as a rule inside the write function of Save.
func WriteState(dir string, s State) error {
	if !json.Valid(s.Meta) {
		return errors.New("checkpoints: write state: Meta is not valid JSON")
	}
	if len(s.Meta) > maxStateMeta {
		return fmt.Errorf("checkpoints: write state: Meta has %d bytes, above the limit of %d", len(s.Meta), maxStateMeta)
	}
	if err := CreateFile(filepath.Join(dir, StateFile), s.Tensors, nil); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, StateMetaFile), s.Meta, 0o666); err != nil {
		return fmt.Errorf("checkpoints: write state: %w", err)
	}
	return nil
}

// SaveState saves a state as a directory of its own.
func SaveState(ctx context.Context, dir string, s State) error {
	return Save(ctx, dir, func(tmp string) error { return WriteState(tmp, s) })
}

// OpenState opens the state in a directory that Save wrote. It refuses one that is torn, was changed
// since, or has no manifest. The tensors are views of the mapped file: they live until Close.
func OpenState(dir string) (*State, error) {
	m, err := Verify(dir)
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, fmt.Errorf("checkpoints: %s has no %s: no training state, or a torn one", dir, ManifestFile)
	}
	for _, name := range []string{StateFile, StateMetaFile} {
		if _, ok := m.File(name); !ok {
			return nil, fmt.Errorf("checkpoints: %s holds no training state: %s does not list %s", dir, ManifestFile, name)
		}
	}
	d, err := OpenDir(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	meta, err := d.ReadFile(StateMetaFile, maxStateMeta)
	if err != nil {
		return nil, err
	}
	f, err := d.OpenFile(StateFile)
	if err != nil {
		return nil, err
	}
	s := &State{Meta: meta, file: f}
	for _, name := range f.Names() {
		s.Tensors = append(s.Tensors, f.tensors[name])
	}
	return s, nil
}

// Tensor returns the tensor of that name.
func (s *State) Tensor(name string) (Tensor, error) {
	for _, t := range s.Tensors {
		if t.Name == name {
			return t, nil
		}
	}
	return Tensor{}, fmt.Errorf("checkpoints: the training state holds no tensor %q", name)
}

// Close unmaps the tensors of a state that was opened.
func (s *State) Close() error {
	if s.file == nil {
		return nil
	}
	s.Tensors = nil
	return s.file.Close()
}
