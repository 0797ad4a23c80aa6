// Package token is the WordPiece tokenizer of BERT-style encoders: it turns texts into the token ids
// that a model was trained on, exactly as the tokenizers library of Hugging Face does.
//
// A text passes through these steps, in the order and with the Unicode versions of the reference
// (versions 0.23.2 and 0.23.3; the functions name the parts of it that they follow):
//
//   - ill-formed UTF-8 becomes U+FFFD,
//   - added tokens are found in the raw text (patternSet),
//   - what is between them is cleaned, decomposed, lower-cased (normalizer),
//   - added tokens are found in the normalised text,
//   - the rest is split at white space and punctuation, and each word into pieces (matcher),
//   - pairs are truncated and framed by special tokens (Encoding).
//
// A Tokenizer comes from a model directory (Open), from the contents of its files (Load), or from a
// list of tokens (FromVocab), and can write the files again (Files). Ids count from 0 and are
// contiguous; offsets count characters (code points).
package token

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"unicode/utf8"
)

// Limits on what is read from outside.
const (
	maxTokens      = 1 << 22 // of a vocabulary
	maxTokenBytes  = 1 << 12 // of one token
	maxAddedTokens = 1 << 16
	maxMaxLength   = 1 << 20 // a stated length above it means "no limit"
)

// Options says how a vocabulary is used. Zero means zero: begin with Defaults.
type Options struct {
	CleanText       bool // remove control characters, make white space spaces
	SplitIdeographs bool // Chinese characters are words of their own
	StripAccents    bool
	Lower           bool

	Prefix   string // of pieces inside a word
	MaxChars int    // words of more characters are unknown

	UNK, CLS, SEP string // must be in the vocabulary
	PAD, MASK     string // may be absent

	// Added tokens. Those with an id past the vocabulary extend it and must follow it without a gap;
	// the others must be in it under their id. Nil: the five above.
	Added []AddedToken

	MaxLength int // tokens that the model can read, 0: not stated
}

// Defaults returns the options of uncased BERT.
func Defaults() Options {
	return Options{
		CleanText: true, SplitIdeographs: true, StripAccents: true, Lower: true,
		Prefix: "##", MaxChars: 100,
		UNK: "[UNK]", CLS: "[CLS]", SEP: "[SEP]", PAD: "[PAD]", MASK: "[MASK]",
	}
}

// A Tokenizer is immutable and safe for concurrent use.
type Tokenizer struct {
	options    Options // Added in order of ids, without tokens that repeat
	vocab      []string
	normalizer normalizer
	matcher    *matcher
	raw        *patternSet // added tokens, found before normalisation
	folded     *patternSet // added tokens, found after it
	extra      []string    // tokens past the vocabulary

	unk, cls, sep, pad, mask int32

	config  configFile // the tokenizer_config.json that it was read from
	scratch *sync.Pool // of *state
}

// FromVocab returns a tokenizer for a vocabulary in the order of its ids.
func FromVocab(tokens []string, o Options) (*Tokenizer, error) {
	t, err := fromVocab(tokens, o)
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	return t, nil
}

func fromVocab(tokens []string, o Options) (*Tokenizer, error) {
	if err := checkVocab(tokens); err != nil {
		return nil, err
	}
	if o.MaxChars < 0 || o.MaxChars > maxMaxLength {
		return nil, fmt.Errorf("words of at most %d characters: out of range", o.MaxChars)
	}
	if !utf8.ValidString(o.Prefix) || len(o.Prefix) > maxTokenBytes {
		return nil, fmt.Errorf("prefix %.20q of continuing pieces: not valid", o.Prefix)
	}
	if o.MaxLength < 0 || o.MaxLength > maxMaxLength {
		o.MaxLength = 0
	}
	m, err := newMatcher(tokens, o.Prefix, o.MaxChars)
	if err != nil {
		return nil, fmt.Errorf("vocabulary of %d tokens: %w", len(tokens), err)
	}
	t := &Tokenizer{options: o, vocab: tokens, normalizer: newNormalizer(o), matcher: m, scratch: new(sync.Pool)}
	for id, token := range tokens {
		if int(m.id(token)) != id {
			return nil, fmt.Errorf("token %q has the ids %d and %d", token, m.id(token), id)
		}
	}
	if err := t.setAdded(o.Added); err != nil {
		return nil, err
	}
	return t, t.setRoles()
}

func checkVocab(tokens []string) error {
	if len(tokens) == 0 || len(tokens) > maxTokens {
		return fmt.Errorf("a vocabulary of %d tokens: must be 1 to %d", len(tokens), maxTokens)
	}
	size := 0
	for id, s := range tokens {
		if err := checkToken(s); err != nil {
			return fmt.Errorf("token %d of the vocabulary: %w", id, err)
		}
		if strings.ContainsAny(s, "\r\n") { // could not be a line of vocab.txt
			return fmt.Errorf("token %d of the vocabulary, %q, holds a line break", id, s)
		}
		if size += len(s); size > math.MaxInt32 {
			return errors.New("a vocabulary of more than 2 GiB")
		}
	}
	return nil
}

// checkToken refuses what cannot be a token.
func checkToken(s string) error {
	switch {
	case s == "":
		return errors.New("empty")
	case len(s) > maxTokenBytes:
		return fmt.Errorf("%d bytes long", len(s))
	case !utf8.ValidString(s):
		return fmt.Errorf("%q is not UTF-8", s)
	}
	return nil
}

// setAdded checks the added tokens, puts them in order and prepares the search for them.
func (t *Tokenizer) setAdded(added []AddedToken) error {
	if added == nil {
		added = t.defaultAdded()
	}
	if len(added) > maxAddedTokens {
		return fmt.Errorf("%d added tokens: must be at most %d", len(added), maxAddedTokens)
	}
	byID, err := t.sortAdded(added)
	if err != nil {
		return err
	}
	t.options.Added = byID
	var raw, folded []pattern
	var d normalized
	for _, a := range byID {
		if int(a.ID) >= len(t.vocab) {
			t.extra = append(t.extra, a.Content)
		}
		if !a.Normalized {
			raw = append(raw, pattern{a.Content, a})
			continue
		}
		t.normalizer.run(&d, a.Content, 0)
		folded = append(folded, pattern{string(d.text), a})
	}
	if t.raw, err = newPatternSet(raw); err != nil {
		return err
	}
	t.folded, err = newPatternSet(folded)
	return err
}

// defaultAdded lists the special tokens that the vocabulary has.
func (t *Tokenizer) defaultAdded() []AddedToken {
	var added []AddedToken
	seen := make(map[int32]bool)
	for _, s := range []string{t.options.PAD, t.options.UNK, t.options.CLS, t.options.SEP, t.options.MASK} {
		if id := t.matcher.id(s); id >= 0 && !seen[id] {
			added, seen[id] = append(added, AddedToken{ID: id, Content: s, Special: true}), true
		}
	}
	return added
}

// sortAdded returns the added tokens in the order of their ids, without exact repetitions.
func (t *Tokenizer) sortAdded(added []AddedToken) ([]AddedToken, error) {
	byContent := make(map[string]AddedToken, len(added))
	past := make(map[int32]AddedToken)
	var inside []AddedToken
	for _, a := range added {
		if err := checkToken(a.Content); err != nil {
			return nil, fmt.Errorf("added token %d: %w", a.ID, err)
		}
		if b, ok := byContent[a.Content]; ok {
			if a != b {
				return nil, fmt.Errorf("added token %q is there twice, and differs", a.Content)
			}
			continue
		}
		byContent[a.Content] = a
		switch id := t.matcher.id(a.Content); {
		case id >= 0 && id != a.ID:
			return nil, fmt.Errorf("added token %q has the id %d, but %d in the vocabulary", a.Content, a.ID, id)
		case id >= 0:
			inside = append(inside, a)
		default:
			if b, ok := past[a.ID]; ok {
				return nil, fmt.Errorf("added tokens %q and %q have the same id %d", b.Content, a.Content, a.ID)
			}
			past[a.ID] = a
		}
	}
	sortByID(inside)
	for i := range len(past) {
		id := int32(len(t.vocab) + i)
		a, ok := past[id]
		if !ok {
			return nil, fmt.Errorf("no added token has the id %d: the ids past the vocabulary must follow it", id)
		}
		inside = append(inside, a)
	}
	return inside, nil
}

// setRoles finds the special tokens.
func (t *Tokenizer) setRoles() error {
	o := t.options
	for _, r := range []struct {
		id       *int32
		name     string
		required bool
	}{{&t.unk, o.UNK, true}, {&t.cls, o.CLS, true}, {&t.sep, o.SEP, true}, {&t.pad, o.PAD, false}, {&t.mask, o.MASK, false}} {
		id, ok := t.ID(r.name)
		if !ok {
			if id = -1; r.required {
				return fmt.Errorf("the vocabulary of %d tokens has no %q", len(t.vocab), r.name)
			}
		}
		*r.id = id
	}
	if int(t.unk) >= len(t.vocab) {
		return fmt.Errorf("the unknown token %q is not in the vocabulary itself", o.UNK)
	}
	t.matcher.unknown = t.unk
	return nil
}

// VocabSize is the number of ids, added tokens included: the rows that an embedding table needs.
func (t *Tokenizer) VocabSize() int { return len(t.vocab) + len(t.extra) }

// Token returns the token with the given id, "" if there is none.
func (t *Tokenizer) Token(id int32) string {
	switch n := len(t.vocab); {
	case id < 0 || int(id) >= t.VocabSize():
		return ""
	case int(id) < n:
		return t.vocab[id]
	default:
		return t.extra[int(id)-n]
	}
}

// ID returns the id of a token, added or not.
func (t *Tokenizer) ID(token string) (id int32, ok bool) {
	if id := t.matcher.id(token); id >= 0 {
		return id, true
	}
	for i, s := range t.extra {
		if s == token {
			return int32(len(t.vocab) + i), true
		}
	}
	return 0, false
}

// UNK returns the id of the unknown token, which stands for a word that cannot be split.
func (t *Tokenizer) UNK() int32 { return t.unk }

// CLS returns the id of the token that every encoding begins with.
func (t *Tokenizer) CLS() int32 { return t.cls }

// SEP returns the id of the token that ends each text.
func (t *Tokenizer) SEP() int32 { return t.sep }

// PAD returns the id of the padding token, -1 if there is none.
func (t *Tokenizer) PAD() int32 { return t.pad }

// MASK returns the id of the mask token, -1 if there is none.
func (t *Tokenizer) MASK() int32 { return t.mask }

// MaxLength returns how many tokens the model can read according to its tokenizer, 0 if not stated.
func (t *Tokenizer) MaxLength() int { return t.options.MaxLength }

// Lower reports whether texts are lower-cased.
func (t *Tokenizer) Lower() bool { return t.options.Lower }
