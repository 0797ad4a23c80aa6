package arch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
)

// layoutVersion is the sentence-transformers whose layout is written. Later versions read it too.
const layoutVersion = "5.3.0"

// classes are the prefixes of the names of Transformers' classes.
var classes = map[string]string{"bert": "Bert", "distilbert": "DistilBert", "electra": "Electra"}

// encodeJSON writes v as Transformers does: two spaces, no escapes of HTML.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(v)
	return b.Bytes(), err
}

// edited is a JSON object with other values for some keys. The rest stays as it is; nil removes a key.
func edited(object []byte, changes map[string]any) ([]byte, error) {
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(object, &doc); err != nil {
		return nil, err
	}
	if doc == nil { // null
		doc = map[string]json.RawMessage{}
	}
	for key, v := range changes {
		if v == nil {
			delete(doc, key)
			continue
		}
		b, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		doc[key] = b
	}
	return encodeJSON(doc)
}

// configWith is the directory's config.json with changes. What is written is float32, whatever was read.
func (s *source) configWith(changes map[string]any) ([]byte, error) {
	for _, key := range []string{"dtype", "torch_dtype"} {
		if _, ok := s.raw[key]; ok {
			changes[key] = "float32"
		}
	}
	b, err := json.Marshal(s.raw)
	if err != nil {
		return nil, err
	}
	return edited(b, changes)
}

// layout is that of a classifier of Transformers, which sentence-transformers opens as a CrossEncoder.
func (m *Cross) layout() (map[string][]byte, error) {
	c := map[string]any{
		"architectures":                        []string{classes[m.Encoder.Config.ModelType] + "ForSequenceClassification"},
		"sentence_transformers":                map[string]string{"activation_fn": m.transform.torchName(), "version": layoutVersion},
		"sbert_ce_default_activation_function": nil,
		"num_labels":                           nil,
	}
	if !m.src.config.Head || m.src.config.Labels != m.Labels || m.src.raw["id2label"] == nil {
		names, ids := map[string]string{}, map[string]int{}
		for i := range m.Labels {
			name := "LABEL_" + strconv.Itoa(i)
			names[strconv.Itoa(i)], ids[name] = name, i
		}
		c["id2label"], c["label2id"] = names, ids
	}
	b, err := m.src.configWith(c)
	return map[string][]byte{configFile: b}, err
}

// layout is that of sentence-transformers: the encoder at the root, and a folder for each module.
func (m *Bi) layout() (map[string][]byte, error) {
	files := map[string][]byte{}
	var err error
	put := func(name string, v any) {
		if err == nil {
			files[name], err = encodeJSON(v)
		}
	}
	type module struct {
		Index int    `json:"idx"`
		Name  string `json:"name"`
		Path  string `json:"path"`
		Type  string `json:"type"`
	}
	var modules []module
	add := func(path, class string) {
		i := len(modules)
		modules = append(modules, module{i, strconv.Itoa(i), path, "sentence_transformers.models." + class})
	}
	add("", "Transformer")
	add("1_Pooling", "Pooling")
	put("1_Pooling/"+configFile, m.poolingConfig())
	for _, st := range m.Head {
		if !filepath.IsLocal(st.Name) {
			return nil, fmt.Errorf("a module cannot be saved as %q", st.Name)
		}
		if st.Dense == nil {
			add(st.Name, "Normalize")
			continue
		}
		add(st.Name, "Dense")
		put(st.Name+"/"+configFile, map[string]any{
			"in_features": st.In, "out_features": st.Out, "bias": st.Bias, "activation_function": torchActivation(st.Activation),
		})
	}
	put(modulesFile, modules)
	put(bertFile, map[string]any{"max_seq_length": m.MaxLength, "do_lower_case": false})
	if err != nil {
		return nil, err
	}
	if files[stFile], err = m.stConfig(); err != nil {
		return nil, err
	}
	files[configFile], err = m.src.configWith(map[string]any{"architectures": []string{classes[m.Encoder.Config.ModelType] + "Model"}})
	return files, err
}

// poolingConfig switches on one of the kinds.
func (m *Bi) poolingConfig() map[string]any {
	c := map[string]any{"word_embedding_dimension": m.Encoder.Config.Hidden, "include_prompt": true}
	for key, name := range poolingKeys {
		c[key] = name == string(m.Pooling)
	}
	return c
}

// stConfig is config_sentence_transformers.json: the directory's own, as far as it says more.
func (m *Bi) stConfig() ([]byte, error) {
	versions := map[string]string{}
	if b, ok := m.src.st.raw["__version__"]; ok {
		if err := json.Unmarshal(b, &versions); err != nil {
			return nil, fmt.Errorf("%s: __version__: %w", stFile, err)
		}
	}
	if versions == nil { // null
		versions = map[string]string{}
	}
	versions["sentence_transformers"] = layoutVersion
	c := map[string]any{"model_type": "SentenceTransformer", "__version__": versions, "similarity_fn_name": m.Similarity, "activation_fn": nil}
	if m.src.st.raw["prompts"] == nil || m.QueryPrompt != m.src.st.query || m.PassagePrompt != m.src.st.passage {
		c["prompts"] = map[string]string{"query": m.QueryPrompt, "document": m.PassagePrompt}
	}
	if m.src.st.raw["default_prompt_name"] == nil {
		c["default_prompt_name"] = json.RawMessage("null")
	}
	old, err := json.Marshal(m.src.st.raw)
	if err != nil {
		return nil, err
	}
	return edited(old, c)
}

// torchActivation is the class of a Dense module's activation in PyTorch.
func torchActivation(name string) string {
	if name == "Identity" {
		return "torch.nn.modules.linear.Identity"
	}
	return "torch.nn.modules.activation." + name
}
