package arch

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"

	"rung/nn"
	"rung/nn/backend"
)

// A Similarity is how a bi-encoder compares two vectors, by the names of sentence-transformers.
type Similarity string

// The similarities.
const (
	Cosine Similarity = "cosine"
	Dot    Similarity = "dot"
)

// parseSimilarity reads a similarity_fn_name; "" is the cosine.
func parseSimilarity(s string) (Similarity, error) {
	switch s {
	case "", "cosine":
		return Cosine, nil
	case "dot", "dot_product":
		return Dot, nil
	}
	return "", fmt.Errorf("similarity %q is not supported, only cosine, dot", s)
}

// A Transform is what a score goes through before it is shown. Ranking never needs it.
type Transform string

// The transforms: none, and 1/(1+exp(-x)).
const (
	Identity Transform = "identity"
	Sigmoid  Transform = "sigmoid"
)

// torchName is a transform's class in PyTorch.
func (t Transform) torchName() string {
	if t == Sigmoid {
		return "torch.nn.modules.activation.Sigmoid"
	}
	return "torch.nn.modules.linear.Identity"
}

// parseTransform reads the class path of an activation.
func parseTransform(class string) (Transform, error) {
	switch class[strings.LastIndexByte(class, '.')+1:] {
	case "Sigmoid":
		return Sigmoid, nil
	case "Identity":
		return Identity, nil
	}
	return "", fmt.Errorf("score activation %q is not supported, only Sigmoid, Identity", class)
}

// activations are those of a Dense module, by the name of their PyTorch class; Identity is none.
var activations = map[string]backend.Func{
	"Tanh": backend.Tanh, "ReLU": backend.ReLU, "GELU": backend.GELU, "Sigmoid": backend.Sigmoid,
}

// stConfig is config_sentence_transformers.json, with the switch of sentence_bert_config.json.
type stConfig struct {
	raw        map[string]json.RawMessage // nil where there is no file
	lower      bool
	modelType  string
	similarity Similarity
	transform  Transform // "" where no file says
	query      string    // prompts
	passage    string
}

// kinds that sentence-transformers and PyLate save and that this package does not open.
var otherKinds = []string{"SparseEncoder", "ColBERT", "MultiVectorEncoder"}

// readST reads the files of sentence-transformers, in their layouts up to 6.2.
func (s *source) readST() error {
	var bert struct {
		MaxLength *int `json:"max_seq_length"`
		Lower     bool `json:"do_lower_case"`
	}
	if _, err := s.readJSON(bertFile, &bert); err != nil {
		return err
	}
	if bert.MaxLength != nil {
		if s.seqLen = *bert.MaxLength; s.seqLen < 1 {
			return fmt.Errorf("%s: max_seq_length %d", bertFile, s.seqLen)
		}
	}
	s.st.lower = bert.Lower
	var st struct {
		ModelType  string             `json:"model_type"`
		Prompts    map[string]*string `json:"prompts"`
		Default    *string            `json:"default_prompt_name"`
		Similarity *string            `json:"similarity_fn_name"`
		Activation *string            `json:"activation_fn"`
	}
	if _, err := s.readJSON(stFile, &st); err != nil {
		return err
	}
	if _, err := s.readJSON(stFile, &s.st.raw); err != nil {
		return err
	}
	s.st.modelType = st.ModelType
	if slices.Contains(otherKinds, st.ModelType) {
		return fmt.Errorf("%s: a %s is not supported, only CrossEncoder and SentenceTransformer", stFile, st.ModelType)
	}
	var err error
	if st.Similarity != nil {
		if s.st.similarity, err = parseSimilarity(*st.Similarity); err != nil {
			return fmt.Errorf("%s: %w", stFile, err)
		}
	}
	s.st.query, s.st.passage = prompt(st.Prompts, st.Default, "query"), prompt(st.Prompts, st.Default, "document", "passage", "corpus")
	if err := s.readActivation(st.Activation); err != nil {
		return err
	}
	return s.readModules()
}

// prompt is what sentence-transformers puts before a text: the first of names that is there, even if
// empty, else the default.
func prompt(prompts map[string]*string, fallback *string, names ...string) string {
	if fallback != nil {
		names = append(names, *fallback)
	}
	for _, n := range names {
		if p, ok := prompts[n]; ok {
			if p == nil {
				return ""
			}
			return *p
		}
	}
	return ""
}

// readActivation finds what a cross-encoder's scores go through: in config_sentence_transformers.json
// (6.x), or under a key of config.json (4.x, and before).
func (s *source) readActivation(class *string) (err error) {
	if class == nil {
		var st struct {
			Activation *string `json:"activation_fn"`
		}
		if b, ok := s.raw["sentence_transformers"]; ok {
			if err := json.Unmarshal(b, &st); err != nil {
				return fmt.Errorf("%s: sentence_transformers: %w", configFile, err)
			}
		}
		class = st.Activation
	}
	if b, ok := s.raw["sbert_ce_default_activation_function"]; ok && class == nil {
		if err := json.Unmarshal(b, &class); err != nil {
			return fmt.Errorf("%s: sbert_ce_default_activation_function: %w", configFile, err)
		}
	}
	if class == nil {
		return nil
	}
	s.st.transform, err = parseTransform(*class)
	return err
}

// A moduleRef is one entry of modules.json.
type moduleRef struct {
	Path string `json:"path"`
	Type string `json:"type"`
}

// class is the module's class without its package, which differs between versions.
func (m moduleRef) class() string { return m.Type[strings.LastIndexByte(m.Type, '.')+1:] }

func (s *source) readModules() error {
	ok, err := s.readJSON(modulesFile, &s.modules)
	if err != nil || !ok {
		return err
	}
	if len(s.modules) == 0 {
		return fmt.Errorf("%s: no modules", modulesFile)
	}
	for i, m := range s.modules {
		known := slices.Contains([]string{"Transformer", "Pooling", "Dense", "Normalize"}, m.class())
		if !strings.HasPrefix(m.Type, "sentence_transformers.") || !known || (i > 0) == (m.class() == "Transformer") {
			return fmt.Errorf("%s: module %q is not supported there, only a Transformer, then Pooling, Dense, Normalize", modulesFile, m.Type)
		}
	}
	if p := s.modules[0].Path; p != "" && p != "." {
		return fmt.Errorf("%s: the Transformer is in %q, want the directory itself", modulesFile, p)
	}
	return nil
}

// pooling reads the pooling module of a bi-encoder; without one, it is the mean.
func (s *source) pooling() (nn.Pooling, error) {
	at := slices.IndexFunc(s.modules, func(m moduleRef) bool { return m.class() == "Pooling" })
	if at < 0 {
		if len(s.modules) > 1 {
			return "", fmt.Errorf("%s: no Pooling", modulesFile)
		}
		return nn.Mean, nil
	}
	if at != 1 {
		return "", fmt.Errorf("%s: Pooling must follow the Transformer", modulesFile)
	}
	name := path.Join(s.modules[at].Path, configFile)
	b, err := s.files.ReadFile(name, maxJSON)
	if err != nil {
		return "", err
	}
	k, dim, prompted, err := parsePooling(b)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	if dim != 0 && dim != s.config.Hidden {
		return "", fmt.Errorf("%s: it pools vectors of %d, but the encoder's have %d", name, dim, s.config.Hidden)
	}
	if !prompted && s.st.query+s.st.passage != "" {
		return "", fmt.Errorf("%s: include_prompt false is not supported with prompts", name)
	}
	return k, nil
}

// parsePooling reads the configuration of a Pooling module: one boolean for each kind, or, from 6.x,
// a name.
func parsePooling(b []byte) (k nn.Pooling, dim int, prompted bool, err error) {
	var raw map[string]json.RawMessage
	var c struct {
		Mode   json.RawMessage `json:"pooling_mode"`
		Dim    int             `json:"embedding_dimension"`
		OldDim int             `json:"word_embedding_dimension"`
		Prompt *bool           `json:"include_prompt"`
	}
	if err := errors.Join(json.Unmarshal(b, &raw), json.Unmarshal(b, &c)); err != nil {
		return "", 0, false, err
	}
	var modes []string
	if c.Mode != nil {
		var one string
		if json.Unmarshal(c.Mode, &one) == nil {
			modes = []string{one}
		} else if err := json.Unmarshal(c.Mode, &modes); err != nil {
			return "", 0, false, fmt.Errorf("pooling_mode is neither a name nor a list of names")
		}
	} else {
		for key, name := range poolingKeys {
			if string(raw[key]) == "true" {
				modes = append(modes, name)
			}
		}
		if modes == nil {
			modes = []string{"mean"}
		}
	}
	if len(modes) != 1 {
		slices.Sort(modes)
		return "", 0, false, fmt.Errorf("pooling %s side by side is not supported", strings.Join(modes, ", "))
	}
	k, err = nn.ParsePooling(modes[0])
	return k, max(c.Dim, c.OldDim), c.Prompt == nil || *c.Prompt, err
}

// poolingKeys are the booleans of a Pooling configuration, and the names of what they switch on.
var poolingKeys = map[string]string{
	"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_max_tokens": "max",
	"pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens": "weightedmean",
	"pooling_mode_lasttoken": "lasttoken",
}

// denseConfig is the configuration of a Dense module.
type denseConfig struct {
	In         int     `json:"in_features"`
	Out        int     `json:"out_features"`
	Bias       *bool   `json:"bias"`
	Activation string  `json:"activation_function"`
	Input      *string `json:"module_input_name"`
	Output     *string `json:"module_output_name"`
	Residual   bool    `json:"use_residual"`
}

// parseDense reads the configuration of a Dense module and returns the name of its activation.
func parseDense(b []byte) (c denseConfig, activation string, err error) {
	if err := json.Unmarshal(b, &c); err != nil {
		return c, "", err
	}
	activation = "Tanh" // the library's default
	if c.Activation != "" {
		activation = c.Activation[strings.LastIndexByte(c.Activation, '.')+1:]
	}
	if _, ok := activations[activation]; !ok && activation != "Identity" {
		return c, "", fmt.Errorf("activation %q is not supported, only Identity, Tanh, ReLU, GELU, Sigmoid", c.Activation)
	}
	if c.In < 1 || c.In > 1<<16 || c.Out < 1 || c.Out > 1<<16 {
		return c, "", fmt.Errorf("it maps %d features to %d", c.In, c.Out)
	}
	for _, n := range []*string{c.Input, c.Output} {
		if n != nil && *n != "sentence_embedding" {
			return c, "", fmt.Errorf("a module that works on %q is not supported", *n)
		}
	}
	if c.Residual {
		return c, "", errors.New("use_residual is not supported")
	}
	return c, activation, nil
}

// Of applies the transform to a score.
func (t Transform) Of(x float32) float32 {
	if t == Sigmoid {
		return float32(1 / (1 + math.Exp(-float64(x))))
	}
	return x
}
