// Package archtest writes small model directories, for tests of what opens them.
package archtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rung/checkpoints"
	"rung/data/token"
	"rung/nn"
	"rung/nn/backend/philox"
)

// A Spec says what to write. Begin with Tiny.
type Spec struct {
	ModelType                  string // bert, distilbert, electra
	Layers, Hidden, Heads, FF  int
	Positions, Types           int
	Embedding                  int      // of electra; 0: Hidden
	Labels                     int      // of a sequence classifier; 0: an encoder
	Pooling                    string   // "": no layout of sentence-transformers; else cls, mean, max
	Dense                      int      // width after a Dense module with tanh; 0: none
	Normalize                  bool     // a Normalize module at the end
	Similarity                 string   // "": the file does not say
	QueryPrompt, PassagePrompt string   // put before texts
	MaxLength                  int      // tokens of a sequence, as the directory says; 0: it does not
	Words                      []string // of the vocabulary beside letters and digits
	Seed                       uint64
	Std                        float64          // of the weights, which are N(0, Std²)
	Config                     map[string]any   // more keys of config.json, or other values
	Drop                       []string         // parts of names of tensors that are left out
	Prefix                     string           // put before the names of tensors
	Rename                     []string         // parts of names of tensors, each followed by what takes its place
	Shape                      map[string][]int // other shapes of tensors
	Dropout                    float64
}

// Tiny is a BERT of two layers without a head, sentence-transformers' files or dropout. Texts of its
// words and any others in Latin letters are read without unknown tokens.
func Tiny() Spec {
	return Spec{
		ModelType: "bert", Layers: 2, Hidden: 16, Heads: 2, FF: 32, Positions: 64, Types: 2, MaxLength: 64, Seed: 1, Std: .2,
		Words: strings.Fields("the a of and to in is who what why how where when river mountain sea bird bread light moon sun star " +
			"red blue green long short old new city road bridge water wind rain snow song book letter night day"),
	}
}

// Vocab is the vocabulary that Write gives a directory: special tokens, the words, then letters, digits
// and punctuation, each at the beginning of a word and inside one.
func (s Spec) Vocab() []string {
	v := slices.Concat([]string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}, s.Words)
	for _, c := range "abcdefghijklmnopqrstuvwxyz0123456789" {
		v = append(v, string(c), "##"+string(c))
	}
	v = append(v, strings.Split(".,;:!?-'\"()/", "")...)
	seen := map[string]bool{}
	return slices.DeleteFunc(v, func(token string) bool {
		again := seen[token]
		seen[token] = true
		return again
	})
}

// Write is s.Write for tests. It returns dir.
func Write(t testing.TB, dir string, s Spec) string {
	t.Helper()
	if err := s.Write(dir); err != nil {
		t.Fatalf("archtest: %v", err)
	}
	return dir
}

// Write writes the directory dir, which is made where it is missing.
func (s Spec) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	config := s.config()
	b, err := json.Marshal(config)
	if err != nil {
		return err
	}
	files := map[string]any{"config.json": config}
	c, err := nn.ParseConfig(b)
	if err == nil { // a configuration that is refused needs no weights
		if err := s.weights(dir, c); err != nil {
			return err
		}
	}
	o := token.Defaults()
	o.MaxLength = s.MaxLength
	tok, err := token.FromVocab(s.Vocab(), o)
	if err != nil {
		return err
	}
	texts, err := tok.Files()
	if err != nil {
		return err
	}
	if s.Pooling != "" {
		s.modules(files)
	}
	for name, doc := range files {
		if texts[name], err = json.MarshalIndent(doc, "", "  "); err != nil {
			return err
		}
	}
	for name, b := range texts {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			return err
		}
		if err := os.WriteFile(path, b, 0o666); err != nil {
			return err
		}
	}
	return nil
}

// classes are the prefixes of Transformers' classes.
var classes = map[string]string{"bert": "Bert", "distilbert": "DistilBert", "electra": "Electra"}

func (s Spec) config() map[string]any {
	suffix := "Model"
	if s.Labels > 0 {
		suffix = "ForSequenceClassification"
	}
	c := map[string]any{
		"model_type": s.ModelType, "architectures": []string{classes[s.ModelType] + suffix},
		"vocab_size": len(s.Vocab()), "max_position_embeddings": s.Positions, "initializer_range": .02, "pad_token_id": 0,
	}
	if s.Labels > 0 {
		names, ids := map[string]string{}, map[string]int{}
		for i := range s.Labels {
			names[strconv.Itoa(i)], ids["LABEL_"+strconv.Itoa(i)] = "LABEL_"+strconv.Itoa(i), i
		}
		c["id2label"], c["label2id"] = names, ids
	}
	if s.ModelType == "distilbert" {
		maps.Copy(c, map[string]any{
			"dim": s.Hidden, "n_layers": s.Layers, "n_heads": s.Heads, "hidden_dim": s.FF, "activation": "gelu",
			"dropout": s.Dropout, "attention_dropout": s.Dropout, "seq_classif_dropout": s.Dropout,
		})
	} else {
		maps.Copy(c, map[string]any{
			"hidden_size": s.Hidden, "num_hidden_layers": s.Layers, "num_attention_heads": s.Heads, "intermediate_size": s.FF, "hidden_act": "gelu",
			"hidden_dropout_prob": s.Dropout, "attention_probs_dropout_prob": s.Dropout, "type_vocab_size": s.Types, "layer_norm_eps": 1e-12,
		})
	}
	if s.ModelType == "electra" {
		c["embedding_size"] = s.Hidden
		if s.Embedding > 0 {
			c["embedding_size"] = s.Embedding
		}
	}
	maps.Copy(c, s.Config)
	return c
}

// weights writes model.safetensors: every parameter drawn by its name.
func (s Spec) weights(dir string, c nn.Config) error {
	prefix := ""
	if s.Labels > 0 {
		prefix = c.ModelType + "."
	}
	ps := nn.NewEncoder(c, prefix).Params()
	linear := func(path string, in, out int) { ps = append(ps, nn.NewLinear(path, in, out, true).Params()...) }
	switch {
	case c.ModelType == "bert":
		linear(prefix+"pooler.dense", c.Hidden, c.Hidden)
	case c.ModelType == "distilbert" && s.Labels > 0:
		linear("pre_classifier", c.Hidden, c.Hidden)
	case c.ModelType == "electra" && s.Labels > 0:
		linear("classifier.dense", c.Hidden, c.Hidden)
		linear("classifier.out_proj", c.Hidden, s.Labels)
	}
	if s.Labels > 0 && c.ModelType != "electra" {
		linear("classifier", c.Hidden, s.Labels)
	}
	if err := s.tensors(filepath.Join(dir, checkpoints.ModelFile), ps, ""); err != nil {
		return err
	}
	if s.Dense == 0 {
		return nil
	}
	folder := filepath.Join(dir, "2_Dense")
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return err
	}
	s.Prefix, s.Rename = "", nil
	return s.tensors(filepath.Join(folder, checkpoints.ModelFile), nn.NewLinear("linear", c.Hidden, s.Dense, true).Params(), "2_Dense.")
}

func (s Spec) tensors(path string, ps []*nn.Param, site string) error {
	var ts []checkpoints.Tensor
	for _, p := range ps {
		name, dims := p.Path, p.Dims
		if d, ok := s.Shape[name]; ok {
			dims = d
		}
		if slices.ContainsFunc(s.Drop, func(part string) bool { return strings.Contains(name, part) }) {
			continue
		}
		n := 1
		for _, d := range dims {
			n *= d
		}
		draws, v := make([]float64, n), make([]float32, n)
		philox.Normal(draws, s.Seed, site+name)
		norm := strings.Contains(strings.ToLower(name), "norm.weight")
		for i, x := range draws {
			if v[i] = float32(x * s.Std); norm {
				v[i]++
			}
		}
		name = s.Prefix + strings.NewReplacer(s.Rename...).Replace(name)
		t, err := checkpoints.NewTensor(name, dims, v)
		if err != nil {
			return err
		}
		ts = append(ts, t)
	}
	return checkpoints.CreateFile(path, ts, nil)
}

// modules adds the files of sentence-transformers, as version 5 writes them.
func (s Spec) modules(files map[string]any) {
	list := []map[string]any{}
	add := func(path, class string) {
		list = append(list, map[string]any{"idx": len(list), "name": strconv.Itoa(len(list)), "path": path, "type": "sentence_transformers.models." + class})
	}
	add("", "Transformer")
	add("1_Pooling", "Pooling")
	keys := map[string]string{"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens"}
	pooling := map[string]any{"word_embedding_dimension": s.Hidden}
	for kind, key := range keys {
		pooling["pooling_mode_"+key] = kind == s.Pooling
	}
	files["1_Pooling/config.json"] = pooling
	if s.Dense > 0 {
		add("2_Dense", "Dense")
		files["2_Dense/config.json"] = map[string]any{"in_features": s.Hidden, "out_features": s.Dense, "bias": true, "activation_function": "torch.nn.modules.activation.Tanh"}
	}
	if s.Normalize {
		add(fmt.Sprintf("%d_Normalize", len(list)), "Normalize")
	}
	files["modules.json"] = list
	st := map[string]any{"model_type": "SentenceTransformer", "prompts": map[string]string{"query": s.QueryPrompt, "document": s.PassagePrompt}}
	if s.Similarity != "" {
		st["similarity_fn_name"] = s.Similarity
	}
	files["config_sentence_transformers.json"] = st
	if s.MaxLength > 0 {
		files["sentence_bert_config.json"] = map[string]any{"max_seq_length": s.MaxLength, "do_lower_case": false}
	}
}
