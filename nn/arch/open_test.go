package arch

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/checkpoints"
	"rung/data"
	"rung/nn"
	"rung/nn/device"
	"rung/nn/graph"
	"rung/nn/nntest/archtest"
	"rung/nn/nntest/golden"
	"rung/nn/nntest/shared"
)

// sharedTexts are the texts that reference outputs are of.
type sharedTexts struct {
	Queries, Passages []string
	Pairs             [][2]int
}

func (x sharedTexts) pairs() (ps []Pair) {
	for _, p := range x.Pairs {
		ps = append(ps, Pair{Query: x.Queries[p[0]], Passage: x.Passages[p[1]]})
	}
	return ps
}

// outputs are what the library that saved a directory computes with it.
type outputs struct {
	Logits   [][]float64
	Queries  [][]float64 `json:"query_embeddings"`
	Passages [][]float64 `json:"passage_embeddings"`
	Scores   [][]float64
	Shown    [][]float64 `json:"scores_default_activation"`
}

// scorer makes a store and a scorer of m.
func scorer(t testing.TB, m Model) (*Scorer, *graph.Store) {
	t.Helper()
	be, err := device.Open("")
	require.NoError(t, err)
	st, err := nn.NewStore(be, m.Params(), false)
	require.NoError(t, err)
	s := NewScorer(be, m, 0, st)
	t.Cleanup(func() {
		require.NoError(t, s.Close())
		require.NoError(t, st.Close())
	})
	return s, st
}

func open(t testing.TB, dir string, o Options) Model {
	t.Helper()
	m, err := Open(context.Background(), dir, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

func near(t testing.TB, want [][]float64, got [][]float32, tol float64) {
	t.Helper()
	require.NotEmpty(t, want)
	require.Len(t, got, len(want))
	for i := range want {
		require.Len(t, got[i], len(want[i]), "row %d", i)
		for j, x := range want[i] {
			require.InDelta(t, x, got[i][j], tol, "row %d, column %d", i, j)
		}
	}
}

// goldenDirs are the directories that this package opens, by what they are.
var goldenDirs = map[string]Model{
	"cross_encoder_1": (*Cross)(nil), "cross_encoder_3": (*Cross)(nil), "plain_bert_seqcls_1": (*Cross)(nil), "plain_bert_seqcls_3": (*Cross)(nil),
	"older_st53_cross_encoder_1": (*Cross)(nil), "older_st53_mean_dense": (*Bi)(nil), "older_st53_mean_normalize": (*Bi)(nil),
	"st_mean_normalize": (*Bi)(nil), "st_mean_dense": (*Bi)(nil), "st_cls": (*Bi)(nil), "st_max": (*Bi)(nil), "bert_sharded": (*Bi)(nil),
}

// Directories of other programs give the scores that these programs get from them, and so do the
// directories that this package saves of them.
func TestCheckpoints(t *testing.T) {
	var x sharedTexts
	golden.JSON(t, shared.Path(t, "golden", "checkpoints", "texts.json"), &x)
	for name, kind := range goldenDirs {
		t.Run(name, func(t *testing.T) {
			var want struct{ Outputs outputs }
			golden.JSON(t, shared.Path(t, "golden", "checkpoints", name+".expected.json"), &want)
			m := open(t, shared.Path(t, "golden", "checkpoints", name), Options{})
			require.IsType(t, kind, m)
			s, store := scorer(t, m)
			sameOutputs(t, x, want.Outputs, m, s)

			saved := filepath.Join(t.TempDir(), "saved")
			require.NoError(t, checkpoints.Save(context.Background(), saved, func(tmp string) error { return m.Save(tmp, store) }))
			again := open(t, saved, Options{})
			require.IsType(t, kind, again)
			s2, _ := scorer(t, again)
			sameOutputs(t, x, want.Outputs, again, s2)
			sameBits(t, x, m, again, s, s2)
			require.NoError(t, again.Card().Check(context.Background(), again, s2))
		})
	}
}

func sameOutputs(t *testing.T, x sharedTexts, want outputs, m Model, s *Scorer) {
	t.Helper()
	ctx := context.Background()
	if c, ok := m.(*Cross); ok {
		got, err := c.ScorePairs(ctx, s, x.pairs())
		require.NoError(t, err)
		near(t, want.Logits, got, 1e-5)
		require.Equal(t, len(want.Logits[0]) == 1, c.Transform() == Sigmoid)
		for i, row := range got {
			for k, v := range row {
				require.InDelta(t, want.Shown[i][k], c.Transform().Of(v), 1e-5)
			}
		}
		return
	}
	b := m.(*Bi)
	if want.Queries == nil { // a plain encoder, of which the mean was normalised
		v, err := b.Embed(ctx, s, x.Passages, Passage)
		require.NoError(t, err)
		for i := range v {
			n := float32(norm(v[i]))
			for j := range v[i] {
				v[i][j] /= n
			}
		}
		near(t, want.Passages, v, 1e-5)
		return
	}
	q, err := b.Embed(ctx, s, x.Queries, Query)
	require.NoError(t, err)
	near(t, want.Queries, q, 1e-5)
	p, err := b.Embed(ctx, s, x.Passages, Passage)
	require.NoError(t, err)
	near(t, want.Passages, p, 1e-5)
	require.Len(t, q[0], b.Dim())
	var pairs []Pair
	var flat [][]float64
	var e data.Encoded
	for i, text := range x.Queries {
		ex := data.Example{ID: text, Query: text}
		for j, passage := range x.Passages {
			pairs, flat = append(pairs, Pair{Query: text, Passage: passage}), append(flat, []float64{want.Scores[i][j]})
			ex.Candidates = append(ex.Candidates, data.Candidate{Text: passage})
		}
		require.NoError(t, b.Encode(&e, ex))
	}
	got, err := b.ScorePairs(ctx, s, pairs)
	require.NoError(t, err)
	near(t, flat, got, 1e-5)
	inGraph, err := s.Score(ctx, &e)
	require.NoError(t, err)
	near(t, want.Scores, inGraph, 1e-5)
}

func sameBits(t *testing.T, x sharedTexts, a, b Model, s1, s2 *Scorer) {
	t.Helper()
	one, err := a.ScorePairs(context.Background(), s1, x.pairs())
	require.NoError(t, err)
	two, err := b.ScorePairs(context.Background(), s2, x.pairs())
	require.NoError(t, err)
	require.Equal(t, one, two)
}

// What other kinds of model are is said by name.
func TestOtherKinds(t *testing.T) {
	for dir, name := range map[string]string{"splade": "SparseEncoder", "pylate_colbert": "ColBERT", "st_multi_vector": "MultiVectorEncoder", "peft_adapter_cross_encoder": "adapter"} {
		_, err := Open(context.Background(), shared.Path(t, "golden", "checkpoints", dir), Options{})
		require.ErrorContains(t, err, name)
		oneLine(t, err)
	}
}

func oneLine(t testing.TB, err error) {
	t.Helper()
	require.Error(t, err)
	require.NotContains(t, err.Error(), "\n")
	require.Less(t, len(err.Error()), 400, "%v", err)
}

// The real model, from text: its embeddings, and its logits as a cross-encoder.
func TestMiniLMFromText(t *testing.T) {
	if testing.Short() {
		t.Skip("a real model takes a while")
	}
	var pairs []Pair
	golden.JSON(t, shared.Path(t, "golden", "minilm", "pairs.json"), &pairs)
	want := golden.File(t, "minilm", "expected_f64.safetensors")
	inputs := golden.File(t, "minilm", "inputs.safetensors")
	dir := shared.Path(t, "models", "all-MiniLM-L6-v2")

	m, err := OpenCross(context.Background(), dir, Options{MaxLength: 128})
	require.NoError(t, err)
	defer m.Close()
	created := map[string]bool{}
	head := golden.File(t, "minilm", "classifier.safetensors")
	for _, p := range m.Params() {
		if p.Created {
			created[p.Path] = true
			p.Init = golden.Init(t, head, p.Path)
		}
	}
	require.Equal(t, map[string]bool{"classifier.weight": true, "classifier.bias": true}, created)
	var e data.Encoded
	for _, p := range pairs {
		require.NoError(t, m.Encode(&e, data.Example{ID: p.Query, Query: p.Query, Candidates: []data.Candidate{{Text: p.Passage}}}))
	}
	b := golden.Pack(t, inputs)
	require.Equal(t, b.IDs, e.IDs)
	require.Positive(t, e.Truncated)
	s, _ := scorer(t, m)
	logits, err := m.ScorePairs(context.Background(), s, pairs)
	require.NoError(t, err)
	for i, y := range golden.Floats(t, want, "logits") {
		require.InDelta(t, y, logits[i][0], 1e-5)
	}

	// The golden embeddings are of the pairs' sequences; those of one text are asked of the directory.
	bi := open(t, dir, Options{}).(*Bi)
	require.Equal(t, nn.Mean, bi.Pooling)
	require.Equal(t, 256, bi.MaxLength)
	require.Len(t, bi.Head, 1)
	sb, _ := scorer(t, bi)
	var whole data.Encoded
	for i := range pairs {
		from, to := e.Off[i], e.Off[i+1]
		whole.Units = append(whole.Units, data.Unit{Query: whole.Add("", data.None, e.IDs[from:to], int(e.First[i]))})
	}
	v, err := sb.Embed(context.Background(), &whole)
	require.NoError(t, err)
	emb := golden.Floats(t, want, "embedding")
	for i := range v {
		require.Less(t, golden.Rel(v[i], emb[i*384:(i+1)*384]), 1e-5, "pair %d", i)
	}
}

// Every kind of encoder saves and opens with the same bits, head and modules included.
func TestRoundTrip(t *testing.T) {
	specs := map[string]func(*archtest.Spec){
		"bert": func(s *archtest.Spec) { s.Labels = 1 }, "bert classes": func(s *archtest.Spec) { s.Labels = 4 },
		"distilbert": func(s *archtest.Spec) { s.ModelType, s.Labels = "distilbert", 1 },
		"electra":    func(s *archtest.Spec) { s.ModelType, s.Labels, s.Embedding = "electra", 2, 8 },
		"one type":   func(s *archtest.Spec) { s.Labels, s.Types = 1, 1 },
		"cls":        func(s *archtest.Spec) { s.Pooling = "cls" },
		"max dot":    func(s *archtest.Spec) { s.Pooling, s.Similarity = "max", "dot" },
		"mean dense": func(s *archtest.Spec) { s.Pooling, s.Dense, s.Normalize = "mean", 8, true },
		"prompts":    func(s *archtest.Spec) { s.Pooling, s.QueryPrompt, s.PassagePrompt = "mean", "who: ", "what: " },
		"distil bi":  func(s *archtest.Spec) { s.ModelType, s.Pooling = "distilbert", "mean" },
		"electra bi": func(s *archtest.Spec) { s.ModelType, s.Pooling, s.Embedding = "electra", "mean", 8 },
	}
	x := sharedTexts{Queries: []string{"who is the bird", "why is the sea blue"}, Passages: []string{"the moon and the sun", "bread", ""}, Pairs: [][2]int{{0, 0}, {0, 1}, {1, 2}, {1, 0}}}
	for name, set := range specs {
		t.Run(name, func(t *testing.T) {
			spec := archtest.Tiny()
			set(&spec)
			spec.Config = map[string]any{"custom_key": map[string]int{"kept": 1}, "torch_dtype": "float16"}
			dir := archtest.Write(t, filepath.Join(t.TempDir(), "m"), spec)
			m := open(t, dir, Options{})
			s, store := scorer(t, m)
			out := filepath.Join(t.TempDir(), "out")
			require.NoError(t, m.Save(out, store))
			again := open(t, out, Options{})
			s2, store2 := scorer(t, again)
			sameBits(t, x, m, again, s, s2)
			require.Equal(t, m.Transform(), again.Transform())
			var config map[string]any
			golden.JSON(t, filepath.Join(out, "config.json"), &config)
			require.Equal(t, map[string]any{"kept": 1.}, config["custom_key"])
			require.Equal(t, "float32", config["torch_dtype"])

			// Saving is a fixed point: the same files, byte for byte.
			twice := filepath.Join(t.TempDir(), "twice")
			require.NoError(t, again.Save(twice, store2))
			sameFiles(t, out, twice)

			// So is saving values.
			values := filepath.Join(t.TempDir(), "values")
			require.NoError(t, again.SaveValues(values, func(path string) ([]float32, error) { return graph.ReadWeight[float32](store2, path) }))
			sameFiles(t, out, values)
		})
	}
}

func sameFiles(t *testing.T, a, b string) {
	t.Helper()
	n := 0
	require.NoError(t, filepath.WalkDir(a, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		n++
		rel, err := filepath.Rel(a, p)
		require.NoError(t, err)
		x, err := os.ReadFile(p)
		require.NoError(t, err)
		y, err := os.ReadFile(filepath.Join(b, rel))
		require.NoError(t, err)
		require.Equal(t, string(x), string(y), rel)
		return nil
	}))
	require.Greater(t, n, 5)
}

// What a directory lacks of a head is created: by name and seed, biases zero.
func TestCreatedHead(t *testing.T) {
	spec := archtest.Tiny()
	spec.Drop = []string{"pooler"}
	dir := archtest.Write(t, filepath.Join(t.TempDir(), "m"), spec)
	values := func(seed uint64, labels int) map[string][]float32 {
		m, err := OpenCross(context.Background(), dir, Options{Seed: seed, Labels: labels})
		require.NoError(t, err)
		defer m.Close()
		v := map[string][]float32{}
		for _, p := range m.Params() {
			if p.Created {
				v[p.Path] = make([]float32, p.Size())
				if p.Init != nil {
					require.NoError(t, p.Init(v[p.Path]))
				}
			}
		}
		return v
	}
	one, two, again := values(1, 3), values(2, 3), values(1, 3)
	require.Len(t, one, 4)
	require.Equal(t, one, again)
	require.NotEqual(t, one["classifier.weight"], two["classifier.weight"])
	require.Len(t, one["classifier.weight"], 3*spec.Hidden)
	require.Equal(t, make([]float32, 3), one["classifier.bias"])
	require.InDelta(t, .02, norm(one["bert.pooler.dense.weight"])/float64(spec.Hidden), .004)
	require.Len(t, values(1, 0)["classifier.weight"], spec.Hidden)
}

// Older names, other prefixes and tensors of other tasks are read as what they are.
func TestNames(t *testing.T) {
	plain := archtest.Write(t, filepath.Join(t.TempDir(), "plain"), archtest.Tiny())
	want := open(t, plain, Options{})
	s, _ := scorer(t, want)
	pairs := []Pair{{Query: "who is the bird", Passage: "the sun"}}
	y, err := want.ScorePairs(context.Background(), s, pairs)
	require.NoError(t, err)

	spec := archtest.Tiny()
	spec.Prefix = "bert."
	spec.Rename = []string{"LayerNorm.weight", "LayerNorm.gamma", "LayerNorm.bias", "LayerNorm.beta", "pooler.dense", "cls.seq_relationship"}
	m := open(t, archtest.Write(t, filepath.Join(t.TempDir(), "old"), spec), Options{})
	s2, _ := scorer(t, m)
	got, err := m.ScorePairs(context.Background(), s2, pairs)
	require.NoError(t, err)
	require.Equal(t, y, got)
}

// A pooler that a bi-encoder does not use is there again after saving.
func TestPoolerTravels(t *testing.T) {
	dir := archtest.Write(t, filepath.Join(t.TempDir(), "m"), archtest.Tiny())
	m, err := OpenBi(context.Background(), dir, Options{})
	require.NoError(t, err)
	defer m.Close()
	_, store := scorer(t, m)
	out := filepath.Join(t.TempDir(), "out")
	require.NoError(t, m.Save(out, store))
	c, err := OpenCross(context.Background(), out, Options{})
	require.NoError(t, err)
	defer c.Close()
	for _, p := range c.Params() {
		require.Equal(t, strings.HasPrefix(p.Path, "classifier"), p.Created, p.Path)
	}
}

func TestOptions(t *testing.T) {
	ctx := context.Background()
	spec := archtest.Tiny()
	spec.Pooling, spec.Dropout, spec.Positions, spec.MaxLength = "cls", .1, 512, 300
	dir := archtest.Write(t, filepath.Join(t.TempDir(), "m"), spec)

	b, err := OpenBi(ctx, dir, Options{Pooling: nn.Max, Similarity: Dot, Scale: 20, MaxLength: 17, Dropout: new(float64)})
	require.NoError(t, err)
	defer b.Close()
	require.Equal(t, []any{nn.Max, Dot, 20., 17, 0.}, []any{b.Pooling, b.Similarity, b.Scale, b.MaxLength, b.Encoder.Config.Dropout})
	s, _ := scorer(t, b)
	var e data.Encoded
	require.NoError(t, b.Encode(&e, data.Example{Query: "who", Candidates: []data.Candidate{{Text: "the sun"}, {Text: "the moon"}}}))
	scores, err := s.Score(ctx, &e)
	require.NoError(t, err)
	plain, err := b.ScorePairs(ctx, s, []Pair{{Query: "who", Passage: "the sun"}, {Query: "who", Passage: "the moon"}})
	require.NoError(t, err)
	for i := range plain {
		require.InDelta(t, 20*plain[i][0], scores[0][i], 1e-4*math.Abs(float64(scores[0][i])))
	}

	own := open(t, dir, Options{}).(*Bi)
	require.Equal(t, []any{nn.CLS, Cosine, 300, .1}, []any{own.Pooling, own.Similarity, own.MaxLength, own.Encoder.Config.Dropout})
	c, err := OpenCross(ctx, dir, Options{})
	require.NoError(t, err)
	defer c.Close()
	require.Equal(t, 256, c.MaxLength, "another use than the directory's")
}

func TestFingerprint(t *testing.T) {
	ctx := context.Background()
	spec := archtest.Tiny()
	dir := archtest.Write(t, filepath.Join(t.TempDir(), "m"), spec)
	other := spec
	other.Seed = 2
	seen := map[string]string{}
	for name, f := range map[string]func() (Model, error){
		"cross":   func() (Model, error) { return OpenCross(ctx, dir, Options{}) },
		"seed":    func() (Model, error) { return OpenCross(ctx, dir, Options{Seed: 1}) },
		"length":  func() (Model, error) { return OpenCross(ctx, dir, Options{MaxLength: 20}) },
		"labels":  func() (Model, error) { return OpenCross(ctx, dir, Options{Labels: 2}) },
		"bi":      func() (Model, error) { return OpenBi(ctx, dir, Options{}) },
		"pooling": func() (Model, error) { return OpenBi(ctx, dir, Options{Pooling: nn.CLS}) },
		"weights": func() (Model, error) {
			return OpenBi(ctx, archtest.Write(t, filepath.Join(t.TempDir(), "w"), other), Options{})
		},
		"frozen": func() (Model, error) {
			m, err := OpenBi(ctx, dir, Options{})
			if err == nil {
				m.Params()[0].Trainable = false
			}
			return m, err
		},
	} {
		m, err := f()
		require.NoError(t, err)
		again, err := f()
		require.NoError(t, err)
		print := m.Fingerprint()
		require.Len(t, print, 64)
		require.Equal(t, print, again.Fingerprint(), name)
		require.Empty(t, seen[print], "%s and %s are one", name, seen[print])
		seen[print] = name
		require.NoError(t, m.Close())
		require.NoError(t, again.Close())
	}
	require.Len(t, seen, 8)
}
