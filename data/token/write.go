package token

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Files returns the files of a model directory that hold the tokenizer, by name: tokenizer.json for
// the tokenizers library and what builds on it; vocab.txt, tokenizer_config.json and
// special_tokens_map.json also for readers that know only these. Keys of tokenizer_config.json that
// mean nothing here are kept as they were read. Truncation and padding are not set: they belong to a
// run, not to a tokenizer.
func (t *Tokenizer) Files() (map[string][]byte, error) {
	files := map[string][]byte{vocabTXT: []byte(strings.Join(t.vocab, "\n") + "\n")}
	roles := make(map[string]any)
	for _, key := range roleKeys {
		if s := *t.options.role(key); s != "" {
			if _, ok := t.ID(s); ok {
				roles[key] = s
			}
		}
	}
	config, err := t.configDoc(roles)
	if err != nil {
		return nil, fmt.Errorf("token: %s: %w", configJSON, err)
	}
	pipeline, err := t.tokenizerDoc()
	if err != nil {
		return nil, fmt.Errorf("token: %s: %w", tokenizerJSON, err)
	}
	for name, doc := range map[string]any{tokenizerJSON: pipeline, configJSON: config, specialMapJSON: roles} {
		if files[name], err = encodeJSON(doc); err != nil {
			return nil, fmt.Errorf("token: %s: %w", name, err)
		}
	}
	return files, nil
}

// encodeJSON writes doc as Hugging Face's libraries do: two spaces, no escaping of <, > and &.
func encodeJSON(doc any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(doc)
	return b.Bytes(), err
}

// stripAccents is the value of strip_accents: null where it follows lower-casing.
func (o *Options) stripAccents() *bool {
	if o.StripAccents == o.Lower {
		return nil
	}
	return &o.StripAccents
}

func (t *Tokenizer) configDoc(roles map[string]any) (map[string]any, error) {
	doc := make(map[string]any)
	for key, v := range t.config.raw {
		doc[key] = v
	}
	maps.Copy(doc, roles)
	o := t.options
	doc["do_lower_case"] = o.Lower
	doc["strip_accents"] = o.stripAccents()
	doc["tokenize_chinese_chars"] = o.SplitIdeographs
	if _, ok := doc["clean_text"]; ok || !o.CleanText {
		doc["clean_text"] = o.CleanText
	}
	if _, ok := doc["tokenizer_class"]; !ok {
		doc["tokenizer_class"] = "BertTokenizer"
	}
	if o.MaxLength > 0 {
		doc["model_max_length"] = o.MaxLength
	}
	type flags struct {
		Content    string `json:"content"`
		LStrip     bool   `json:"lstrip"`
		Normalized bool   `json:"normalized"`
		RStrip     bool   `json:"rstrip"`
		SingleWord bool   `json:"single_word"`
		Special    bool   `json:"special"`
	}
	added := make(map[string]flags)
	for _, a := range o.Added {
		added[strconv.Itoa(int(a.ID))] = flags{a.Content, a.LStrip, a.Normalized, a.RStrip, a.SingleWord, a.Special}
	}
	doc["added_tokens_decoder"] = added
	return doc, nil
}

func (t *Tokenizer) tokenizerDoc() (any, error) {
	o := t.options
	single, pair := bertTemplate(o.CLS, o.SEP)
	vocab, err := orderedObject(t.vocab)
	if err != nil {
		return nil, err
	}
	special := func(s string, id int32) templateSpecial { return templateSpecial{s, []int64{int64(id)}, []string{s}} }
	type post struct {
		Type    string                     `json:"type"`
		Single  []templatePart             `json:"single"`
		Pair    []templatePart             `json:"pair"`
		Special map[string]templateSpecial `json:"special_tokens"`
	}
	type decoder struct {
		Type    string `json:"type"`
		Prefix  string `json:"prefix"`
		Cleanup bool   `json:"cleanup"`
	}
	type model struct {
		Type     string          `json:"type"`
		Unknown  string          `json:"unk_token"`
		Prefix   string          `json:"continuing_subword_prefix"`
		MaxChars int             `json:"max_input_chars_per_word"`
		Vocab    json.RawMessage `json:"vocab"`
	}
	return struct {
		Version       string       `json:"version"`
		Truncation    *struct{}    `json:"truncation"`
		Padding       *struct{}    `json:"padding"`
		Added         []AddedToken `json:"added_tokens"`
		Normalizer    bertNormal   `json:"normalizer"`
		PreTokenizer  typed        `json:"pre_tokenizer"`
		PostProcessor post         `json:"post_processor"`
		Decoder       decoder      `json:"decoder"`
		Model         model        `json:"model"`
	}{
		Version:       "1.0",
		Added:         slices.Concat([]AddedToken{}, o.Added),
		Normalizer:    bertNormal{"BertNormalizer", &o.CleanText, &o.SplitIdeographs, o.stripAccents(), &o.Lower},
		PreTokenizer:  typed{"BertPreTokenizer"},
		PostProcessor: post{"TemplateProcessing", single, pair, map[string]templateSpecial{o.CLS: special(o.CLS, t.cls), o.SEP: special(o.SEP, t.sep)}},
		Decoder:       decoder{"WordPiece", o.Prefix, true},
		Model:         model{"WordPiece", o.UNK, o.Prefix, o.MaxChars, vocab},
	}, nil
}

// orderedObject is the object from each token to its id, in the order of ids.
func orderedObject(tokens []string) (json.RawMessage, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	b.WriteByte('{')
	for id, s := range tokens {
		if id > 0 {
			b.WriteByte(',')
		}
		if err := e.Encode(s); err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, ":%d", id)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// Hash returns the SHA-256, in hexadecimal, of everything that decides the ids of a text. Tokenizers
// that were read from different files and behave alike have the same hash.
func (t *Tokenizer) Hash() string {
	h := sha256.New()
	text := func(s string) {
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	o := t.options
	text("WordPiece 1") // of this form; a change of behaviour needs another
	text(fmt.Sprintf("clean %t ideographs %t strip %t lower %t maxchars %d", o.CleanText, o.SplitIdeographs, o.StripAccents, o.Lower, o.MaxChars))
	text(fmt.Sprintf("unk %d cls %d sep %d pad %d mask %d vocab %d added %d", t.unk, t.cls, t.sep, t.pad, t.mask, len(t.vocab), len(o.Added)))
	text(o.Prefix)
	for _, s := range t.vocab {
		text(s)
	}
	for _, a := range o.Added {
		text(fmt.Sprintf("%d word %t left %t right %t normalized %t", a.ID, a.SingleWord, a.LStrip, a.RStrip, a.Normalized))
		text(a.Content)
	}
	return hex.EncodeToString(h.Sum(nil))
}
