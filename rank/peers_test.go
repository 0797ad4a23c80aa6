package rank_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/lora"
	"rung/nn/arch"
	"rung/nn/graph"
	"rung/nn/nntest/archtest"
	"rung/nn/nntest/shared"
	"rung/rank"
)

type job struct {
	Dir    string `json:"dir"`
	Kind   string `json:"kind"`
	Base   string `json:"base"`
	Length int    `json:"length"`
}

// reloaded is what the peers compute with a directory.
type reloaded struct {
	Missing           []string
	Logits            map[string][][]float64
	Shown             [][]float64
	Queries, Passages [][]float64
}

var texts = []rank.Pair{
	{Query: "who is the bird", Passage: "the moon is a light of the night"},
	{Query: "Why is the SEA blue?", Passage: "Café, naïve: 42!"},
	{Query: "", Passage: "bread"},
	{Query: "where is the road to the old city", Passage: passages[3]},
	{Query: passages[3], Passage: "rain"},
	{Query: "中文 star", Passage: ""},
}

// Directories that this module saved open in Transformers, sentence-transformers and PEFT, with nothing
// missing and the same scores. $RUNG_PEERS is a Python that has them.
func TestPeers(t *testing.T) {
	python := os.Getenv("RUNG_PEERS")
	if python == "" {
		t.Skip("RUNG_PEERS names no Python")
	}
	ctx := context.Background()
	root := t.TempDir()
	var jobs []job
	resave := func(name, kind string, set func(*archtest.Spec)) {
		m, err := arch.Open(ctx, write(t, set), arch.Options{})
		require.NoError(t, err)
		defer m.Close()
		jobs = append(jobs, job{Dir: save(t, m, opened(t, m), filepath.Join(root, name)), Kind: kind})
	}
	for _, kind := range []string{"bert", "distilbert", "electra"} {
		resave(kind+"1", "cross", func(s *archtest.Spec) { s.ModelType, s.Labels = kind, 1 })
		resave(kind+"3", "cross", func(s *archtest.Spec) { s.ModelType, s.Labels, s.Embedding = kind, 3, 8 })
		resave(kind+"bi", "bi", func(s *archtest.Spec) { s.ModelType, s.Pooling, s.Similarity = kind, "max", "dot" })
	}
	resave("mean", "bi", func(s *archtest.Spec) { s.Pooling, s.Normalize, s.MaxLength = "mean", true, 20 })
	resave("cls", "bi", func(s *archtest.Spec) {
		s.Pooling, s.Dense, s.Normalize, s.QueryPrompt, s.PassagePrompt = "cls", 8, true, "who: ", "the: "
	})
	base := write(t, func(*archtest.Spec) {})
	c, err := arch.OpenCross(ctx, base, arch.Options{MaxLength: 40}) // a head is created
	require.NoError(t, err)
	defer c.Close()
	jobs = append(jobs, job{Dir: save(t, c, opened(t, c), filepath.Join(root, "created")), Kind: "cross"})
	a, err := lora.Apply(c, lora.Config{Rank: 4, Alpha: 8, Targets: []string{"query", "dense"}}, 1)
	require.NoError(t, err)
	st := opened(t, c)
	for _, p := range a.Params() {
		v := make([]float32, p.Size())
		require.NoError(t, p.Normal(3, .1)(v))
		require.NoError(t, graph.WriteWeight(st, p.Path, v))
	}
	jobs = append(jobs, job{Dir: save(t, c, st, filepath.Join(root, "adapter")), Kind: "adapter", Base: base, Length: 40})

	compare(t, python, jobs)
}

// So do those that it opened as others saved them, and saved again.
func TestPeersAgain(t *testing.T) {
	python := os.Getenv("RUNG_PEERS")
	if python == "" {
		t.Skip("RUNG_PEERS names no Python")
	}
	root := t.TempDir()
	var jobs []job
	for _, name := range []string{
		"cross_encoder_1", "cross_encoder_3", "plain_bert_seqcls_1", "plain_bert_seqcls_3", "older_st53_cross_encoder_1",
		"older_st53_mean_dense", "older_st53_mean_normalize", "st_mean_normalize", "st_mean_dense", "st_cls", "st_max", "bert_sharded",
	} {
		m, err := arch.Open(context.Background(), shared.Path(t, "golden", "checkpoints", name), arch.Options{})
		require.NoError(t, err)
		defer m.Close()
		kind := "bi"
		if _, ok := m.(*arch.Cross); ok {
			kind = "cross"
		}
		jobs = append(jobs, job{Dir: save(t, m, opened(t, m), filepath.Join(root, name)), Kind: kind})
	}
	compare(t, python, jobs)
}

// compare scores the texts with each directory, here and there.
func compare(t *testing.T, python string, jobs []job) {
	t.Helper()
	ctx := context.Background()
	for i, got := range reload(t, python, jobs) {
		dir := filepath.Base(jobs[i].Dir)
		r := open(t, jobs[i].Dir, rank.Options{})
		rows, err := r.Logits(ctx, texts)
		require.NoError(t, err)
		require.NotEmpty(t, got.Logits)
		for way, want := range got.Logits {
			alike(t, want, rows, dir+" "+way)
		}
		require.Empty(t, got.Missing, dir)
		if jobs[i].Kind == "bi" {
			var q, p []string
			for _, x := range texts {
				q, p = append(q, x.Query), append(p, x.Passage)
			}
			v, err := r.Embed(ctx, q, rank.Query)
			require.NoError(t, err)
			alike(t, got.Queries, v, dir+" queries")
			v, err = r.Embed(ctx, p, rank.Passage)
			require.NoError(t, err)
			alike(t, got.Passages, v, dir+" passages")
		}
		if got.Shown != nil {
			for _, row := range rows {
				for k := range row {
					row[k] = r.Transform(row[k])
				}
			}
			alike(t, got.Shown, rows, dir+" shown")
		}
	}
}

func alike(t *testing.T, want [][]float64, got [][]float32, what string) {
	t.Helper()
	require.Len(t, got, len(want), what)
	for i := range want {
		require.Len(t, got[i], len(want[i]), what)
		for k, x := range want[i] {
			require.InDelta(t, x, got[i][k], 1e-5*max(1, x, -x), "%s: row %d", what, i)
		}
	}
}

func reload(t *testing.T, python string, jobs []job) (out []reloaded) {
	t.Helper()
	request := map[string]any{"jobs": jobs}
	var pairs [][2]string
	for _, x := range texts {
		pairs = append(pairs, [2]string{x.Query, x.Passage})
	}
	request["pairs"] = pairs
	in, err := json.Marshal(request)
	require.NoError(t, err)
	var stderr bytes.Buffer
	cmd := exec.Command(python, filepath.Join("testdata", "reload.py"))
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &stderr
	b, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	require.NoError(t, json.Unmarshal(b, &out), string(b))
	require.Len(t, out, len(jobs))
	return out
}
