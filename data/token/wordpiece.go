package token

import (
	"errors"
	"math/bits"
	"unicode/utf8"
)

// hashMul mixes one byte into a hash: the odd number nearest 2^64/φ (Knuth, TAOCP 6.4).
const hashMul = 0x9E3779B97F4A7C15

// maxProbe bounds the search for one token. A real vocabulary needs a few dozen probes at worst; one
// made to collide is refused instead of being slow.
const maxProbe = 1 << 10

var errCollisions = errors.New("too many tokens share a hash")

// A slot of the hash table: a token's id plus one (0: empty), and bits of its hash.
type slot struct {
	tag uint32
	ref int32
}

// A matcher splits words into the longest pieces that the vocabulary has, from left to right
// (Song et al. 2020, "Fast WordPiece Tokenization", section 2). The table is open-addressed and keyed
// by bytes, so that a prefix's hash gives the next longer one's with one multiplication.
type matcher struct {
	slots []slot
	shift int
	text  string  // all tokens, end to end
	end   []int32 // where each token ends in text

	prefix  string // of pieces that continue a word, "##"
	seed    uint64 // hash of prefix
	longest int    // bytes of the longest token

	maxChars int // longer words are unknown
	unknown  int32
}

func newMatcher(tokens []string, prefix string, maxChars int) (*matcher, error) {
	size := 0
	for _, t := range tokens {
		size += len(t)
	}
	text := make([]byte, 0, size)
	m := &matcher{end: make([]int32, len(tokens)), prefix: prefix, maxChars: maxChars}
	for i, t := range tokens {
		text = append(text, t...)
		m.end[i] = int32(len(text))
		m.longest = max(m.longest, len(t))
	}
	m.text = string(text)
	for i := range len(prefix) {
		m.seed = mix(m.seed, prefix[i])
	}
	width := max(4, bits.Len(uint(len(tokens)))+1) // at most half full
	m.slots, m.shift = make([]slot, 1<<width), 64-width
	for id, t := range tokens {
		if err := m.insert(t, int32(id)); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func mix(h uint64, b byte) uint64 { return (h ^ uint64(b)) * hashMul }

func (m *matcher) insert(token string, id int32) error {
	var h uint64
	for i := range len(token) {
		h = mix(h, token[i])
	}
	at := h >> m.shift
	for range maxProbe {
		if m.slots[at].ref == 0 {
			m.slots[at] = slot{uint32(h), id + 1}
			return nil
		}
		at = (at + 1) & uint64(len(m.slots)-1)
	}
	return errCollisions
}

// token returns the token with the given id.
func (m *matcher) token(id int32) string {
	start := int32(0)
	if id > 0 {
		start = m.end[id-1]
	}
	return m.text[start:m.end[id]]
}

// find returns the id of the token prefix+piece, whose hash is h, or -1.
func (m *matcher) find(h uint64, prefix string, piece []byte) int32 {
	at := h >> m.shift
	for {
		s := m.slots[at]
		if s.ref == 0 {
			return -1
		}
		if s.tag == uint32(h) {
			t := m.token(s.ref - 1)
			if len(t) == len(prefix)+len(piece) && t[:len(prefix)] == prefix && t[len(prefix):] == string(piece) {
				return s.ref - 1
			}
		}
		at = (at + 1) & uint64(len(m.slots)-1)
	}
}

// id returns the id of a whole token, or -1.
func (m *matcher) id(token string) int32 {
	var h uint64
	for i := range len(token) {
		h = mix(h, token[i])
	}
	return m.find(h, "", []byte(token))
}

// A piece is one token of a word: its id, and where it ends in the word's bytes.
type piece struct{ id, end int32 }

// split appends the pieces of word, valid UTF-8, or the unknown token for all of it. Tokens are valid
// UTF-8 too, so a piece that matches ends between characters.
func (m *matcher) split(dst []piece, hashes []uint64, word []byte) ([]piece, []uint64) {
	mark := len(dst)
	if len(word) > m.maxChars && utf8.RuneCount(word) > m.maxChars {
		return append(dst, piece{m.unknown, int32(len(word))}), hashes
	}
	prefix, h := "", uint64(0)
	for start := 0; start < len(word); {
		rest := word[start:]
		rest = rest[:max(0, min(len(rest), m.longest-len(prefix)))]
		hashes = hashes[:0]
		for _, b := range rest {
			h = mix(h, b)
			hashes = append(hashes, h)
		}
		id, n := int32(-1), len(rest)
		for ; n > 0; n-- {
			if id = m.find(hashes[n-1], prefix, rest[:n]); id >= 0 {
				break
			}
		}
		if id < 0 {
			return append(dst[:mark], piece{m.unknown, int32(len(word))}), hashes
		}
		start += n
		dst = append(dst, piece{id, int32(start)})
		prefix, h = m.prefix, m.seed
	}
	return dst, hashes
}
