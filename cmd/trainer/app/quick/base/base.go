// Package base is the encoder that the quickstart begins with, and how it was made: a BERT of two
// layers that knows a made-up language (package lingua) from its texts alone.
//
// The directory encoder is what the generator wrote; record.json in it says how the pre-training went.
package base

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"rung/checkpoints"
	"rung/data/token"
	"rung/nn"
)

//go:generate go run ./gen encoder

// Seed is that of the language, and of the pre-training.
const Seed = 1

//go:embed encoder
var files embed.FS

const (
	folder     = "encoder"
	recordFile = "record.json"
)

// A Record is how a pre-training went.
type Record struct {
	Backend   string    `json:"backend"` // device and instruction set
	Steps     int       `json:"steps"`
	Sequences int       `json:"sequences"`
	Tokens    int       `json:"tokens"`
	First     []float64 `json:"first_losses"` // of the first updates
	Last      float64   `json:"last_loss"`    // mean of the last hundred updates
	SHA256    string    `json:"sha256"`       // of model.safetensors
}

// Write writes the encoder into the directory dir, whole or not at all, as Transformers has it.
func Write(ctx context.Context, dir string) error {
	err := checkpoints.Save(ctx, dir, func(tmp string) error {
		entries, err := fs.ReadDir(files, folder)
		if err != nil {
			return err
		}
		for _, e := range entries {
			b, err := fs.ReadFile(files, path.Join(folder, e.Name()))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(tmp, e.Name()), b, 0o666); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("base: %w", err)
	}
	return nil
}

// Files are the files of an encoder with these parameters, by name, and the record of its making, whose
// sum is set here.
func Files(ps []*nn.Param, r Record) (map[string][]byte, error) {
	tok, err := tokenizer()
	if err != nil {
		return nil, err
	}
	out, err := tok.Files()
	if err != nil {
		return nil, fmt.Errorf("base: %w", err)
	}
	var tensors []checkpoints.Tensor
	for _, p := range ps {
		v := make([]float32, p.Size())
		if err := p.Init(v); err != nil {
			return nil, fmt.Errorf("base: %s: %w", p.Path, err)
		}
		t, err := checkpoints.NewTensor(p.Path, p.Dims, v)
		if err != nil {
			return nil, fmt.Errorf("base: %w", err)
		}
		tensors = append(tensors, t)
	}
	var b bytes.Buffer
	if err := checkpoints.WriteFile(&b, tensors, nil); err != nil {
		return nil, fmt.Errorf("base: %w", err)
	}
	out[checkpoints.ModelFile] = b.Bytes()
	sum := sha256.Sum256(b.Bytes())
	r.SHA256 = hex.EncodeToString(sum[:])
	if out["config.json"], err = encode(configJSON(config(tok.VocabSize()))); err != nil {
		return nil, err
	}
	out[recordFile], err = encode(r)
	return out, err
}

func encode(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("base: %w", err)
	}
	return append(b, '\n'), nil
}

// configJSON is config.json as Transformers' BertModel reads it.
func configJSON(c nn.Config) map[string]any {
	return map[string]any{
		"architectures": []string{"BertModel"}, "model_type": c.ModelType, "hidden_act": "gelu",
		"num_hidden_layers": c.Layers, "hidden_size": c.Hidden, "num_attention_heads": c.Heads, "intermediate_size": c.FF,
		"vocab_size": c.Vocab, "max_position_embeddings": c.Positions, "type_vocab_size": c.Types, "pad_token_id": 0,
		"layer_norm_eps": c.Eps, "initializer_range": c.InitStd, "hidden_dropout_prob": c.Dropout, "attention_probs_dropout_prob": c.AttnDrop,
	}
}

// tokenizer is that of the language.
func tokenizer() (*token.Tokenizer, error) {
	o := token.Defaults()
	o.MaxLength = positions
	t, err := token.FromVocab(language().Vocabulary(), o)
	if err != nil {
		return nil, fmt.Errorf("base: %w", err)
	}
	return t, nil
}
