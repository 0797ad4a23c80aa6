package read

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// decode reads one JSON object into v. Unlike encoding/json alone it refuses an escape of half a surrogate
// pair, which would silently become U+FFFD.
func decode(line []byte, v any) error {
	if halfSurrogate(line) {
		return errors.New(`a \u escape is half of a surrogate pair`)
	}
	err := json.Unmarshal(line, v)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &syntax):
		return fmt.Errorf("not JSON: byte %d: %s", syntax.Offset, syntax)
	case errors.As(err, &kind):
		value, _, _ := strings.Cut(kind.Value, " ") // "number 1.5": the value itself is of no use
		if kind.Field == "" {
			return fmt.Errorf("is a JSON %s, want %s", value, want(kind.Type))
		}
		return fmt.Errorf("field %q is a JSON %s, want %s", kind.Field, value, want(kind.Type))
	}
	return err
}

func want(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Slice:
		return "a list"
	case reflect.Float64:
		return "a number"
	}
	return "an object"
}

func halfSurrogate(line []byte) bool {
	for {
		i := bytes.IndexByte(line, '\\')
		if i < 0 || i+1 >= len(line) {
			return false
		}
		u := escaped(line[i:])
		switch {
		case u < 0xd800 || u > 0xdfff:
			line = line[i+2:]
		case u >= 0xdc00 || len(line) < i+12:
			return true
		default:
			if low := escaped(line[i+6:]); low < 0xdc00 || low > 0xdfff {
				return true
			}
			line = line[i+12:]
		}
	}
}

// escaped returns the value of a leading \uXXXX, or -1.
func escaped(b []byte) int {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	u := 0
	for _, c := range b[2:6] {
		switch {
		case c >= '0' && c <= '9':
			u = u<<4 | int(c-'0')
		case c >= 'a' && c <= 'f':
			u = u<<4 | int(c-'a'+10)
		case c >= 'A' && c <= 'F':
			u = u<<4 | int(c-'A'+10)
		default:
			return -1
		}
	}
	return u
}

// An id is a JSON string or whole number.
type id string

func (v *id) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, (*string)(v))
	}
	if len(b) == 0 || strings.Trim(string(b), "-0123456789") != "" {
		return errors.New("an id is neither a string nor a whole number")
	}
	*v = id(b)
	return nil
}

// joined is a passage as BEIR reads it: title, space, text.
func joined(title, text string) string {
	switch {
	case title == "":
		return text
	case text == "":
		return title
	}
	return title + " " + text
}
