package token

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// bertClasses are the tokenizer classes of Transformers that are BERT's.
var bertClasses = []string{
	"BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "DistilBertTokenizerFast",
	"ElectraTokenizer", "ElectraTokenizerFast",
}

// A configFile is tokenizer_config.json, completed by special_tokens_map.json.
type configFile struct {
	raw   map[string]json.RawMessage // all keys of tokenizer_config.json
	known configKeys
	names map[string]string // role ("cls_token") to token
}

type configKeys struct {
	Class        string               `json:"tokenizer_class"`
	Lower        *bool                `json:"do_lower_case"`
	StripAccents *bool                `json:"strip_accents"`
	Ideographs   *bool                `json:"tokenize_chinese_chars"`
	CleanText    *bool                `json:"clean_text"`
	Basic        *bool                `json:"do_basic_tokenize"`
	MaxLength    json.Number          `json:"model_max_length"`
	Added        map[string]fileToken `json:"added_tokens_decoder"`
}

// roleKeys are the keys that name the special tokens.
var roleKeys = []string{"unk_token", "cls_token", "sep_token", "pad_token", "mask_token"}

func (o *Options) role(key string) *string {
	switch key {
	case "unk_token":
		return &o.UNK
	case "cls_token":
		return &o.CLS
	case "sep_token":
		return &o.SEP
	case "pad_token":
		return &o.PAD
	default:
		return &o.MASK
	}
}

// parseConfig reads the two files; either may be nil.
func parseConfig(config, special []byte) (configFile, error) {
	c := configFile{names: make(map[string]string)}
	if config != nil {
		if err := json.Unmarshal(config, &c.raw); err != nil {
			return c, fmt.Errorf("%s: %w", configJSON, err)
		}
		if err := json.Unmarshal(config, &c.known); err != nil {
			return c, fmt.Errorf("%s: %w", configJSON, err)
		}
		if err := c.readRoles(c.raw); err != nil {
			return c, fmt.Errorf("%s: %w", configJSON, err)
		}
	}
	if special != nil {
		var raw map[string]json.RawMessage
		if err := json.Unmarshal(special, &raw); err != nil {
			return c, fmt.Errorf("%s: %w", specialMapJSON, err)
		}
		if err := c.readRoles(raw); err != nil {
			return c, fmt.Errorf("%s: %w", specialMapJSON, err)
		}
	}
	return c, nil
}

// readRoles notes the special tokens that raw names, unless they are known already. A name is a
// string or an object with the key content.
func (c *configFile) readRoles(raw map[string]json.RawMessage) error {
	for _, key := range roleKeys {
		doc, ok := raw[key]
		if _, known := c.names[key]; known || !ok || string(doc) == "null" {
			continue
		}
		var s string
		if json.Unmarshal(doc, &s) != nil {
			var long struct{ Content *string }
			if err := json.Unmarshal(doc, &long); err != nil || long.Content == nil {
				return fmt.Errorf("%s is neither a token nor a description of one", key)
			}
			s = *long.Content
		}
		c.names[key] = s
	}
	return nil
}

// override applies what the configuration says over what the vocabulary's own file says, as BERT's
// tokenizer classes in Transformers do; other classes take the pipeline as it is.
func (c *configFile) override(o *Options) error {
	for _, key := range []string{"pad_token", "mask_token"} {
		if s, ok := c.names[key]; ok {
			*o.role(key) = s
		}
	}
	n, err := c.maxLength()
	if err != nil {
		return err
	}
	o.MaxLength = n
	k := c.known
	if k.Class != "" && !slices.Contains(bertClasses, k.Class) {
		return nil
	}
	if k.Lower != nil && *k.Lower != o.Lower {
		if o.StripAccents == o.Lower {
			o.StripAccents = *k.Lower
		}
		o.Lower = *k.Lower
	}
	if _, ok := c.raw["strip_accents"]; ok {
		if o.StripAccents = o.Lower; k.StripAccents != nil {
			o.StripAccents = *k.StripAccents
		}
	}
	if k.Ideographs != nil {
		o.SplitIdeographs = *k.Ideographs
	}
	if k.CleanText != nil {
		o.CleanText = *k.CleanText
	}
	return nil
}

// maxLength returns model_max_length where it is a length, 0 where it is absent or stands for none.
func (c *configFile) maxLength() (int, error) {
	if c.known.MaxLength == "" {
		return 0, nil
	}
	f, err := c.known.MaxLength.Float64()
	if err != nil && !math.IsInf(f, 0) {
		return 0, fmt.Errorf("model_max_length %q is not a number", c.known.MaxLength)
	}
	if f < 1 || f > maxMaxLength || f != math.Trunc(f) {
		return 0, nil
	}
	return int(f), nil
}

// vocabOptions returns the options of a tokenizer that consists of vocab.txt and this configuration.
func (c *configFile) vocabOptions(tokens []string, addedJSON []byte) (Options, error) {
	o, k := Defaults(), c.known
	if k.Class != "" && !slices.Contains(bertClasses, k.Class) {
		return o, fmt.Errorf("%s: tokenizer_class %q is not supported with %s (only BERT's are)", configJSON, k.Class, vocabTXT)
	}
	if k.Basic != nil && !*k.Basic {
		return o, fmt.Errorf("%s: do_basic_tokenize false is not supported", configJSON)
	}
	for _, key := range roleKeys {
		if s, ok := c.names[key]; ok {
			*o.role(key) = s
		}
	}
	added, err := c.addedTokens(&o, addedJSON)
	if err != nil || added == nil {
		return o, err
	}
	for _, key := range roleKeys { // special tokens are always looked for
		s := *o.role(key)
		id := slices.Index(tokens, s)
		if id >= 0 && !slices.ContainsFunc(added, func(a AddedToken) bool { return a.Content == s }) {
			added = append(added, AddedToken{ID: int32(id), Content: s, Special: true})
		}
	}
	o.Added = added
	return o, nil
}

// addedTokens lists the tokens of added_tokens_decoder and those that only the older file has.
func (c *configFile) addedTokens(o *Options, addedJSON []byte) ([]AddedToken, error) {
	var added []AddedToken
	known := make(map[string]bool)
	for key, a := range c.known.Added {
		id, err := strconv.ParseInt(key, 10, 32)
		if err != nil || id < 0 {
			return nil, fmt.Errorf("%s: added_tokens_decoder has the id %q", configJSON, key)
		}
		a.AddedToken.ID = int32(id)
		added, known[a.Content] = append(added, a.AddedToken), true
	}
	if addedJSON == nil {
		return added, nil
	}
	var older map[string]int64
	if err := json.Unmarshal(addedJSON, &older); err != nil {
		return nil, fmt.Errorf("%s: %w", addedTokensJSON, err)
	}
	for s, id := range older {
		if id < 0 || id > math.MaxInt32 {
			return nil, fmt.Errorf("%s: token %q has the id %d", addedTokensJSON, s, id)
		}
		if known[s] {
			continue
		}
		special := slices.ContainsFunc(roleKeys, func(key string) bool { return *o.role(key) == s })
		added = append(added, AddedToken{ID: int32(id), Content: s, Normalized: !special, Special: special})
	}
	return added, nil
}
