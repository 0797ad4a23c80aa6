package app

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// batches hands out the lines of a stream, in order and numbered from 1: as many as are there, at most
// most, so that a pipe is served in bulk and a person line by line. A line that is not valid UTF-8 is an
// error that names it, after the lines before it are done. It ends with the context even while it waits
// for input.
func batches(ctx context.Context, r io.Reader, most int, do func(first int, lines []string) error) error {
	type item struct {
		text string
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in := make(chan item, most)
	go func() {
		defer close(in)
		b := bufio.NewReaderSize(r, 1<<16)
		for n := 1; ; n++ {
			s, err := readLine(b)
			if err != nil && err != io.EOF {
				err = fmt.Errorf("line %d: %w", n, err)
			} else if err == io.EOF && s == "" {
				return
			} else if err = nil; !utf8.ValidString(s) {
				err = fmt.Errorf("line %d: not valid UTF-8", n)
			}
			s = strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
			select {
			case in <- item{s, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	next := 1
	for {
		var lines []string
		var failed error
		select {
		case x, ok := <-in:
			if !ok {
				return nil
			}
			lines, failed = append(lines, x.text), x.err
		case <-ctx.Done():
			return ctx.Err()
		}
	more:
		for failed == nil && len(lines) < most {
			select {
			case x, ok := <-in:
				if !ok {
					break more
				}
				lines, failed = append(lines, x.text), x.err
			default:
				break more
			}
		}
		if failed != nil {
			lines = lines[:len(lines)-1]
		}
		if len(lines) > 0 {
			if err := do(next, lines); err != nil {
				return err
			}
		}
		if failed != nil {
			return failed
		}
		next += len(lines)
	}
}

// maxLine bounds a line of the input, in bytes, as package read does for files.
const maxLine = 64 << 20

// readLine is b.ReadString('\n') with a bound: an endless line must not take all memory.
func readLine(b *bufio.Reader) (string, error) {
	var line []byte
	for {
		part, err := b.ReadSlice('\n')
		if len(line)+len(part) > maxLine {
			return "", fmt.Errorf("more than %d bytes", maxLine)
		}
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return string(line), err
		}
	}
}

// errColumns is what is wrong with a line that should be a pair.
var errColumns = errors.New("want two texts with one tab between them")

// pair splits first<TAB>second.
func pair(line string) (first, second string, err error) {
	first, second, ok := strings.Cut(line, "\t")
	if !ok || strings.Contains(second, "\t") {
		return "", "", errColumns
	}
	return first, second, nil
}
