package token

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// The files of a tokenizer in a model directory.
const (
	tokenizerJSON   = "tokenizer.json"
	vocabTXT        = "vocab.txt"
	configJSON      = "tokenizer_config.json"
	specialMapJSON  = "special_tokens_map.json"
	addedTokensJSON = "added_tokens.json"
)

// maxFile is the most bytes that one file may have.
const maxFile = 64 << 20

// Open reads the tokenizer of a model directory: tokenizer.json if there is one, else vocab.txt, and
// what tokenizer_config.json and special_tokens_map.json say about it.
func Open(dir string) (*Tokenizer, error) {
	files := make(map[string][]byte)
	for _, name := range []string{tokenizerJSON, vocabTXT, configJSON, specialMapJSON, addedTokensJSON} {
		if _, ok := files[tokenizerJSON]; ok && name == vocabTXT {
			continue
		}
		b, err := readFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("token: %w", err)
		}
		files[name] = b
	}
	t, err := load(files)
	if err != nil {
		return nil, fmt.Errorf("token: %s: %w", dir, err)
	}
	return t, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", path, info.Size(), maxFile)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return b, err
}

// Load reads a tokenizer from the contents of its files, by name, as Open does; it is the inverse of
// Files.
func Load(files map[string][]byte) (*Tokenizer, error) {
	t, err := load(files)
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	return t, nil
}

func load(files map[string][]byte) (*Tokenizer, error) {
	for name, b := range files {
		if !utf8.Valid(b) {
			return nil, fmt.Errorf("%s is not UTF-8", name)
		}
	}
	c, err := parseConfig(files[configJSON], files[specialMapJSON])
	if err != nil {
		return nil, err
	}
	if b, ok := files[tokenizerJSON]; ok {
		tokens, o, err := parseTokenizer(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", tokenizerJSON, err)
		}
		return finishLoad(tokens, o, c, tokenizerJSON)
	}
	b, ok := files[vocabTXT]
	if !ok {
		return nil, fmt.Errorf("neither %s nor %s", tokenizerJSON, vocabTXT)
	}
	tokens, err := parseVocab(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", vocabTXT, err)
	}
	o, err := c.vocabOptions(tokens, files[addedTokensJSON])
	if err != nil {
		return nil, err
	}
	return finishLoad(tokens, o, c, vocabTXT)
}

func finishLoad(tokens []string, o Options, c configFile, name string) (*Tokenizer, error) {
	if err := c.override(&o); err != nil {
		return nil, fmt.Errorf("%s: %w", configJSON, err)
	}
	t, err := fromVocab(tokens, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	t.config = c
	return t, nil
}

// parseVocab splits vocab.txt: one token a line, its id the line's number from 0.
func parseVocab(b []byte) ([]string, error) {
	b = bytes.TrimSuffix(b, []byte("\n"))
	if len(b) == 0 {
		return nil, errors.New("empty")
	}
	if n := bytes.Count(b, []byte("\n")) + 1; n > maxTokens {
		return nil, fmt.Errorf("%d lines, more than %d", n, maxTokens)
	}
	lines := strings.Split(string(b), "\n")
	for i, s := range lines {
		lines[i] = strings.TrimSuffix(s, "\r")
		if lines[i] == "" {
			return nil, fmt.Errorf("line %d is empty", i+1)
		}
	}
	return lines, nil
}

// A tokenizerFile is the part of tokenizer.json that decides ids.
type tokenizerFile struct {
	Version       string        `json:"version"`
	Added         []fileToken   `json:"added_tokens"`
	Normalizer    *bertNormal   `json:"normalizer"`
	PreTokenizer  *typed        `json:"pre_tokenizer"`
	PostProcessor *postProcess  `json:"post_processor"`
	Model         *wordPieceDoc `json:"model"`
}

type typed struct {
	Type string `json:"type"`
}

type bertNormal struct {
	Type         string `json:"type"`
	CleanText    *bool  `json:"clean_text"`
	Ideographs   *bool  `json:"handle_chinese_chars"`
	StripAccents *bool  `json:"strip_accents"`
	Lowercase    *bool  `json:"lowercase"`
}

// A fileToken is an AddedToken whose id may not fit.
type fileToken struct {
	ID int64 `json:"id"`
	AddedToken
}

type wordPieceDoc struct {
	Type     string           `json:"type"`
	Unknown  *string          `json:"unk_token"`
	Prefix   *string          `json:"continuing_subword_prefix"`
	MaxChars *int             `json:"max_input_chars_per_word"`
	Vocab    map[string]int64 `json:"vocab"`
}

func parseTokenizer(b []byte) ([]string, Options, error) {
	var o Options
	// Other models have other shapes: find out which kind it is before reading all of it.
	var kind struct {
		Normalizer, Model json.RawMessage
		PreTokenizer      json.RawMessage `json:"pre_tokenizer"`
		PostProcessor     json.RawMessage `json:"post_processor"`
	}
	if err := json.Unmarshal(b, &kind); err != nil {
		return nil, o, err
	}
	for _, part := range []struct {
		name string
		doc  json.RawMessage
		want []string
	}{
		{"model", kind.Model, []string{"WordPiece", ""}},
		{"normalizer", kind.Normalizer, []string{"BertNormalizer"}},
		{"pre_tokenizer", kind.PreTokenizer, []string{"BertPreTokenizer"}},
		{"post_processor", kind.PostProcessor, []string{"TemplateProcessing", "BertProcessing"}},
	} {
		if err := checkType(part.name, part.doc, part.want); err != nil {
			return nil, o, err
		}
	}
	var f tokenizerFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, o, err
	}
	if f.Version != "" && f.Version != "1.0" {
		return nil, o, fmt.Errorf("version %q is not supported (only 1.0 is)", f.Version)
	}
	return f.options()
}

func checkType(name string, doc json.RawMessage, want []string) error {
	var k *typed
	if len(doc) > 0 {
		if err := json.Unmarshal(doc, &k); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if k == nil {
		return fmt.Errorf("no %s: only %s is supported", name, want[0])
	}
	if !slices.Contains(want, k.Type) {
		return fmt.Errorf("%s %q is not supported (only %s is)", name, k.Type, want[0])
	}
	return nil
}

func (f *tokenizerFile) options() ([]string, Options, error) {
	o, n, m := Defaults(), f.Normalizer, f.Model
	for _, flag := range []struct {
		name string
		from *bool
		to   *bool
	}{{"clean_text", n.CleanText, &o.CleanText}, {"handle_chinese_chars", n.Ideographs, &o.SplitIdeographs}, {"lowercase", n.Lowercase, &o.Lower}} {
		if flag.from == nil {
			return nil, o, fmt.Errorf("normalizer has no %q", flag.name)
		}
		*flag.to = *flag.from
	}
	if o.StripAccents = o.Lower; n.StripAccents != nil {
		o.StripAccents = *n.StripAccents
	}
	if m.Unknown == nil || m.Prefix == nil || m.MaxChars == nil || m.Vocab == nil {
		return nil, o, errors.New("model lacks one of unk_token, continuing_subword_prefix, max_input_chars_per_word, vocab")
	}
	o.UNK, o.Prefix, o.MaxChars = *m.Unknown, *m.Prefix, *m.MaxChars
	tokens, err := orderVocab(m.Vocab)
	if err != nil {
		return nil, o, err
	}
	o.Added = make([]AddedToken, 0, len(f.Added))
	for _, a := range f.Added {
		if a.Content == "" {
			continue // the reference leaves it out
		}
		if a.ID < 0 || a.ID > math.MaxInt32 {
			return nil, o, fmt.Errorf("added token %q has the id %d", a.Content, a.ID)
		}
		a.AddedToken.ID = int32(a.ID)
		o.Added = append(o.Added, a.AddedToken)
	}
	err = f.PostProcessor.roles(&o, func(s string) (int64, bool) {
		if id, ok := m.Vocab[s]; ok {
			return id, true
		}
		i := slices.IndexFunc(o.Added, func(a AddedToken) bool { return a.Content == s })
		if i < 0 {
			return 0, false
		}
		return int64(o.Added[i].ID), true
	})
	return tokens, o, err
}

// orderVocab turns a vocabulary into a list, and checks that its ids are 0 to n-1.
func orderVocab(vocab map[string]int64) ([]string, error) {
	tokens := make([]string, len(vocab))
	given := make([]bool, len(vocab))
	for s, id := range vocab {
		if id < 0 || id >= int64(len(vocab)) {
			return nil, fmt.Errorf("vocab: token %q has the id %d; %d tokens must have the ids 0 to %d", s, id, len(vocab), len(vocab)-1)
		}
		if given[id] {
			return nil, fmt.Errorf("vocab: tokens %q and %q have the same id %d", min(s, tokens[id]), max(s, tokens[id]), id)
		}
		tokens[id], given[id] = s, true
	}
	return tokens, nil
}

func sortByID(a []AddedToken) {
	slices.SortFunc(a, func(x, y AddedToken) int { return cmp.Compare(x.ID, y.ID) })
}
