package read

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"
)

// maxLine bounds a line, in bytes: more is a file of another format, or an attack on memory.
const maxLine = 64 << 20

// endless is how many times the bound a line is read to find its end, so that the next can follow. What
// has no end by then, such as a device, is given up.
const endless = 16

// lines reads a file line by line: gzip or not, with or without a byte order mark, LF or CRLF.
type lines struct {
	name  string
	n     int // number of the latest line, from 1
	limit int
	in    *bufio.Reader
	long  []byte // a line longer than the buffer
	file  io.Closer
}

func openLines(path string) (*lines, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	l, err := newLines(path, f)
	if err != nil {
		f.Close()
		return nil, err
	}
	l.file = f
	return l, nil
}

func newLines(name string, r io.Reader) (*lines, error) {
	in := bufio.NewReaderSize(r, 1<<16)
	if magic, _ := in.Peek(2); string(magic) == "\x1f\x8b" {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("read: %s: %w", name, err)
		}
		in = bufio.NewReaderSize(z, 1<<16)
	}
	if mark, _ := in.Peek(3); string(mark) == "\xef\xbb\xbf" {
		if _, err := in.Discard(3); err != nil {
			return nil, fmt.Errorf("read: %s: %w", name, err)
		}
	}
	return &lines{name: name, limit: maxLine, in: in}, nil
}

func (l *lines) close() {
	if l.file != nil {
		l.file.Close()
	}
}

// next returns the next line without its end; the bytes are valid until the following call. A *RowError
// concerns this line alone; io.EOF is the end; any other error is final.
func (l *lines) next() ([]byte, error) {
	l.n++
	line, err := l.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		l.long = l.long[:0]
		size := 0
		for {
			if size += len(line); size <= l.limit {
				l.long = append(l.long, line...)
			}
			if size > endless*l.limit {
				return nil, fmt.Errorf("read: %s:%d: the line has more than %d bytes", l.name, l.n, endless*l.limit)
			}
			if !errors.Is(err, bufio.ErrBufferFull) {
				break
			}
			line, err = l.in.ReadSlice('\n')
		}
		if size > l.limit && (err == nil || err == io.EOF) {
			return nil, l.errorf("the line has %d bytes, more than %d", size, l.limit)
		}
		line = l.long
	}
	if err != nil && (err != io.EOF || len(line) == 0) {
		if err == io.EOF {
			return nil, err
		}
		return nil, fmt.Errorf("read: %s:%d: %w", l.name, l.n, err)
	}
	line = bytes.TrimSuffix(line, []byte{'\n'})
	line = bytes.TrimSuffix(line, []byte{'\r'})
	if !utf8.Valid(line) {
		return nil, l.errorf("invalid UTF-8 at byte %d", invalidAt(line)+1)
	}
	return line, nil
}

func invalidAt(line []byte) int {
	for i := 0; i < len(line); {
		r, size := utf8.DecodeRune(line[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return len(line)
}

func (l *lines) errorf(format string, args ...any) *RowError {
	return &RowError{File: l.name, Line: l.n, Err: fmt.Errorf(format, args...)}
}

const blanks = " \t\v\f\r"

func blank(line []byte) bool { return len(bytes.TrimLeft(line, blanks)) == 0 }

// fields splits at blanks and tabs. (bytes.Fields also splits at U+0085 and U+00A0, which ids may hold.)
func fields(line []byte, out [][]byte) [][]byte {
	out = out[:0]
	start := -1
	for i, c := range line {
		if c == ' ' || c >= '\t' && c <= '\r' { // blanks, as a line holds no \n
			if start >= 0 {
				out = append(out, line[start:i])
			}
			start = -1
		} else if start < 0 {
			start = i
		}
	}
	if start >= 0 {
		out = append(out, line[start:])
	}
	return out
}
