package checkpoints

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"unicode/utf8"
)

// WriteFile writes tensors as a safetensors file: the same bytes as the Python library for the same
// tensors, in whatever order they come, with metadata sorted by key. The data go to w as they are,
// without a copy. meta may be nil; "format": "pt", which Transformers asks for, is added unless meta
// has a format of its own.
func WriteFile(w io.Writer, tensors []Tensor, meta map[string]string) error {
	sorted := slices.Clone(tensors)
	// As safetensors-python: type from wide to narrow, then name.
	slices.SortFunc(sorted, func(a, b Tensor) int {
		return cmp.Or(cmp.Compare(slices.Index(order, b.DType), slices.Index(order, a.DType)), cmp.Compare(a.Name, b.Name))
	})
	header, err := encodeHeader(sorted, meta)
	if err != nil {
		return fmt.Errorf("checkpoints: write safetensors: %w", err)
	}
	if _, err := w.Write(header); err != nil {
		return fmt.Errorf("checkpoints: write safetensors header: %w", err)
	}
	for _, t := range sorted {
		if _, err := w.Write(t.Data); err != nil {
			return fmt.Errorf("checkpoints: write tensor %q: %w", t.Name, err)
		}
	}
	return nil
}

// CreateFile is WriteFile into a new file at path, or over the one that is there. It does not sync;
// inside Save, files are synced together.
func CreateFile(path string, tensors []Tensor, meta map[string]string) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("checkpoints: %w", err)
	}
	err = WriteFile(f, tensors, meta)
	if cerr := f.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("checkpoints: %w", cerr)
	}
	return err
}

// encodeHeader returns the length and the header of tensors in the order given.
func encodeHeader(tensors []Tensor, meta map[string]string) ([]byte, error) {
	b := append(make([]byte, 8), '{')
	b = appendMetadata(b, meta)
	if !utf8.Valid(b[8:]) {
		return nil, fmt.Errorf("the metadata are not valid UTF-8")
	}
	seen := make(map[string]bool, len(tensors))
	var at int
	for _, t := range tensors {
		if err := t.check(); err != nil {
			return nil, err
		}
		switch {
		case seen[t.Name]:
			return nil, fmt.Errorf("two tensors are named %q", t.Name)
		case t.Name == metadataKey:
			return nil, fmt.Errorf("a tensor cannot be named %q", t.Name)
		case !utf8.ValidString(t.Name):
			return nil, fmt.Errorf("tensor name %q is not valid UTF-8", t.Name)
		}
		seen[t.Name] = true
		b = append(b, ',')
		b = appendString(b, t.Name)
		b = fmt.Appendf(b, `:{"dtype":"%s","shape":[`, t.DType)
		for i, n := range t.Shape {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, int64(n), 10)
		}
		b = fmt.Appendf(b, `],"data_offsets":[%d,%d]}`, at, at+len(t.Data))
		at += len(t.Data)
	}
	b = append(b, '}')
	for len(b)%8 != 0 { // the data start on an 8-byte boundary
		b = append(b, ' ')
	}
	if len(b)-8 > maxHeader {
		return nil, fmt.Errorf("the header of %d tensors has %d bytes, above the limit of %d", len(tensors), len(b)-8, maxHeader)
	}
	binary.LittleEndian.PutUint64(b, uint64(len(b)-8))
	return b, nil
}

func appendMetadata(b []byte, meta map[string]string) []byte {
	all := map[string]string{"format": "pt"}
	maps.Copy(all, meta)
	b = append(b, `"`+metadataKey+`":{`...)
	for i, k := range slices.Sorted(maps.Keys(all)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, k), ':')
		b = appendString(b, all[k])
	}
	return append(b, '}')
}

// appendString appends s as a JSON string with the escapes that the Python library's encoder uses:
// quote, backslash and control characters, nothing else. (encoding/json also escapes U+2028.)
func appendString(b []byte, s string) []byte {
	const short = "\b\t\n\f\r\"\\"
	b = append(b, '"')
	for i := range len(s) {
		c := s[i]
		if j := bytes.IndexByte([]byte(short), c); j >= 0 {
			b = append(b, '\\', `btnfr"\`[j])
		} else if c < 0x20 {
			b = fmt.Appendf(b, `\u%04x`, c)
		} else {
			b = append(b, c)
		}
	}
	return append(b, '"')
}
