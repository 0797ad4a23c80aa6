package token

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const goodPipeline = `{"version": "1.0", "truncation": {"max_length": 3}, "added_tokens": [ADDED],
"normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
"pre_tokenizer": {"type": "BertPreTokenizer"},
"post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
"model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
"vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3}}}`

func TestRefusedPipelines(t *testing.T) {
	good := strings.Replace(goodPipeline, "ADDED", "", 1)
	tok, err := Load(map[string][]byte{tokenizerJSON: []byte(good)})
	require.NoError(t, err)
	require.EqualValues(t, -1, tok.PAD())

	for _, c := range []struct{ old, with, err string }{
		{`"WordPiece"`, `"BPE"`, `model "BPE" is not supported (only WordPiece is)`},
		{`"BertNormalizer"`, `"Sequence"`, `normalizer "Sequence" is not supported`},
		{`"BertPreTokenizer"`, `"Metaspace"`, `pre_tokenizer "Metaspace" is not supported`},
		{`"BertProcessing"`, `"RobertaProcessing"`, `post_processor "RobertaProcessing" is not supported`},
		{`"BertProcessing"`, `"TemplateProcessing"`, `the frame of a single text is not [CLS] A [SEP]`},
		{`["[CLS]", 1]`, `["[CLS]", 3]`, `cls "[CLS]" has the id 3`},
		{`["[CLS]", 1]`, `7`, `cls is not a pair`},
		{`"lowercase": true`, `"lower": true`, `normalizer has no "lowercase"`},
		{`"1.0"`, `"2.0"`, `version "2.0"`},
		{`"a": 3`, `"a": 2`, `have the same id 2`},
		{`"a": 3`, `"a": 4`, `token "a" has the id 4`},
		{`"a": 3`, `"a": -1`, `token "a" has the id -1`},
		{`"a": 3`, `"a": 99999999999`, `the id 99999999999`},
		{`"a": 3`, `"a": 3.5`, `cannot unmarshal`},
		{`"a": 3`, `"": 3`, `token 3 of the vocabulary: empty`},
		{`"[UNK]": 0`, `"x": 0`, `has no "[UNK]"`},
		{`"max_input_chars_per_word": 100`, `"max_input_chars_per_word": -1`, `out of range`},
		{`"added_tokens": []`, `"added_tokens": [{"id": 5, "content": "z"}]`, `no added token has the id 4`},
		{`"added_tokens": []`, `"added_tokens": [{"id": 9999999999, "content": "z"}]`, `has the id 9999999999`},
		{`"added_tokens": []`, `"added_tokens": [{"id": 1, "content": "a"}]`, `has the id 1, but 3 in the vocabulary`},
		{`"added_tokens": []`, `"added_tokens": [{"id": 4, "content": "b"}, {"id": 4, "content": "c"}]`, `have the same id 4`},
		{`"added_tokens": []`, `"added_tokens": [{"id": 4, "content": "B", "normalized": true}, {"id": 5, "content": "b", "normalized": true}]`, `look the same`},
		{`"added_tokens": []`, `"added_tokens": [{"id": 4, "content": "\u0301", "normalized": true}]`, `is empty after normalisation`},
		{`}}}`, `}}`, `unexpected end of JSON`},
	} {
		require.Contains(t, good, c.old)
		_, err := Load(map[string][]byte{tokenizerJSON: []byte(strings.Replace(good, c.old, c.with, 1))})
		require.ErrorContains(t, err, c.err, "%s for %s", c.with, c.old)
		require.NotContains(t, err.Error(), "\n")
	}
}

func TestRefusedFiles(t *testing.T) {
	vocab := "[UNK]\n[CLS]\n[SEP]\na\n"
	for _, c := range []struct {
		files map[string]string
		err   string
	}{
		{nil, "neither tokenizer.json nor vocab.txt"},
		{map[string]string{vocabTXT: ""}, "vocab.txt: empty"},
		{map[string]string{vocabTXT: "[UNK]\n\n[CLS]"}, "line 2 is empty"},
		{map[string]string{vocabTXT: vocab + "a\n"}, `token "a" has the ids 3 and 4`},
		{map[string]string{vocabTXT: "[UNK]\n[CLS]\na"}, `has no "[SEP]"`},
		{map[string]string{vocabTXT: vocab + "\xff"}, "vocab.txt is not UTF-8"},
		{map[string]string{vocabTXT: vocab + strings.Repeat("x", maxTokenBytes+1)}, "bytes long"},
		{map[string]string{vocabTXT: vocab, configJSON: `{"tokenizer_class": "BertJapaneseTokenizer"}`}, `"BertJapaneseTokenizer" is not supported`},
		{map[string]string{vocabTXT: vocab, configJSON: `{"cls_token": 7}`}, "cls_token is neither"},
		{map[string]string{vocabTXT: vocab, configJSON: `{"do_basic_tokenize": false}`}, "do_basic_tokenize"},
		{map[string]string{vocabTXT: vocab, configJSON: `{"added_tokens_decoder": {"-1": {"content": "x"}}}`}, `has the id "-1"`},
		{map[string]string{vocabTXT: vocab, addedTokensJSON: `{"x": 77}`}, "no added token has the id 4"},
		{map[string]string{vocabTXT: vocab, specialMapJSON: `[`}, "special_tokens_map.json: "},
	} {
		files := make(map[string][]byte)
		for name, s := range c.files {
			files[name] = []byte(s)
		}
		_, err := Load(files)
		require.ErrorContains(t, err, c.err)
		require.NotContains(t, err.Error(), "\n")
	}
	_, err := Open(t.TempDir())
	require.ErrorContains(t, err, "neither")
}

// Long runs of combining marks and words without end cost no more than their length suggests.
func TestLongTexts(t *testing.T) {
	tok := small(t, nil)
	for _, s := range []string{strings.Repeat("\u0316\u0301", 100_000), strings.Repeat("a", 1<<20), strings.Repeat("[", 1<<18), strings.Repeat("\xff", 1<<18)} {
		require.LessOrEqual(t, len(tok.AppendIDs(nil, s)), len(s))
	}
}

func FuzzEncode(f *testing.F) {
	f.Add("the fox", "a \u0301\xff[Q] 漢", uint8(7), uint8(0), uint8(0))
	f.Add("İ[MASK]", "é각\u0344\u0316", uint8(4), uint8(1), uint8(3))
	f.Fuzz(func(t *testing.T, first, second string, maxLen, how, flags uint8) {
		n := int32(len(smallVocab()))
		tok := small(t, func(o *Options) {
			o.Lower, o.StripAccents, o.CleanText, o.SplitIdeographs = flags&1 == 0, flags&2 == 0, flags&4 == 0, flags&8 == 0
			o.Added = []AddedToken{{ID: n, Content: "[Q] ", Normalized: true, LStrip: flags&16 != 0}, {ID: n + 1, Content: " e", RStrip: true, SingleWord: flags&32 != 0}}
		})
		inside := func(ids []int32) {
			for _, id := range ids {
				if id < 0 || int(id) >= tok.VocabSize() {
					t.Fatalf("id %d of %d", id, tok.VocabSize())
				}
			}
		}
		inside(tok.AppendIDs(nil, first))
		e := &Encoding{WantOffsets: true}
		err := tok.Pair(e, first, second, int(maxLen), Truncation(how%3))
		if err != nil {
			return
		}
		inside(e.IDs)
		if maxLen > 0 && len(e.IDs) > int(maxLen) || len(e.Types) != len(e.IDs) || len(e.Offsets) != len(e.IDs) {
			t.Fatalf("%d ids, %d types, %d offsets, at most %d", len(e.IDs), len(e.Types), len(e.Offsets), maxLen)
		}
		longest := int32(max(len(first), len(second)))
		for _, o := range e.Offsets {
			if o[0] < 0 || o[0] > o[1] || o[1] > longest {
				t.Fatalf("offsets %v", o)
			}
		}
	})
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(strings.Replace(goodPipeline, "ADDED", `{"id": 4, "content": "z", "normalized": true}`, 1)), []byte(nil), []byte(`{"do_lower_case": false}`))
	f.Add([]byte(nil), []byte("[UNK]\n[CLS]\n[SEP]\na"), []byte(`{"added_tokens_decoder": {"4": {"content": "b"}}}`))
	f.Fuzz(func(t *testing.T, pipeline, vocab, config []byte) {
		files := map[string][]byte{configJSON: config}
		if len(pipeline) > 0 {
			files[tokenizerJSON] = pipeline
		} else {
			files[vocabTXT] = vocab
		}
		tok, err := Load(files)
		if err != nil {
			return
		}
		tok.AppendIDs(nil, "The a [CLS] é")
		out, err := tok.Files()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Load(out)
		if err != nil {
			t.Fatalf("what was written does not load: %v", err)
		}
		if back.Hash() != tok.Hash() {
			t.Fatal("what was written is another tokenizer")
		}
	})
}
