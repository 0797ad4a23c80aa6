package token

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/sugarme/tokenizer/model"
	"github.com/sugarme/tokenizer/model/wordpiece"

	"rung/nn/nntest/shared"
)

// smallVocab is a vocabulary that needs no file.
func smallVocab() []string {
	return strings.Fields("[PAD] [UNK] [CLS] [SEP] [MASK] the quick fox ##es ##ing jump ##ed un ##able . , ! 漢 a ##b ##c e " +
		"##0 ##1 i ##s cafe ' ##\u0307 [ ] q")
}

func small(t testing.TB, change func(o *Options)) *Tokenizer {
	t.Helper()
	o := Defaults()
	if change != nil {
		change(&o)
	}
	tok, err := FromVocab(smallVocab(), o)
	require.NoError(t, err)
	return tok
}

func pieces(tok *Tokenizer, text string) string {
	var s []string
	for _, id := range tok.AppendIDs(nil, text) {
		s = append(s, tok.Token(id))
	}
	return strings.Join(s, " ")
}

// The class of every code point is that of the reference, whichever Unicode version Go has. The
// digest was taken when all 1,112,064 had been compared with it.
func TestClassesOfAllCharacters(t *testing.T) {
	h := sha256.New()
	c := newClassTable()
	for r := range c {
		l := rune(r)
		if c[r]&upper != 0 {
			l = lower(l)
		}
		fmt.Fprintf(h, "%d %d\n", c[r], l)
	}
	require.Equal(t, "3f7f793b8d8121f3d5b485bcda6b3cdaa5125a3fb80b9748f4714e3532e94344", hex.EncodeToString(h.Sum(nil)))
}

func TestFrontEnd(t *testing.T) {
	tok := small(t, nil)
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"The quick foxes.", "the quick fox ##es ."},
		{"QUICK\tfox\u00a0the", "quick fox the"},
		{"unable, unquick", "un ##able , [UNK]"},
		{"café cafe\u0301", "cafe cafe"},
		{"a漢b", "a 漢 [UNK]"},
		{"q\u200bu\x00i", "[UNK]"},
		{"fo\x00x", "fox"},
		{"\xfffox\xe2\x82", "fox"},
		{"the[MASK]fox [mask]", "the [MASK] fox [ [UNK] ]"},
		{strings.Repeat("a", 101), "[UNK]"},
		{"İ", "i"},
	} {
		require.Equal(t, c.want, pieces(tok, c.text), "%q", c.text)
	}
	keep := small(t, func(o *Options) { o.StripAccents = false })
	require.Equal(t, "i ##\u0307", pieces(keep, "İ"))
}

func TestIllFormedTextCountsAsPython(t *testing.T) {
	tok := small(t, nil)
	e := &Encoding{WantOffsets: true}
	for bad, chars := range map[string]int32{"\xff": 1, "\xe2\x82": 1, "\xed\xa0\x80": 3, "\xc0\x80": 2, "\xf0\x9f\x98": 1, "\xf5\x80\x80\x80": 4, "\xf4\x90": 2} {
		require.NoError(t, tok.Single(e, bad+" fox", 0))
		require.Equal(t, [2]int32{chars + 1, chars + 4}, e.Offsets[1], "%q", bad)
	}
}

func TestAddedTokens(t *testing.T) {
	with := func(a AddedToken) *Tokenizer {
		a.ID = int32(len(smallVocab()))
		return small(t, func(o *Options) { o.Added = []AddedToken{a} })
	}
	e := &Encoding{WantOffsets: true}
	for _, c := range []struct {
		token   AddedToken
		text    string
		want    string
		offsets [2]int32 // of the second token
	}{
		{AddedToken{Content: "[Q] "}, "the [Q] fox", "the [Q]  fox", [2]int32{4, 8}},
		{AddedToken{Content: "[Q] ", Normalized: true}, "the [q] fox", "the [Q]  fox", [2]int32{4, 8}},
		{AddedToken{Content: "[Q] "}, "the [q] fox", "the [ q ] fox", [2]int32{4, 5}},
		{AddedToken{Content: "<m>", LStrip: true}, "the  <m> fox", "the <m> fox", [2]int32{3, 8}},
		{AddedToken{Content: "<m>", RStrip: true}, "the <m>  fox", "the <m> fox", [2]int32{4, 9}},
		{AddedToken{Content: "fo", SingleWord: true}, "the foxes fo", "the fox ##es fo", [2]int32{4, 7}},
	} {
		tok := with(c.token)
		require.Equal(t, c.want, pieces(tok, c.text), "%+v", c.token)
		require.NoError(t, tok.Single(e, c.text, 0))
		require.Equal(t, c.offsets, e.Offsets[2], "%+v", c.token)
		require.Equal(t, len(smallVocab())+1, tok.VocabSize())
	}
}

func TestTruncation(t *testing.T) {
	tok := small(t, nil)
	var e Encoding
	require.NoError(t, tok.Single(&e, "the the the the", 5))
	require.Equal(t, []int32{2, 5, 5, 5, 3}, e.IDs)
	require.Equal(t, 1, e.Truncated)
	require.NoError(t, tok.Single(&e, "the", 2))
	require.Equal(t, []int32{2, 3}, e.IDs)
	require.Error(t, tok.Single(&e, "the", 1))
	require.Error(t, tok.Single(&e, "the", -1))

	for _, c := range []struct{ n1, n2, budget, want1, want2 int }{
		{3, 9, 20, 3, 9},
		{3, 9, 10, 3, 7},
		{9, 3, 10, 7, 3},
		{9, 9, 10, 5, 5},
		{9, 8, 11, 6, 5},
		{8, 9, 11, 5, 6},
		{9, 9, 11, 5, 6},
		{50, 60, 1, 0, 1},
		{60, 50, 1, 1, 0},
		{5, 5, 0, 0, 0},
		{0, 9, 4, 0, 4},
	} {
		k1, k2, err := LongestFirst.fit(c.n1, c.n2, c.budget)
		require.NoError(t, err)
		require.Equal(t, [2]int{c.want1, c.want2}, [2]int{k1, k2}, "%+v", c)
	}
	require.NoError(t, tok.Pair(&e, "the fox", "the fox", 6, OnlyFirst))
	require.Equal(t, []int32{2, 5, 3, 5, 7, 3}, e.IDs)
	require.Equal(t, []int32{0, 0, 0, 1, 1, 1}, e.Types)
	require.ErrorIs(t, tok.Pair(&e, "the fox", "the fox", 5, OnlySecond), ErrTooShort)
	require.Error(t, tok.Pair(&e, "the fox", "the fox", 5, Truncation(9)))
	require.ErrorContains(t, tok.Pair(&e, "", "", 2, LongestFirst), "no room for 3 special tokens")
}

// A tokenizer written out and opened again is the same, from each of the two forms.
func TestFilesRoundTrip(t *testing.T) {
	for name, tok := range map[string]*Tokenizer{
		"small": small(t, nil),
		"cased, extended": small(t, func(o *Options) {
			o.Lower, o.StripAccents, o.SplitIdeographs, o.CleanText = false, true, false, false
			o.PAD, o.MaxLength = "[MASK]", 77
			n := int32(len(smallVocab()))
			o.Added = []AddedToken{{ID: n + 1, Content: "[D] ", Normalized: true}, {ID: n, Content: "<\n>", LStrip: true}, {ID: 2, Content: "[CLS]", Special: true}, {ID: 3, Content: "[SEP]"}, {ID: 4, Content: "[MASK]"}, {ID: 1, Content: "[UNK]"}}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			files, err := tok.Files()
			require.NoError(t, err)
			require.Len(t, files, 4)
			dir := t.TempDir()
			for name, b := range files {
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
			}
			require.Contains(t, string(files[tokenizerJSON]), `"truncation": null`)
			back, err := Open(dir)
			require.NoError(t, err)
			require.Equal(t, tok.Hash(), back.Hash())
			require.Equal(t, tok.MaxLength(), back.MaxLength())
			again, err := back.Files()
			require.NoError(t, err)
			require.Equal(t, files, again)
			require.NoError(t, os.Remove(filepath.Join(dir, tokenizerJSON)))
			back, err = Open(dir)
			require.NoError(t, err)
			require.Equal(t, tok.Hash(), back.Hash())
			require.Equal(t, pieces(tok, "The [MASK] É漢 [D] fox"), pieces(back, "The [MASK] É漢 [D] fox"))
		})
	}
}

func TestUnknownConfigKeysAreKept(t *testing.T) {
	tok, err := Load(map[string][]byte{
		vocabTXT:   []byte(strings.Join(smallVocab(), "\r\n")),
		configJSON: []byte(`{"do_lower_case": false, "model_max_length": 1e30, "mine": {"a": [1]}, "cls_token": {"content": "[CLS]"}}`),
	})
	require.NoError(t, err)
	require.False(t, tok.Lower())
	require.Zero(t, tok.MaxLength())
	files, err := tok.Files()
	require.NoError(t, err)
	var c map[string]any
	require.NoError(t, json.Unmarshal(files[configJSON], &c))
	require.Equal(t, map[string]any{"a": []any{1.0}}, c["mine"])
	require.Equal(t, 1e30, c["model_max_length"])
	require.Equal(t, false, c["do_lower_case"])
}

// The published model's two forms are one tokenizer, and so is each checkpoint after a round trip.
func TestOpenCheckpoints(t *testing.T) {
	dir := shared.Path(t, "models", "all-MiniLM-L6-v2")
	tok, err := Open(dir)
	require.NoError(t, err)
	require.Equal(t, 512, tok.MaxLength())
	require.Equal(t, []int32{100, 101, 102, 0, 103}, []int32{tok.UNK(), tok.CLS(), tok.SEP(), tok.PAD(), tok.MASK()})
	vocab, err := os.ReadFile(filepath.Join(dir, vocabTXT))
	require.NoError(t, err)
	plain, err := Load(map[string][]byte{vocabTXT: vocab})
	require.NoError(t, err)
	require.Equal(t, tok.Hash(), plain.Hash())

	dirs, err := filepath.Glob(filepath.Join(shared.Path(t, "golden", "checkpoints"), "*", tokenizerJSON))
	require.NoError(t, err)
	require.NotEmpty(t, dirs)
	for _, d := range dirs {
		tok, err := Open(filepath.Dir(d))
		require.NoError(t, err)
		files, err := tok.Files()
		require.NoError(t, err)
		back, err := Load(files)
		require.NoError(t, err)
		require.Equal(t, tok.Hash(), back.Hash(), d)
		require.Equal(t, 64, back.MaxLength())
	}
}

// The WordPiece model of sugarme/tokenizer splits the words of the reference texts alike.
func TestSecondOpinion(t *testing.T) {
	texts := readLines[parityText](t, "texts.jsonl.gz")
	tok := openShared(t, "data", "tokenizers", "bert-base-uncased")
	vocab := make(model.Vocab)
	for id := range tok.VocabSize() {
		vocab[tok.Token(int32(id))] = id
	}
	theirs := wordpiece.NewWordPieceBuilder().Vocab(&vocab).UnkToken("[UNK]").Build()
	seen := make(map[string]bool)
	for _, x := range texts {
		for word := range strings.FieldsSeq(strings.ToLower(string(x.Bytes))) {
			if seen[word] || len(word) > 40 || strings.ToValidUTF8(word, "") != word {
				continue
			}
			seen[word] = true
			want, err := theirs.Tokenize(word)
			require.NoError(t, err)
			got, _ := tok.matcher.split(nil, nil, []byte(word))
			require.Len(t, got, len(want), "%q", word)
			for i := range got {
				require.EqualValues(t, want[i].Id, got[i].id, "%q", word)
			}
		}
	}
	require.Greater(t, len(seen), 10000)
}
