// Package deps holds the tests of how this module hangs together: which room may import which, where heavy libraries
// may stand, and whether another module can build on a clone.
package deps

import (
	"errors"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// imports is the import order: each room of the module, and the rooms that it may import beside those that they may
// import in turn. A room "a/..." stands for a and every package below it; a/internal/b belongs to room a. Tests may import
// what they like. Think before adding to a row: the order is what keeps rank small and the kernels exchangeable.
var imports = map[string]string{
	// leaves: they know nothing of the rest
	"checkpoints":  "",
	"cuda/driver":  "",
	"cuda/kern":    "",
	"cuda/ptx":     "",
	"data/token":   "",
	"nn/backend":   "",
	"train/metric": "",

	"checkpoints/hub": "checkpoints",

	// examples; readers and miners stand beside each other, and only the command brings them together
	"data":            "data/token nn/backend/philox",
	"data/curriculum": "data",
	"data/lingua":     "data nn/backend/philox",
	"data/mine":       "data",
	"data/read":       "data train/metric",

	// the engine, from the kernels up
	"nn/backend/host":     "nn/backend",
	"nn/backend/cpu/peak": "",
	"nn/backend/philox":   "",
	"nn/backend/ref":      "nn/backend/host nn/backend/philox",
	"nn/backend/cpu":      "nn/backend/ref",
	"cuda":                "nn/backend nn/backend/philox cuda/driver cuda/kern",
	"cuda/emu":            "cuda/driver cuda/ptx",
	"nn/device":           "nn/backend/cpu nn/backend/ref cuda",
	"nn/graph":            "nn/device",
	"nn":                  "nn/graph",
	"nn/loss":             "nn",
	"nn/arch":             "nn checkpoints checkpoints/hub data",

	// lora is not to import nn/loss: rank stands on it
	"lora":    "nn/arch",
	"distill": "nn/arch nn/loss",

	"rank": "lora",

	"train":         "distill lora data/curriculum train/privacy train/dist train/report train/metric",
	"train/dist":    "nn",
	"train/privacy": "checkpoints",
	"train/report":  "train/metric",

	"cmd/trainer/app":                "rank train data/read data/mine cmd/trainer/app/bench cmd/trainer/app/quick",
	"cmd/trainer/app/bench":          "nn/backend/cpu/peak nn/loss train",
	"cmd/trainer/app/quick":          "cmd/trainer/app/quick/base rank train",
	"cmd/trainer/app/quick/base":     "data/lingua nn/arch nn/loss train",
	"cmd/trainer/app/quick/base/gen": "cmd/trainer/app/quick/base train",
	"cmd/trainer":                    "cmd/trainer/app cuda/emu",

	// imported by tests only
	"nn/nntest/...": "lora distill",
	"internal/deps": "",
}

// owners says which rooms may import a library that is heavy or that has one place by design. A path stands for itself
// and all below it.
var owners = map[string]string{
	"gorgonia.org/gorgonia":            "nn/graph nn/nntest/...",
	"gorgonia.org/cu":                  "cuda cuda/driver cuda/emu",
	"github.com/sugarme/tokenizer":     "data/token",
	"github.com/gomlx/go-huggingface":  "checkpoints/hub",
	"github.com/parquet-go/parquet-go": "data/read",
	"github.com/blevesearch/bleve":     "data/mine",
	"gonum.org/v1/plot":                "train/report",
	"github.com/spf13/cobra":           "cmd/trainer/app",
	"github.com/vbauerster/mpb":        "cmd/trainer/app",
	"github.com/stretchr/testify":      "nn/nntest/...",
	"github.com/google/go-cmp":         "nn/nntest/...",
	"github.com/rogpeppe/go-internal":  "nn/nntest/...",
	"go.uber.org/goleak":               "nn/nntest/...",
	"math/rand":                        "", // random draws are counted, not drawn from a hidden state
}

// notInRank is what may not stand in the dependency list of rank: libraries that serving needs no part of, and the rooms
// that train.
var notInRank = []string{
	"github.com/parquet-go", "github.com/blevesearch", "github.com/spf13/cobra", "github.com/vbauerster/mpb",
	"gonum.org/v1/plot", "gorgonia.org/cu",
	"train", "distill", "data/read", "data/mine", "data/curriculum", "nn/loss", "cmd",
}

func TestImportOrder(t *testing.T) {
	m := load(t)
	require.NotEmpty(t, m.files)
	for _, f := range m.files {
		room := roomOf(f.pkg)
		if room == "" {
			t.Errorf("%s: package %s has no row in the import order", f.path, f.pkg)
			continue
		}
		if f.test {
			continue
		}
		may := closure(room)
		for _, imported := range f.imports {
			pkg, ours := strings.CutPrefix(imported, m.name+"/")
			if ours && roomOf(pkg) != room && !may[roomOf(pkg)] {
				t.Errorf("%s: %s must not import %s", f.path, room, pkg)
			}
		}
	}
}

// A forbidden import in a table that allows it would pass the test above.
func TestTheOrderItself(t *testing.T) {
	for room, may := range imports {
		for imported := range strings.FieldsSeq(may) {
			_, known := imports[imported]
			require.True(t, known, "%s: %s is no room", room, imported)
		}
		require.False(t, closure(room)[room], "%s imports itself in the end", room)
	}
	for _, leaf := range []string{"checkpoints", "data/token", "train/metric", "nn/backend"} {
		require.Empty(t, closure(leaf), "%s is a leaf", leaf)
	}
	for room := range closure("rank") {
		for _, not := range notInRank {
			require.False(t, within(room, not), "rank could import %s", room)
		}
	}
	for room := range imports {
		require.False(t, closure(room)["nn/nntest/..."], "%s could import what is for tests", room)
	}
}

func TestOwnersOfLibraries(t *testing.T) {
	m := load(t)
	for _, f := range m.files {
		for _, imported := range f.imports {
			if f.test && imported == "math/rand" {
				t.Errorf("%s: tests draw from math/rand/v2 with a fixed seed, never from math/rand", f.path)
			}
			if f.test {
				continue
			}
			for library, rooms := range owners {
				if within(imported, library) && !slices.Contains(strings.Fields(rooms), roomOf(f.pkg)) {
					t.Errorf("%s: %s must not import %s", f.path, f.pkg, imported)
				}
			}
		}
	}
}

// The rooms' own imports say nothing of what the libraries import in turn.
func TestDependenciesOfRank(t *testing.T) {
	m := load(t)
	list := exec.Command("go", "list", "-deps", "./rank")
	list.Dir = m.root
	list.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	out, err := list.Output()
	require.NoError(t, err, "go list: %s", stderrOf(err))
	for dep := range strings.FieldsSeq(string(out)) {
		for _, not := range notInRank {
			if within(dep, not) || within(dep, m.name+"/"+not) {
				t.Errorf("rank depends on %s", dep)
			}
		}
	}
}

// A file is one Go file of the module, whatever its build constraints.
type file struct {
	path    string // in the module
	pkg     string // the package's folder in the module; "." is the root
	test    bool
	imports []string
}

type module struct {
	name, root string
	files      []file
}

// load reads the imports of every Go file. It reads them itself, rather than ask go list: so every build tag is seen at
// once, and the cache of go test knows what this test depends on.
func load(t *testing.T) module {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	require.NoError(t, err)
	m := module{root: root, name: moduleName(t, root)}
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p != root && (name == "testdata" || name[0] == '.' || name[0] == '_') {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		f := file{path: filepath.ToSlash(rel), test: strings.HasSuffix(name, "_test.go")}
		f.pkg = path.Dir(f.path)
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			f.imports = append(f.imports, imported)
		}
		m.files = append(m.files, f)
		return nil
	})
	require.NoError(t, err)
	return m
}

// moduleName is the path in go.mod.
func moduleName(t *testing.T, root string) string {
	t.Helper()
	gomod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	require.NoError(t, err)
	for line := range strings.Lines(string(gomod)) {
		if name, ok := strings.CutPrefix(line, "module "); ok {
			return strings.TrimSpace(name)
		}
	}
	t.Fatal("go.mod names no module")
	return ""
}

// roomOf is the room that a package belongs to, "" where there is none.
func roomOf(pkg string) string {
	pkg, _, _ = strings.Cut(pkg, "/internal/")
	if _, known := imports[pkg]; known {
		return pkg
	}
	for up := pkg; up != "."; up = path.Dir(up) {
		if _, known := imports[up+"/..."]; known {
			return up + "/..."
		}
	}
	return ""
}

// closure is every room that a room may import.
func closure(room string) map[string]bool {
	may := map[string]bool{}
	var add func(string)
	add = func(room string) {
		for imported := range strings.FieldsSeq(imports[room]) {
			if !may[imported] {
				may[imported] = true
				add(imported)
			}
		}
	}
	add(room)
	return may
}

// within says whether a package is the one at prefix, or below it.
func within(pkg, prefix string) bool {
	return pkg == prefix || strings.HasPrefix(pkg, prefix+"/")
}

// stderrOf is what a command that failed said.
func stderrOf(err error) string {
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		return string(failed.Stderr)
	}
	return ""
}
