package checkpoints

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"
)

// newStrictDecoder returns a decoder over b, which must be valid JSON in valid UTF-8. The walkers
// below exist because encoding/json takes the last of two equal keys and ignores their case.
func newStrictDecoder(b []byte) (*json.Decoder, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("not valid UTF-8")
	}
	if !json.Valid(b) {
		var v json.RawMessage
		if err := json.Unmarshal(b, &v); err != nil {
			return nil, fmt.Errorf("not valid JSON: %w", err)
		}
		return nil, errors.New("not valid JSON")
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	return dec, nil
}

// readObject reads an object, calling value where the value of each key stands. A key met twice is
// an error.
func readObject(dec *json.Decoder, value func(key string) error) error {
	if err := readDelim(dec, '{'); err != nil {
		return err
	}
	seen := map[string]bool{}
	for dec.More() {
		key, err := readString(dec)
		if err != nil {
			return err
		}
		if seen[key] {
			return fmt.Errorf("key %q stands twice", key)
		}
		seen[key] = true
		if err := value(key); err != nil {
			return err
		}
	}
	return readDelim(dec, '}')
}

func readArray(dec *json.Decoder, element func() error) error {
	if err := readDelim(dec, '['); err != nil {
		return err
	}
	for dec.More() {
		if err := element(); err != nil {
			return err
		}
	}
	return readDelim(dec, ']')
}

func readDelim(dec *json.Decoder, want json.Delim) error {
	tok, err := dec.Token()
	if err != nil {
		return noEOF(err)
	}
	if tok != want {
		return fmt.Errorf("found %v, expected %v", tok, want)
	}
	return nil
}

func readString(dec *json.Decoder) (string, error) {
	tok, err := dec.Token()
	if err != nil {
		return "", noEOF(err)
	}
	s, ok := tok.(string)
	if !ok {
		return "", fmt.Errorf("found %v, expected a string", tok)
	}
	return s, nil
}

// readInt reads a whole number from 0 to 2^62, written without sign, fraction or exponent.
func readInt(dec *json.Decoder) (int64, error) {
	tok, err := dec.Token()
	if err != nil {
		return 0, noEOF(err)
	}
	n, ok := tok.(json.Number)
	if !ok {
		return 0, fmt.Errorf("found %v, expected a whole number", tok)
	}
	v, err := strconv.ParseUint(string(n), 10, 62)
	if err != nil {
		return 0, fmt.Errorf("%s is no whole number from 0 to 2^62", n)
	}
	return int64(v), nil
}

func skipValue(dec *json.Decoder) error {
	var v json.RawMessage
	return noEOF(dec.Decode(&v))
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
