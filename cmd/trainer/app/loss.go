package app

import (
	"fmt"
	"reflect"

	"github.com/goccy/go-yaml"

	"rung/nn"
)

// parameters lists what a configuration may set, with the values unless it does: pos_weight=0.
func (l Loss) parameters() (out []string) {
	for _, item := range l.settings() {
		out = append(out, fmt.Sprintf("%v=%v", item.Key, item.Value))
	}
	return out
}

func (l Loss) settings() yaml.MapSlice {
	v := reflect.Indirect(reflect.ValueOf(l.Objective))
	if v.Kind() != reflect.Struct {
		return nil
	}
	return encode(v.Interface())
}

// with is the objective with the parameters of a configuration, whose key name is the loss's own.
func (l Loss) with(t *tree) (nn.Objective, error) {
	given := reflect.ValueOf(l.Objective)
	v := reflect.New(reflect.Indirect(given).Type())
	v.Elem().Set(reflect.Indirect(given))
	if v.Elem().Kind() != reflect.Struct {
		return l.Objective, nil
	}
	if err := t.decode(v.Interface(), "name"); err != nil {
		return nil, err
	}
	if given.Kind() == reflect.Pointer {
		return v.Interface().(nn.Objective), nil
	}
	return v.Elem().Interface().(nn.Objective), nil
}
