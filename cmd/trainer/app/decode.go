package app

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/goccy/go-yaml"
)

// A section is a part of the configuration that is decoded later, when it is known what it configures.
type section struct{ *tree }

var sectionType = reflect.TypeFor[section]()

// decode gives a struct the values of a mapping. What the mapping does not name stays as it is; a key that
// the struct does not have is an error that names the nearest one. Keys are those of the yaml tags, or
// fields' names in snake case. Besides numbers, strings and booleans, a field may be a pointer to one
// (which tells absent from zero), a slice, a struct or a section. A single value stands for a list of one.
func (t *tree) decode(into any, except ...string) error {
	return t.object(reflect.ValueOf(into).Elem(), except)
}

func (t *tree) object(v reflect.Value, except []string) error {
	if t.kind != mapping {
		return t.want("a mapping")
	}
	fields := fieldsOf(v)
	for _, key := range t.keys {
		if slices.Contains(except, key) {
			continue
		}
		f, ok := fields[key]
		if !ok {
			return t.unknown(key, append(sortedKeys(fields), except...))
		}
		if err := t.kids[key].value(f); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) unknown(key string, known []string) error {
	return fmt.Errorf("%s: unknown key %s%s", t.kids[key].at, join(t.path, key), suggest(key, known))
}

// fieldsOf are the settable fields of a struct by key; fields tagged "-" have none.
func fieldsOf(v reflect.Value) map[string]reflect.Value {
	out := map[string]reflect.Value{}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, inline, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case inline == "inline":
			for k, w := range fieldsOf(v.Field(i)) {
				out[k] = w
			}
		case name == "":
			out[snake(f.Name)] = v.Field(i)
		default:
			out[name] = v.Field(i)
		}
	}
	return out
}

// snake is a field's name as a key: PosWeight is pos_weight.
func snake(name string) string {
	var b strings.Builder
	runes := []rune(name)
	for i, r := range runes {
		if unicode.IsUpper(r) && i > 0 && (!unicode.IsUpper(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

func (t *tree) value(v reflect.Value) error {
	switch {
	case t.kind == null: // "key:" with nothing behind it leaves the default
		return nil
	case v.Type() == sectionType:
		v.Set(reflect.ValueOf(section{t}))
		return nil
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return t.value(v.Elem())
	case reflect.Struct:
		return t.object(v, nil)
	case reflect.Slice:
		return t.slice(v)
	case reflect.Map:
		return t.table(v)
	}
	return t.scalar(v)
}

func (t *tree) slice(v reflect.Value) error {
	items := t.list
	if t.kind != sequence {
		items = []*tree{t}
	}
	s := reflect.MakeSlice(v.Type(), len(items), len(items))
	for i, item := range items {
		if item.kind == null {
			return item.want("a value")
		}
		if err := item.value(s.Index(i)); err != nil {
			return err
		}
	}
	v.Set(s)
	return nil
}

func (t *tree) table(v reflect.Value) error {
	if t.kind != mapping || v.Type().Key().Kind() != reflect.String {
		return t.want("a mapping")
	}
	m := reflect.MakeMap(v.Type())
	for _, key := range t.keys {
		item := reflect.New(v.Type().Elem()).Elem()
		if err := t.kids[key].value(item); err != nil {
			return err
		}
		m.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), item)
	}
	v.Set(m)
	return nil
}

// scalar is strict where YAML libraries are not: 2.5 is no whole number, and "yes" is no boolean.
func (t *tree) scalar(v reflect.Value) error {
	want := map[reflect.Kind]string{reflect.String: "a text", reflect.Bool: "true or false", reflect.Float32: "a number", reflect.Float64: "a number"}[v.Kind()]
	if want == "" {
		want = "a whole number"
	}
	if t.kind != scalar {
		return t.want(want)
	}
	var err error
	switch v.Kind() {
	case reflect.String:
		v.SetString(t.text)
	case reflect.Bool:
		if t.text != "true" && t.text != "false" {
			return t.want(want)
		}
		v.SetBool(t.text == "true")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		var n int64
		n, err = strconv.ParseInt(t.text, 10, v.Type().Bits())
		v.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		var n uint64
		n, err = strconv.ParseUint(t.text, 10, v.Type().Bits())
		v.SetUint(n)
	case reflect.Float32, reflect.Float64:
		var x float64
		x, err = strconv.ParseFloat(t.text, v.Type().Bits())
		v.SetFloat(x)
	default:
		return fmt.Errorf("%s: %s cannot be set from a file: it is a %s", t.at, t.path, v.Type())
	}
	if err != nil {
		return t.want(want)
	}
	return nil
}

func (t *tree) want(what string) error {
	found := t.kind.String()
	if t.kind == scalar {
		found = strconv.Quote(t.text)
	}
	return fmt.Errorf("%s: %s is %s, want %s", t.at, t.path, found, what)
}

// encode is the inverse of decode: a struct's fields in their order, with their keys.
func encode(from any, first ...yaml.MapItem) yaml.MapSlice {
	v := reflect.Indirect(reflect.ValueOf(from))
	out := slices.Clone(yaml.MapSlice(first))
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, inline, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "-" || !f.IsExported() || f.Type == sectionType {
			continue
		}
		field := v.Field(i)
		switch field.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			if field.IsNil() { // absent, as distinct from empty
				continue
			}
		}
		field = reflect.Indirect(field)
		if inline == "inline" {
			out = append(out, encode(field.Interface())...)
			continue
		}
		if name == "" {
			name = snake(f.Name)
		}
		out = append(out, yaml.MapItem{Key: name, Value: encodeValue(field)})
	}
	return out
}

func encodeValue(v reflect.Value) any {
	switch {
	case v.Kind() == reflect.Struct:
		return encode(v.Interface())
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = encode(v.Index(i).Interface())
		}
		return list
	}
	return v.Interface()
}
