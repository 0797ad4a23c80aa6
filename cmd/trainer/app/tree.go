package app

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// A tree is a YAML value that knows where it was written, so that every complaint can say so.
type tree struct {
	at   string // file:line, or the flag
	path string // dotted keys from the top: train.lr
	keys []string
	kids map[string]*tree // of a mapping
	list []*tree          // of a sequence
	kind kind
	text string // of a scalar
}

type kind int

const (
	null kind = iota
	scalar
	mapping
	sequence
)

func (k kind) String() string { return [...]string{"nothing", "a value", "a mapping", "a list"}[k] }

// readTree reads a YAML file whose top is a mapping.
func readTree(path string) (*tree, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	t, err := parseTree(path, "", b)
	if err != nil {
		return nil, err
	}
	if t.kind != mapping {
		return nil, fmt.Errorf("%s: want keys and values, found %s", path, t.kind)
	}
	return t, nil
}

// parseTree reads one YAML document. where is the name of the file, or of the flag whose value it is.
func parseTree(where, path string, b []byte) (*tree, error) {
	f, err := parser.ParseBytes(b, 0)
	var bad yaml.Error
	switch {
	case errors.As(err, &bad):
		return nil, fmt.Errorf("%s:%d: %s", where, bad.GetToken().Position.Line, bad.GetMessage())
	case err != nil:
		return nil, fmt.Errorf("%s: %s", where, oneLine(err.Error()))
	case len(f.Docs) > 1:
		return nil, fmt.Errorf("%s: %d documents, want one", where, len(f.Docs))
	case len(f.Docs) == 0 || f.Docs[0].Body == nil:
		return &tree{at: where, path: path}, nil
	}
	return newTree(where, path, f.Docs[0].Body)
}

func newTree(where, path string, n ast.Node) (*tree, error) {
	t := &tree{at: where, path: path}
	if !strings.HasPrefix(where, "--") {
		t.at = fmt.Sprintf("%s:%d", where, n.GetToken().Position.Line)
	}
	switch n := n.(type) {
	case *ast.NullNode:
	case *ast.MappingNode:
		return t, t.fill(where, n.Values)
	case *ast.MappingValueNode:
		return t, t.fill(where, []*ast.MappingValueNode{n})
	case *ast.SequenceNode:
		t.kind = sequence
		for i, v := range n.Values {
			kid, err := newTree(where, fmt.Sprintf("%s[%d]", path, i), v)
			if err != nil {
				return nil, err
			}
			t.list = append(t.list, kid)
		}
	case *ast.LiteralNode:
		t.kind, t.text = scalar, n.Value.Value
	case *ast.StringNode:
		t.kind, t.text = scalar, n.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		t.kind, t.text = scalar, n.GetToken().Value
	default:
		return nil, fmt.Errorf("%s: YAML's %s is not supported here", t.at, strings.ToLower(n.Type().String()))
	}
	return t, nil
}

func (t *tree) fill(where string, values []*ast.MappingValueNode) error {
	t.kind, t.kids = mapping, map[string]*tree{}
	for _, v := range values {
		key := v.Key.GetToken().Value
		if _, plain := v.Key.(*ast.StringNode); !plain {
			at := t.at
			if !strings.HasPrefix(where, "--") {
				at = fmt.Sprintf("%s:%d", where, v.Key.GetToken().Position.Line)
			}
			return fmt.Errorf("%s: the key %s is not supported here", at, key)
		}
		kid, err := newTree(where, join(t.path, key), v.Value)
		if err != nil {
			return err
		}
		if kid.kind != scalar && !strings.HasPrefix(where, "--") {
			kid.at = fmt.Sprintf("%s:%d", where, v.Key.GetToken().Position.Line)
		}
		t.put(key, kid)
	}
	return nil
}

func (t *tree) put(key string, kid *tree) {
	if t.kids[key] == nil {
		t.keys = append(t.keys, key)
	}
	t.kids[key] = kid
}

// set puts the value of a flag --set key=value into the tree, with the mappings that it lacks.
func (t *tree) set(assignment string) error {
	key, value, ok := strings.Cut(assignment, "=")
	where := "--set " + key
	if !ok || key == "" {
		return fmt.Errorf("--set %s: want key=value, such as train.lr=1e-4", assignment)
	}
	v, err := parseTree(where, key, []byte(value))
	if err != nil {
		return err
	}
	names := strings.Split(key, ".")
	for i, name := range names {
		if name == "" {
			return fmt.Errorf("%s: an empty key", where)
		}
		if i == len(names)-1 {
			t.put(name, v)
			break
		}
		kid := t.kids[name]
		if kid != nil && kid.kind == scalar && i == 0 && shorthand[name] != "" {
			kid = kid.expand(shorthand[name])
			t.put(name, kid)
		}
		if kid == nil || kid.kind == null {
			kid = &tree{at: where, path: strings.Join(names[:i+1], "."), kind: mapping, kids: map[string]*tree{}}
			t.put(name, kid)
		}
		if kid.kind != mapping {
			return fmt.Errorf("%s: %s is %s, it has no keys", where, kid.path, kid.kind)
		}
		t = kid
	}
	return nil
}

// shorthand are the keys whose value may be a name alone: loss: bce is loss: {name: bce}.
var shorthand = map[string]string{"loss": "name", "adapter": "kind"}

// expand is the mapping that a name alone stands for.
func (t *tree) expand(key string) *tree {
	name := *t
	name.path = join(t.path, key)
	return &tree{at: t.at, path: t.path, kind: mapping, keys: []string{key}, kids: map[string]*tree{key: &name}}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
