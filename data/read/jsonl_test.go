package read

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/data"
)

func TestJSONL(t *testing.T) {
	lines := []string{
		`{"query_id": "t1", "query": "q1", "positive_passages": [{"docid": "d1", "title": "T", "text": "x"}], "negative_passages": [{"docid": 2, "title": "", "text": "y"}, {"docid": "2", "text": "y"}], "more": [1]}`,
		``,
		`{"query": "q2", "pos": ["x", "y"], "neg": ["z"], "pos_scores": [1.5, 2], "neg_scores": [0], "prompt": "", "type": "normal"}`,
		`{"query_id": 3, "query": "q3 \ud83d\ude00", "candidates": [{"id": "a", "text": "x", "label": 2}, {"text": "y", "title": "T", "label": 0.5}, {"text": "z", "label": -1}]}`,
	}
	want := []data.Example{
		{ID: "t1", Query: "q1", Candidates: []data.Candidate{{ID: "d1", Text: "T x", Label: 1}, {ID: "2", Text: "y"}}},
		{ID: "line3", Unnamed: true, Query: "q2", Candidates: []data.Candidate{{ID: textID("x"), Text: "x", Label: 1}, {ID: textID("y"), Text: "y", Label: 1}, {ID: textID("z"), Text: "z"}}},
		{ID: "3", Query: "q3 😀", Candidates: []data.Candidate{{ID: "a", Text: "x", Label: 2}, {ID: textID("T y"), Text: "T y", Label: .5}, {ID: textID("z"), Text: "z", Label: -1}}},
	}
	text := strings.Join(lines, "\n")
	for name, content := range map[string]string{
		"lf.jsonl": text, "bom-crlf.jsonl": "\ufeff" + strings.ReplaceAll(text, "\n", "\r\n") + "\r\n", "zip.jsonl.gz": text,
	} {
		dir := tree(t, map[string]string{name: content})
		got, stats, err := examples(t, "jsonl:"+dir+"/"+name, Defaults())
		require.NoError(t, err)
		require.Equal(t, want, got, name)
		require.Equal(t, Stats{Rows: 3, Examples: 3, Candidates: 8, Positives: 5, Merged: 1, Scores: 1}, stats)
	}
}

func TestJSONLErrors(t *testing.T) {
	for line, want := range map[string]string{
		`{"query": "q", "pos": ["a"], "neg": ["b"]`: `not JSON: byte 41: unexpected end of JSON input`,
		`[1]`:                            `is a JSON array, want an object`,
		`{"pos": ["a"], "neg": ["b"]}`:   `no field "query"`,
		`{"query": "", "pos": ["a"]}`:    `the field "query" is empty`,
		`{"query": 5, "pos": ["a"]}`:     `field "query" is a JSON number, want a string`,
		`{"query": "q", "pos": "a"}`:     `field "pos" is a JSON string, want a list`,
		`{"query": "q", "pos": [["a"]]}`: `field "pos" is a JSON array, want a string`,
		`{"query": "q"}`:                 `no passages: want "positive_passages" and "negative_passages", or "pos" and "neg", or "candidates"`,
		`{"query": "q", "pos": ["a"]}`:   `no field "neg"`,
		`{"query": "q", "neg": ["a"]}`:   `no field "pos"`,
		`{"query": "q", "pos": ["a"], "neg": [], "candidates": []}`:                                                                                 `more than one of "positive_passages", "pos" and "candidates"`,
		`{"query": "q", "pos": [], "neg": ["b"]}`:                                                                                                   `query "line1" has no positive`,
		`{"query": "q", "pos": [], "neg": []}`:                                                                                                      `query "line1" has no passages`,
		`{"query": "q", "pos": ["a"], "neg": ["b"], "prompt": "Find:"}`:                                                                             `the field "prompt" is not supported: put the prompt into the query`,
		`{"query": "q", "pos": ["a"], "neg": ["b"], "pos_scores": []}`:                                                                              `"pos_scores" has 0 numbers for 1 passages`,
		`{"query": "q", "pos": ["a"], "neg": ["b"], "neg_scores": [1,2]}`:                                                                           `"neg_scores" has 2 numbers for 1 passages`,
		`{"query": "q", "pos": ["a"], "neg": ["b", "a"]}`:                                                                                           `neg[1]: passage "` + textID("a") + `" has labels 1 and 0`,
		`{"query": "q", "pos": ["a", ""], "neg": ["b"]}`:                                                                                            `pos[1]: the id or the text is empty`,
		`{"query": "q", "positive_passages": []}`:                                                                                                   `no field "query_id"`,
		`{"query": "q", "query_id": true, "positive_passages": []}`:                                                                                 `an id is neither a string nor a whole number`,
		`{"query": "q", "query_id": 1.5, "positive_passages": []}`:                                                                                  `an id is neither a string nor a whole number`,
		`{"query": "q", "query_id": "", "positive_passages": []}`:                                                                                   `the field "query_id" is empty`,
		`{"query": "q", "query_id": "1", "negative_passages": []}`:                                                                                  `no field "positive_passages"`,
		`{"query": "q", "query_id": "1", "positive_passages": []}`:                                                                                  `no field "negative_passages"`,
		`{"query": "q", "query_id": "1", "positive_passages": [{"text": "a"}], "negative_passages": []}`:                                            `positive_passages[0]: no field "docid"`,
		`{"query": "q", "query_id": "1", "positive_passages": [], "negative_passages": [{"docid": "a"}]}`:                                           `negative_passages[0]: no field "text"`,
		`{"query": "q", "query_id": "1", "positive_passages": [{"docid": "a", "text": "x"}, {"docid": "a", "text": "y"}], "negative_passages": []}`: `positive_passages[1]: passage "a" has two texts`,
		`{"query": "q", "candidates": [{"label": 1}]}`:                                                                                              `candidates[0]: no field "text"`,
		`{"query": "q", "candidates": [{"text": "a"}]}`:                                                                                             `candidates[0]: no field "label"`,
		`{"query": "q", "candidates": [{"text": "a", "label": "1"}]}`:                                                                               `field "candidates.label" is a JSON string, want a number`,
		`{"query": "q", "candidates": [{"text": "a", "label": 1e99}]}`:                                                                              `candidates[0]: label 1e+99 is no float32`,
		`{"query": "q \ud83d", "pos": ["a"], "neg": ["b"]}`:                                                                                         `a \u escape is half of a surrogate pair`,
		`{"query": "q \ude00\ud83d", "pos": ["a"], "neg": ["b"]}`:                                                                                   `a \u escape is half of a surrogate pair`,
	} {
		dir := tree(t, map[string]string{"f.jsonl": line + "\n"})
		_, _, err := examples(t, "jsonl:"+dir+"/f.jsonl", Defaults())
		require.EqualError(t, err, dir+"/f.jsonl:1: "+want, line)
	}
	dir := tree(t, map[string]string{
		"twice": `{"query_id": "1", "query": "q", "pos": ["a"], "neg": []}` + "\n\n" + `{"query_id": 1, "query": "r", "pos": ["a"], "neg": []}`,
		"empty": "", "blank": "\n \n",
	})
	for name, want := range map[string]string{
		"twice":  dir + `/twice:3: query id "1" is used at line 1`,
		"empty":  "read: " + dir + "/empty has no rows",
		"blank":  "read: " + dir + "/blank has no rows",
		"absent": "read: jsonl:" + dir + "/absent: stat " + dir + "/absent: no such file or directory",
	} {
		_, _, err := examples(t, "jsonl:"+dir+"/"+name, Defaults())
		require.EqualError(t, err, want)
	}
	_, _, err := examples(t, "jsonl:"+dir, Defaults())
	require.EqualError(t, err, "read: jsonl:"+dir+" is a directory: want jsonl:FILE")
}

func TestHalfSurrogate(t *testing.T) {
	for text, want := range map[string]bool{
		`plain`: false, `\u0041`: false, `\\ud800`: false, `\ud800`: true, `\uD83D\uDE00`: false, `\ud83d\u0041`: true, `\udc00`: true,
		`\`: false, `\ud83`: false, `\\\ud800x`: true, `\ud83d\ude00\ud83d`: true,
	} {
		require.Equal(t, want, halfSurrogate([]byte(text)), text)
	}
}
