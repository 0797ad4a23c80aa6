package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/lora"
	"rung/nn/loss"
)

func writeConfig(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o666))
	return path
}

const small = `
model: m
data: {train: "jsonl:train.jsonl"}
out: out
`

func TestConfigDefaults(t *testing.T) {
	path := writeConfig(t, small)
	r := Builtin()
	for _, x := range []struct {
		sets []string
		want func(c *Config)
	}{
		{nil, func(c *Config) {
			require.Equal(t, "cross-encoder", c.Architecture)
			require.Equal(t, loss.BCE{}, c.objective)
			require.Equal(t, 2e-5, c.Train.LR)
			require.Nil(t, c.apply)
		}},
		{[]string{"architecture=bi-encoder"}, func(c *Config) {
			require.Equal(t, loss.Pairwise{}, c.objective)
			require.Equal(t, 2e-5, c.Train.LR)
		}},
		{[]string{"adapter=lora"}, func(c *Config) {
			require.Equal(t, 2e-4, c.Train.LR)
			require.Equal(t, lora.Defaults(), c.settings)
		}},
		{[]string{"adapter.kind=lora", "adapter.targets=[query, value]", "adapter.rank=4", "train.lr=1e-3"}, func(c *Config) {
			require.Equal(t, 1e-3, c.Train.LR)
			want := lora.Defaults()
			want.Rank, want.Targets = 4, []string{"query", "value"}
			require.Equal(t, want, c.settings)
		}},
		{[]string{"adapter=lora", "adapter="}, func(c *Config) {
			require.Equal(t, 2e-5, c.Train.LR)
			require.Nil(t, c.apply)
		}},
		{[]string{"loss=bce", "loss.pos_weight=2"}, func(c *Config) { require.Equal(t, loss.BCE{PosWeight: 2}, c.objective) }},
		{[]string{"train.warmup=0", "train.clip=0", "train.decay_exclude=[]", "train.groups=[{match: classifier, lr: 1e-3}]"}, func(c *Config) {
			require.Zero(t, c.Train.Warmup) // zero means zero
			require.Zero(t, c.Train.Clip)
			require.Empty(t, c.Train.DecayExclude)
			require.Equal(t, 1e-3, c.Train.Groups[0].LR)
		}},
		{[]string{"eval.metrics=MAP", "eval.every=7", "data.dev=jsonl:dev.jsonl", "eval.keep_best=MRR@10"}, func(c *Config) {
			require.Equal(t, []string{"MAP"}, c.Train.Metrics)
			require.Equal(t, 7, c.Train.EvalEvery)
			require.Equal(t, []string{"MAP", "MRR@10"}, c.measures())
		}},
		{[]string{"dropout=0", "normalize=true"}, func(c *Config) {
			require.Zero(t, *c.Dropout)
			require.True(t, *c.Normalize)
		}},
	} {
		c, err := r.loadConfig(path, x.sets)
		require.NoError(t, err, "%v", x.sets)
		x.want(c)
		dir := filepath.Dir(path)
		require.Equal(t, filepath.Join(dir, "m"), c.Model)
		require.Equal(t, filepath.Join(dir, "out"), c.Out)
		require.Equal(t, "jsonl:"+filepath.Join(dir, "train.jsonl"), c.Data.Train)
	}
}

// A configuration that is written beside a run and read there is the same.
func TestSnapshot(t *testing.T) {
	r := Builtin()
	for _, sets := range [][]string{
		nil,
		{"adapter=lora", "adapter.dropout=0.1", "loss.pos_weight=3"},
		{"architecture=bi-encoder", "dropout=0", "normalize=false", "train.decay_exclude=[]", "train.groups=[{match: x, lr: 2}]", "model=hf:org/name@abc"},
		{"data.dev=wikiqa:dir#dev", "eval.metrics=[MAP, nDCG@10]"},
	} {
		c, err := r.loadConfig(writeConfig(t, small), sets)
		require.NoError(t, err)
		b, err := c.snapshot()
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(c.Out, 0o777))
		path := filepath.Join(c.Out, snapshotFile)
		require.NoError(t, os.WriteFile(path, b, 0o666))
		again, err := r.loadConfig(path, nil)
		require.NoError(t, err, "%s", b)
		for _, x := range []*Config{c, again} { // what knows where it was written
			x.from, x.Loss, x.Adapter, x.apply = nil, section{}, section{}, nil
		}
		require.Equal(t, c, again, "%s", b)
		twice, err := again.snapshot()
		require.NoError(t, err)
		require.Equal(t, string(b), string(twice))
	}
}

// The configurations of the repository are read, and every key of the file format is in one place.
func TestExamples(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join("..", "..", "..", "examples", "*.yaml"))
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	for _, p := range paths {
		_, err := Builtin().loadConfig(p, nil)
		require.NoError(t, err, p)
	}
}

func TestSet(t *testing.T) {
	bad := func(assignment, want string) {
		t.Helper()
		_, err := Builtin().loadConfig(writeConfig(t, small), []string{assignment})
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "\n")
	}
	bad("train", "want key=value")
	bad("=1", "want key=value")
	bad("train..lr=1", "an empty key")
	bad("model.name=1", "model is a value, it has no keys")
	bad("train.lr=fast", `--set train.lr: train.lr is "fast", want a number`)
	bad("train.lr=[1]", "train.lr is a list, want a number")
	bad("train.dropout=yes", `train.dropout is "yes", want true or false`)
	bad("train.seed=-1", `train.seed is "-1", want a whole number`)
	bad("train.batch=1.5", `want a whole number`)
	bad("train=3", "train is \"3\", want a mapping")
	bad("train.groups=[x]", `train.groups[0] is "x", want a mapping`)
	bad("train.groups=[{mach: x}]", "unknown key train.groups[0].mach: did you mean match?")
	bad("train.lr=[", "--set train.lr:1: ")
	bad("eval.metrics=[~]", "eval.metrics[0] is nothing, want a value")
	bad("loss={pos_weight: 2, nme: bce}", "unknown key loss.nme: did you mean name?")
	bad("adapter={rank: 2}", "adapter has no kind")
	bad("adapter=[lora]", "adapter is a list, want a name")
	bad("model=&a x", "is not supported here")
	bad("model=*a", "")
	bad("train.lr=-1", "run.yaml: train: lr is -1")
}

func TestSuggest(t *testing.T) {
	known := []string{"lr", "epochs", "batch", "seed", "weight_decay", "max_negatives"}
	for name, want := range map[string]string{
		"learning_rate": "did you mean lr?", "epoch": "did you mean epochs?", "bacth": "did you mean batch?", "num_epochs": "did you mean epochs?",
		"weight-decay": "did you mean weight_decay?", "max_negs": "did you mean max_negatives?", "zzzz": "want one of batch, epochs",
	} {
		require.Contains(t, suggest(name, known), want, name)
	}
	require.Equal(t, ": want one of kind, rank", suggest("zzzzzzzz", []string{"kind", "rank", "kind"}))
	require.Empty(t, suggest("x", nil))
	require.Equal(t, 1, distance("ab", "ba"))
	require.Equal(t, 3, distance("kitten", "sitting"))
	require.Equal(t, 4, distance("", "four"))
}

// Whatever a file holds, reading it ends with a configuration or with one line.
func FuzzConfig(f *testing.F) {
	for _, s := range []string{
		small, "", "- 1", "a: b: c", "model: {a: [1, 2]}", "train: {groups: [{match: x, lr: 1}]}", "loss: {name: bce, pos_weight: .nan}", "adapter:\n  kind: lora\n  rank: 1e3",
		"model: |\n  text\n", "? a\n: b", "model: !!str 3", "&a model: *a", "train:\n\tlr: 1", "eval: {metrics: MAP}\nout: ~", "<<: {model: x}", "model: 'it''s'", "---\na: 1\n---\nb: 2",
	} {
		f.Add([]byte(s))
	}
	r := Builtin()
	path := filepath.Join(f.TempDir(), "run.yaml")
	f.Fuzz(func(t *testing.T, b []byte) {
		require.NoError(t, os.WriteFile(path, b, 0o666))
		c, err := r.loadConfig(path, nil)
		if err != nil {
			require.NotContains(t, oneLine(err.Error()), "\n")
			return
		}
		_, err = c.snapshot()
		require.NoError(t, err)
	})
}

func FuzzSet(f *testing.F) {
	for _, s := range []string{"train.lr=1", "a.b.c={d: 1}", "loss.pos_weight=2", "=", "x=[", "adapter=lora", "data=~", "model=\x00", "train.lr=|"} {
		f.Add(s)
	}
	r := Builtin()
	path := writeConfig(f, small)
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := r.loadConfig(path, []string{s}); err != nil {
			require.False(t, strings.Contains(oneLine(err.Error()), "\n"))
		}
	})
}
