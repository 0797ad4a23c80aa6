package arch

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/checkpoints"
	"rung/data"
	"rung/data/token"
	"rung/nn"
	"rung/nn/graph"
	"rung/nn/nntest/archtest"
	"rung/nn/nntest/golden"
)

func put(t testing.TB, dir, name string, doc any) {
	t.Helper()
	b, err := json.Marshal(doc)
	require.NoError(t, err)
	path := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
	require.NoError(t, os.WriteFile(path, b, 0o666))
}

// What cannot be opened is refused in one line that says what and where.
func TestRefused(t *testing.T) {
	type object = map[string]any
	one := func(s *archtest.Spec) { s.Labels = 1 }
	mean := func(s *archtest.Spec) { s.Pooling, s.Dense = "mean", 8 }
	modules := func(types ...string) func(dir string) {
		return func(dir string) {
			var list []object
			for i, c := range types {
				list = append(list, object{"idx": i, "name": "", "path": []string{"", "1_Pooling", "2_Dense", "3_More"}[i], "type": c})
			}
			put(t, dir, modulesFile, list)
		}
	}
	const st = "sentence_transformers.models."
	for name, c := range map[string]struct {
		set    func(*archtest.Spec)
		change func(dir string)
		o      Options
		says   []string
	}{
		"no weights":   {set: one, change: remove(t, checkpoints.ModelFile), says: []string{"model.safetensors"}},
		"no config":    {set: one, change: remove(t, configFile), says: []string{"config.json"}},
		"torn weights": {set: one, change: truncate(t, checkpoints.ModelFile, .7), says: []string{"model.safetensors"}},
		"torn config":  {set: one, change: truncate(t, configFile, .5), says: []string{"config.json"}},
		"config null":  {set: one, change: func(dir string) { put(t, dir, configFile, nil) }, says: []string{"model_type"}},
		"no tokenizer": {set: one, change: remove(t, "tokenizer.json", "vocab.txt"), says: []string{"vocab.txt"}},
		"model type":   {set: func(s *archtest.Spec) { s.Config = object{"model_type": "roberta"} }, says: []string{`"roberta"`, "bert, distilbert, electra"}},
		"activation":   {set: func(s *archtest.Spec) { s.Config = object{"hidden_act": "gelu_new"} }, says: []string{`"gelu_new"`}},
		"positions":    {set: func(s *archtest.Spec) { s.Config = object{"position_embedding_type": "relative_key"} }, says: []string{`"relative_key"`}},
		"shape":        {set: func(s *archtest.Spec) { one(s); s.Shape = map[string][]int{"bert.pooler.dense.weight": {16, 8}} }, says: []string{"bert.pooler.dense.weight", "[16 8]", "[16 16]"}},
		"labels":       {set: func(s *archtest.Spec) { s.Labels = 3 }, o: Options{Labels: 1}, says: []string{"classifier.weight", "[3 16]", "[1 16]"}},
		"missing":      {set: func(s *archtest.Spec) { one(s); s.Drop = []string{"layer.1.attention.output.dense.bias"} }, says: []string{"bert.encoder.layer.1.attention.output.dense.bias"}},
		"missing head": {set: func(s *archtest.Spec) { one(s); s.Drop = []string{"classifier"} }, says: []string{"classifier.weight"}},
		"more layers":  {set: func(s *archtest.Spec) { s.Config = object{"custom": 1}; s.Layers = 3 }, change: func(dir string) { fewer(t, dir) }, says: []string{"encoder.layer.2."}},
		"vocabulary":   {set: one, change: func(dir string) { grow(t, dir) }, says: []string{"tokens"}},
		"pooling":      {set: mean, change: func(dir string) { put(t, dir, "1_Pooling/config.json", object{"pooling_mode": "lasttoken"}) }, says: []string{"1_Pooling", "lasttoken", "cls, mean, max"}},
		"poolings": {set: mean, change: func(dir string) {
			put(t, dir, "1_Pooling/config.json", object{"pooling_mode": []string{"mean", "cls"}})
		}, says: []string{"cls, mean side by side"}},
		"pooling width": {set: mean, change: func(dir string) {
			put(t, dir, "1_Pooling/config.json", object{"pooling_mode": "cls", "embedding_dimension": 7})
		}, says: []string{"7", "16"}},
		"no pooling":     {set: mean, change: modules(st+"Transformer", st+"Normalize"), says: []string{"Pooling"}},
		"module":         {set: mean, change: modules(st+"Transformer", st+"Pooling", st+"LSTM"), says: []string{"LSTM"}},
		"foreign module": {set: mean, change: modules(st+"Transformer", st+"Pooling", "mine.Normalize"), says: []string{"mine.Normalize"}},
		"no modules":     {set: mean, change: modules(), says: []string{modulesFile}},
		"splade":         {set: mean, change: modules("sentence_transformers.sparse_encoder.models.MLMTransformer"), says: []string{"MLMTransformer"}},
		"dense": {set: mean, change: func(dir string) {
			put(t, dir, "2_Dense/config.json", object{"in_features": 16, "out_features": 8, "activation_function": "torch.nn.SiLU"})
		}, says: []string{"2_Dense", "SiLU"}},
		"dense width":   {set: mean, change: func(dir string) { put(t, dir, "2_Dense/config.json", object{"in_features": 9, "out_features": 8}) }, says: []string{"2_Dense", "9", "16"}},
		"dense shape":   {set: func(s *archtest.Spec) { mean(s); s.Shape = map[string][]int{"linear.weight": {8, 4}} }, says: []string{"linear.weight", "[8 4]", "[8 16]"}},
		"dense weights": {set: mean, change: remove(t, "2_Dense/model.safetensors"), says: []string{"2_Dense"}},
		"similarity":    {set: func(s *archtest.Spec) { mean(s); s.Similarity = "manhattan" }, says: []string{"manhattan", "cosine, dot"}},
		"score transform": {set: func(s *archtest.Spec) {
			one(s)
			s.Config = object{"sentence_transformers": object{"activation_fn": "torch.nn.Softmax"}}
		}, says: []string{"Softmax"}},
		"too long":  {set: one, o: Options{MaxLength: 65}, says: []string{"65", "64 positions"}},
		"too short": {set: one, o: Options{MaxLength: 2}, says: []string{"2 tokens"}},
		"negative":  {set: one, o: Options{MaxLength: -1}, says: []string{"-1"}},
		"dropout":   {set: one, o: Options{Dropout: func() *float64 { x := 1.; return &x }()}, says: []string{"dropout 1"}},
		"adapter":   {set: one, change: func(dir string) { remove(t, configFile)(dir); put(t, dir, adapterFile, object{}) }, says: []string{"adapter"}},
		"rank.json": {set: one, change: func(dir string) { put(t, dir, CardFile, object{"version": 9}) }, says: []string{"version 9"}},
		"other tokenizer": {set: one, change: func(dir string) {
			put(t, dir, CardFile, Card{Version: 1, Architecture: CrossEncoder, Transform: Sigmoid, Tokenizer: strings.Repeat("0", 64)})
		}, says: []string{"tokenizer", "changed"}},
	} {
		t.Run(name, func(t *testing.T) {
			spec := archtest.Tiny()
			c.set(&spec)
			dir := archtest.Write(t, filepath.Join(t.TempDir(), "model"), spec)
			if c.change != nil {
				c.change(dir)
			}
			m, err := Open(context.Background(), dir, c.o)
			require.True(t, m == nil)
			oneLine(t, err)
			for _, s := range append(c.says, dir) {
				if s != dir || c.o.Dropout == nil {
					require.ErrorContains(t, err, s)
				}
			}
		})
	}
	_, err := Open(context.Background(), filepath.Join(t.TempDir(), "nowhere"), Options{})
	oneLine(t, err)
	require.ErrorContains(t, err, "nowhere")
}

func remove(t testing.TB, names ...string) func(dir string) {
	return func(dir string) {
		for _, name := range names {
			require.NoError(t, os.Remove(filepath.Join(dir, name)))
		}
	}
}

func truncate(t testing.TB, name string, part float64) func(dir string) {
	return func(dir string) {
		path := filepath.Join(dir, name)
		st, err := os.Stat(path)
		require.NoError(t, err)
		require.NoError(t, os.Truncate(path, int64(float64(st.Size())*part)))
	}
}

// change edits a key of config.json.
func change(t testing.TB, dir, key string, v any) {
	t.Helper()
	var c map[string]any
	golden.JSON(t, filepath.Join(dir, configFile), &c)
	c[key] = v
	put(t, dir, configFile, c)
}

// fewer layers in the configuration than in the weights.
func fewer(t testing.TB, dir string) { change(t, dir, "num_hidden_layers", 2) }

// grow is a tokenizer with more tokens than the model embeds.
func grow(t testing.TB, dir string) { change(t, dir, "vocab_size", 10) }

// Weights that are no numbers are not saved.
func TestNotSaved(t *testing.T) {
	spec := archtest.Tiny()
	spec.Labels = 1
	m := open(t, archtest.Write(t, filepath.Join(t.TempDir(), "m"), spec), Options{})
	_, store := scorer(t, m)
	require.NoError(t, graph.WriteWeight(store, "classifier.bias", []float32{float32(math.NaN())}))
	oneLine(t, m.Save(filepath.Join(t.TempDir(), "out"), store))

	// Nor is a model beside an adapter, nor one that was made without a directory.
	out := t.TempDir()
	put(t, out, adapterFile, nil)
	err := m.Save(out, store)
	oneLine(t, err)
	require.ErrorContains(t, err, adapterFile)
	c, err := nn.ParseConfig([]byte(`{"model_type":"bert","hidden_size":8,"num_hidden_layers":1,"num_attention_heads":2,"intermediate_size":8,"vocab_size":9,"max_position_embeddings":9}`))
	require.NoError(t, err)
	oneLine(t, NewCross(c, 1).Save(t.TempDir(), store))
}

// A text that is too long is cut and counted; what is no text is read as something.
func TestTexts(t *testing.T) {
	spec := archtest.Tiny()
	spec.Labels = 1
	cross := open(t, archtest.Write(t, filepath.Join(t.TempDir(), "c"), spec), Options{})
	spec.Labels, spec.Pooling = 0, "mean"
	bi := open(t, archtest.Write(t, filepath.Join(t.TempDir(), "b"), spec), Options{})
	long := strings.TrimSpace(strings.Repeat("moon ", 10000))
	var e data.Encoded
	require.NoError(t, cross.Encode(&e, data.Example{ID: "q", Query: "who is the bird", Candidates: []data.Candidate{{ID: "a", Text: long, Label: 2}, {ID: "b", Text: "\xff\x00"}, {ID: "c"}}}))
	require.Equal(t, 10000-(64-3-4), e.Truncated)
	require.Equal(t, []int{64, 7, 7}, []int{e.Len(0), e.Len(1), e.Len(2)})
	require.Equal(t, []int32{6, 6, 6}, e.First)
	require.Equal(t, data.Unit{ID: "q", Query: data.None, Seqs: []int32{0, 1, 2}, IDs: []string{"a", "b", "c"}, Labels: []float32{2, 0, 0}}, e.Units[0])

	e = data.Encoded{}
	require.NoError(t, bi.Encode(&e, data.Example{ID: "q", Query: long, Candidates: []data.Candidate{{Text: "the moon"}, {Text: ""}}}))
	require.Equal(t, 10000-(64-2), e.Truncated)
	require.Equal(t, []int{64, 4, 2}, []int{e.Len(0), e.Len(1), e.Len(2)})
	require.Equal(t, []int32{64, 4, 2}, e.First, "all of type 0")
	require.Equal(t, int32(0), e.Units[0].Query)

	for _, m := range []Model{cross, bi} {
		s, _ := scorer(t, m)
		y, err := m.ScorePairs(context.Background(), s, []Pair{{Query: "\xff", Passage: long}, {}, {Query: long, Passage: "\x00"}})
		require.NoError(t, err)
		for _, row := range y {
			require.False(t, math.IsNaN(float64(row[0])))
		}
	}
}

// sentence-transformers lower-cases for a cased tokenizer where its own file asks for it.
func TestLowered(t *testing.T) {
	spec := archtest.Tiny()
	spec.Pooling = "mean"
	dir := archtest.Write(t, filepath.Join(t.TempDir(), "m"), spec)
	o := token.Defaults()
	o.Lower, o.StripAccents = false, false
	cased, err := token.FromVocab(spec.Vocab(), o)
	require.NoError(t, err)
	files, err := cased.Files()
	require.NoError(t, err)
	for name, b := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), b, 0o666))
	}
	ids := func(m Model, text string) []int32 {
		var e data.Encoded
		require.NoError(t, m.Encode(&e, data.Example{Query: text}))
		return e.IDs
	}
	m := open(t, dir, Options{})
	require.NotEqual(t, ids(m, "the moon"), ids(m, "The MOON"))
	put(t, dir, bertFile, map[string]any{"do_lower_case": true, "max_seq_length": 64})
	m = open(t, dir, Options{})
	require.Equal(t, ids(m, "the moon"), ids(m, "The MOON"))
	require.NotEqual(t, ids(m, "moon"), ids(m, "möon"), "accents stay")

	// A unit without candidates has no scores.
	s, store := scorer(t, m)
	var e data.Encoded
	require.NoError(t, m.Encode(&e, data.Example{Query: "who"}))
	scores, err := s.Score(context.Background(), &e)
	require.NoError(t, err)
	require.Equal(t, [][]float32{{}}, scores)

	out := filepath.Join(t.TempDir(), "out")
	require.NoError(t, m.Save(out, store))
	again := open(t, out, Options{})
	require.Equal(t, ids(m, "The MÖON"), ids(again, "The MÖON"))
}

func FuzzParseCard(f *testing.F) {
	good, err := json.Marshal(Card{Version: 1, Architecture: BiEncoder, Transform: Identity, Base: &Base{Path: "../b"}, Golden: Golden{Pairs: []GoldenPair{{Pair{Query: "q", Passage: "p"}, []float32{1}}}}})
	require.NoError(f, err)
	f.Add(good)
	f.Add([]byte(`{"version":1,"architecture":"cross-encoder","score_transform":"sigmoid"} {}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseCard(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(c)
		require.NoError(t, err)
		d, err := ParseCard(again)
		require.NoError(t, err)
		require.Equal(t, c, d)
	})
}

func FuzzModules(f *testing.F) {
	f.Add([]byte(`{"pooling_mode":"mean","embedding_dimension":4}`))
	f.Add([]byte(`{"word_embedding_dimension":4,"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":false}`))
	f.Add([]byte(`{"in_features":3,"out_features":2,"activation_function":"torch.nn.modules.linear.Identity"}`))
	f.Add([]byte(`{"pooling_mode":["cls"],"include_prompt":false}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, _, _, err := parsePooling(b); err == nil {
			require.Contains(t, []nn.Pooling{nn.CLS, nn.Mean, nn.Max}, k)
		}
		if c, act, err := parseDense(b); err == nil {
			require.Positive(t, c.In*c.Out)
			require.NotEmpty(t, act)
		}
	})
}
