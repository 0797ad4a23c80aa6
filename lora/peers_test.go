package lora

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/checkpoints"
	"rung/nn"
	"rung/nn/arch"
	"rung/nn/backend"
	"rung/nn/graph"
	"rung/nn/nntest/golden"
)

// peftOutput is what testdata/peft_check.py prints.
type peftOutput struct {
	Outputs [][]float64
	Names   []string
	Trained int
}

// openInPEFT opens an adapter with PEFT, which saves it again in out.
func openInPEFT(t *testing.T, base, adapter, out string, b golden.Batch) peftOutput {
	t.Helper()
	return runPEFT(t, b, "testdata/peft_check.py", base, adapter, out)
}

// runPEFT gives the sequences of b to a program.
func runPEFT(t *testing.T, b golden.Batch, args ...string) (o peftOutput) {
	t.Helper()
	var in [][2][]int32
	for s := range b.Labels {
		ids, types := b.Seq(s)
		in = append(in, [2][]int32{ids, types})
	}
	data, err := json.Marshal(in)
	require.NoError(t, err)
	var stderr bytes.Buffer
	cmd := exec.Command(os.Getenv("RUNG_PEERS"), args...)
	cmd.Env = append(os.Environ(), "HF_HUB_OFFLINE=1")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(data), &stderr
	data, err = cmd.Output()
	require.NoError(t, err, stderr.String())
	require.NoError(t, json.Unmarshal(data, &o), string(data))
	return o
}

// writeBase writes a base model as Transformers opens it, without the parameters that it lacks.
func writeBase(t *testing.T, be backend.Backend, config string, ps []*nn.Param) string {
	dir := t.TempDir()
	s := golden.Store(t, be, ps, false)
	var ts []checkpoints.Tensor
	for _, p := range ps {
		if p.Created {
			continue
		}
		v, err := graph.ReadWeight[float32](s, p.Path)
		require.NoError(t, err)
		x, err := checkpoints.NewTensor(p.Path, p.Dims, v)
		require.NoError(t, err)
		ts = append(ts, x)
	}
	require.NoError(t, checkpoints.CreateFile(filepath.Join(dir, checkpoints.ModelFile), ts, nil))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600))
	return dir
}

type peerModel interface {
	nn.Model
	Model
}

// PEFT opens what Save writes: the same outputs, the same names, as many parameters; and Open reads what
// PEFT writes then.
func TestPEFT(t *testing.T) {
	if os.Getenv("RUNG_PEERS") == "" {
		t.Skip("RUNG_PEERS names no python that has peft")
	}
	all := func(kind string) string {
		return strings.NewReplacer(`"bert"`, `"`+kind+`"`, `"hidden_size"`, `"dim":8,"n_layers":2,"n_heads":2,"hidden_dim":12,"embedding_size":4,"hidden_size"`).Replace(small)
	}
	for name, c := range map[string]struct {
		kind   string
		embed  bool
		lacks  string // the base lacks parameters that begin so
		config Config
	}{
		"plain":      {kind: "bert", config: small4("query", "value")},
		"all":        {kind: "bert", lacks: "bert.pooler", config: Config{Rank: 2, Alpha: 3, UseRSLoRA: true, Targets: []string{AllLinear}, Bias: BiasAll, Dropout: .1}},
		"lora_only":  {kind: "bert", lacks: "classifier", config: Config{Rank: 3, Alpha: 3, Targets: []string{"dense"}, Bias: BiasLoRAOnly, Exclude: []string{"pooler.dense"}, RankPattern: map[string]int{`layer\.1\.output\.dense`: 1}, AlphaPattern: map[string]float64{"output.dense": 4}}},
		"layers":     {kind: "bert", config: Config{Rank: 1, Alpha: 1, Targets: []string{"key", "query"}, Layers: []int{1}, ModulesToSave: []string{"pooler", "0.output.LayerNorm"}}},
		"pattern":    {kind: "bert", config: Config{Rank: 1, Alpha: 1, TargetPattern: `.*\.1\..*(key|dense)`, ExcludePattern: ".*intermediate.*", Task: TaskClassify}},
		"embed":      {kind: "bert", embed: true, config: Config{Rank: 2, Alpha: 4, Targets: []string{AllLinear}, Bias: BiasAll}},
		"dora":       {kind: "bert", lacks: "bert.pooler", config: Config{Kind: DoRA, Rank: 2, Alpha: 3, UseRSLoRA: true, Targets: []string{AllLinear}, Bias: BiasLoRAOnly, Dropout: .1}},
		"ia3":        {kind: "bert", lacks: "classifier", config: Config{Kind: IA3, Targets: []string{"key", "value", "output.dense"}, Feedforward: []string{"output.dense"}, Exclude: []string{"attention.output.dense"}}},
		"ia3, none":  {kind: "electra", config: Config{Kind: IA3, TargetPattern: `.*\.(key|dense)`, ExcludePattern: `classifier.*`}},
		"pissa":      {kind: "bert", config: Config{Rank: 2, Alpha: 3, UseRSLoRA: true, Init: InitPiSSA, Targets: []string{AllLinear}, RankPattern: map[string]int{"query": 3}}},
		"orthogonal": {kind: "bert", config: Config{Rank: 2, Alpha: 3, Init: InitOrthogonal, Targets: []string{"dense"}}},
		"allora":     {kind: "bert", config: Config{Kind: ALLoRA, Rank: 3, Eta: 2, Targets: []string{"dense"}, RankPattern: map[string]int{`1\..*`: 2}}},
		"dynamic":    {kind: "distilbert", config: Config{Kind: Dynamic, Rank: 4, Alpha: 6, Shrink: .1, Targets: []string{AllLinear}}},
		"distilbert": {kind: "distilbert", config: small4(AllLinear)},
		"electra":    {kind: "electra", lacks: "classifier", config: small4(AllLinear)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := all(c.kind)
			cfg, err := nn.ParseConfig([]byte(text))
			require.NoError(t, err)
			model := func() peerModel {
				var m peerModel = arch.NewCross(cfg, 1)
				if c.embed {
					m = embedder{nn.NewEncoder(cfg, "")}
				}
				for _, p := range m.Params() {
					if !strings.Contains(strings.ToLower(p.Path), "norm.weight") {
						p.Init = p.Normal(3, .3)
					}
					p.Created = c.lacks != "" && strings.HasPrefix(p.Path, c.lacks)
				}
				return m
			}
			m, be, b := model(), golden.Ref[float32](t, 2), smallBatch()
			dir := writeBase(t, be, text, m.Params())
			a, err := Apply(m, c.config, 1)
			require.NoError(t, err)
			if c.config.Kind == "" && c.config.Init == "" {
				shake(a, 2)
			} else {
				stir(a, 2)
			}
			s := golden.Store(t, be, m.Params(), false)
			adapter, again := t.TempDir(), t.TempDir()
			require.NoError(t, a.Save(adapter, Source{Name: dir}, s))
			got := openInPEFT(t, dir, adapter, again, b)

			outputs := func(m peerModel, s *graph.Store) []float32 {
				j := start[float32](t, be, m, nn.Plan{}, b, s)
				if c.embed {
					return j.Result(t, nn.OutEmbed, len(b.Labels))
				}
				return j.Result(t, nn.OutLogits, len(b.Labels))
			}
			ours := outputs(m, s)
			for i, y := range slices.Concat(got.Outputs...) {
				require.InDelta(t, y, ours[i], 2e-6)
			}
			f, err := Open(again)
			require.NoError(t, err)
			defer f.Close()
			names := slices.DeleteFunc(got.Names, f.shadow)

			n := model()
			back, err := f.Apply(n)
			require.NoError(t, err)
			reopened := outputs(n, golden.Store(t, be, n.Params(), false))
			if c.config.Kind == ALLoRA || c.config.Kind == Dynamic || c.config.Init == InitPiSSA { // which PEFT has as plain LoRA
				a = back
				near(t, ours, reopened, 2e-6)
			} else {
				require.Equal(t, ours, reopened)
			}
			require.Equal(t, a.Summary().Trainable, got.Trained)
			require.Equal(t, slices.Sorted(slices.Values(mapped(a))), names)
		})
	}
}

// mapped are the names of all that travels, in the file.
func mapped(a *Adapter) (names []string) {
	in := a.names()
	for _, p := range a.params {
		names = append(names, in[p])
	}
	return names
}

// PEFT's own directories of PiSSA say that the base is changed when they are opened: so it is here.
func TestPEFTPiSSA(t *testing.T) {
	if os.Getenv("RUNG_PEERS") == "" {
		t.Skip("RUNG_PEERS names no python that has peft")
	}
	m, be, b := smallCross(t), golden.Ref[float32](t, 2), smallBatch()
	dir, out := writeBase(t, be, small, m.Params()), t.TempDir()
	want := runPEFT(t, b, "testdata/peft_pissa.py", dir, out)
	f, err := Open(out)
	require.NoError(t, err)
	defer f.Close()
	require.Equal(t, InitPiSSA, f.Config.Init)
	a, err := f.Apply(m)
	require.NoError(t, err)
	s := golden.Store(t, be, m.Params(), false)
	outputs := func() []float32 {
		return start[float32](t, be, m, nn.Plan{}, b, s).Result(t, nn.OutLogits, len(b.Labels))
	}
	ours := outputs()
	for i, y := range slices.Concat(want.Outputs...) {
		require.InDelta(t, y, ours[i], 1e-5)
	}
	// Saved here it is plain LoRA on the untouched base, also for PEFT.
	plain := t.TempDir()
	require.NoError(t, a.Save(plain, Source{Name: dir}, s))
	for i, y := range slices.Concat(openInPEFT(t, dir, plain, t.TempDir(), b).Outputs...) {
		require.InDelta(t, ours[i], y, 1e-5)
	}
}
