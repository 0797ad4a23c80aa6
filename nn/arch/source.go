package arch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"rung/checkpoints"
	"rung/checkpoints/hub"
	"rung/data/token"
	"rung/nn"
)

// Files of a model directory.
const (
	configFile  = "config.json"
	bertFile    = "sentence_bert_config.json"
	stFile      = "config_sentence_transformers.json"
	modulesFile = "modules.json"
	adapterFile = "adapter_config.json"
)

// maxJSON is the most bytes that a JSON file other than the tokenizer's may have.
const maxJSON = 4 << 20

// maxTokenizer is the most bytes that a file of the tokenizer may have.
const maxTokenizer = 64 << 20

// A source is a model directory as it was opened: its configuration, its weights, and what
// sentence-transformers says of it.
type source struct {
	ref     string // "hf:org/name@commit", or "" for a directory of this machine
	dir     string
	config  nn.Config
	raw     map[string]json.RawMessage // config.json, whole
	st      stConfig
	seqLen  int         // of sentence_bert_config.json, 0 where it says nothing
	modules []moduleRef // of modules.json, nil where there is none
	tok     *token.Tokenizer
	card    *Card // of rank.json, nil where there is none

	files   *checkpoints.Dir
	weights *checkpoints.Weights
	parts   []io.Closer
	used    map[string]bool // tensors that parameters start from
	hash    func() (string, error)
}

// openSource reads everything but the values of weights. Errors name the directory.
func openSource(ctx context.Context, ref string) (*source, error) {
	dir, rev, err := hub.Resolve(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("arch: %w", err)
	}
	s := &source{dir: dir, used: map[string]bool{}}
	if name, ok := strings.CutPrefix(ref, "hf:"); ok {
		name, _, _ = strings.Cut(name, "@")
		s.ref = "hf:" + name + "@" + rev
	}
	if s.files, err = checkpoints.OpenDir(dir); err != nil {
		return nil, fmt.Errorf("arch: %w", err)
	}
	s.parts = append(s.parts, s.files)
	s.hash = sync.OnceValues(s.hashWeights)
	for _, read := range []func() error{s.readConfig, s.readST, s.readTokenizer, s.readCard, s.readWeights} {
		if err := read(); err != nil {
			_ = s.close()
			return nil, fmt.Errorf("arch: %s: %w", dir, err)
		}
	}
	return s, nil
}

func (s *source) close() error {
	var errs []error
	for _, c := range slices.Backward(s.parts) {
		errs = append(errs, c.Close())
	}
	s.parts = nil
	return errors.Join(errs...)
}

// readJSON decodes a file that may be absent.
func (s *source) readJSON(name string, into any) (bool, error) {
	b, err := s.files.ReadFile(name, maxJSON)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return true, fmt.Errorf("%s: %w", name, err)
	}
	return true, nil
}

func (s *source) readConfig() error {
	ok, err := s.readJSON(configFile, &s.raw)
	if err != nil {
		return err
	}
	if !ok {
		if s.files.Has(adapterFile) {
			return fmt.Errorf("%s: this is an adapter, which opens with its base", adapterFile)
		}
		return fmt.Errorf("no %s: not a model directory", configFile)
	}
	b, err := s.files.ReadFile(configFile, maxJSON)
	if err != nil {
		return err
	}
	s.config, err = nn.ParseConfig(b)
	return err
}

// readTokenizer reads the tokenizer through the confined directory, and checks that every id that it
// makes is a row of the embedding table.
func (s *source) readTokenizer() error {
	files := map[string][]byte{}
	for _, name := range []string{"tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"} {
		b, err := s.files.ReadFile(name, maxTokenizer)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		files[name] = b
	}
	t, err := token.Load(files)
	if err != nil {
		return err
	}
	if s.st.lower && !t.Lower() {
		if t, err = lowered(files); err != nil {
			return err
		}
	}
	if n := t.VocabSize(); n > s.config.Vocab {
		return fmt.Errorf("the tokenizer has %d tokens, but the model embeds %d", n, s.config.Vocab)
	}
	s.tok = t
	return nil
}

// lowered is a cased tokenizer that lower-cases first, as sentence_bert_config.json asks for.
func lowered(files map[string][]byte) (*token.Tokenizer, error) {
	doc := map[string]any{}
	if b, ok := files["tokenizer_config.json"]; ok {
		if err := json.Unmarshal(b, &doc); err != nil {
			return nil, fmt.Errorf("tokenizer_config.json: %w", err)
		}
	}
	if doc == nil { // null
		doc = map[string]any{}
	}
	doc["do_lower_case"] = true
	if _, ok := doc["strip_accents"]; !ok || doc["strip_accents"] == nil {
		doc["strip_accents"] = false
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	files["tokenizer_config.json"] = b
	return token.Load(files)
}

func (s *source) readCard() (err error) {
	b, err := s.files.ReadFile(CardFile, maxJSON)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if s.card, err = ParseCard(b); err != nil {
		return err
	}
	return s.card.CheckTokenizer(s.tok)
}

func (s *source) readWeights() (err error) {
	if s.weights, err = s.files.Weights(checkpoints.ModelFile); err == nil {
		s.parts = append(s.parts, s.weights)
	}
	return err
}

// hashWeights is the SHA-256 of what the weights are: names, types, shapes and bytes in the order of
// names. Sharding and metadata do not matter.
func (s *source) hashWeights() (string, error) {
	h := sha256.New()
	for _, name := range s.weights.Names() {
		t, err := s.weights.Tensor(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%q %s %v\n", name, t.DType, t.Shape)
		if err := writeMapped(h, t.Data); err != nil {
			return "", fmt.Errorf("tensor %q: %w", name, err)
		}
		s.weights.Forget(name)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// writeMapped writes data of a mapped file, which faults where the file has been truncated since.
func writeMapped(w io.Writer, data []byte) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			err = errors.New("the file was truncated while it was being read")
		}
	}()
	_, err = w.Write(data)
	return err
}

// find returns the tensor that a parameter starts from: under its own name, with or without the
// encoder's prefix ("bert."), and with LayerNorm's older names gamma and beta.
func (s *source) find(path string) (checkpoints.Tensor, bool, error) {
	prefix := s.config.ModelType + "."
	bare, cut := strings.CutPrefix(path, prefix)
	if !cut {
		bare = prefix + path
	}
	for _, name := range []string{path, bare} {
		for _, name := range []string{name, olderNorm(name)} {
			if s.weights.Has(name) {
				s.used[name] = true
				t, err := s.weights.Tensor(name)
				return t, true, err
			}
		}
	}
	return checkpoints.Tensor{}, false, nil
}

// olderNorm is the name of a LayerNorm's parameter in checkpoints that call them gamma and beta.
func olderNorm(name string) string {
	if !strings.Contains(name, "LayerNorm.") && !strings.Contains(name, "layer_norm.") {
		return name
	}
	if n, ok := strings.CutSuffix(name, ".weight"); ok {
		return n + ".gamma"
	}
	if n, ok := strings.CutSuffix(name, ".bias"); ok {
		return n + ".beta"
	}
	return name
}

// bind makes parameters start from the directory's tensors. Those of a head that the directory lacks
// are created where that is allowed: weights drawn, biases zero.
func (s *source) bind(ps []*nn.Param, seed uint64, create func(path string) bool) error {
	for _, p := range ps {
		t, ok, err := s.find(p.Path)
		switch {
		case err != nil:
			return err
		case ok:
			err = startFrom(p, t, s.weights)
		case create(p.Path):
			p.Created = true
			if p.Init = nil; !strings.HasSuffix(p.Path, ".bias") {
				p.Init = p.Normal(seed, s.config.InitStd)
			}
		default:
			err = fmt.Errorf("no tensor %q, nor one under its other names", p.Path)
		}
		if err != nil {
			return fmt.Errorf("arch: %s: %w", s.dir, err)
		}
	}
	return nil
}

// startFrom makes p start from t, a tensor of w.
func startFrom(p *nn.Param, t checkpoints.Tensor, w *checkpoints.Weights) error {
	if !slices.Equal(t.Shape, p.Dims) {
		return fmt.Errorf("tensor %q is %v, want %v", t.Name, t.Shape, p.Dims)
	}
	p.Init = func(dst []float32) error {
		defer w.Forget(t.Name) // else it is in memory twice
		return checkpoints.CopyFloat32s(dst, t)
	}
	return nil
}

// rest lists the tensors that no parameter starts from. Heads of other tasks and buffers are passed
// over; a tensor inside the encoder means that the model computes something else than config.json says.
func (s *source) rest() ([]string, error) {
	var rest []string
	for _, name := range s.weights.Names() {
		if s.used[name] {
			continue
		}
		inside := strings.TrimPrefix(name, s.config.ModelType+".")
		buffer := strings.HasSuffix(inside, "position_ids") || strings.HasSuffix(inside, "token_type_ids")
		for _, part := range []string{"embeddings.", "embeddings_project.", "encoder.", "transformer."} {
			if strings.HasPrefix(inside, part) && !buffer {
				return nil, fmt.Errorf("arch: %s: tensor %q is not part of the encoder that %s describes", s.dir, name, configFile)
			}
		}
		rest = append(rest, name)
	}
	return rest, nil
}
