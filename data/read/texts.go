package read

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
)

// A Text is a query or a passage.
type Text struct {
	ID   string
	Text string // title and text joined by a space where there are both; may be empty
}

// Texts yields the texts of a file of BEIR JSON lines (_id, title, text) or of id<TAB>text lines, gzip or not,
// strictly. It streams, so it does not see that an id comes twice.
func Texts(path string) iter.Seq2[Text, error] {
	return texts(context.Background(), path, &ledger{}, false)
}

// texts reads a file of texts; topics says whether it may be in TREC's <top> format.
func texts(ctx context.Context, path string, l *ledger, topics bool) iter.Seq2[Text, error] {
	return func(yield func(Text, error) bool) {
		in, err := openLines(path)
		if err != nil {
			yield(Text{}, err)
			return
		}
		defer in.close()
		err = l.texts(ctx, in, topics, func(t Text) error {
			if !yield(t, nil) {
				return errStop
			}
			return nil
		})
		if err == nil {
			err = l.finish()
		}
		if err != nil && !errors.Is(err, errStop) {
			yield(Text{}, err)
		}
	}
}

// texts calls emit with each text. The first character that is not blank tells the format.
func (l *ledger) texts(ctx context.Context, in *lines, topics bool, emit func(Text) error) error {
	first, err := in.firstChar()
	if err != nil {
		return err
	}
	if topics && first == '<' {
		return l.topics(ctx, in, emit)
	}
	parse := textTSV
	if first == '{' {
		parse = textJSON
	}
	return l.each(ctx, in, false, func(line []byte) error {
		t, err := parse(line)
		if err != nil {
			return err
		}
		return emit(t)
	})
}

// firstChar looks ahead; 0 where only blanks are near.
func (l *lines) firstChar() (byte, error) {
	head, err := l.in.Peek(512)
	if err != nil && err != io.EOF {
		return 0, fmt.Errorf("read: %s: %w", l.name, err)
	}
	if head = bytes.TrimLeft(head, " \t\r\n"); len(head) > 0 {
		return head[0], nil
	}
	return 0, nil
}

func textTSV(line []byte) (Text, error) {
	name, text, ok := strings.Cut(string(line), "\t")
	switch {
	case !ok:
		return Text{}, errors.New("no tab: want id<TAB>text")
	case strings.Contains(text, "\t"):
		return Text{}, fmt.Errorf("%d columns: want id<TAB>text", 2+strings.Count(text, "\t"))
	case strings.TrimSpace(name) == "":
		return Text{}, errors.New("the id is empty")
	}
	return Text{name, text}, nil
}

func textJSON(line []byte) (Text, error) {
	var row struct {
		ID    *id     `json:"_id"`
		Title *string `json:"title"`
		Text  *string `json:"text"`
	}
	if err := decode(line, &row); err != nil {
		return Text{}, err
	}
	switch {
	case row.ID == nil:
		return Text{}, errors.New(`no field "_id"`)
	case *row.ID == "":
		return Text{}, errors.New(`the field "_id" is empty`)
	case row.Text == nil:
		return Text{}, errors.New(`no field "text"`)
	case row.Title == nil:
		return Text{string(*row.ID), *row.Text}, nil
	}
	return Text{string(*row.ID), joined(*row.Title, *row.Text)}, nil
}

// topics reads TREC's classic topics: <top> … <num> Number: 301 … <title> words … </top>. The query is the
// title; other fields are passed over.
func (l *ledger) topics(ctx context.Context, in *lines, emit func(Text) error) error {
	var number, title []string
	var field *[]string // what following lines continue
	open := 0           // line of <top>
	err := l.each(ctx, in, false, func(raw []byte) error {
		line := strings.TrimSpace(string(raw))
		tag, rest := cutTag(line)
		switch {
		case tag == "top" && open > 0:
			return fmt.Errorf("<top> inside the topic of line %d", open)
		case tag == "top":
			open, number, title, field = in.n, nil, nil, nil
			return nil
		case open == 0:
			return errors.New("text outside <top> and </top>")
		case tag == "/top":
			start := open
			open = 0
			t := Text{strings.Join(number, " "), strings.Join(title, " ")}
			if t.ID == "" || t.Text == "" {
				return fmt.Errorf("the topic of line %d has no <num> or no <title>", start)
			}
			return emit(t)
		case tag == "num":
			field, line = &number, strings.TrimSpace(strings.TrimPrefix(rest, "Number:"))
		case tag == "title":
			field, line = &title, strings.TrimSpace(strings.TrimPrefix(rest, "Topic:"))
		case tag != "":
			field = nil
		}
		if field != nil && line != "" {
			*field = append(*field, line)
		}
		return nil
	})
	if err == nil && open > 0 {
		return l.refuse(&RowError{File: in.name, Line: open, Err: errors.New("<top> without </top>")})
	}
	return err
}

// cutTag splits "<num> Number: 301 </num>" into "num" and "Number: 301".
func cutTag(line string) (tag, rest string) {
	if !strings.HasPrefix(line, "<") {
		return "", line
	}
	tag, rest, ok := strings.Cut(line[1:], ">")
	if !ok {
		return "", line
	}
	tag = strings.ToLower(tag)
	rest = strings.TrimSpace(rest)
	if end := "</" + tag + ">"; len(rest) >= len(end) && strings.EqualFold(rest[len(rest)-len(end):], end) {
		rest = strings.TrimSpace(rest[:len(rest)-len(end)])
	}
	return tag, rest
}
