package token

import (
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
	"golang.org/x/text/unicode/rangetable"
)

// A class says what the front end does with a character. The bits are independent: a mark, say,
// also takes part in canonical decomposition.
type class uint8

const (
	control   class = 1 << iota // removed by cleaning: general categories Cc, Cf, Co, and U+FFFD
	space                       // White_Space: separates words
	punct                       // ASCII punctuation and general category P: a word of its own
	mark                        // general category Mn: removed with the accents
	ideograph                   // set apart by spaces where Chinese characters are handled
	canonical                   // decomposes under NFD, or has a combining class
	upper                       // lower-casing changes it
	assigned                    // assigned in Unicode 8.0; only while the table is built
)

// A classTable holds the class of every code point.
type classTable [unicode.MaxRune + 1]class

// classes is the table that all tokenizers share; it is built on first use and never changes.
var classes = sync.OnceValue(newClassTable)

// newClassTable builds the class table as the reference implementation sees Unicode. Its parts were
// made from different versions of the standard, and a vocabulary's ids depend on each:
//
//   - general categories are those of Unicode 8.0: a character assigned later is an ordinary letter,
//     and six characters have kept the category that they had then;
//   - canonical decompositions and combining classes are those of Unicode 9.0: they never change for
//     an assigned character, so the age of a character is the whole rule;
//   - lower-casing is that of Unicode 17.0 (see lower);
//   - White_Space has not changed since Unicode 6.3.
func newClassTable() *classTable {
	c := new(classTable)
	rangetable.Visit(rangetable.Assigned("8.0.0"), func(r rune) { c[r] |= assigned })
	for _, g := range []struct {
		table *unicode.RangeTable
		bit   class
	}{{unicode.Cc, control}, {unicode.Cf, control}, {unicode.Co, control}, {unicode.P, punct}, {unicode.Mn, mark}} {
		rangetable.Visit(g.table, func(r rune) {
			if c[r]&assigned != 0 {
				c[r] |= g.bit
			}
		})
	}
	c.restoreCategories()
	for r := range c {
		c[r] &^= assigned
	}
	for r := '!'; r <= '~'; r++ {
		if !('0' <= r && r <= '9' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z') {
			c[r] |= punct
		}
	}
	for _, r := range "\t\n\r" {
		c[r] &^= control // cleaned to spaces instead
	}
	c[utf8.RuneError] |= control
	rangetable.Visit(unicode.White_Space, func(r rune) { c[r] |= space })
	for _, b := range ideographs {
		for r := b[0]; r <= b[1]; r++ {
			c[r] |= ideograph
		}
	}
	c.markCanonical()
	c.markUpper()
	return c
}

// restoreCategories undoes the changes of general category since Unicode 8.0 that matter here.
func (c *classTable) restoreCategories() {
	c[0x166D] |= punct                    // CANADIAN SYLLABICS CHI SIGN: Po, So since 12.0
	c[0x1734] |= mark                     // HANUNOO SIGN PAMUDPOD: Mn, Mc since 14.0
	c[0x1885] &^= mark                    // MONGOLIAN LETTER ALI GALI BALUDA: Lo, Mn since 9.0
	c[0x1886] &^= mark                    // MONGOLIAN LETTER ALI GALI THREE BALUDA: Lo, Mn since 9.0
	c[0xA9BD] &^= mark                    // JAVANESE CONSONANT SIGN KERET: Mc, Mn since 11.0
	c[0x111C9] = c[0x111C9]&^mark | punct // SHARADA SANDHI MARK: Po, Mn since 11.0
}

func (c *classTable) markCanonical() {
	var buf [utf8.UTFMax]byte
	rangetable.Visit(rangetable.Assigned("9.0.0"), func(r rune) {
		p := norm.NFD.Properties(buf[:utf8.EncodeRune(buf[:], r)])
		if p.CCC() != 0 || p.Decomposition() != nil || isHangulSyllable(r) {
			c[r] |= canonical
		}
	})
}

func (c *classTable) markUpper() {
	for _, cr := range unicode.CaseRanges {
		for r := rune(cr.Lo); r <= rune(cr.Hi); r++ {
			if lower(r) != r {
				c[r] |= upper
			}
		}
	}
	for _, l := range laterLetters {
		for r := l.lo; r <= l.hi; r++ {
			if lower(r) != r {
				c[r] |= upper
			}
		}
	}
}

// ideographs are the blocks that BERT sets apart. The gap at U+2B820–U+2B91F is the original's own
// (tokenization.py means U+2B820; the reference has U+2B920).
var ideographs = [][2]rune{
	{0x3400, 0x4DBF},
	{0x4E00, 0x9FFF},
	{0xF900, 0xFAFF},
	{0x20000, 0x2A6DF},
	{0x2A700, 0x2B73F},
	{0x2B740, 0x2B81F},
	{0x2B920, 0x2CEAF},
	{0x2F800, 0x2FA1F},
}

// laterLetters are the capitals that Unicode 16.0 and 17.0 added: every step-th character from lo to
// hi has its small letter delta further on.
var laterLetters = []struct{ lo, hi, step, delta rune }{
	{0x1C89, 0x1C89, 1, 1},
	{0xA7CB, 0xA7CB, 1, 0x0264 - 0xA7CB},
	{0xA7CC, 0xA7CE, 2, 1},
	{0xA7D2, 0xA7D4, 2, 1},
	{0xA7DA, 0xA7DA, 1, 1},
	{0xA7DC, 0xA7DC, 1, 0x019B - 0xA7DC},
	{0x10D50, 0x10D65, 1, 0x20},
	{0x16EA0, 0x16EB8, 1, 0x1B},
}

// lower is the simple lower-case mapping of Unicode 17.0, whatever version the standard library has.
// Only U+0130 has a longer one, which the caller handles.
func lower(r rune) rune {
	if l := unicode.ToLower(r); l != r || r < laterLetters[0].lo {
		return l
	}
	for _, l := range laterLetters {
		if l.lo <= r && r <= l.hi && (r-l.lo)%l.step == 0 {
			return r + l.delta
		}
	}
	return r
}

// Hangul syllables decompose by arithmetic (The Unicode Standard, section 3.12).
const (
	hangulBase, hangulEnd = 0xAC00, 0xD7A4
	jamoL, jamoV, jamoT   = 0x1100, 0x1161, 0x11A7
	jamoVs, jamoTs        = 21, 28
)

func isHangulSyllable(r rune) bool { return hangulBase <= r && r < hangulEnd }

// appendHangul appends the two or three letters of the syllable r.
func appendHangul(dst []rune, r rune) []rune {
	r -= hangulBase
	dst = append(dst, jamoL+r/(jamoVs*jamoTs), jamoV+r/jamoTs%jamoVs)
	if t := r % jamoTs; t != 0 {
		dst = append(dst, jamoT+t)
	}
	return dst
}

// isWordChar is \w of Unicode regular expressions (UTS 18, annex C), on which single_word is defined,
// in Unicode 16.0.
func isWordChar(r rune) bool {
	return unicode.IsLetter(r) || unicode.In(r, unicode.M, unicode.Nd, unicode.Nl, unicode.Pc,
		unicode.Other_Alphabetic, unicode.Join_Control, laterWordChars)
}

// laterWordChars are the word characters that Unicode 15.1 and 16.0 added.
var laterWordChars = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x0897, 0x0897, 1}, {0x1C89, 0x1C8A, 1}, {0xA7CB, 0xA7CD, 1}, {0xA7DA, 0xA7DC, 1},
	},
	R32: []unicode.Range32{
		{0x105C0, 0x105F3, 1},
		{0x10D40, 0x10D65, 1},
		{0x10D69, 0x10D6D, 1},
		{0x10D6F, 0x10D85, 1},
		{0x10EC2, 0x10EC4, 1},
		{0x10EFC, 0x10EFC, 1},
		{0x11380, 0x11389, 1},
		{0x1138B, 0x1138B, 1},
		{0x1138E, 0x1138E, 1},
		{0x11390, 0x113B5, 1},
		{0x113B7, 0x113C0, 1},
		{0x113C2, 0x113C2, 1},
		{0x113C5, 0x113C5, 1},
		{0x113C7, 0x113CA, 1},
		{0x113CC, 0x113D3, 1},
		{0x113E1, 0x113E2, 1},
		{0x116D0, 0x116E3, 1},
		{0x11BC0, 0x11BE0, 1},
		{0x11BF0, 0x11BF9, 1},
		{0x11F5A, 0x11F5A, 1},
		{0x13460, 0x143FA, 1},
		{0x16100, 0x16139, 1},
		{0x16D40, 0x16D6C, 1},
		{0x16D70, 0x16D79, 1},
		{0x18CFF, 0x18CFF, 1},
		{0x1CCF0, 0x1CCF9, 1},
		{0x1E5D0, 0x1E5FA, 1},
		{0x2EBF0, 0x2EE5D, 1},
	},
}
