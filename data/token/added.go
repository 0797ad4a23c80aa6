package token

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An AddedToken is found in a text before the text is split into words. The fields are those of the
// tokenizers library and of its files.
type AddedToken struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"` // not next to a letter, digit or underscore
	LStrip     bool   `json:"lstrip"`      // takes the white space before it
	RStrip     bool   `json:"rstrip"`      // takes the white space after it
	Normalized bool   `json:"normalized"`  // its normalised form is looked for in the normalised text
	Special    bool   `json:"special"`     // left out when decoding; encoding does not look at it
}

// A pattern is what an added token looks like in the text that is searched.
type pattern struct {
	text string
	AddedToken
}

// A patternSet finds added tokens: the leftmost, of those the longest.
type patternSet struct {
	starts  [256]bool // bytes that some pattern begins with
	longest []pattern // longest first
}

func newPatternSet(p []pattern) (*patternSet, error) {
	if len(p) == 0 {
		return nil, nil
	}
	s := &patternSet{longest: slices.Clone(p)}
	seen := make(map[string]string, len(p))
	for _, q := range p {
		if q.text == "" {
			return nil, fmt.Errorf("added token %q is empty after normalisation", q.Content)
		}
		if first, ok := seen[q.text]; ok {
			return nil, fmt.Errorf("added tokens %q and %q look the same", first, q.Content)
		}
		seen[q.text] = q.Content
		s.starts[q.text[0]] = true
	}
	slices.SortFunc(s.longest, func(a, b pattern) int {
		return cmp.Or(cmp.Compare(len(b.text), len(a.text)), cmp.Compare(a.text, b.text))
	})
	return s, nil
}

// next returns the first match in text at or after from, and where it starts; nil if there is none.
func (s *patternSet) next(text string, from int) (*pattern, int) {
	for i := from; i < len(text); i++ {
		if !s.starts[text[i]] {
			continue
		}
		for k := range s.longest {
			if strings.HasPrefix(text[i:], s.longest[k].text) {
				return &s.longest[k], i
			}
		}
	}
	return nil, len(text)
}

// each calls found for every piece of text in order: with a pattern for an added token, with nil for
// what lies between. It follows AddedVocabulary::find_matches of the tokenizers library, also where
// a token that strips white space meets one that begins with it.
func (s *patternSet) each(text string, found func(p *pattern, start, end int)) {
	done := 0
	for from := 0; ; {
		p, start := s.next(text, from)
		if p == nil {
			break
		}
		end := start + len(p.text)
		from = end
		if p.SingleWord && (endsInWord(text[:start]) || startsWithWord(text[end:])) {
			continue
		}
		if p.LStrip {
			start = max(done, len(strings.TrimRightFunc(text[:start], unicode.IsSpace)))
		}
		if p.RStrip {
			end = len(text) - len(strings.TrimLeftFunc(text[end:], unicode.IsSpace))
		}
		if done < start {
			found(nil, done, start)
		}
		found(p, start, end)
		done = end
	}
	if done != len(text) {
		found(nil, done, len(text))
	}
}

func endsInWord(s string) bool {
	r, size := utf8.DecodeLastRuneInString(s)
	return size > 0 && isWordChar(r)
}

func startsWithWord(s string) bool {
	r, size := utf8.DecodeRuneInString(s)
	return size > 0 && isWordChar(r)
}
