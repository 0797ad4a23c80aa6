package read

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"rung/data"
)

// WikiQA (Yang, Yih, Meek, EMNLP 2015): train is question<TAB>sentence<TAB>label without ids, so that a question
// is its own id and a candidate is "t" and its line's index from 0; dev and test have a header with ids. There is
// no quoting.

func openWikiQA(c *Collection) error {
	var file string
	switch c.Spec.Split {
	case "train":
		file = "WikiQA-train.txt"
	case "dev", "test":
		file = "WikiQA-" + c.Spec.Split + ".tsv"
	default:
		return fmt.Errorf("read: %v: split %q: want %s", c.Spec, c.Spec.Split, Kinds()["wikiqa"].Syntax)
	}
	path := filepath.Join(c.Spec.Path, file)
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("read: %v: %w", c.Spec, err)
	}
	c.rows = func(ctx context.Context, p *pass) error {
		in, err := openLines(path)
		if err != nil {
			return err
		}
		defer in.close()
		return p.wikiQA(ctx, in, c.Spec.Split == "train")
	}
	return nil
}

// A group is a query with the rows that belong to it, wherever they stand in the file.
type group struct {
	ex   data.Example
	line int // of its first row
}

func (p *pass) wikiQA(ctx context.Context, in *lines, train bool) error {
	var groups []*group
	byID, seen := map[string]*group{}, map[[2]string]bool{}
	columns, width := []int{0, 0, -1, 1, 2}, 3 // id, question, sentence id, sentence, label
	if !train {
		var err error
		if columns, width, err = wikiQAHeader(in); err != nil {
			return err
		}
	}
	err := p.ledger.each(ctx, in, true, func(line []byte) error {
		cols := strings.Split(string(line), "\t")
		if len(cols) != width {
			return fmt.Errorf("%d columns, want %d", len(cols), width)
		}
		cand := data.Candidate{ID: fmt.Sprintf("t%d", in.n-1), Text: cols[columns[3]]}
		if !train {
			cand.ID = cols[columns[2]]
		}
		name, question := cols[columns[0]], cols[columns[1]]
		switch label := cols[columns[4]]; {
		case label == "1":
			cand.Label = 1
		case label != "0":
			return fmt.Errorf("label %q is neither 0 nor 1", label)
		}
		if name == "" || question == "" || cand.ID == "" || cand.Text == "" {
			return errors.New("an empty column")
		}
		g := byID[name]
		switch {
		case g == nil:
			g = &group{data.Example{ID: name, Query: question}, in.n}
			byID[name] = g
			groups = append(groups, g)
		case g.ex.Query != question:
			return fmt.Errorf("question %q has another text at line %d", name, g.line)
		}
		key := [2]string{name, cand.ID}
		if seen[key] {
			return fmt.Errorf("question %q has sentence %q twice", name, cand.ID)
		}
		seen[key] = true
		g.ex.Candidates = append(g.ex.Candidates, cand)
		return nil
	})
	if err != nil {
		return err
	}
	return p.emitGroups(ctx, in.name, groups)
}

// wikiQAHeader finds the columns by name, and their number.
func wikiQAHeader(in *lines) (columns []int, width int, err error) {
	line, err := in.next()
	if err == io.EOF {
		return nil, 0, fmt.Errorf("read: %s has no rows", in.name)
	}
	if err != nil {
		return nil, 0, err
	}
	header := strings.Split(string(line), "\t")
	for _, name := range []string{"QuestionID", "Question", "SentenceID", "Sentence", "Label"} {
		i := slices.Index(header, name)
		if i < 0 {
			return nil, 0, in.errorf("the header has no column %s", name)
		}
		columns = append(columns, i)
	}
	return columns, len(header), nil
}

// emitGroups hands examples on whose rows came from path.
func (p *pass) emitGroups(ctx context.Context, path string, groups []*group) error {
	for _, g := range groups {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read: %s: %w", path, err)
		}
		err := p.emit(g.ex)
		if err == nil {
			continue
		}
		if errors.Is(err, errStop) {
			return err
		}
		if err := p.ledger.refuse(&RowError{path, g.line, err}); err != nil {
			return err
		}
	}
	return nil
}
