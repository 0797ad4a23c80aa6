package read

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"

	"rung/data"
)

// A jsonRow holds the fields of the three formats that a line may have; a nil pointer is a missing field.
type jsonRow struct {
	QueryID *id     `json:"query_id"`
	Query   *string `json:"query"`
	User    *id     `json:"user"`
	Domain  string  `json:"domain"` // in any format

	// Tevatron
	Positive *[]jsonPassage `json:"positive_passages"`
	Negative *[]jsonPassage `json:"negative_passages"`

	// FlagEmbedding
	Pos       *[]string `json:"pos"`
	Neg       *[]string `json:"neg"`
	PosScores []float64 `json:"pos_scores"`
	NegScores []float64 `json:"neg_scores"`
	Prompt    string    `json:"prompt"`

	// Graded
	Candidates *[]jsonPassage `json:"candidates"`
}

type jsonPassage struct {
	DocID *id      `json:"docid"` // Tevatron
	ID    *id      `json:"id"`    // graded; where it is missing, a hash of the text
	Title string   `json:"title"`
	Text  *string  `json:"text"`
	Label *float64 `json:"label"` // graded
}

func openJSONL(c *Collection) error {
	if info, err := os.Stat(c.Spec.Path); err != nil {
		return fmt.Errorf("read: %v: %w", c.Spec, err)
	} else if info.IsDir() {
		return fmt.Errorf("read: %v is a directory: want %s", c.Spec, Kinds()["jsonl"].Syntax)
	}
	c.rows = func(ctx context.Context, p *pass) error {
		in, err := openLines(c.Spec.Path)
		if err != nil {
			return err
		}
		defer in.close()
		return p.jsonl(ctx, in)
	}
	return nil
}

func (p *pass) jsonl(ctx context.Context, in *lines) error {
	used := map[string]int{} // query id: line
	return p.ledger.each(ctx, in, false, func(line []byte) error {
		var row jsonRow
		if err := decode(line, &row); err != nil {
			return err
		}
		ex, merged, err := row.example(in.n)
		if err != nil {
			return err
		}
		if before, ok := used[ex.ID]; ok {
			return fmt.Errorf("query id %q is used at line %d", ex.ID, before)
		}
		used[ex.ID] = in.n
		p.stats.Merged += merged
		if len(row.PosScores)+len(row.NegScores) > 0 {
			p.stats.Scores++
		}
		return p.emit(ex)
	})
}

// example also returns how many candidates it merged. Without a query id the line's number becomes one.
func (row *jsonRow) example(line int) (data.Example, int, error) {
	formats := 0
	for _, has := range []bool{row.Positive != nil || row.Negative != nil, row.Pos != nil || row.Neg != nil, row.Candidates != nil} {
		if has {
			formats++
		}
	}
	switch {
	case row.Query == nil:
		return data.Example{}, 0, errors.New(`no field "query"`)
	case *row.Query == "":
		return data.Example{}, 0, errors.New(`the field "query" is empty`)
	case formats == 0:
		return data.Example{}, 0, errors.New(`no passages: want "positive_passages" and "negative_passages", or "pos" and "neg", or "candidates"`)
	case formats > 1:
		return data.Example{}, 0, errors.New(`more than one of "positive_passages", "pos" and "candidates"`)
	}
	b := &builder{ex: data.Example{ID: fmt.Sprintf("line%d", line), Query: *row.Query, Domain: row.Domain}}
	if b.ex.Unnamed = row.QueryID == nil; row.QueryID != nil {
		if b.ex.ID = string(*row.QueryID); b.ex.ID == "" {
			return data.Example{}, 0, errors.New(`the field "query_id" is empty`)
		}
	}
	if row.User != nil {
		if b.ex.User = string(*row.User); b.ex.User == "" {
			return data.Example{}, 0, errors.New(`the field "user" is empty`)
		}
	}
	var err error
	switch {
	case row.Candidates != nil:
		err = b.graded(*row.Candidates)
	case row.Pos != nil || row.Neg != nil:
		err = b.flagEmbedding(row)
	default:
		err = b.tevatron(row)
	}
	if err == nil && len(b.ex.Candidates) == 0 {
		err = fmt.Errorf("query %q has no passages", b.ex.ID)
	}
	return b.ex, b.merged, err
}

// A builder collects the candidates of one query.
type builder struct {
	ex     data.Example
	at     map[string]int // candidate id: index
	merged int
}

// add appends a candidate. The same id with the same text and label is one candidate; an id with two texts or
// labels is an error.
func (b *builder) add(c data.Candidate, where string, i int) error {
	if c.ID == "" || c.Text == "" {
		return fmt.Errorf("%s[%d]: the id or the text is empty", where, i)
	}
	if b.at == nil {
		b.at = map[string]int{}
	}
	j, ok := b.at[c.ID]
	switch {
	case !ok:
		b.at[c.ID] = len(b.ex.Candidates)
		b.ex.Candidates = append(b.ex.Candidates, c)
	case b.ex.Candidates[j] == c:
		b.merged++
	case b.ex.Candidates[j].Text != c.Text:
		return fmt.Errorf("%s[%d]: passage %q has two texts", where, i, c.ID)
	default:
		return fmt.Errorf("%s[%d]: passage %q has labels %g and %g", where, i, c.ID, b.ex.Candidates[j].Label, c.Label)
	}
	return nil
}

func (b *builder) tevatron(row *jsonRow) error {
	switch {
	case row.QueryID == nil:
		return errors.New(`no field "query_id"`)
	case row.Positive == nil:
		return errors.New(`no field "positive_passages"`)
	case row.Negative == nil:
		return errors.New(`no field "negative_passages"`)
	}
	for _, list := range []struct {
		name     string
		passages []jsonPassage
		label    float32
	}{{"positive_passages", *row.Positive, 1}, {"negative_passages", *row.Negative, 0}} {
		for i, p := range list.passages {
			switch {
			case p.DocID == nil:
				return fmt.Errorf(`%s[%d]: no field "docid"`, list.name, i)
			case p.Text == nil:
				return fmt.Errorf(`%s[%d]: no field "text"`, list.name, i)
			}
			c := data.Candidate{ID: string(*p.DocID), Text: joined(p.Title, *p.Text), Label: list.label}
			if err := b.add(c, list.name, i); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *builder) flagEmbedding(row *jsonRow) error {
	switch {
	case row.Pos == nil:
		return errors.New(`no field "pos"`)
	case row.Neg == nil:
		return errors.New(`no field "neg"`)
	case row.Prompt != "":
		return errors.New(`the field "prompt" is not supported: put the prompt into the query`)
	case row.PosScores != nil && len(row.PosScores) != len(*row.Pos):
		return fmt.Errorf(`"pos_scores" has %d numbers for %d passages`, len(row.PosScores), len(*row.Pos))
	case row.NegScores != nil && len(row.NegScores) != len(*row.Neg):
		return fmt.Errorf(`"neg_scores" has %d numbers for %d passages`, len(row.NegScores), len(*row.Neg))
	}
	for i, text := range *row.Pos {
		if err := b.add(data.Candidate{ID: textID(text), Text: text, Label: 1}, "pos", i); err != nil {
			return err
		}
	}
	for i, text := range *row.Neg {
		if err := b.add(data.Candidate{ID: textID(text), Text: text}, "neg", i); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) graded(candidates []jsonPassage) error {
	for i, p := range candidates {
		switch {
		case p.Text == nil:
			return fmt.Errorf(`candidates[%d]: no field "text"`, i)
		case p.Label == nil:
			return fmt.Errorf(`candidates[%d]: no field "label"`, i)
		case math.Abs(*p.Label) > math.MaxFloat32:
			return fmt.Errorf(`candidates[%d]: label %g is no float32`, i, *p.Label)
		}
		c := data.Candidate{Text: joined(p.Title, *p.Text), Label: float32(*p.Label)}
		if p.ID != nil {
			c.ID = string(*p.ID)
		} else {
			c.ID = textID(c.Text)
		}
		if err := b.add(c, "candidates", i); err != nil {
			return err
		}
	}
	return nil
}

// textID names a passage that has no id by its text. A running number would rank the positives, which
// files list first, together wherever scores tie.
func textID(text string) string {
	h := sha256.Sum256([]byte(text))
	return hex.EncodeToString(h[:8])
}
