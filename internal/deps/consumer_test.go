package deps

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// consumers are programs of another module, and what each of them prints. %s stands for the name of this module.
var consumers = []struct {
	room    string
	cgo     string // CGO_ENABLED
	program string
	prints  string
}{
	{"data", "0", `package main

import (
	"fmt"

	"%s/data"
)

func main() {
	e := data.Example{ID: "q1", Query: "who wrote dracula", Candidates: []data.Candidate{
		{ID: "p1", Text: "Dracula is a novel by Bram Stoker.", Label: 1},
		{ID: "p2", Text: "Dracula is a film of 1931."},
	}}
	fmt.Println(e.ID, len(e.Candidates), e.Positives())
}
`, "q1 2 1\n"},
	{"checkpoints", "0", importing("checkpoints"), "built\n"},
	{"train/metric", "0", importing("train/metric"), "built\n"},
	{"rank", "0", importing("rank"), "built\n"}, // a server needs no C compiler
	{"rank", "1", importing("rank"), "built\n"},
	{"train", "1", importing("train"), "built\n"},
	{"cmd/trainer/app", "1", importing("cmd/trainer/app"), "built\n"}, // a researcher's own trainer
}

// importing is a program that only links a room.
func importing(room string) string {
	return "package main\n\nimport _ \"%s/" + room + "\"\n\nfunc main() { println(\"built\") }\n"
}

// The README shows how another module uses a clone. This is such a module, outside the clone and built without network. It
// lists the clone's own requirements, as go mod tidy would: from a list go loads no go.mod of a library's libraries, and
// those are not in a fresh module cache.
func TestAnotherModule(t *testing.T) {
	m := load(t) // reads the sources, so that go test runs this again when they change
	for _, c := range consumers {
		t.Run(fmt.Sprintf("%s,cgo=%s", c.room, c.cgo), func(t *testing.T) {
			dir := t.TempDir()
			write := func(name, text string) {
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
			}
			read := func(name string) string {
				text, err := os.ReadFile(filepath.Join(m.root, name))
				require.NoError(t, err)
				return string(text)
			}
			gomod := strings.Replace(read("go.mod"), "module "+m.name, "module example.com/consumer", 1)
			write("go.mod", gomod+fmt.Sprintf("\nrequire %s v0.0.0\n\nreplace %s => %q\n", m.name, m.name, m.root))
			write("go.sum", read("go.sum"))
			write("main.go", fmt.Sprintf(c.program, m.name))

			build := exec.Command("go", "build", "-o", "program", ".")
			build.Dir = dir
			build.Env = append(os.Environ(), "CGO_ENABLED="+c.cgo, "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
			out, err := build.CombinedOutput()
			require.NoError(t, err, "%s", out)

			out, err = exec.Command(filepath.Join(dir, "program")).CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.Equal(t, c.prints, string(out))
		})
	}
}
