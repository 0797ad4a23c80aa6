package read

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"rung/train/metric"
)

// ReadRun reads a TREC run: query, Q0, document, rank, score, tag, and whatever follows. The rank column is
// not read: the score orders. A line whose first column begins with # is a comment. A document listed twice for a query is
// an error, as is a score that is no finite float32.
func ReadRun(path string) (metric.Run, error) {
	l := &ledger{}
	return readRun(context.Background(), path, l)
}

func readRun(ctx context.Context, path string, l *ledger) (metric.Run, error) {
	in, err := openLines(path)
	if err != nil {
		return nil, err
	}
	defer in.close()
	return l.run(ctx, in)
}

func (l *ledger) run(ctx context.Context, in *lines) (metric.Run, error) {
	type ranking struct {
		query string
		docs  []metric.Doc
		lines []int
	}
	byQuery := map[string]*ranking{}
	var order []*ranking
	var cols [][]byte
	err := l.each(ctx, in, false, func(line []byte) error {
		if cols = fields(line, cols); cols[0][0] == '#' {
			l.rows--
			return nil
		}
		if len(cols) < 6 {
			return fmt.Errorf("%d columns: want query Q0 document rank score tag", len(cols))
		}
		score, err := parseScore(string(cols[4]))
		if err != nil {
			return err
		}
		r := byQuery[string(cols[0])]
		if r == nil {
			r = &ranking{query: string(cols[0])}
			byQuery[r.query] = r
			order = append(order, r)
		}
		r.docs = append(r.docs, metric.Doc{ID: string(cols[2]), Score: score})
		r.lines = append(r.lines, in.n)
		return nil
	})
	if err != nil {
		return nil, err
	}
	// Repeats are looked for query by query, so that one small set serves all.
	run, seen := make(metric.Run, len(order)), map[string]int{}
	for _, r := range order {
		clear(seen)
		kept := r.docs[:0]
		for i, d := range r.docs {
			if first, ok := seen[d.ID]; ok {
				bad := &RowError{in.name, r.lines[i], fmt.Errorf("query %q lists document %q again: first at line %d", r.query, d.ID, first)}
				if err := l.refuse(bad); err != nil {
					return nil, err
				}
				continue
			}
			seen[d.ID] = r.lines[i]
			kept = append(kept, d)
		}
		run[r.query] = kept
	}
	if err := l.finish(); err != nil {
		return nil, err
	}
	if len(run) == 0 {
		return nil, fmt.Errorf("read: %s has no rows", in.name)
	}
	return run, nil
}

func parseScore(s string) (float32, error) {
	x, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(x) || math.Abs(x) > math.MaxFloat32 {
		return 0, fmt.Errorf("score %q is not a finite float32", s)
	}
	return float32(x), nil
}

// WriteRun writes a TREC run: queries ascending by bytes, documents in metric.Rank's order with ranks from 1,
// scores with nine digits, which hold every float32 exactly.
func WriteRun(w io.Writer, run metric.Run, tag string) error {
	if err := writable(tag); err != nil {
		return fmt.Errorf("read: write run: tag %q: %w", tag, err)
	}
	out := bufio.NewWriter(w)
	for _, q := range slices.Sorted(maps.Keys(run)) {
		if err := writableQuery(q); err != nil {
			return fmt.Errorf("read: write run: query %q: %w", q, err)
		}
		docs := slices.Clone(run[q])
		if err := metric.Rank(docs); err != nil {
			return fmt.Errorf("read: write run: query %q: %w", q, err)
		}
		for i, d := range docs {
			if err := writable(d.ID); err != nil {
				return fmt.Errorf("read: write run: query %q: document %q: %w", q, d.ID, err)
			}
			if math.IsInf(float64(d.Score), 0) {
				return fmt.Errorf("read: write run: query %q, document %q: the score is infinite", q, d.ID)
			}
			fmt.Fprintf(out, "%s Q0 %s %d %.9g %s\n", q, d.ID, i+1, d.Score, tag)
		}
	}
	return flush(out)
}

func flush(out *bufio.Writer) error {
	if err := out.Flush(); err != nil {
		return fmt.Errorf("read: write: %w", err)
	}
	return nil
}

// writable says whether an id survives in a file whose columns are split at blanks.
func writable(name string) error {
	switch {
	case name == "":
		return errors.New("a TREC file cannot hold an empty name")
	case strings.ContainsAny(name, " \t\v\f\r\n"):
		return errors.New("a TREC file cannot hold a name with blanks")
	case !utf8.ValidString(name):
		return errors.New("the name is not UTF-8")
	}
	return nil
}

func writableQuery(name string) error {
	if strings.HasPrefix(name, "#") {
		return errors.New("a TREC file reads a line that begins with # as a comment")
	}
	return writable(name)
}

// A judgement is a row of a qrels file.
type judgement struct {
	query, doc string
	grade      int
	line       int
}

// ReadQrels reads judgements: TREC's four columns (query, iteration, document, grade; a line whose first
// column begins with # is a comment), or BEIR's three with a header, separated by tabs. A pair judged twice is an error.
func ReadQrels(path string) (metric.Qrels, error) {
	rows, err := readQrels(context.Background(), path, &ledger{})
	if err != nil {
		return nil, err
	}
	out := metric.Qrels{}
	for _, r := range rows {
		add(out, r.query, r.doc, r.grade)
	}
	return out, nil
}

func add(q metric.Qrels, query, doc string, grade int) {
	if q[query] == nil {
		q[query] = map[string]int{}
	}
	q[query][doc] = grade
}

func readQrels(ctx context.Context, path string, l *ledger) ([]judgement, error) {
	in, err := openLines(path)
	if err != nil {
		return nil, err
	}
	defer in.close()
	return l.qrels(ctx, in)
}

// qrels returns the rows in the order of the file.
func (l *ledger) qrels(ctx context.Context, in *lines) ([]judgement, error) {
	type pair struct{ query, doc string }
	var rows []judgement
	var cols [][]byte
	first, beir := true, false
	seen, names := map[pair]int{}, map[string]string{}
	err := l.each(ctx, in, false, func(line []byte) error {
		if cols = fields(line, cols); cols[0][0] == '#' && !beir {
			l.rows--
			return nil
		}
		if first {
			first = false
			if beir = qrelsHeader(cols); beir {
				l.rows--
				return nil
			}
		}
		r, err := parseJudgement(line, cols, beir)
		if err != nil {
			return err
		}
		r.line = in.n
		if q, ok := names[r.query]; ok { // one copy of each query's name
			r.query = q
		} else {
			names[r.query] = r.query
		}
		key := pair{r.query, r.doc}
		if before, ok := seen[key]; ok {
			return fmt.Errorf("query %q, document %q is judged again: first at line %d", r.query, r.doc, before)
		}
		seen[key] = in.n
		rows = append(rows, r)
		return nil
	})
	if err == nil {
		err = l.finish()
	}
	if err == nil && len(rows) == 0 {
		err = fmt.Errorf("read: %s has no judgements", in.name)
	}
	return rows, err
}

// qrelsHeader says whether a first line is BEIR's header.
func qrelsHeader(cols [][]byte) bool {
	return len(cols) == 3 && string(cols[0]) == "query-id" && string(cols[1]) == "corpus-id" && string(cols[2]) == "score"
}

func parseJudgement(line []byte, cols [][]byte, beir bool) (judgement, error) {
	var r judgement
	var grade string
	if beir {
		parts := strings.Split(string(line), "\t")
		if len(parts) != 3 {
			return r, fmt.Errorf("%d columns: want query-id<TAB>corpus-id<TAB>score, as the header says", len(parts))
		}
		r.query, r.doc, grade = parts[0], parts[1], parts[2]
		if r.query == "" || r.doc == "" {
			return r, errors.New("an id is empty")
		}
	} else {
		switch len(cols) {
		case 4:
		case 3:
			return r, errors.New("3 columns without BEIR's header (query-id, corpus-id, score): want query iteration document grade")
		default:
			return r, fmt.Errorf("%d columns: want query iteration document grade", len(cols))
		}
		r.query, r.doc, grade = string(cols[0]), string(cols[2]), string(cols[3])
	}
	var err error
	if r.grade, err = strconv.Atoi(grade); err != nil || r.grade > 1e6 || r.grade < -1e6 {
		return r, fmt.Errorf("grade %q is not a whole number up to a million", grade)
	}
	return r, nil
}

// WriteQrels writes TREC qrels, ascending by query and document.
func WriteQrels(w io.Writer, qrels metric.Qrels) error {
	out := bufio.NewWriter(w)
	for _, q := range slices.Sorted(maps.Keys(qrels)) {
		if err := writableQuery(q); err != nil {
			return fmt.Errorf("read: write qrels: query %q: %w", q, err)
		}
		for _, d := range slices.SortedFunc(maps.Keys(qrels[q]), cmp.Compare[string]) {
			if err := writable(d); err != nil {
				return fmt.Errorf("read: write qrels: query %q: document %q: %w", q, d, err)
			}
			fmt.Fprintf(out, "%s 0 %s %d\n", q, d, qrels[q][d])
		}
	}
	return flush(out)
}
