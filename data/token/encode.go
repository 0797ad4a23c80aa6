package token

import (
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
	"unsafe"
)

// ErrTooShort is returned, wrapped, when the one text that may be cut has too few tokens to make the
// pair fit.
var ErrTooShort = errors.New("the text to cut is too short")

// Truncation says which text of a pair is cut when both do not fit.
type Truncation int

const (
	LongestFirst Truncation = iota // the longer one, then both evenly
	OnlyFirst
	OnlySecond
)

// String returns the name that Hugging Face's libraries use.
func (t Truncation) String() string {
	switch t {
	case LongestFirst:
		return "longest_first"
	case OnlyFirst:
		return "only_first"
	case OnlySecond:
		return "only_second"
	}
	return fmt.Sprintf("Truncation(%d)", int(t))
}

// An Encoding is what a model reads: L tokens, special tokens included. Its slices are reused from
// call to call.
type Encoding struct {
	IDs   []int32 // (L)
	Types []int32 // (L): 0 up to and including the first [SEP], then 1

	// Offsets (L) are the characters [start, end) of its own text that each token stands for, {0, 0}
	// for special tokens. They are filled in only if WantOffsets was set before the call.
	Offsets     [][2]int32
	WantOffsets bool

	Truncated int // tokens of the texts that did not fit
}

// state is the scratch of one call.
type state struct {
	normalized
	pieces []piece
	hashes []uint64

	ids     []int32
	offsets [][2]int32 // parallel to ids, if aligned
}

// keepScratch is the most bytes of normalised text that an idle tokenizer holds on to.
const keepScratch = 1 << 20

func (t *Tokenizer) borrow() *state {
	if s, ok := t.scratch.Get().(*state); ok {
		return s
	}
	return new(state)
}

func (t *Tokenizer) giveBack(s *state) {
	s.ids, s.offsets = nil, nil // the caller's
	if cap(s.text) <= keepScratch {
		t.scratch.Put(s)
	}
}

// AppendIDs appends the ids of text, without special tokens, to dst. It allocates nothing once dst is
// large enough and text is valid UTF-8.
func (t *Tokenizer) AppendIDs(dst []int32, text string) []int32 {
	s := t.borrow()
	s.ids, s.aligned = dst, false
	t.encode(s, text)
	dst = s.ids
	t.giveBack(s)
	return dst
}

// Single encodes [CLS] text [SEP] in at most maxLen tokens, or whole if maxLen is 0.
func (t *Tokenizer) Single(dst *Encoding, text string, maxLen int) error {
	if err := checkLength(maxLen, 2, text); err != nil {
		return err
	}
	s := t.start(dst)
	defer t.giveBack(s)
	n := t.encode(s, text)
	keep := n
	if maxLen > 0 {
		keep = min(n, maxLen-2)
	}
	t.finish(dst, s, keep)
	t.separator(dst)
	dst.setTypes(len(dst.IDs))
	dst.Truncated = n - keep
	return nil
}

// Pair encodes [CLS] first [SEP] second [SEP] in at most maxLen tokens, or whole if maxLen is 0. If
// the text that how names cannot be cut enough, the error is ErrTooShort and dst is not to be used.
func (t *Tokenizer) Pair(dst *Encoding, first, second string, maxLen int, how Truncation) error {
	if err := checkLength(maxLen, 3, first, second); err != nil {
		return err
	}
	s := t.start(dst)
	defer t.giveBack(s)
	n1 := t.encode(s, first)
	n2 := t.encode(s, second)
	keep1, keep2 := n1, n2
	if maxLen > 0 {
		var err error
		if keep1, keep2, err = how.fit(n1, n2, maxLen-3); err != nil {
			dst.IDs = s.ids[:0]
			return fmt.Errorf("token: %s to %d tokens, of %d and %d: %w", how, maxLen, n1, n2, err)
		}
	}
	// [CLS] first… second… becomes [CLS] first [SEP] second.
	s.ids = append(s.ids, 0)
	copy(s.ids[1+keep1+1:], s.ids[1+n1:1+n1+keep2])
	s.ids[1+keep1] = t.sep
	if s.aligned {
		s.offsets = append(s.offsets, [2]int32{})
		copy(s.offsets[1+keep1+1:], s.offsets[1+n1:1+n1+keep2])
		s.offsets[1+keep1] = [2]int32{}
	}
	t.finish(dst, s, keep1+1+keep2)
	t.separator(dst)
	dst.setTypes(keep1 + 2)
	dst.Truncated = n1 + n2 - keep1 - keep2
	return nil
}

// checkLength refuses a maxLen without room for the special tokens, and texts whose offsets would
// overflow.
func checkLength(maxLen, special int, texts ...string) error {
	if maxLen < 0 || maxLen > 0 && maxLen < special {
		return fmt.Errorf("token: a length of %d has no room for %d special tokens", maxLen, special)
	}
	for _, x := range texts {
		if len(x) > math.MaxInt32/4 {
			return fmt.Errorf("token: a text of %d bytes is too long", len(x))
		}
	}
	return nil
}

func (t *Tokenizer) start(dst *Encoding) *state {
	s := t.borrow()
	s.ids, s.offsets, s.aligned = append(dst.IDs[:0], t.cls), dst.Offsets[:0], dst.WantOffsets
	if s.aligned {
		s.offsets = append(s.offsets, [2]int32{})
	}
	return s
}

// finish hands [CLS] and the keep tokens after it to dst.
func (t *Tokenizer) finish(dst *Encoding, s *state, keep int) {
	dst.IDs, dst.Offsets = s.ids[:1+keep], s.offsets[:0]
	if s.aligned {
		dst.Offsets = s.offsets[:1+keep]
	}
}

func (t *Tokenizer) separator(dst *Encoding) {
	dst.IDs = append(dst.IDs, t.sep)
	if dst.WantOffsets {
		dst.Offsets = append(dst.Offsets, [2]int32{})
	}
}

// setTypes gives the first n tokens type 0 and the others type 1.
func (e *Encoding) setTypes(n int) {
	e.Types = e.Types[:0]
	for i := range e.IDs {
		if i < n {
			e.Types = append(e.Types, 0)
		} else {
			e.Types = append(e.Types, 1)
		}
	}
}

// fit returns how many tokens of texts with n1 and n2 tokens are kept so that both fit in budget. It
// is truncate_encodings of the tokenizers library, case by case. (Version 0.23.2 alone applied it to
// texts that it had stopped splitting at the length limit: where both are longer than that and the
// budget is odd, it can give the odd token to the other text. Versions before and after do not.)
func (t Truncation) fit(n1, n2, budget int) (int, int, error) {
	if budget == 0 {
		return 0, 0, nil
	}
	remove := n1 + n2 - budget
	if remove <= 0 {
		return n1, n2, nil
	}
	switch t {
	case OnlyFirst:
		if n1 <= remove {
			return 0, 0, ErrTooShort
		}
		return n1 - remove, n2, nil
	case OnlySecond:
		if n2 <= remove {
			return 0, 0, ErrTooShort
		}
		return n1, n2 - remove, nil
	case LongestFirst:
		short, long := min(n1, n2), budget-min(n1, n2)
		if long < short { // both are cut
			short, long = budget/2, budget/2+budget%2
		}
		if n1 > n2 {
			return long, short, nil
		}
		return short, long, nil
	}
	return 0, 0, fmt.Errorf("no such truncation: %d", int(t))
}

// encode appends the tokens of text to s.ids and returns how many there are.
func (t *Tokenizer) encode(s *state, text string) int {
	begin := len(s.ids)
	text = validText(text)
	if t.raw == nil {
		t.segment(s, text, 0)
	} else {
		var c counter
		t.raw.each(text, func(p *pattern, start, end int) {
			first := int32(0)
			if s.aligned {
				first = c.characters(text, start)
			}
			if p == nil {
				t.segment(s, text[start:end], first)
				return
			}
			s.ids = append(s.ids, p.ID)
			if s.aligned {
				s.offsets = append(s.offsets, [2]int32{first, c.characters(text, end)})
			}
		})
	}
	return len(s.ids) - begin
}

// segment encodes text without raw added tokens, whose first character has the index first.
func (t *Tokenizer) segment(s *state, text string, first int32) {
	t.normalizer.run(&s.normalized, text, first)
	if t.folded == nil || len(s.text) == 0 {
		t.words(s, 0, len(s.text))
		return
	}
	view := unsafe.String(&s.text[0], len(s.text)) // each only reads it, and nobody writes meanwhile
	t.folded.each(view, func(p *pattern, start, end int) {
		if p == nil {
			t.words(s, start, end)
			return
		}
		s.ids = append(s.ids, p.ID)
		if s.aligned {
			s.offsets = append(s.offsets, [2]int32{s.char[start], s.char[end-1] + 1})
		}
	})
}

// words splits the normalised text [start, end) at white space and around punctuation.
func (t *Tokenizer) words(s *state, start, end int) {
	from := start
	for i := start; i < end; {
		var c class
		size := 1
		if b := s.text[i]; b < utf8.RuneSelf {
			c = t.normalizer.class[b]
		} else {
			var r rune
			r, size = utf8.DecodeRune(s.text[i:end])
			c = t.normalizer.class[r]
		}
		if c&(space|punct) != 0 {
			t.word(s, from, i)
			if c&space == 0 {
				t.word(s, i, i+size)
			}
			from = i + size
		}
		i += size
	}
	t.word(s, from, end)
}

// word appends the pieces of the word at [start, end) of the normalised text.
func (t *Tokenizer) word(s *state, start, end int) {
	if start == end {
		return
	}
	s.pieces, s.hashes = t.matcher.split(s.pieces[:0], s.hashes, s.text[start:end])
	at := start
	for _, p := range s.pieces {
		s.ids = append(s.ids, p.id)
		if s.aligned {
			next := start + int(p.end)
			s.offsets = append(s.offsets, [2]int32{s.char[at], s.char[next-1] + 1})
			at = next
		}
	}
}

// A counter turns byte offsets into character offsets; going forward costs what lies between.
type counter struct{ bytes, chars int }

func (c *counter) characters(text string, at int) int32 {
	if at < c.bytes {
		*c = counter{}
	}
	c.chars += utf8.RuneCountInString(text[c.bytes:at])
	c.bytes = at
	return int32(c.chars)
}
