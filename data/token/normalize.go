package token

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// dropped marks, in normalizer.ascii, a byte that cleaning removes.
const dropped = 0xFF

// A normalizer does what BertNormalizer does, in its order: clean, set ideographs apart, decompose
// and strip accents, lower-case. Every step maps a character to characters without looking at its
// neighbours, except for the canonical ordering of combining marks, so one pass does them all.
type normalizer struct {
	clean, ideographs, strip, lower bool

	class *classTable
	ascii [utf8.RuneSelf]byte // the normalised form of an ASCII character, or dropped
}

func newNormalizer(o Options) normalizer {
	n := normalizer{clean: o.CleanText, ideographs: o.SplitIdeographs, strip: o.StripAccents, lower: o.Lower, class: classes()}
	for b := range n.ascii {
		n.ascii[b] = byte(b)
		switch c := n.class[b]; {
		case n.clean && c&control != 0:
			n.ascii[b] = dropped
		case n.clean && c&space != 0:
			n.ascii[b] = ' '
		case n.lower && c&upper != 0:
			n.ascii[b] = byte(lower(rune(b)))
		}
	}
	return n
}

// A combining is a character that waits for its place in canonical order.
type combining struct {
	r     rune
	ccc   uint8
	added bool  // not the first character of a decomposition
	char  int32 // the character of the text that it comes from
}

// A normalized is a text after normalisation, in buffers that serve many texts.
type normalized struct {
	text []byte  // UTF-8
	char []int32 // if aligned: for each byte of text, the character of the original behind it

	aligned bool
	waiting []combining
	order   []int32 // scratch of flush
	base    int32   // the character of the original that the last starter comes from
	runes   []rune  // scratch of decompose
}

// run normalises text, valid UTF-8 whose first character has the index first.
func (n *normalizer) run(d *normalized, text string, first int32) {
	d.text, d.char, d.waiting = slices.Grow(d.text[:0], len(text)), d.char[:0], d.waiting[:0]
	for i, at := 0, first; i < len(text); at++ {
		if text[i] < utf8.RuneSelf && len(d.waiting) == 0 {
			k := n.runASCII(d, text[i:], at)
			i, at = i+k, at+int32(k)-1
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		i += size
		n.add(d, r, at)
	}
	n.flush(d)
}

// runASCII normalises the ASCII characters that text starts with and returns how many they are.
func (n *normalizer) runASCII(d *normalized, text string, at int32) int {
	i := 0
	for ; i < len(text) && text[i] < utf8.RuneSelf; i++ {
		b := n.ascii[text[i]]
		if b == dropped {
			continue
		}
		d.text = append(d.text, b)
		if d.aligned {
			d.char = append(d.char, at+int32(i))
		}
	}
	return i
}

// add normalises one character, the at-th of the text.
func (n *normalizer) add(d *normalized, r rune, at int32) {
	c := n.class[r]
	if n.clean {
		if c&control != 0 {
			return
		}
		if c&space != 0 {
			r, c = ' ', space
		}
	}
	if n.ideographs && c&ideograph != 0 {
		n.decompose(d, ' ', at)
		n.decompose(d, r, at)
		n.decompose(d, ' ', at)
		return
	}
	n.decompose(d, r, at)
}

// decompose takes r through NFD. Combining marks wait until the next starter, to be put in order.
func (n *normalizer) decompose(d *normalized, r rune, at int32) {
	if !n.strip {
		n.emit(d, r, at)
		return
	}
	if n.class[r]&canonical == 0 {
		n.flush(d)
		d.base = at
		n.emit(d, r, at)
		return
	}
	d.runes = appendDecomposition(d.runes[:0], r)
	for i, q := range d.runes {
		if ccc := n.combiningClass(q); ccc != 0 {
			d.waiting = append(d.waiting, combining{r: q, ccc: ccc, added: i > 0, char: at})
			continue
		}
		n.flush(d)
		d.base = at
		n.emit(d, q, at)
	}
}

func (n *normalizer) combiningClass(r rune) uint8 {
	if n.class[r]&canonical == 0 {
		return 0
	}
	var buf [utf8.UTFMax]byte
	return norm.NFD.Properties(buf[:utf8.EncodeRune(buf[:], r)]).CCC()
}

// appendDecomposition appends the full canonical decomposition of r.
func appendDecomposition(dst []rune, r rune) []rune {
	if isHangulSyllable(r) {
		return appendHangul(dst, r)
	}
	var buf [utf8.UTFMax]byte
	p := norm.NFD.Properties(buf[:utf8.EncodeRune(buf[:], r)]).Decomposition()
	if p == nil {
		return append(dst, r)
	}
	for len(p) > 0 {
		q, size := utf8.DecodeRune(p)
		dst, p = append(dst, q), p[size:]
	}
	return dst
}

// flush emits the waiting marks in canonical order. The reference aligns what it reordered by
// counting: the k-th mark that is not an added one stands for the k-th original character, whichever
// that was, and an added one for the same character as the mark before it.
func (n *normalizer) flush(d *normalized) {
	if len(d.waiting) == 0 {
		return
	}
	d.order = d.order[:0]
	for _, m := range d.waiting {
		if !m.added {
			d.order = append(d.order, m.char)
		}
	}
	if len(d.waiting) > 1 {
		slices.SortStableFunc(d.waiting, func(a, b combining) int { return cmp.Compare(a.ccc, b.ccc) })
	}
	taken := 0
	for _, m := range d.waiting {
		if !m.added {
			d.base = d.order[taken]
			taken++
		}
		n.emit(d, m.r, d.base)
	}
	d.waiting = d.waiting[:0]
}

// emit strips accents, lower-cases, and appends what is left.
func (n *normalizer) emit(d *normalized, r rune, at int32) {
	c := n.class[r]
	if n.strip && c&mark != 0 {
		return
	}
	before := len(d.text)
	switch {
	case !n.lower || c&upper == 0:
		d.text = utf8.AppendRune(d.text, r)
	case r == 'İ':
		d.text = append(d.text, "i\u0307"...)
	default:
		d.text = utf8.AppendRune(d.text, lower(r))
	}
	if d.aligned {
		for range len(d.text) - before {
			d.char = append(d.char, at)
		}
	}
}

// validText returns text with each maximal ill-formed subsequence replaced by U+FFFD (The Unicode
// Standard, section 3.9, the practice of W3C and Python; Go's own conversions replace every byte).
func validText(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	var b strings.Builder
	b.Grow(len(text) + utf8.UTFMax)
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && size <= 1 {
			size = illFormed(text[i:])
		}
		b.WriteRune(r)
		i += size
	}
	return b.String()
}

// illFormed returns the length of the maximal subpart of an ill-formed sequence at the start of s:
// the longest start of some well-formed sequence, at least one byte.
func illFormed(s string) int {
	lo, hi, need := byte(0x80), byte(0xBF), 0
	switch b := s[0]; {
	case 0xC2 <= b && b <= 0xDF:
		need = 1
	case 0xE0 <= b && b <= 0xEF:
		need = 2
		if b == 0xE0 {
			lo = 0xA0
		} else if b == 0xED {
			hi = 0x9F
		}
	case 0xF0 <= b && b <= 0xF4:
		need = 3
		if b == 0xF0 {
			lo = 0x90
		} else if b == 0xF4 {
			hi = 0x8F
		}
	}
	n := 1
	for ; n <= need && n < len(s) && lo <= s[n] && s[n] <= hi; n++ {
		lo, hi = 0x80, 0xBF
	}
	return n
}
