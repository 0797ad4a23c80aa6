package read

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// A RowError says what is wrong with one row of a file.
type RowError struct {
	File string
	Line int // from 1; 0 where the error says itself which row it means
	Err  error
}

func (e *RowError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", e.File, e.Err)
	}
	return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err)
}

func (e *RowError) Unwrap() error { return e.Err }

// errStop ends a pass whose consumer wants no more.
var errStop = errors.New("stopped")

// A ledger counts rows and decides what becomes of bad ones.
type ledger struct {
	lenient bool
	rate    float64
	report  func(*RowError)
	rows    int
	bad     int
	latest  *RowError
}

func (c *Collection) ledger() *ledger {
	return &ledger{lenient: c.options.Lenient, rate: c.options.MaxBad, report: c.options.Quarantine}
}

// refuse returns nil if the bad row may be passed over.
func (l *ledger) refuse(e *RowError) error {
	if !l.lenient {
		return e
	}
	l.bad++
	l.latest = e
	if l.report != nil {
		l.report(e)
	}
	// Too early the rate says nothing: the first row would end it. finish has the last word.
	if l.rows >= 1000 {
		return l.finish()
	}
	return nil
}

// finish says whether too many rows were bad.
func (l *ledger) finish() error {
	if float64(l.bad) <= l.rate*float64(l.rows) {
		return nil
	}
	return fmt.Errorf("read: %d of %d rows are bad, more than %g%%: the latest: %w", l.bad, l.rows, 100*l.rate, l.latest)
}

// each calls row with every line of a file. An error of row is what is wrong with the line, except errStop.
// blankRows says whether a blank line is a row.
func (l *ledger) each(ctx context.Context, in *lines, blankRows bool, row func(line []byte) error) error {
	seen := l.rows
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read: %s:%d: %w", in.name, in.n, err)
		}
		line, err := in.next()
		if err == io.EOF {
			break
		}
		if err == nil && !blankRows && blank(line) {
			continue
		}
		var bad *RowError
		if err != nil && !errors.As(err, &bad) {
			return err
		}
		l.rows++
		if err == nil {
			err = row(line)
		}
		if err == nil {
			continue
		}
		if errors.Is(err, errStop) {
			return err
		}
		if bad == nil {
			bad = &RowError{File: in.name, Line: in.n, Err: err}
		}
		if err := l.refuse(bad); err != nil {
			return err
		}
	}
	if l.rows == seen {
		return fmt.Errorf("read: %s has no rows", in.name)
	}
	return nil
}
