package read

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/train/metric"
)

// lineReader reads from a string named f.
func lineReader(t testing.TB, text string) *lines {
	t.Helper()
	in, err := newLines("f", strings.NewReader(text))
	require.NoError(t, err)
	return in
}

func TestLines(t *testing.T) {
	long := strings.Repeat("é", 1<<16) // twice the buffer
	for text, want := range map[string][]string{
		"":                        nil,
		"\n":                      {""},
		"a":                       {"a"},
		"a\nb\r\n\nc\r":           {"a", "b", "", "c"},
		"\ufeffa\n":               {"a"},
		"a\n" + long + "\nb\n":    {"a", long, "b"},
		"a\n" + long:              {"a", long},
		string(zipped(t, "a\nb")): {"a", "b"},
		string(zipped(t, "a\n")) + string(zipped(t, "b\n")): {"a", "b"},
	} {
		in := lineReader(t, text)
		var got []string
		for {
			line, err := in.next()
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
			got = append(got, string(line))
			require.Equal(t, len(got), in.n)
		}
		require.Equal(t, want, got)
	}
}

func TestLinesErrors(t *testing.T) {
	in := lineReader(t, "ok\n"+strings.Repeat("x", 1<<17)+"\nok\n\xc3(\nok")
	in.limit = 1 << 16
	var got []string
	for {
		line, err := in.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			var row *RowError
			require.True(t, errors.As(err, &row))
			line = []byte(err.Error())
		}
		got = append(got, string(line))
	}
	require.Equal(t, []string{"ok", "f:2: the line has 131073 bytes, more than 65536", "ok", "f:4: invalid UTF-8 at byte 1", "ok"}, got)

	in = lineReader(t, strings.Repeat("x", 2<<20)+"\nok")
	in.limit = 1 << 16
	_, endless := in.next()
	require.EqualError(t, endless, "read: f:1: the line has more than 1048576 bytes")
	require.False(t, errors.As(endless, new(*RowError)), "no row to pass over: its end was not found")

	cut := zipped(t, strings.Repeat("some text\n", 10000))
	in = lineReader(t, string(cut[:len(cut)-20]))
	var err error
	for err == nil {
		_, err = in.next()
	}
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Regexp(t, `^read: f:\d+: unexpected EOF$`, err.Error())
	_, err = newLines("f", strings.NewReader("\x1f\x8bnot gzip"))
	require.ErrorContains(t, err, "read: f: ")
	_, err = openLines("absent.tsv")
	require.EqualError(t, err, "read: open absent.tsv: no such file or directory")
}

func collect(t testing.TB, path string) ([]Text, error) {
	var out []Text
	for x, err := range Texts(path) {
		if err != nil {
			return out, err
		}
		out = append(out, x)
	}
	return out, nil
}

func TestTexts(t *testing.T) {
	dir := tree(t, map[string]string{
		"a.jsonl":   `{"_id": "d1", "title": "T", "text": "x", "metadata": {}}` + "\n" + `{"_id": 2, "text": "y"}` + "\n" + `{"_id": "d3", "title": "T", "text": ""}`,
		"a.tsv":     "d1\tT x\r\n\r\n2\ty\nd3\tT\n",
		"packed.gz": "\n\n{\"_id\": \"d1\", \"title\": \"\", \"text\": \"T x\"}\n{\"_id\": \"2\", \"text\": \"y\"}\n{\"_id\": \"d3\", \"text\": \"T\"}\n",
		"bom.tsv":   "\ufeffd1\tT x\n2\ty\nd3\tT\n",
	})
	for _, name := range []string{"a.jsonl", "a.tsv", "packed.gz", "bom.tsv"} {
		got, err := collect(t, dir+"/"+name)
		require.NoError(t, err)
		require.Equal(t, []Text{{"d1", "T x"}, {"2", "y"}, {"d3", "T"}}, got)
	}
	for x, err := range Texts(dir + "/a.tsv") {
		require.NoError(t, err)
		require.Equal(t, "d1", x.ID)
		break
	}
	for text, want := range map[string]string{
		"":                             "read: FILE has no rows",
		"d1 x\n":                       "FILE:1: no tab: want id<TAB>text",
		"d1\tx\nd2\ty\tz\n":            "FILE:2: 3 columns: want id<TAB>text",
		"\tx\n":                        "FILE:1: the id is empty",
		`{"text": "x"}`:                `FILE:1: no field "_id"`,
		`{"_id": "", "text": "x"}`:     `FILE:1: the field "_id" is empty`,
		`{"_id": "a", "title": "x"}`:   `FILE:1: no field "text"`,
		`{"_id": "a", "text": null}`:   `FILE:1: no field "text"`,
		`{"_id": "a", "text": "x"} {}`: "FILE:1: not JSON: byte 27: invalid character '{' after top-level value",
		"{\"_id\": \"a\", \"text\": \"x\"}\nb\ty\n": "FILE:2: not JSON: byte 1: invalid character 'b' looking for beginning of value",
	} {
		dir := tree(t, map[string]string{"f": text})
		_, err := collect(t, dir+"/f")
		require.EqualError(t, err, strings.ReplaceAll(want, "FILE", dir+"/f"))
	}
}

func TestRun(t *testing.T) {
	text := "# made by hand\nq1 Q0 d#1 1 3.5 tag\n  q1\tQ0\td2\t2\t1e1\ttag more words\r\n\nq2 Q0 é\u00a0x 1 -7 t\n"
	run, err := (&ledger{}).run(t.Context(), lineReader(t, text))
	require.NoError(t, err)
	require.Equal(t, metric.Run{"q1": {{ID: "d#1", Score: 3.5}, {ID: "d2", Score: 10}}, "q2": {{ID: "é\u00a0x", Score: -7}}}, run)

	for text, want := range map[string]string{
		"":                  "read: f has no rows",
		"# nothing\n":       "read: f has no rows",
		"q Q0 d 1 2.5\n":    "f:1: 5 columns: want query Q0 document rank score tag",
		"q Q0 d 1 nan t\n":  `f:1: score "nan" is not a finite float32`,
		"q Q0 d 1 inf t\n":  `f:1: score "inf" is not a finite float32`,
		"q Q0 d 1 1e39 t\n": `f:1: score "1e39" is not a finite float32`,
		"q Q0 d 1 high t\n": `f:1: score "high" is not a finite float32`,
		"q Q0 d 1 2 t\nr Q0 d 1 2 t\nq Q0 d 2 1 t\n": `f:3: query "q" lists document "d" again: first at line 1`,
	} {
		_, err := (&ledger{}).run(t.Context(), lineReader(t, text))
		require.EqualError(t, err, want)
	}
	_, err = ReadRun("absent")
	require.EqualError(t, err, "read: open absent: no such file or directory")
}

func TestWriteRun(t *testing.T) {
	var b bytes.Buffer
	run := metric.Run{"q2": {{ID: "a", Score: .1}, {ID: "b", Score: .1}, {ID: "c", Score: 1. / 3}}, "q1": {{ID: "x", Score: -1e-30}}}
	require.NoError(t, WriteRun(&b, run, "tag"))
	require.Equal(t, "q1 Q0 x 1 -1.00000000e-30 tag\nq2 Q0 c 1 0.333333343 tag\nq2 Q0 b 2 0.100000001 tag\nq2 Q0 a 3 0.100000001 tag\n",
		strings.ReplaceAll(b.String(), "-1e-30", "-1.00000000e-30"))
	back, err := (&ledger{}).run(t.Context(), lineReader(t, b.String()))
	require.NoError(t, err)
	for q := range run {
		require.ElementsMatch(t, run[q], back[q])
	}
	one := func(q, d string, s float32) metric.Run { return metric.Run{q: {{ID: d, Score: s}}} }
	for want, run := range map[string]metric.Run{
		`read: write run: query "a b": a TREC file cannot hold a name with blanks`:               one("a b", "d", 1),
		`read: write run: query "": a TREC file cannot hold an empty name`:                       one("", "d", 1),
		`read: write run: query "#1": a TREC file reads a line that begins with # as a comment`:  one("#1", "d", 1),
		`read: write run: query "q": document "d\t": a TREC file cannot hold a name with blanks`: one("q", "d\t", 1),
		`read: write run: query "q": document "\xff": the name is not UTF-8`:                     one("q", "\xff", 1),
		`read: write run: query "q", document "d": the score is infinite`:                        one("q", "d", float32(math.Inf(1))),
		`read: write run: query "q": metric: document "d": the score is not a number`:            one("q", "d", float32(math.NaN())),
	} {
		require.EqualError(t, WriteRun(io.Discard, run, "t"), want)
	}
	require.EqualError(t, WriteRun(io.Discard, run, "my tag"), `read: write run: tag "my tag": a TREC file cannot hold a name with blanks`)
	require.EqualError(t, WriteRun(failingWriter{}, run, "t"), "read: write: disk full")
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestQrels(t *testing.T) {
	want := metric.Qrels{"q1": {"d1": 2, "d2": 0}, "q2": {"d1": -1}}
	dir := tree(t, map[string]string{
		"trec":     "# pool\nq1 0 d1 2\nq1\t0\td2  0\n\nq2 0 d1 -1\n",
		"beir.tsv": "query-id\tcorpus-id\tscore\r\nq1\td1\t2\r\nq1\td2\t0\r\nq2\td1\t-1\r\n",
		"zip.gz":   "\ufeffquery-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td1\t-1",
	})
	for _, name := range []string{"trec", "beir.tsv", "zip.gz"} {
		got, err := ReadQrels(dir + "/" + name)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	var b bytes.Buffer
	require.NoError(t, WriteQrels(&b, want))
	require.Equal(t, "q1 0 d1 2\nq1 0 d2 0\nq2 0 d1 -1\n", b.String())
	require.EqualError(t, WriteQrels(io.Discard, metric.Qrels{"q": {"": 1}}), `read: write qrels: query "q": document "": a TREC file cannot hold an empty name`)
	require.EqualError(t, WriteQrels(io.Discard, metric.Qrels{"q r": {"d": 1}}), `read: write qrels: query "q r": a TREC file cannot hold a name with blanks`)

	head := "query-id\tcorpus-id\tscore\n"
	for text, want := range map[string]string{
		"":                    "read: FILE has no rows",
		head:                  "read: FILE has no rows",
		"q d 1\n":             "FILE:1: 3 columns without BEIR's header (query-id, corpus-id, score): want query iteration document grade",
		"q 0 d 1 x\n":         "FILE:1: 5 columns: want query iteration document grade",
		"q 0 d 1.5\n":         `FILE:1: grade "1.5" is not a whole number up to a million`,
		"q 0 d 9999999\n":     `FILE:1: grade "9999999" is not a whole number up to a million`,
		"q 0 d 1\nq 0 d 1\n":  `FILE:2: query "q", document "d" is judged again: first at line 1`,
		head + "q\td\n":       "FILE:2: 2 columns: want query-id<TAB>corpus-id<TAB>score, as the header says",
		head + "q\t\t1\n":     "FILE:2: an id is empty",
		head + "q\td\thigh\n": `FILE:2: grade "high" is not a whole number up to a million`,
	} {
		dir := tree(t, map[string]string{"f": text})
		_, err := ReadQrels(dir + "/f")
		require.EqualError(t, err, strings.ReplaceAll(want, "FILE", dir+"/f"))
	}
}

func BenchmarkTexts(b *testing.B) {
	path := b.TempDir() + "/corpus.jsonl"
	var w bytes.Buffer
	for i := range 20000 {
		fmt.Fprintf(&w, `{"_id": "MED-%d", "title": "A title of some words", "text": "%s"}`+"\n", i, strings.Repeat("words of a passage, ", 40))
	}
	require.NoError(b, os.WriteFile(path, w.Bytes(), 0o644))
	b.SetBytes(int64(w.Len()))
	for b.Loop() {
		for _, err := range Texts(path) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkReadRun(b *testing.B) {
	path := b.TempDir() + "/run"
	var w bytes.Buffer
	for q := range 500 {
		for d := range 1000 {
			fmt.Fprintf(&w, "%d Q0 msmarco_%07d %d %.6f tag\n", 1000000+q, d*7919+q, d+1, 30-float64(d)/40)
		}
	}
	require.NoError(b, os.WriteFile(path, w.Bytes(), 0o644))
	b.SetBytes(int64(w.Len()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ReadRun(path); err != nil {
			b.Fatal(err)
		}
	}
}
