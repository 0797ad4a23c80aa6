package read

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"rung/data"
)

// lines of arbitrary bytes as a file named f; nil where they are no file at all.
func fuzzLines(b []byte) *lines {
	in, err := newLines("f", bytes.NewReader(b))
	if err != nil {
		return nil
	}
	in.limit = 1 << 12
	return in
}

// fuzzPass reads examples and checks what every reader owes its users.
func fuzzPass(t *testing.T, lenient bool, read func(*pass) error) {
	p := &pass{ledger: &ledger{lenient: lenient, rate: 1}, policy: Keep}
	p.yield = func(ex data.Example, _ error) bool {
		seen := map[string]bool{}
		if ex.ID == "" || ex.Query == "" || !utf8.ValidString(ex.Query) {
			t.Fatalf("bad example %+v", ex)
		}
		for _, c := range ex.Candidates {
			if c.ID == "" || c.Text == "" || seen[c.ID] || !utf8.ValidString(c.Text) {
				t.Fatalf("bad candidate %+v", c)
			}
			seen[c.ID] = true
		}
		return true
	}
	checkError(t, read(p), lenient)
}

// checkError: a reader ends well or says in one line where it stopped.
func checkError(t *testing.T, err error, lenient bool) {
	var row *RowError
	if err == nil || lenient {
		return
	}
	if !errors.As(err, &row) && !strings.HasPrefix(err.Error(), "read: f") || strings.Contains(err.Error(), "\n") {
		t.Fatalf("unclear error: %v", err)
	}
}

func FuzzWikiQA(f *testing.F) {
	f.Add([]byte(wikiTrain), true)
	f.Add([]byte("QuestionID\tQuestion\tSentenceID\tSentence\tLabel\nq\tw\td\ts\t1\n"), false)
	f.Fuzz(func(t *testing.T, b []byte, train bool) {
		for _, lenient := range []bool{false, true} {
			if in := fuzzLines(b); in != nil {
				fuzzPass(t, lenient, func(p *pass) error { return p.wikiQA(context.Background(), in, train) })
			}
		}
	})
}

func FuzzJSONL(f *testing.F) {
	f.Add([]byte(`{"query_id": "t1", "query": "q1", "positive_passages": [{"docid": "d1", "title": "T", "text": "x"}], "negative_passages": [{"docid": 2, "text": "y"}]}`))
	f.Add([]byte(`{"query": "q2", "pos": ["x", "y"], "neg": ["z"], "pos_scores": [1.5, 2]}`))
	f.Add([]byte(`{"query": "\ud83d\ude00", "candidates": [{"id": "a", "text": "x", "label": 2}, {"text": "y", "label": 0.5}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, lenient := range []bool{false, true} {
			if in := fuzzLines(b); in != nil {
				fuzzPass(t, lenient, func(p *pass) error { return p.jsonl(context.Background(), in) })
			}
		}
	})
}

func FuzzTexts(f *testing.F) {
	f.Add([]byte(topics))
	f.Add([]byte("a\tb\n"))
	f.Add([]byte(`{"_id": "d1", "title": "T", "text": "x"}`))
	f.Add(zipped(f, "a\tb\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := fuzzLines(b)
		if in == nil {
			return
		}
		l := &ledger{}
		err := l.texts(context.Background(), in, true, func(x Text) error {
			if x.ID == "" || !utf8.ValidString(x.Text) {
				t.Fatalf("bad text %+v", x)
			}
			return nil
		})
		checkError(t, err, false)
	})
}

// FuzzRun: what is read is written and read again the same.
func FuzzRun(f *testing.F) {
	f.Add([]byte("# c\nq1 Q0 d#1 1 3.5 tag\nq1\tQ0\td2\t2\t-1e1\ttag more\r\n"))
	f.Add([]byte(" #0 0 0 0 0 0"))
	f.Add([]byte("\v\f\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := fuzzLines(b)
		if in == nil {
			return
		}
		run, err := (&ledger{}).run(context.Background(), in)
		checkError(t, err, false)
		if err != nil {
			return
		}
		var first, second bytes.Buffer
		if err := WriteRun(&first, run, "t"); err != nil {
			t.Fatal(err)
		}
		again, err := (&ledger{}).run(context.Background(), fuzzLines(first.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		if err := WriteRun(&second, again, "t"); err != nil || first.String() != second.String() {
			t.Fatalf("%v: %q becomes %q", err, first.String(), second.String())
		}
	})
}

func FuzzQrels(f *testing.F) {
	f.Add([]byte("q1 0 d1 2\nq2 0 d1 -1\n"))
	f.Add([]byte("query-id\tcorpus-id\tscore\nq1\td1\t2\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := fuzzLines(b)
		if in == nil {
			return
		}
		l := &ledger{}
		rows, err := l.qrels(context.Background(), in)
		checkError(t, err, false)
		if err == nil && len(rows) != l.rows {
			t.Fatalf("%d judgements of %d rows", len(rows), l.rows)
		}
	})
}

func FuzzParseSpec(f *testing.F) {
	f.Add("beir:/a/b#c#dev")
	f.Fuzz(func(t *testing.T, s string) {
		spec, err := ParseSpec(s)
		if err == nil && spec.String() != s {
			t.Fatalf("%q reads as %v", s, spec)
		}
	})
}

// FuzzLines: no byte of a plain file is lost, whatever the buffer boundaries.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\r\nb\n\nc"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if bytes.HasPrefix(b, []byte{0x1f, 0x8b}) || bytes.HasPrefix(b, []byte("\ufeff")) || !utf8.Valid(b) {
			return
		}
		in, err := newLines("f", bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
		if len(b) == 0 {
			want = nil
		}
		for _, w := range want {
			line, err := in.next()
			if err != nil || string(line) != strings.TrimSuffix(w, "\r") {
				t.Fatalf("%q: %q, %v", w, line, err)
			}
		}
		if _, err := in.next(); err != io.EOF {
			t.Fatal(err)
		}
	})
}
