package nn

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Config is what config.json says of an encoder.
type Config struct {
	ModelType string // bert, distilbert or electra
	Layers    int
	Hidden    int // D
	Heads     int // H
	FF        int // F
	Vocab     int
	Positions int
	Types     int // token types; 0: the encoder has none
	Embedding int // width of the embeddings, projected to Hidden where they differ (electra)
	Eps       float64
	Dropout   float64 // after embeddings and the dense layers of attention (of which DistilBERT drops nothing) and feed-forward
	AttnDrop  float64 // of attention probabilities
	HeadDrop  float64 // before the classifier
	InitStd   float64
	Labels    int  // classes of a sequence classifier; 0 where config.json does not say
	Head      bool // the architecture is a sequence classifier
}

// modelTypes are the encoders that can be opened.
var modelTypes = []string{"bert", "distilbert", "electra"}

// ParseConfig reads a config.json. It refuses what this package would compute wrongly: other model
// types, activations other than GELU by the error function, relative positions.
func ParseConfig(data []byte) (Config, error) {
	var j struct {
		ModelType   string            `json:"model_type"`
		Arch        []string          `json:"architectures"`
		Act         *string           `json:"hidden_act"`
		Activation  *string           `json:"activation"`
		PosType     *string           `json:"position_embedding_type"`
		Decoder     bool              `json:"is_decoder"`
		Hidden      int               `json:"hidden_size"`
		Layers      int               `json:"num_hidden_layers"`
		Heads       int               `json:"num_attention_heads"`
		FF          int               `json:"intermediate_size"`
		Dim         int               `json:"dim"`
		NLayers     int               `json:"n_layers"`
		NHeads      int               `json:"n_heads"`
		HiddenDim   int               `json:"hidden_dim"`
		Embedding   int               `json:"embedding_size"`
		Vocab       int               `json:"vocab_size"`
		Positions   int               `json:"max_position_embeddings"`
		Types       *int              `json:"type_vocab_size"`
		Eps         *float64          `json:"layer_norm_eps"`
		HiddenDrop  *float64          `json:"hidden_dropout_prob"`
		AttnDrop    *float64          `json:"attention_probs_dropout_prob"`
		ClassDrop   *float64          `json:"classifier_dropout"`
		DistilDrop  *float64          `json:"dropout"`
		DistilAttn  *float64          `json:"attention_dropout"`
		DistilClass *float64          `json:"seq_classif_dropout"`
		InitStd     *float64          `json:"initializer_range"`
		ID2Label    map[string]string `json:"id2label"`
		NumLabels   *int              `json:"num_labels"`
	}
	if err := json.Unmarshal(data, &j); err != nil {
		return Config{}, fmt.Errorf("nn: config.json: %w", err)
	}
	if !slices.Contains(modelTypes, j.ModelType) {
		return Config{}, fmt.Errorf("nn: config.json: model_type %q is not supported, only %s", j.ModelType, strings.Join(modelTypes, ", "))
	}
	or := func(v *float64, d float64) float64 {
		if v == nil {
			return d
		}
		return *v
	}
	c := Config{
		ModelType: j.ModelType, Vocab: j.Vocab, Positions: j.Positions, InitStd: or(j.InitStd, .02),
		Head: slices.ContainsFunc(j.Arch, func(a string) bool { return strings.HasSuffix(a, "ForSequenceClassification") }),
	}
	act := j.Act
	if j.ModelType == "distilbert" {
		act = j.Activation
		c.Layers, c.Hidden, c.Heads, c.FF, c.Eps = j.NLayers, j.Dim, j.NHeads, j.HiddenDim, 1e-12
		c.Dropout, c.AttnDrop, c.HeadDrop = or(j.DistilDrop, .1), or(j.DistilAttn, .1), or(j.DistilClass, .2)
	} else {
		c.Layers, c.Hidden, c.Heads, c.FF, c.Eps, c.Types = j.Layers, j.Hidden, j.Heads, j.FF, or(j.Eps, 1e-12), 2
		c.Dropout, c.AttnDrop = or(j.HiddenDrop, .1), or(j.AttnDrop, .1)
		c.HeadDrop = or(j.ClassDrop, c.Dropout)
		if j.Types != nil {
			c.Types = *j.Types
		}
	}
	c.Embedding = c.Hidden
	if j.ModelType == "electra" && j.Embedding > 0 {
		c.Embedding = j.Embedding
	}
	if j.NumLabels != nil {
		c.Labels = *j.NumLabels
	}
	if len(j.ID2Label) > 0 {
		c.Labels = len(j.ID2Label)
	}
	if c.Head && c.Labels == 0 {
		c.Labels = 2 // Transformers' default, which it does not write
	}
	switch {
	case act != nil && *act != "gelu":
		return c, fmt.Errorf("nn: config.json: activation %q is not supported, only gelu", *act)
	case j.PosType != nil && *j.PosType != "absolute":
		return c, fmt.Errorf("nn: config.json: position_embedding_type %q is not supported, only absolute", *j.PosType)
	case j.Decoder:
		return c, fmt.Errorf("nn: config.json: is_decoder is not supported: an encoder sees both sides")
	}
	return c, c.check()
}

// check refuses sizes that no memory could hold or that do not fit together.
func (c Config) check() error {
	for _, v := range []struct {
		name   string
		v, max int
	}{
		{"layers", c.Layers, 1 << 10},
		{"hidden size", c.Hidden, 1 << 16},
		{"attention heads", c.Heads, 1 << 12},
		{"feed-forward size", c.FF, 1 << 18},
		{"vocabulary size", c.Vocab, 1 << 24},
		{"positions", c.Positions, 1 << 20},
		{"embedding size", c.Embedding, 1 << 16},
	} {
		if v.v < 1 || v.v > v.max {
			return fmt.Errorf("nn: config.json: %s %d is not in 1 to %d", v.name, v.v, v.max)
		}
	}
	if c.Hidden%c.Heads != 0 {
		return fmt.Errorf("nn: config.json: hidden size %d is not a multiple of %d heads", c.Hidden, c.Heads)
	}
	if c.Types < 0 || c.Types > 1<<16 || c.Labels < 0 || c.Labels > 1<<16 {
		return fmt.Errorf("nn: config.json: %d token types, %d labels", c.Types, c.Labels)
	}
	for _, d := range []float64{c.Dropout, c.AttnDrop, c.HeadDrop} {
		if d < 0 || d >= 1 {
			return fmt.Errorf("nn: config.json: dropout %v is not in [0,1)", d)
		}
	}
	if !(c.Eps > 0) || !(c.InitStd >= 0) {
		return fmt.Errorf("nn: config.json: layer_norm_eps %v (want above 0), initializer_range %v (want 0 or more)", c.Eps, c.InitStd)
	}
	return nil
}
