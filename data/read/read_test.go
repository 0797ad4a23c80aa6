package read

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/data"
)

// tree writes files into a new directory; a name that ends in .gz is compressed.
func tree(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		content := []byte(text)
		if strings.HasSuffix(name, ".gz") {
			content = zipped(t, text)
		}
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, content, 0o644))
	}
	return dir
}

func zipped(t testing.TB, text string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write([]byte(text))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return b.Bytes()
}

// examples reads a whole collection.
func examples(t testing.TB, spec string, opts Options) ([]data.Example, Stats, error) {
	t.Helper()
	s, err := ParseSpec(spec)
	require.NoError(t, err)
	c, err := Open(context.Background(), s, opts)
	if err != nil {
		return nil, Stats{}, err
	}
	var out []data.Example
	for ex, err := range c.Examples(context.Background()) {
		if err != nil {
			return out, c.Stats(), err
		}
		out = append(out, ex)
	}
	return out, c.Stats(), nil
}

func TestParseSpec(t *testing.T) {
	for in, want := range map[string]Spec{
		"wikiqa:d#train":           {"wikiqa", "d", "train"},
		"beir:/a/b#c#dev":          {"beir", "/a/b#c", "dev"},
		"jsonl:f#g.jsonl":          {"jsonl", "f#g.jsonl", ""},
		"trec:c:/x":                {"trec", "c:/x", ""},
		"trec:d#passage.dev-small": {"trec", "d", "passage.dev-small"},
	} {
		got, err := ParseSpec(in)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Equal(t, in, got.String())
	}
	for in, want := range map[string]string{
		"":            `read: data "": want kind:path[#split] with one of the kinds beir, jsonl, trec, wikiqa`,
		"train.jsonl": `read: data "train.jsonl": want kind:path[#split] with one of the kinds beir, jsonl, trec, wikiqa`,
		"biere:x":     `read: data "biere:x": unknown kind "biere": the kinds are beir, jsonl, trec, wikiqa`,
		"jsonl:":      `read: data "jsonl:": no path: want jsonl:FILE`,
		"beir:d#":     `read: data "beir:d#": no split after #: want beir:DIR#SPLIT`,
		"wikiqa:#dev": `read: data "wikiqa:#dev": no path: want wikiqa:DIR#train|dev|test`,
	} {
		_, err := ParseSpec(in)
		require.EqualError(t, err, want)
	}
	for name, k := range Kinds() {
		require.Equal(t, name, k.Name)
		require.NotEmpty(t, k.Syntax+k.Needs+k.About)
	}
}

const wikiTrain = "what is a\tno\t0\nwhat is a\tyes\t1\nwhat is b\tnever\t0\nwhat is a\tlate\t0\n"

func TestWikiQA(t *testing.T) {
	header := "QuestionID\tQuestion\tDocumentID\tDocumentTitle\tSentenceID\tSentence\tLabel\n"
	dir := tree(t, map[string]string{
		"WikiQA-train.txt": wikiTrain,
		"WikiQA-dev.tsv":   header + "Q1\thow \"so\tD1\tT\tD1-0\ta \"quote\t0\r\nQ1\thow \"so\tD1\tT\tD1-1\tb\t1\r\n",
	})
	got, stats, err := examples(t, "wikiqa:"+dir+"#train", Defaults())
	require.NoError(t, err)
	require.Equal(t, []data.Example{{ID: "what is a", Query: "what is a", Candidates: []data.Candidate{
		{ID: "t0", Text: "no"}, {ID: "t1", Text: "yes", Label: 1}, {ID: "t3", Text: "late"},
	}}}, got)
	require.Equal(t, Stats{Rows: 4, Examples: 1, Candidates: 3, Positives: 1, Dropped: 1}, stats)

	got, stats, err = examples(t, "wikiqa:"+dir+"#train", Options{NoPositives: Keep})
	require.NoError(t, err)
	require.Len(t, got, 2)
	require.Equal(t, 1, stats.WithoutPositives)

	_, _, err = examples(t, "wikiqa:"+dir+"#train", Options{NoPositives: Refuse})
	require.EqualError(t, err, dir+`/WikiQA-train.txt:3: query "what is b" has no positive`)

	got, _, err = examples(t, "wikiqa:"+dir+"#dev", Defaults())
	require.NoError(t, err)
	require.Equal(t, []data.Example{{ID: "Q1", Query: `how "so`, Candidates: []data.Candidate{
		{ID: "D1-0", Text: `a "quote`}, {ID: "D1-1", Text: "b", Label: 1},
	}}}, got)

	_, _, err = examples(t, "wikiqa:"+dir+"#test", Defaults())
	require.EqualError(t, err, "read: wikiqa:"+dir+"#test: stat "+dir+"/WikiQA-test.tsv: no such file or directory")
	_, _, err = examples(t, "wikiqa:"+dir+"#eval", Defaults())
	require.EqualError(t, err, "read: wikiqa:"+dir+`#eval: split "eval": want wikiqa:DIR#train|dev|test`)

	for text, want := range map[string]string{
		"":                               "read: FILE has no rows",
		"q\ts\t1\n\nq\tr\t0\n":           "FILE:2: 1 columns, want 3",
		"q\ts\t2\n":                      `FILE:1: label "2" is neither 0 nor 1`,
		"q\ts\t1\nq\t\t0\n":              "FILE:2: an empty column",
		"q\ts\t1\nq\t\xffs\t0\n":         "FILE:2: invalid UTF-8 at byte 3",
		"q\ts\t0\n":                      "read: SPEC has no examples: 1 rows, 0 bad; 1 queries without a positive, 0 not judged, 0 not in the run",
		"\xff\xfeq\x00\t\x00s\x00\t\x00": "FILE:1: invalid UTF-8 at byte 1",
	} {
		dir := tree(t, map[string]string{"WikiQA-train.txt": text})
		want = strings.NewReplacer("FILE", dir+"/WikiQA-train.txt", "SPEC", "wikiqa:"+dir+"#train").Replace(want)
		_, _, err := examples(t, "wikiqa:"+dir+"#train", Defaults())
		require.EqualError(t, err, want)
	}
	row := "Q1\tq\tD\tT\tD-0\ts\t1\n"
	for text, want := range map[string]string{
		"":                 "read: FILE has no rows",
		header:             "read: FILE has no rows",
		"a\tb\n" + row:     "FILE:1: the header has no column QuestionID",
		header + row + row: `FILE:3: question "Q1" has sentence "D-0" twice`,
		header + row + "Q1\tq?\tD\tT\tD-1\ts\t1\n": `FILE:3: question "Q1" has another text at line 2`,
		header + row + "Q1\tq\tD\tD-1\ts\t1\n":     "FILE:3: 6 columns, want 7",
	} {
		dir := tree(t, map[string]string{"WikiQA-dev.tsv": text})
		_, _, err := examples(t, "wikiqa:"+dir+"#dev", Defaults())
		require.EqualError(t, err, strings.ReplaceAll(want, "FILE", dir+"/WikiQA-dev.tsv"))
	}
}

// TestLenient: bad rows are handed over and counted, until they are too many.
func TestLenient(t *testing.T) {
	var b strings.Builder
	for i := range 2000 {
		if i == 40 || i == 1000 {
			b.WriteString("broken\n")
		} else {
			fmt.Fprintf(&b, "q%d\ts\t1\n", i)
		}
	}
	dir := tree(t, map[string]string{"WikiQA-train.txt": b.String()})
	file := dir + "/WikiQA-train.txt"
	opts := Defaults()
	opts.Lenient = true
	var bad []string
	opts.Quarantine = func(e *RowError) { bad = append(bad, e.Error()) }
	got, stats, err := examples(t, "wikiqa:"+dir+"#train", opts)
	require.NoError(t, err)
	require.Equal(t, []string{file + ":41: 1 columns, want 3", file + ":1001: 1 columns, want 3"}, bad)
	require.Equal(t, Stats{Rows: 2000, Examples: 1998, Candidates: 1998, Positives: 1998, Quarantined: 2}, stats)
	require.Equal(t, "t41", got[40].Candidates[0].ID) // a bad row keeps its number

	opts.MaxBad = .0005
	_, stats, err = examples(t, "wikiqa:"+dir+"#train", opts)
	require.EqualError(t, err, "read: 2 of 1001 rows are bad, more than 0.05%: the latest: "+file+":1001: 1 columns, want 3")
	require.Equal(t, 2, stats.Quarantined)

	small := tree(t, map[string]string{"WikiQA-train.txt": wikiTrain + "broken\n"})
	opts = Options{Lenient: true, MaxBad: .1}
	_, _, err = examples(t, "wikiqa:"+small+"#train", opts)
	require.ErrorContains(t, err, "read: 1 of 5 rows are bad, more than 10%")
	_, err = Open(context.Background(), Spec{"wikiqa", small, "train"}, Options{MaxBad: 2})
	require.ErrorContains(t, err, "max bad 2 must be a share from 0 to 1")
}

// TestPasses: a collection is read any number of times; a pass may be broken off or cancelled.
func TestPasses(t *testing.T) {
	dir := tree(t, map[string]string{"f.jsonl": strings.Repeat(`{"query":"q","pos":["a"],"neg":["b"]}`+"\n", 5)})
	c, err := Open(context.Background(), Spec{"jsonl", dir + "/f.jsonl", ""}, Defaults())
	require.NoError(t, err)
	for range 2 {
		n := 0
		for ex, err := range c.Examples(context.Background()) {
			require.NoError(t, err)
			require.Equal(t, fmt.Sprintf("line%d", n+1), ex.ID)
			if n++; n == 3 {
				break
			}
		}
		require.Equal(t, 3, c.Stats().Examples)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	n := 0
	for _, err = range c.Examples(ctx) {
		n++
		cancel()
	}
	require.Equal(t, 2, n)
	require.ErrorIs(t, err, context.Canceled)
	_, err = Open(ctx, c.Spec, Defaults())
	require.ErrorIs(t, err, context.Canceled)

	queries := 0
	for q, err := range c.Queries(context.Background()) {
		require.NoError(t, err)
		require.Equal(t, "q", q.Text)
		queries++
	}
	require.Equal(t, 5, queries)
	for _, err := range c.Corpus(context.Background()) {
		require.EqualError(t, err, "read: jsonl:"+dir+"/f.jsonl: the kind jsonl has no corpus")
	}
	_, err = c.Run(context.Background())
	require.EqualError(t, err, "read: jsonl:"+dir+"/f.jsonl has no run")
	qrels, err := c.Qrels(context.Background())
	require.NoError(t, err)
	require.Equal(t, map[string]int{textID("a"): 1, textID("b"): 0}, qrels["line4"])
}

func TestGrades(t *testing.T) {
	ex := data.Example{ID: "q", Candidates: []data.Candidate{{ID: "a", Label: 2}, {ID: "b", Label: .5}}}
	_, err := Grades(ex)
	require.EqualError(t, err, `read: query "q", passage "b": the label 0.5 is no grade: want a whole number`)
}

func ExampleOpen() {
	dir, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "train.jsonl")
	_ = os.WriteFile(path, []byte(`{"query_id": 7, "query": "who wrote dracula", "candidates": [{"id": "p1", "text": "Bram Stoker did.", "label": 1}, {"id": "p2", "text": "A vampire.", "label": 0}]}`), 0o644)
	spec, _ := ParseSpec("jsonl:" + path)
	c, _ := Open(context.Background(), spec, Defaults())
	for ex, err := range c.Examples(context.Background()) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(ex.ID, ex.Query, len(ex.Candidates), ex.Positives())
	}
	// Output: 7 who wrote dracula 2 1
}
