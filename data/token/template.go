package token

import (
	"encoding/json"
	"errors"
	"fmt"
)

// A postProcess is the post_processor of tokenizer.json, in one of the two forms that give BERT's
// frame: [CLS] A [SEP] with type 0, then B [SEP] with type 1.
type postProcess struct {
	Type string `json:"type"`

	Single  []templatePart             `json:"single"` // TemplateProcessing
	Pair    []templatePart             `json:"pair"`
	Special map[string]templateSpecial `json:"special_tokens"`

	SEP json.RawMessage `json:"sep"` // BertProcessing: [token, id]
	CLS json.RawMessage `json:"cls"`
}

type templatePart struct {
	Special  *templateRef `json:"SpecialToken,omitempty"`
	Sequence *templateRef `json:"Sequence,omitempty"`
}

type templateRef struct {
	ID   string `json:"id"`
	Type int    `json:"type_id"`
}

type templateSpecial struct {
	ID     string   `json:"id"`
	IDs    []int64  `json:"ids"`
	Tokens []string `json:"tokens"`
}

// bertTemplate returns the single and the pair frame of BERT.
func bertTemplate(cls, sep string) (single, pair []templatePart) {
	special := func(s string, typ int) templatePart { return templatePart{Special: &templateRef{s, typ}} }
	text := func(s string, typ int) templatePart { return templatePart{Sequence: &templateRef{s, typ}} }
	single = []templatePart{special(cls, 0), text("A", 0), special(sep, 0)}
	pair = append(single[:3:3], text("B", 1), special(sep, 1))
	return single, pair
}

// roles takes the names of [CLS] and [SEP] from the frame, and checks that the frame is BERT's.
func (p *postProcess) roles(o *Options, id func(string) (int64, bool)) error {
	if p.Type == "BertProcessing" {
		var err error
		if o.CLS, err = bertPair("cls", p.CLS, id); err != nil {
			return err
		}
		o.SEP, err = bertPair("sep", p.SEP, id)
		return err
	}
	if len(p.Single) != 3 || p.Single[0].Special == nil || p.Single[2].Special == nil {
		return errors.New("post_processor: the frame of a single text is not [CLS] A [SEP]")
	}
	cls, sep := p.Single[0].Special.ID, p.Single[2].Special.ID
	single, pair := bertTemplate(cls, sep)
	if !sameTemplate(p.Single, single) {
		return errors.New("post_processor: the frame of a single text is not [CLS] A [SEP]")
	}
	if !sameTemplate(p.Pair, pair) {
		return errors.New("post_processor: the frame of a pair is not [CLS] A [SEP] B [SEP] with types 0 and 1")
	}
	for _, role := range []struct {
		name string
		to   *string
	}{{cls, &o.CLS}, {sep, &o.SEP}} {
		s, ok := p.Special[role.name]
		if !ok || len(s.IDs) != 1 || len(s.Tokens) != 1 {
			return fmt.Errorf("post_processor: special token %q must stand for exactly one token", role.name)
		}
		if n, ok := id(s.Tokens[0]); !ok || n != s.IDs[0] {
			return fmt.Errorf("post_processor: special token %q has the id %d, which the vocabulary does not give it", s.Tokens[0], s.IDs[0])
		}
		*role.to = s.Tokens[0]
	}
	return nil
}

func bertPair(name string, doc json.RawMessage, id func(string) (int64, bool)) (string, error) {
	var token string
	var number int64
	pair := []any{&token, &number}
	if err := json.Unmarshal(doc, &pair); err != nil || len(pair) != 2 {
		return "", fmt.Errorf("post_processor: %s is not a pair of a token and its id", name)
	}
	if n, ok := id(token); !ok || n != number {
		return "", fmt.Errorf("post_processor: %s %q has the id %d, which the vocabulary does not give it", name, token, number)
	}
	return token, nil
}

func sameTemplate(a, b []templatePart) bool {
	same := func(x, y *templateRef) bool { return x == y || x != nil && y != nil && *x == *y }
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !same(a[i].Special, b[i].Special) || !same(a[i].Sequence, b[i].Sequence) {
			return false
		}
	}
	return true
}
