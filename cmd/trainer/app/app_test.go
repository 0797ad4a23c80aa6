package app

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"rung/data"
	"rung/nn"
	"rung/nn/graph"
	"rung/nn/nntest/archtest"
	"rung/train/metric"
)

var update = flag.Bool("update", false, "write the golden files")

// run runs a command line in this process.
func run(t testing.TB, r Registry, in string, args ...string) (code int, out, stderr string) {
	t.Helper()
	var o, e bytes.Buffer
	env := &Env{Registry: r, Stdin: strings.NewReader(in), Stdout: &o, Stderr: &e}
	code = env.Run(context.Background(), args)
	return code, o.String(), e.String()
}

// Commands, flags and keys of the configuration are what scripts of users depend on: a change is a change
// of this file.
func TestFrozen(t *testing.T) {
	var b strings.Builder
	names := append([]string{""}, sortedKeys(Builtin().Commands)...)
	for _, name := range names {
		args := strings.Fields(name + " --help")
		code, out, stderr := run(t, Builtin(), "", args...)
		require.Zero(t, code)
		require.Empty(t, stderr)
		fmt.Fprintf(&b, "$ trainer %s\n%s\n", strings.Join(args, " "), out)
	}
	c, err := Builtin().loadConfig(writeConfig(t, small+"adapter: lora\n"), []string{"dropout=0.1", "normalize=true", "train.groups=[{match: x, lr: 1}]", "privacy={epsilon: 1, delta: 1e-3, clip: 1}"})
	require.NoError(t, err)
	c.Model, c.Data.Train = "hf:m", "jsonl:/train"
	snapshot, err := c.snapshot()
	require.NoError(t, err)
	var keys []string
	for line := range strings.Lines(string(snapshot)) {
		key, _, _ := strings.Cut(strings.TrimRight(line, "\n"), ":")
		keys = append(keys, key)
	}
	fmt.Fprintf(&b, "configuration:\n%s\n", strings.Join(keys, "\n"))
	path := filepath.Join("testdata", "frozen.txt")
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(b.String()), 0o666))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), b.String())
}

// hinge is a loss of a researcher.
type hinge struct{ Margin float64 }

func (hinge) Name() string          { return "hinge" }
func (hinge) Scope() nn.Scope       { return nn.Unit }
func (hinge) Terms(y []float32) int { return len(y) }
func (h hinge) Loss(p *nn.Pass, o nn.Outputs, t nn.Targets) graph.E {
	return p.RowSum(p.Mul(p.Scale(o.Scores, h.Margin), t.Mask))
}

// A trainer with a loss of its own: it is listed, has its parameters in the configuration, and trains.
func TestOwnLoss(t *testing.T) {
	r := Builtin()
	r.Losses["hinge"] = Loss{Objective: hinge{Margin: 1}, About: "made up"}
	code, out, _ := run(t, r, "", "list", "losses")
	require.Zero(t, code)
	require.Regexp(t, `(?m)^hinge +Unit +yes +margin=1 +- +made up$`, out)

	dir := t.TempDir()
	archtest.Write(t, filepath.Join(dir, "m"), archtest.Tiny())
	row := `{"query_id":"q","query":"who","candidates":[{"id":"a","text":"the sea","label":1},{"id":"b","text":"a bird","label":0}]}`
	require.NoError(t, os.WriteFile(filepath.Join(dir, "train.jsonl"), []byte(row), 0o666))
	path := filepath.Join(dir, "run.yaml")
	require.NoError(t, os.WriteFile(path, []byte(small+"loss: {name: hinge, margin: 0.5}\ntrain: {steps: 2}\n"), 0o666))
	code, _, stderr := run(t, r, "", "train", path)
	require.Zero(t, code, stderr)
	c, err := r.loadConfig(filepath.Join(dir, "out", snapshotFile), nil)
	require.NoError(t, err)
	require.Equal(t, hinge{Margin: .5}, c.objective)
	code, _, stderr = run(t, Builtin(), "", "train", path)
	require.Equal(t, WrongUse, code)
	require.Contains(t, stderr, `unknown loss "hinge"`)
}

// A pointer as an objective is copied, never written to.
func TestLossByPointer(t *testing.T) {
	shared := &hinge{Margin: 1}
	tr, err := parseTree("f", "loss", []byte("{name: hinge, margin: 3}"))
	require.NoError(t, err)
	o, err := Loss{Objective: shared}.with(tr)
	require.NoError(t, err)
	require.Equal(t, &hinge{Margin: 3}, o)
	require.Equal(t, 1.0, shared.Margin)
}

func TestOwnCommand(t *testing.T) {
	r := Builtin()
	r.Commands["hello"] = func(e *Env) *cobra.Command {
		return &cobra.Command{Use: "hello", GroupID: "look", Short: "says so", RunE: func(*cobra.Command, []string) error {
			fmt.Fprintln(e.Stdout, "hello")
			return nil
		}}
	}
	code, out, _ := run(t, r, "", "hello")
	require.Zero(t, code)
	require.Equal(t, "hello\n", out)
}

func TestThin(t *testing.T) {
	x := data.Example{ID: "q"}
	for i := range 20 {
		x.Candidates = append(x.Candidates, data.Candidate{ID: fmt.Sprint(i), Label: float32(i % 10 / 9)})
	}
	whole := slices.Clone(x.Candidates)
	ids := func(x data.Example) (out []string) {
		for _, c := range x.Candidates {
			out = append(out, c.ID)
		}
		return out
	}
	one, again, other, named := x, x, x, x
	thin(&one, 3, 1)
	thin(&again, 3, 1)
	thin(&other, 3, 2)
	named.ID = "p"
	thin(&named, 3, 1)
	require.Len(t, one.Candidates, 5)
	require.Equal(t, 2, one.Positives())
	require.Equal(t, one, again)
	require.NotEqual(t, ids(one), ids(other))
	require.NotEqual(t, ids(one), ids(named))
	require.True(t, slices.IsSortedFunc(one.Candidates, func(a, b data.Candidate) int { return slices.Index(ids(x), a.ID) - slices.Index(ids(x), b.ID) }))
	require.Equal(t, whole, x.Candidates, "the collection's own example is left as it is")
	all := x
	thin(&all, 0, 1)
	require.Equal(t, x, all)

	// Every wrong candidate is kept about equally often: 3 of 18, over 6,000 queries, within 6 standard
	// deviations (a chance below 1e-6 for all of them).
	n := map[string]int{}
	const draws = 6000
	for i := range draws {
		y := x
		y.ID = fmt.Sprint("query ", i)
		thin(&y, 3, 1)
		for _, c := range y.Candidates {
			n[c.ID]++
		}
	}
	for _, c := range whole {
		if p := 3. / 18; c.Label == 0 {
			require.InDelta(t, draws*p, n[c.ID], 6*math.Sqrt(draws*p*(1-p)), c.ID)
		}
	}
}

func TestBatches(t *testing.T) {
	ctx := context.Background()
	var got []string
	numbers := 0
	err := batches(ctx, strings.NewReader("a\r\nb\n\nlast"), 2, func(first int, lines []string) error {
		require.Equal(t, len(got)+1, first)
		require.LessOrEqual(t, len(lines), 2)
		got, numbers = append(got, lines...), numbers+1
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b", "", "last"}, got)

	got = nil
	collect := func(_ int, lines []string) error { got = append(got, lines...); return nil }
	err = batches(ctx, strings.NewReader("good\nb\xffd\nafter\n"), 8, collect)
	require.EqualError(t, err, "line 2: not valid UTF-8")
	require.Equal(t, []string{"good"}, got, "what comes before a bad line is done")

	err = batches(ctx, io.MultiReader(strings.NewReader("a\n"), zeros{}), 8, collect)
	require.EqualError(t, err, "line 2: more than 67108864 bytes")
	err = batches(ctx, io.MultiReader(strings.NewReader("a\n"), broken{}), 8, collect)
	require.ErrorContains(t, err, "line 2: broken")
	stop := errors.New("stop")
	require.ErrorIs(t, batches(ctx, strings.NewReader("a\nb\n"), 1, func(int, []string) error { return stop }), stop)

	// A person who types nothing does not keep the command from ending.
	r, w := io.Pipe()
	defer w.Close()
	late, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, batches(late, r, 8, collect), context.DeadlineExceeded)
}

// zeros is a line that never ends.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("broken") }

// What the heap keeps is the head of the whole ranking.
func TestBestOfSearch(t *testing.T) {
	var all []metric.Doc
	for i := range 500 {
		all = append(all, metric.Doc{ID: fmt.Sprint("d", i*7919%500), Score: float32(i * i % 37)})
	}
	ranked := slices.Clone(all)
	require.NoError(t, metric.Rank(ranked))
	for _, top := range []int{1, 2, 10, 499, 500, 1000} {
		var h worstFirst
		for _, d := range all {
			h.offer(d, top)
		}
		require.NoError(t, metric.Rank(h))
		require.Equal(t, ranked[:min(top, len(ranked))], []metric.Doc(h), "top %d", top)
	}
}

func TestBelow(t *testing.T) {
	docs := []metric.Doc{{ID: "x", Score: 9}, {ID: "y", Score: 9}, {ID: "a", Score: 1}}
	for _, least := range []float32{-7.25, 0, 3.5, -1e6} {
		run := append([]metric.Doc{{ID: "top", Score: 4}, {ID: "low", Score: least}}, below([]metric.Doc{{ID: "low", Score: least}}, docs)...)
		require.NoError(t, metric.Rank(run))
		var ids []string
		for _, d := range run {
			ids = append(ids, d.ID)
		}
		require.Equal(t, []string{"top", "low", "x", "y", "a"}, ids)
	}
}

func TestNPY(t *testing.T) {
	var b bytes.Buffer
	v := []float32{1, 2, 3, 4, 5, -6}
	require.NoError(t, writeNPY(&b, 2, 3, v))
	raw := b.Bytes()
	require.Equal(t, "\x93NUMPY\x01\x00", string(raw[:8]))
	n := int(binary.LittleEndian.Uint16(raw[8:]))
	require.Zero(t, (10+n)%64)
	header := string(raw[10 : 10+n])
	require.Equal(t, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", strings.TrimRight(header, " \n"))
	require.True(t, strings.HasSuffix(header, "\n"))
	got := make([]float32, 6)
	require.NoError(t, binary.Read(bytes.NewReader(raw[10+n:]), binary.LittleEndian, got))
	require.Equal(t, v, got)
}

func TestWholeFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	require.NoError(t, writeWhole(path, []byte("one")))
	f, err := createWhole(path)
	require.NoError(t, err)
	_, err = f.WriteString("half")
	require.NoError(t, err)
	stop := errors.New("stop")
	require.ErrorIs(t, f.commit(stop), stop)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "one", string(b), "what was there stays")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing is left behind")
	_, err = createWhole(dir)
	require.ErrorContains(t, err, "is a directory")
	_, err = createWhole(filepath.Join(dir, "no", "f"))
	require.Error(t, err)
}

func TestCreatedBy(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "a", "b")
	undo := createdBy(dir)
	require.NoError(t, os.MkdirAll(dir, 0o777))
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".lock"), nil, 0o666))
	undo()
	require.NoDirExists(t, filepath.Join(top, "a"))

	undo = createdBy(dir)
	require.NoError(t, os.MkdirAll(dir, 0o777))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "other"), nil, 0o666))
	undo()
	require.FileExists(t, filepath.Join(dir, "other"))
	createdBy(dir)() // it was there before
	require.DirExists(t, dir)
}

func TestQuoted(t *testing.T) {
	for s, want := range map[string]string{"a/b-c_1.2": "a/b-c_1.2", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "wikiqa:d#dev": "wikiqa:d#dev", "#": "'#'"} {
		require.Equal(t, want, quoted(s))
	}
	require.Equal(t, "1,234,567", grouped(1234567))
	require.Equal(t, "-123", grouped(-123))
	require.Equal(t, "-1,234", grouped(-1234))
}

func TestSnake(t *testing.T) {
	for name, want := range map[string]string{"PosWeight": "pos_weight", "LR": "lr", "MicroTokens": "micro_tokens", "UseRSLoRA": "use_rs_lo_ra", "K": "k"} {
		require.Equal(t, want, snake(name))
	}
}

func TestOneLine(t *testing.T) {
	require.Equal(t, "a; b", oneLine("a\n  b\n"))
	require.True(t, onlyCanceled(errors.Join(fmt.Errorf("x: %w", context.Canceled), context.Canceled)))
	require.False(t, onlyCanceled(errors.Join(context.Canceled, errors.New("disk full"))))
}
