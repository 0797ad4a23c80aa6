package checkpoints

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Weights are all tensors of a model or an adapter, from one file or from shards.
type Weights struct {
	Metadata map[string]string // of the file, or of the first shard

	where string // for messages
	files []*File
	in    map[string]*File
}

// OpenWeights opens the model's weights in a directory: model.safetensors, or the shards that
// model.safetensors.index.json lists. See Dir.Weights for adapters and modules.
func OpenWeights(dir string) (*Weights, error) {
	d, err := OpenDir(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Weights(ModelFile)
}

// Weights opens the safetensors file of that name (ModelFile, AdapterFile, "2_Dense/model.safetensors"),
// or else the shards that name + ".index.json" lists.
func (d *Dir) Weights(name string) (*Weights, error) {
	f, err := d.OpenFile(name)
	if err == nil {
		w := &Weights{Metadata: f.Metadata, where: f.path, in: map[string]*File{}}
		return w, w.add(f)
	}
	if !isMissing(err) {
		return nil, err
	}
	index := name + ".index.json"
	b, err := d.ReadFile(index, maxHeader)
	if isMissing(err) {
		return nil, d.noWeights(name)
	}
	if err != nil {
		return nil, err
	}
	listed, err := parseIndex(b)
	if err != nil {
		return nil, fmt.Errorf("checkpoints: %s: %s: %w", d.path, index, err)
	}
	return d.shards(index, listed)
}

// shards opens every file of an index and checks that it holds what the index says.
func (d *Dir) shards(index string, listed map[string]string) (*Weights, error) {
	w := &Weights{where: path.Join(d.path, index), in: map[string]*File{}}
	byName := map[string]*File{}
	for _, shard := range slices.Compact(slices.Sorted(maps.Values(listed))) {
		f, err := d.OpenFile(path.Join(path.Dir(index), shard))
		if isMissing(err) {
			err = fmt.Errorf("checkpoints: %s: shard %s, which %s lists, is missing", d.path, shard, index)
		}
		if err == nil {
			byName[shard] = f
			err = w.add(f)
		}
		if err != nil {
			return nil, errors.Join(err, w.Close())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		if f := byName[listed[name]]; w.in[name] != f {
			err := fmt.Errorf("checkpoints: %s: tensor %q, which %s lists, is not in its shard %s", d.path, name, index, listed[name])
			return nil, errors.Join(err, w.Close())
		}
	}
	if len(w.files) > 0 {
		w.Metadata = w.files[0].Metadata
	}
	return w, nil
}

// add takes over f and its tensors.
func (w *Weights) add(f *File) error {
	w.files = append(w.files, f)
	for _, name := range f.Names() {
		if other := w.in[name]; other != nil {
			return fmt.Errorf("checkpoints: tensor %q is in two shards, %s and %s", name, other.path, f.path)
		}
		w.in[name] = f
	}
	return nil
}

// parseIndex reads the weight_map of a shard index: tensor name to file name.
func parseIndex(b []byte) (map[string]string, error) {
	dec, err := newStrictDecoder(b)
	if err != nil {
		return nil, err
	}
	var listed map[string]string
	err = readObject(dec, func(key string) error {
		if key != "weight_map" {
			return skipValue(dec)
		}
		listed = map[string]string{}
		return readObject(dec, func(tensor string) error {
			shard, err := readString(dec)
			switch {
			case err != nil:
			case !strings.HasSuffix(shard, ".safetensors"):
				err = fmt.Errorf("tensor %q: shard %q is no safetensors file", tensor, shard)
			case !filepath.IsLocal(shard):
				err = fmt.Errorf("tensor %q: shard %q leads out of the directory", tensor, shard)
			}
			listed[tensor] = shard
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	if len(listed) == 0 {
		return nil, errors.New("weight_map lists no tensor")
	}
	return listed, nil
}

// noWeights says what is there instead of the weights of that name, and what to do about a pickle.
func (d *Dir) noWeights(name string) error {
	pickle := "pytorch_model.bin"
	if path.Base(name) == AdapterFile {
		pickle = "adapter_model.bin"
	}
	pickle = path.Join(path.Dir(name), pickle)
	if d.Has(pickle) || d.Has(pickle+".index.json") {
		return fmt.Errorf("checkpoints: %s holds %s but no %s; pickle is never read, because it can run code: convert it once in Python: "+
			`import torch; from safetensors.torch import save_file; save_file({k: v.clone() for k, v in torch.load(%q, weights_only=True).items()}, %q, {"format": "pt"})`,
			d.path, pickle, name, pickle, name)
	}
	return fmt.Errorf("checkpoints: %s holds neither %s nor %s.index.json", d.path, name, name)
}

// Names lists the tensors, sorted.
func (w *Weights) Names() []string { return slices.Sorted(maps.Keys(w.in)) }

// Has tells whether there is a tensor of that name.
func (w *Weights) Has(name string) bool { return w.in[name] != nil }

// Tensor returns the tensor of that name; its data live until Close.
func (w *Weights) Tensor(name string) (Tensor, error) {
	f := w.in[name]
	if f == nil {
		return Tensor{}, fmt.Errorf("checkpoints: %s holds no tensor %q", w.where, name)
	}
	return f.Tensor(name)
}

// Forget is File.Forget, of the file that holds the tensor.
func (w *Weights) Forget(name string) {
	if f := w.in[name]; f != nil {
		f.Forget(name)
	}
}

// Close unmaps every file; the data of their tensors must not be touched any more.
func (w *Weights) Close() error {
	var errs []error
	for _, f := range w.files {
		errs = append(errs, f.Close())
	}
	w.files, w.in = nil, nil
	return errors.Join(errs...)
}
