package read

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/data"
	"rung/train/metric"
)

func beirFiles() map[string]string {
	return map[string]string{
		"corpus.jsonl.gz": `{"_id": "d1", "title": "T", "text": "one"}` + "\n" + `{"_id": "d2", "title": "", "text": "two"}` + "\n" + `{"_id": "d3", "text": "three"}` + "\n",
		"queries.jsonl":   `{"_id": "q1", "text": "first"}` + "\n" + `{"_id": "q2", "text": "second"}` + "\n" + `{"_id": "q3", "text": "third"}` + "\n",
		"qrels/test.tsv":  "query-id\tcorpus-id\tscore\nq2\td2\t1\nq1\td3\t2\nq1\td1\t0\nq2\td1\t-1\nq3\td1\t0\n",
	}
}

func TestBEIR(t *testing.T) {
	dir := tree(t, beirFiles())
	got, stats, err := examples(t, "beir:"+dir+"#test", Defaults())
	require.NoError(t, err)
	require.Equal(t, []data.Example{
		{ID: "q2", Query: "second", Candidates: []data.Candidate{{ID: "d2", Text: "two", Label: 1}, {ID: "d1", Text: "T one"}}},
		{ID: "q1", Query: "first", Candidates: []data.Candidate{{ID: "d3", Text: "three", Label: 2}, {ID: "d1", Text: "T one"}}},
	}, got)
	require.Equal(t, Stats{Rows: 11, Examples: 2, Candidates: 4, Positives: 2, Dropped: 1}, stats)

	c, err := Open(context.Background(), Spec{"beir", dir, "test"}, Defaults())
	require.NoError(t, err)
	qrels, err := c.Qrels(context.Background())
	require.NoError(t, err)
	require.Equal(t, metric.Qrels{"q1": {"d1": 0, "d3": 2}, "q2": {"d1": -1, "d2": 1}, "q3": {"d1": 0}}, qrels)
	n := 0
	for _, err := range c.Corpus(context.Background()) {
		require.NoError(t, err)
		n++
	}
	for _, err := range c.Queries(context.Background()) {
		require.NoError(t, err)
		n++
	}
	require.Equal(t, 6, n)
}

func TestBEIRErrors(t *testing.T) {
	for _, c := range []struct{ file, text, want string }{
		{"qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td9\t1\n", `DIR/qrels/test.tsv:2: document "d9" is not in DIR/corpus.jsonl.gz`},
		{"qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t1\nq9\td1\t1\n", `DIR/qrels/test.tsv:3: query "q9" is not in DIR/queries.jsonl`},
		{"queries.jsonl", `{"_id": "q1", "text": "a"}` + "\n" + `{"_id": "q1", "text": "b"}`, `DIR/queries.jsonl:2: id "q1" comes again`},
		{"corpus.jsonl.gz", `{"_id": "d1"}`, `DIR/corpus.jsonl.gz:1: no field "text"`},
		{"corpus.jsonl.gz", "", `read: DIR/corpus.jsonl.gz has no rows`},
		{"qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t0\n", "read: beir:DIR#test has no examples: 7 rows, 0 bad; 1 queries without a positive, 0 not judged, 0 not in the run"},
	} {
		files := beirFiles()
		files[c.file] = c.text
		dir := tree(t, files)
		_, _, err := examples(t, "beir:"+dir+"#test", Defaults())
		require.EqualError(t, err, strings.ReplaceAll(c.want, "DIR", dir))
	}
	dir := tree(t, beirFiles())
	_, _, err := examples(t, "beir:"+dir+"#dev", Defaults())
	require.EqualError(t, err, "read: beir:"+dir+"#dev: stat "+dir+"/qrels/dev.tsv: no such file or directory")
	_, _, err = examples(t, "beir:"+dir, Defaults())
	require.EqualError(t, err, "read: beir:"+dir+": no split: want beir:DIR#SPLIT")

	// Lenient: the missing document and the missing query are passed over.
	files := beirFiles()
	files["qrels/test.tsv"] += "q1\td9\t1\nq9\td1\t1\n"
	dir = tree(t, files)
	var bad []string
	got, stats, err := examples(t, "beir:"+dir+"#test", Options{Lenient: true, MaxBad: .2, Quarantine: func(e *RowError) { bad = append(bad, e.Error()) }})
	require.NoError(t, err)
	require.Len(t, got, 2)
	require.Equal(t, 2, stats.Quarantined)
	require.Equal(t, []string{
		dir + `/qrels/test.tsv:7: document "d9" is not in ` + dir + "/corpus.jsonl.gz",
		dir + `/qrels/test.tsv:8: query "q9" is not in ` + dir + "/queries.jsonl",
	}, bad)
}

const topics = `
<top>
<num> Number: 301
<title> International Organized
   Crime

<desc> Description:
Not part of the query.
</top>
<top>
<num>302</num>
<title>Topic: Poliomyelitis</title>
</top>
`

func TestTREC(t *testing.T) {
	files := map[string]string{
		"topics.robust.txt":  topics,
		"collection.tsv":     "d1\tone\nd2\ttwo\nd3\tthree\n",
		"qrels.robust.txt":   "301 0 d1 1\n301 0 d3 -1\n302 0 d2 2\n",
		"unrelated.notes.md": "x",
	}
	dir := tree(t, files)
	got, _, err := examples(t, "trec:"+dir+"#robust", Defaults())
	require.NoError(t, err)
	require.Equal(t, []data.Example{
		{ID: "301", Query: "International Organized Crime", Candidates: []data.Candidate{{ID: "d1", Text: "one", Label: 1}, {ID: "d3", Text: "three"}}},
		{ID: "302", Query: "Poliomyelitis", Candidates: []data.Candidate{{ID: "d2", Text: "two", Label: 2}}},
	}, got)

	// With a run its documents are the candidates, best first; judgements outside it stay in Qrels.
	files["run.robust.trec.gz"] = "301 Q0 d2 1 0.5 t\n301 Q0 d1 2 0.9 t\n7 Q0 d1 1 1 t\n"
	dir = tree(t, files)
	got, stats, err := examples(t, "trec:"+dir+"#robust", Defaults())
	require.NoError(t, err)
	require.Equal(t, []data.Example{
		{ID: "301", Query: "International Organized Crime", Candidates: []data.Candidate{{ID: "d1", Text: "one", Label: 1}, {ID: "d2", Text: "two"}}},
	}, got)
	require.Equal(t, 1, stats.NotInRun)
	require.Equal(t, 1, stats.Unjudged)
	c, err := Open(context.Background(), Spec{"trec", dir, "robust"}, Defaults())
	require.NoError(t, err)
	qrels, err := c.Qrels(context.Background())
	require.NoError(t, err)
	require.Len(t, qrels, 2)
	run, err := c.Run(context.Background())
	require.NoError(t, err)
	require.Len(t, run, 2)
	var ids []string
	for q, err := range c.Queries(context.Background()) {
		require.NoError(t, err)
		ids = append(ids, q.ID)
	}
	require.Equal(t, []string{"301", "302"}, ids)

	files["run.robust.trec.gz"] = "301 Q0 d9 1 0.5 t\n"
	dir = tree(t, files)
	_, _, err = examples(t, "trec:"+dir+"#robust", Defaults())
	require.EqualError(t, err, dir+`/run.robust.trec.gz: query "301": document "d9" is not in `+dir+"/collection.tsv")
	_, _, err = examples(t, "trec:"+dir, Defaults())
	require.EqualError(t, err, "read: trec:"+dir+": no file of topics|queries: want topics, collection, qrels, optionally run; each as NAME[.SPLIT][.tsv|.txt|.jsonl]")
	files["corpus.jsonl"] = "{}"
	dir = tree(t, files)
	_, _, err = examples(t, "trec:"+dir+"#robust", Defaults())
	require.EqualError(t, err, "read: trec:"+dir+"#robust: more than one file of collection|corpus: collection.tsv, corpus.jsonl")
	_, _, err = examples(t, "trec:"+dir+"/absent", Defaults())
	require.EqualError(t, err, "read: trec:"+dir+"/absent: open "+dir+"/absent: no such file or directory")
}

func TestTopicsErrors(t *testing.T) {
	for text, want := range map[string]string{
		"<top>\n<num> 1\n<title> a\n":          "f:1: <top> without </top>",
		"<top>\n<num> 1\n</top>\n":             "f:3: the topic of line 1 has no <num> or no <title>",
		"<top>\n<title> 1\n</top>\n":           "f:3: the topic of line 1 has no <num> or no <title>",
		"<top>\n<top>\n":                       "f:2: <top> inside the topic of line 1",
		"<num> 1\n<top>\n":                     "f:1: text outside <top> and </top>",
		"<top>\n<num>1\n<title>a\n</top>\nx\n": "f:5: text outside <top> and </top>",
	} {
		err := (&ledger{}).texts(t.Context(), lineReader(t, text), true, func(Text) error { return nil })
		require.EqualError(t, err, want)
	}
}
