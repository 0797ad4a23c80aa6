package rank_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"rung/checkpoints"
	"rung/lora"
	"rung/nn"
	"rung/nn/arch"
	"rung/nn/device"
	"rung/nn/graph"
	"rung/nn/nntest/archtest"
	"rung/nn/nntest/golden"
	"rung/nn/nntest/shared"
	"rung/rank"
)

var passages = []string{
	"the moon is a light of the night", "bread", "", "the river and the sea, the mountain and the road: " + strings.Repeat("a long way to the city ", 12),
	"who is the bird", "snow and rain", "the moon is a light of the night",
}

func write(t testing.TB, set func(*archtest.Spec)) string {
	t.Helper()
	s := archtest.Tiny()
	set(&s)
	return archtest.Write(t, filepath.Join(t.TempDir(), "model"), s)
}

func cross(s *archtest.Spec) { s.Labels = 1 }

func open(t testing.TB, dir string, o rank.Options) *rank.Ranker {
	t.Helper()
	r, err := rank.Open(context.Background(), dir, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

// opened is a model with a store of its values, as a training run has them.
func opened(t testing.TB, m arch.Model) *graph.Store {
	t.Helper()
	be, err := device.Open("")
	require.NoError(t, err)
	st, err := nn.NewStore(be, m.Params(), false)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	return st
}

func save(t testing.TB, m arch.Model, st *graph.Store, dir string) string {
	t.Helper()
	require.NoError(t, checkpoints.Save(context.Background(), dir, func(tmp string) error { return m.Save(tmp, st) }))
	return dir
}

// A score does not depend on its neighbours, their order or how many are scored at once.
func TestScoresStandAlone(t *testing.T) {
	ctx := context.Background()
	for name, set := range map[string]func(*archtest.Spec){"cross": cross, "bi": func(s *archtest.Spec) { s.Pooling = "mean" }} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, set)
			r := open(t, dir, rank.Options{})
			all, err := r.Score(ctx, "who is the moon", passages)
			require.NoError(t, err)
			require.Equal(t, all[0], all[6], "the same text")
			for i, p := range passages {
				one, err := r.Score(ctx, "who is the moon", []string{p})
				require.NoError(t, err)
				require.Equal(t, all[i], one[0])
			}
			small := open(t, dir, rank.Options{MicroTokens: 1})
			again, err := small.Score(ctx, "who is the moon", passages)
			require.NoError(t, err)
			require.Equal(t, all, again)
		})
	}
}

func TestRerank(t *testing.T) {
	ctx := context.Background()
	r := open(t, write(t, cross), rank.Options{})
	scores, err := r.Score(ctx, "moon", passages)
	require.NoError(t, err)
	hits, err := r.Rerank(ctx, "moon", passages)
	require.NoError(t, err)
	require.Len(t, hits, len(passages))
	seen := map[int]bool{}
	for i, h := range hits {
		require.Equal(t, scores[h.Index], h.Score)
		require.False(t, seen[h.Index])
		seen[h.Index] = true
		if i > 0 {
			before := hits[i-1]
			require.True(t, before.Score > h.Score || before.Score == h.Score && before.Index < h.Index, "%v then %v", before, h)
		}
	}
	none, err := r.Rerank(ctx, "moon", nil)
	require.NoError(t, err)
	require.Empty(t, none)
	require.InDelta(t, 1/(1+math.Exp(-float64(scores[0]))), r.Transform(scores[0]), 1e-7)
}

func TestEmbed(t *testing.T) {
	ctx := context.Background()
	r := open(t, write(t, func(s *archtest.Spec) {
		s.Pooling, s.Normalize, s.Dense, s.QueryPrompt, s.PassagePrompt = "mean", true, 8, "who: ", "the: "
	}), rank.Options{})
	require.Equal(t, 8, r.Dim())
	q, err := r.Embed(ctx, []string{"moon"}, rank.Query)
	require.NoError(t, err)
	p, err := r.Embed(ctx, passages, rank.Passage)
	require.NoError(t, err)
	scores, err := r.Score(ctx, "moon", passages)
	require.NoError(t, err)
	for i, v := range p {
		var dot, size float64
		for j := range v {
			dot, size = dot+float64(v[j])*float64(q[0][j]), size+float64(v[j])*float64(v[j])
		}
		require.InDelta(t, 1, size, 1e-6)
		require.InDelta(t, dot, scores[i], 1e-6)
	}
	prompted, err := r.Embed(ctx, []string{"moon"}, rank.Passage)
	require.NoError(t, err)
	require.NotEqual(t, q, prompted, "a prompt changes the vector")
	_, err = r.Embed(ctx, passages, "document")
	require.ErrorContains(t, err, "document")
	_, err = open(t, write(t, cross), rank.Options{}).Embed(ctx, passages, rank.Query)
	require.ErrorContains(t, err, "cross-encoder")
}

func TestClasses(t *testing.T) {
	ctx := context.Background()
	r := open(t, write(t, func(s *archtest.Spec) { s.Labels = 3 }), rank.Options{})
	require.Equal(t, 3, r.Labels())
	_, err := r.Score(ctx, "moon", passages)
	require.ErrorContains(t, err, "3 labels")
	rows, err := r.Logits(ctx, []rank.Pair{{Query: "moon", Passage: "sun"}})
	require.NoError(t, err)
	require.Len(t, rows[0], 3)
}

// Many callers at once get what one alone gets; closing waits for them, and later calls fail.
func TestConcurrency(t *testing.T) {
	_, err := device.Open("") // the process's workers stay
	require.NoError(t, err)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ctx := context.Background()
	dir := write(t, cross)
	r, err := rank.Open(ctx, dir, rank.Options{})
	require.NoError(t, err)
	want, err := r.Score(ctx, "moon", passages)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 5 {
				n := 1 + (i+j)%len(passages)
				got, err := r.Score(ctx, "moon", passages[:n])
				if err != nil || fmt.Sprint(got) != fmt.Sprint(want[:n]) {
					t.Errorf("caller %d: %v %v", i, got, err)
				}
			}
		})
	}
	wg.Wait()
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, err = r.Score(gone, "moon", passages)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, r.Close())
	_, err = r.Score(ctx, "moon", passages)
	require.ErrorContains(t, err, "closed")
}

// What was saved opens only as it was saved.
func TestVerified(t *testing.T) {
	ctx := context.Background()
	m, err := arch.Open(ctx, write(t, cross), arch.Options{})
	require.NoError(t, err)
	defer m.Close()
	st := opened(t, m)
	dir := save(t, m, st, filepath.Join(t.TempDir(), "out"))
	before, err := open(t, dir, rank.Options{}).Score(ctx, "moon", passages)
	require.NoError(t, err)
	now, err := rank.New(m)
	require.NoError(t, err)
	defer now.Close()
	same, err := now.Score(ctx, "moon", passages)
	require.NoError(t, err)
	require.Equal(t, before, same)

	// A changed golden score: files that agree with a manifest of their own, but not with the model.
	lie := filepath.Join(t.TempDir(), "lie")
	require.NoError(t, checkpoints.Save(ctx, lie, func(tmp string) error {
		if err := m.Save(tmp, st); err != nil {
			return err
		}
		var c arch.Card
		golden.JSON(t, filepath.Join(tmp, arch.CardFile), &c)
		c.Golden.Pairs[3].Scores[0] += .01
		b, err := json.Marshal(c)
		require.NoError(t, err)
		return os.WriteFile(filepath.Join(tmp, arch.CardFile), b, 0o666)
	}))
	_, err = rank.Open(ctx, lie, rank.Options{})
	require.ErrorIs(t, err, arch.ErrScores)
	require.NotContains(t, err.Error(), "\n")
	open(t, lie, rank.Options{SkipVerify: true})

	// A changed byte.
	path := filepath.Join(dir, checkpoints.ModelFile)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	b[len(b)-1] ^= 1
	require.NoError(t, os.WriteFile(path, b, 0o666))
	_, err = rank.Open(ctx, dir, rank.Options{})
	require.ErrorContains(t, err, checkpoints.ModelFile)
}

// An adapter opens with its base, on which it was trained and on no other.
func TestAdapter(t *testing.T) {
	ctx := context.Background()
	root := t.TempDir()
	spec := archtest.Tiny()
	base := archtest.Write(t, filepath.Join(root, "base"), spec)
	for _, kind := range []string{"cross", "bi"} {
		t.Run(kind, func(t *testing.T) {
			var m arch.Model
			var err error
			if m, err = arch.OpenBi(ctx, base, arch.Options{MaxLength: 40, Similarity: arch.Dot, Pooling: nn.Max}); kind == "cross" {
				m, err = arch.OpenCross(ctx, base, arch.Options{MaxLength: 40, Seed: 7, Labels: 1})
			}
			require.NoError(t, err)
			defer m.Close()
			a, err := lora.Apply(m, lora.Config{Rank: 4, Alpha: 8, Targets: []string{"query", "value"}}, 1)
			require.NoError(t, err)
			st := opened(t, m)
			for _, p := range a.Params() { // as if they were trained
				v := make([]float32, p.Size())
				require.NoError(t, p.Normal(3, .1)(v))
				require.NoError(t, graph.WriteWeight(st, p.Path, v))
			}
			dir := save(t, m, st, filepath.Join(root, kind, "adapter"))
			_, err = os.Stat(filepath.Join(dir, checkpoints.ModelFile))
			require.ErrorIs(t, err, os.ErrNotExist)

			r := open(t, dir, rank.Options{}) // golden scores are checked here
			adapted, err := r.Score(ctx, "who is the moon", passages)
			require.NoError(t, err)

			// Merged, it is a model of its own with the same scores.
			merged := filepath.Join(root, kind, "merged")
			ps, err := a.Merge(st)
			require.NoError(t, err)
			require.NoError(t, checkpoints.Save(ctx, merged, func(tmp string) error {
				return m.SaveValues(tmp, func(path string) ([]float32, error) {
					for _, p := range ps {
						if p.Path == path {
							v := make([]float32, p.Size())
							return v, p.Init(v)
						}
					}
					return nil, fmt.Errorf("no parameter %q", path)
				})
			}))
			whole, err := open(t, merged, rank.Options{}).Score(ctx, "who is the moon", passages)
			require.NoError(t, err)
			for i := range whole {
				require.InDelta(t, adapted[i], whole[i], 1e-5*max(1, math.Abs(float64(adapted[i]))))
			}

			other := spec
			other.Seed++
			wrong := archtest.Write(t, filepath.Join(t.TempDir(), "wrong"), other)
			_, err = rank.Open(ctx, dir, rank.Options{Base: wrong})
			require.ErrorContains(t, err, "trained on")
			require.NotContains(t, err.Error(), "\n")
			copied := archtest.Write(t, filepath.Join(t.TempDir(), "copied"), spec)
			moved, err := open(t, dir, rank.Options{Base: copied}).Score(ctx, "who is the moon", passages)
			require.NoError(t, err)
			require.Equal(t, adapted, moved)
		})
	}
	_, err := rank.Open(ctx, base, rank.Options{Base: base})
	require.ErrorContains(t, err, "no adapter")
}

// An adapter of a model of the hub names it with its commit, and finds it in the cache.
func TestHubBase(t *testing.T) {
	ctx := context.Background()
	cache, commit := t.TempDir(), strings.Repeat("c0de", 10)
	t.Setenv("HF_HUB_CACHE", cache)
	t.Setenv("HF_HUB_OFFLINE", "1")
	repo := filepath.Join(cache, "models--org--name")
	archtest.Write(t, filepath.Join(repo, "snapshots", commit), archtest.Tiny())
	require.NoError(t, os.MkdirAll(filepath.Join(repo, "refs"), 0o777))
	require.NoError(t, os.WriteFile(filepath.Join(repo, "refs", "main"), []byte(commit), 0o666))
	m, err := arch.OpenCross(ctx, "hf:org/name", arch.Options{})
	require.NoError(t, err)
	defer m.Close()
	require.Equal(t, "hf:org/name@"+commit, m.Origin().Ref)
	a, err := lora.Apply(m, lora.Config{Rank: 2, Alpha: 2, Targets: []string{"query"}}, 1)
	require.NoError(t, err)
	require.NotEmpty(t, a.Params())
	dir := save(t, m, opened(t, m), filepath.Join(t.TempDir(), "adapter"))
	var c struct {
		Name     string `json:"base_model_name_or_path"`
		Revision string `json:"revision"`
	}
	golden.JSON(t, filepath.Join(dir, "adapter_config.json"), &c)
	require.Equal(t, []string{"org/name", commit}, []string{c.Name, c.Revision})
	scores, err := open(t, dir, rank.Options{}).Score(ctx, "who", passages)
	require.NoError(t, err)

	// As PEFT alone would leave it.
	bare := t.TempDir()
	for _, name := range []string{"adapter_config.json", "adapter_model.safetensors"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(bare, name), b, 0o666))
	}
	same, err := open(t, bare, rank.Options{}).Score(ctx, "who", passages)
	require.NoError(t, err)
	require.Equal(t, scores, same)
}

// An adapter that PEFT saved, on a base beside it.
func TestPEFT(t *testing.T) {
	var x struct {
		Queries, Passages []string
		Pairs             [][2]int
	}
	var want struct{ Outputs struct{ Logits [][]float64 } }
	dir := shared.Path(t, "golden", "checkpoints", "peft_adapter_cross_encoder")
	golden.JSON(t, shared.Path(t, "golden", "checkpoints", "texts.json"), &x)
	golden.JSON(t, dir+".expected.json", &want)
	r := open(t, dir, rank.Options{})
	var pairs []rank.Pair
	for _, p := range x.Pairs {
		pairs = append(pairs, rank.Pair{Query: x.Queries[p[0]], Passage: x.Passages[p[1]]})
	}
	got, err := r.ScorePairs(context.Background(), pairs)
	require.NoError(t, err)
	require.Len(t, got, len(want.Outputs.Logits))
	for i, row := range want.Outputs.Logits {
		require.InDelta(t, row[0], got[i], 1e-5)
	}
}

// What cannot be opened is refused in one line that names it.
func TestRefused(t *testing.T) {
	for what, name := range map[string]string{"config.json": "config.json", "model.safetensors": "model.safetensors", "vocab": "tokenizer.json"} {
		for _, torn := range []bool{true, false} {
			dir := write(t, cross)
			require.NoError(t, os.Remove(filepath.Join(dir, "vocab.txt")))
			path := filepath.Join(dir, name)
			require.NoError(t, os.Truncate(path, 100))
			if !torn {
				require.NoError(t, os.Remove(path))
			}
			_, err := rank.Open(context.Background(), dir, rank.Options{})
			require.ErrorContains(t, err, dir, what)
			require.NotContains(t, err.Error(), "\n")
		}
	}
	_, err := rank.Open(context.Background(), write(t, cross), rank.Options{Device: "abacus"})
	require.ErrorContains(t, err, "abacus")
	_, err = rank.Open(context.Background(), filepath.Join(t.TempDir(), "nowhere"), rank.Options{})
	require.ErrorContains(t, err, "nowhere")
}

// Texts that nobody would write are scored too.
func TestStrangeTexts(t *testing.T) {
	ctx := context.Background()
	r := open(t, write(t, cross), rank.Options{})
	strange := []string{"", " ", "\xff\xfe\x00", strings.Repeat("word ", 10000), "\u202e\u200b", "[CLS] [SEP] [MASK]", "中文", strings.Repeat("x", 5000)}
	scores, err := r.Score(ctx, strings.Repeat("moon ", 1000), strange)
	require.NoError(t, err)
	for i, s := range scores {
		require.False(t, math.IsNaN(float64(s)) || math.IsInf(float64(s), 0), "text %d", i)
	}
}
