package lora

import (
	"math"
	"os"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"rung/checkpoints"
	"rung/nn"
	"rung/nn/arch"
	"rung/nn/backend"
	"rung/nn/graph"
	"rung/nn/nntest/golden"
)

// small4 is a configuration for smallCross.
func small4(targets ...string) Config { return Config{Rank: 4, Alpha: 8, Targets: targets} }

// shake gives every B values that are not zero.
func shake(a *Adapter, seed uint64) {
	for _, p := range a.Params() {
		if strings.HasSuffix(p.Path, ".lora_B.weight") {
			p.Init = p.Normal(seed, .5)
		}
	}
}

func TestFreshAdapterChangesNothing(t *testing.T) {
	be, b := golden.Ref[float32](t, 2), smallBatch()
	m := smallCross(t)
	base := golden.Store(t, be, m.Params(), false)
	before := scores[float32](t, m, b, base)
	a, err := Apply(m, small4(AllLinear), 1)
	require.NoError(t, err)
	own := golden.Store(t, be, a.Params(), false)
	require.Equal(t, before, scores[float32](t, m, b, own, base))

	// The draws are U(-1/√in, 1/√in), of the seed and the path.
	for _, s := range a.sites {
		v, err := graph.ReadWeight[float32](own, s.low.A.Path)
		require.NoError(t, err)
		bound, most := 1/math.Sqrt(float64(s.base.In())), 0.0
		for _, x := range v {
			most = max(most, math.Abs(float64(x)))
		}
		require.LessOrEqual(t, most, bound)
		require.Greater(t, most, bound/2)
		again := make([]float32, len(v))
		require.NoError(t, newLinear(s.slot.Path, s.base, s.low.Rank(), 1, &Config{}, 1).A.Init(again))
		require.Equal(t, v, again)
		require.NoError(t, newLinear(s.slot.Path, s.base, s.low.Rank(), 1, &Config{}, 2).A.Init(again))
		require.NotEqual(t, v, again)
	}

	a.Remove()
	require.Equal(t, before, scores[float32](t, m, b, base))
	for _, p := range m.Params() {
		require.True(t, p.Trainable, p.Path)
	}
}

// Everything that is trained travels, what the base lacks too; and it is what was saved.
func TestSaveLoadSave(t *testing.T) {
	for name, cfg := range map[string]Config{
		"plain":    small4("query", "value"),
		"all":      {Rank: 2, Alpha: 3.5, Dropout: .25, UseRSLoRA: true, Targets: []string{AllLinear}, Bias: BiasAll, Exclude: []string{"output.dense"}},
		"patterns": {Rank: 4, Alpha: 8, TargetPattern: `.*\.(query|dense)`, ExcludePattern: `.*pooler.*`, RankPattern: map[string]int{`layer\.1\..*`: 2}, AlphaPattern: map[string]float64{"query": 5}, Bias: BiasLoRAOnly, ModulesToSave: []string{"LayerNorm"}},
		"layers":   {Rank: 1, Alpha: 1, Targets: []string{"key"}, Layers: []int{1}, LayersPattern: []string{"layer", "block"}, Task: TaskUnnamed, ModulesToSave: []string{"classifier"}},
	} {
		t.Run(name, func(t *testing.T) {
			be, b := golden.Ref[float32](t, 2), smallBatch()
			m := smallCross(t)
			base := golden.Store(t, be, m.Params(), false)
			created := map[string]bool{"bert.pooler.dense.weight": true, "bert.pooler.dense.bias": true, "bert.embeddings.position_embeddings.weight": true}
			lack := func(m *arch.Cross) {
				for _, p := range m.Params() {
					p.Created = created[p.Path]
				}
			}
			lack(m)
			a, err := Apply(m, cfg, 1)
			require.NoError(t, err)
			require.Len(t, a.Summary().Created, 3)
			require.Contains(t, a.Summary().String(), "new, as the base lacks them: bert.embeddings.position_embeddings.weight")
			shake(a, 5)
			own := golden.Store(t, be, a.Params(), false)
			first, second, src := t.TempDir(), t.TempDir(), Source{"org/base", "v1"}
			require.NoError(t, a.Save(first, src, own))

			f, err := Open(first)
			require.NoError(t, err)
			require.Equal(t, src, f.Base)
			require.Equal(t, a.Config(), f.Config)
			n := smallCross(t)
			lack(n)
			c, err := f.Apply(n)
			require.NoError(t, err)
			require.Equal(t, a.Summary().Trainable, c.Summary().Trainable)
			require.Empty(t, c.Summary().Created)
			loaded := golden.Store(t, be, c.Params(), true)
			require.NoError(t, f.Close())
			require.Equal(t, scores[float32](t, m, b, own, base), scores[float32](t, n, b, loaded, base))
			require.NoError(t, c.Save(second, f.Base, loaded))
			for _, file := range []string{configFile, checkpoints.AdapterFile} {
				require.Equal(t, contents(t, first, file), contents(t, second, file))
			}
			for _, p := range n.Params() {
				require.False(t, created[p.Path] && !p.Trainable, p.Path)
				if p.Trainable {
					require.Contains(t, c.params, p)
				}
			}
		})
	}
}

func TestMergeIsTheAdapter(t *testing.T) {
	be, b := golden.Ref[float32](t, 2), smallBatch()
	m := smallCross(t)
	cfg := small4(AllLinear)
	cfg.Bias = BiasLoRAOnly
	a, err := Apply(m, cfg, 1)
	require.NoError(t, err)
	shake(a, 2)
	for _, p := range a.Params() {
		if strings.HasSuffix(p.Path, ".bias") {
			p.Init = p.Normal(8, .3)
		}
	}
	all := golden.Store(t, be, m.Params(), false) // one store of base and adapter
	want := scores[float32](t, m, b, all)
	ps, err := a.Merge(all)
	require.NoError(t, err)
	a.Remove()
	require.Len(t, ps, len(m.Params()))
	for i, p := range m.Params() {
		require.Equal(t, p.Path, ps[i].Path)
		require.Equal(t, p.Dims, ps[i].Dims)
	}
	merged := scores[float32](t, m, b, golden.Store(t, be, ps, false))
	plain := scores[float32](t, m, b, golden.Store(t, be, m.Params(), false))
	for i := range want {
		require.InDelta(t, want[i], merged[i], 1e-5)
		require.Greater(t, math.Abs(float64(want[i]-plain[i])), 1e-3)
	}
	require.Error(t, ps[0].Init(nil))
	_, err = a.Merge()
	require.ErrorContains(t, err, `lora: merge: no store has the weight "bert.embeddings.word_embeddings.weight"`)
}

// Rewritten programs give what plain ones give, where only some of the Linears of one input have an
// adapter (their strides differ) and where all have; and no addition is left.
func TestRewrittenIsPlain(t *testing.T) {
	for _, targets := range [][]string{{"query", "value"}, {"key"}, {"intermediate.dense"}, {AllLinear}} {
		for _, rate := range []float64{0, .3} {
			be, m, cfg := golden.Ref[float64](t, 2), smallCross(t), small4(targets...)
			cfg.Dropout, cfg.Bias = rate, BiasLoRAOnly
			a, err := Apply(m, cfg, 1)
			require.NoError(t, err)
			shake(a, 2)
			own, base := golden.Store(t, be, a.Params(), true), golden.Store(t, be, a.Base(), false)
			var want [][]float64
			for _, plain := range []bool{true, false} {
				pl := bce
				pl.Plain, pl.Dropout = plain, true
				j := start[float64](t, be, m, pl, smallBatch(), own, base)
				got := [][]float64{j.Result(t, nn.OutScores, 3)}
				for _, p := range a.Params() {
					got = append(got, golden.Grad[float64](t, own, p.Path))
				}
				if plain {
					want = got
					continue
				}
				for i := range got {
					require.Less(t, golden.Rel(got[i], want[i]), 1e-12, "%v, dropout %v: result %d", targets, rate, i)
				}
			}
			p, err := nn.Compile(m, nn.Plan{Dims: graph.Dims{T: 16, N: 4, B: 4, K: 1}})
			require.NoError(t, err)
			for _, c := range p.Calls {
				require.NotEqual(t, backend.Add, c.Op, "%v: %s is not joined", targets, c.Node)
			}
		}
	}
}

// Dropout of the adapter's input acts in training passes only.
func TestDropoutOnlyInTraining(t *testing.T) {
	be, m, cfg := golden.Ref[float32](t, 2), smallCross(t), small4("query")
	cfg.Dropout = .5
	a, err := Apply(m, cfg, 1)
	require.NoError(t, err)
	shake(a, 2)
	s := golden.Store(t, be, m.Params(), false)
	drops := func(train bool) (n int) {
		pl := nn.Plan{Dims: graph.Dims{T: 16, N: 4, B: 4, K: 1}, Dropout: train}
		p, err := nn.Compile(m, pl)
		require.NoError(t, err)
		for _, c := range p.Calls {
			if c.Op == backend.Dropout {
				n++
			}
		}
		return n
	}
	with := drops(true)
	require.Zero(t, drops(false))
	b := smallBatch()
	require.Equal(t, scores[float32](t, m, b, s), scores[float32](t, m, b, s))
	a.Remove()
	require.Equal(t, with-2, drops(true)) // one for each layer's query
}

// Adapters over one store of the base: swapping is one more Bind, and swapping back gives the same bits.
func TestRebind(t *testing.T) {
	be, b, m := golden.Ref[float32](t, 2), smallBatch(), smallCross(t)
	base := golden.Store(t, be, m.Params(), false)
	a, err := Apply(m, small4("query", "dense"), 1)
	require.NoError(t, err)
	shake(a, 2)
	one := golden.Store(t, be, a.Params(), true)
	shake(a, 3)
	two := golden.Store(t, be, a.Params(), true)
	j := start[float32](t, be, m, bce, b, one, base)
	results := func() []float32 {
		out := j.Result(t, nn.OutScores, 3)
		for _, s := range []*graph.Store{one, two} {
			for _, p := range a.Params() {
				out = append(out, golden.Grad[float32](t, s, p.Path)...)
			}
		}
		return out
	}
	first := results()
	require.NoError(t, j.Run.Bind(two, base))
	second := results()
	require.NotEqual(t, first[:3], second[:3])
	require.NoError(t, j.Run.Bind(one, base))
	require.Equal(t, first[:3], results()[:3])
	require.NoError(t, two.Grad.Clear(0, two.Grad.Size()))
	require.Equal(t, first, results())
}

// An encoder of single texts has no classifier: only what is asked for is trained.
func TestEmbedder(t *testing.T) {
	c, err := nn.ParseConfig([]byte(small))
	require.NoError(t, err)
	m := embedder{nn.NewEncoder(c, "")}
	cfg := small4(AllLinear)
	cfg.Bias = "none"
	a, err := Apply(m, cfg, 1)
	require.NoError(t, err)
	require.Equal(t, TaskEmbed, a.Config().Task)
	require.Len(t, a.Params(), 2*12)
	dir := t.TempDir()
	require.NoError(t, a.Save(dir, Source{}, golden.Store(t, golden.Ref[float32](t, 2), a.Params(), false)))
	o := object(t, dir)
	require.Equal(t, "FEATURE_EXTRACTION", o["task_type"])
	require.Nil(t, o["modules_to_save"])
	require.Nil(t, o["base_model_name_or_path"])
	f, err := Open(dir)
	require.NoError(t, err)
	defer f.Close()
	require.Contains(t, f.w.Names(), "base_model.model.encoder.layer.0.attention.self.query.lora_A.weight")
	_, err = f.Apply(smallCross(t))
	require.ErrorContains(t, err, `"base_model.model.encoder.layer.0`)
}

// Heads of several layers: what PEFT trains in full is no target.
func TestHeads(t *testing.T) {
	for kind, saved := range map[string][]string{
		"distilbert": {"pre_classifier.weight", "pre_classifier.bias", "classifier.weight", "classifier.bias"},
		"electra":    {"classifier.dense.weight", "classifier.dense.bias", "classifier.out_proj.weight", "classifier.out_proj.bias"},
	} {
		text := `{"model_type":"` + kind + `","hidden_size":8,"num_hidden_layers":1,"num_attention_heads":2,"intermediate_size":12,
			"dim":8,"n_layers":1,"n_heads":2,"hidden_dim":12,"embedding_size":4,"vocab_size":20,"max_position_embeddings":10,"type_vocab_size":2}`
		c, err := nn.ParseConfig([]byte(text))
		require.NoError(t, err)
		a, err := Apply(arch.NewCross(c, 1), small4(AllLinear), 1)
		require.NoError(t, err)
		var full []string
		for _, p := range a.Params() {
			if !strings.Contains(p.Path, ".lora_") {
				full = append(full, p.Path)
			}
		}
		require.Equal(t, saved, full)
		require.NotContains(t, strings.Join(a.Config().Targets, " "), "classifier")
		_, err = Apply(arch.NewCross(c, 1), Config{Rank: 1, Alpha: 1, TargetPattern: ".*"}, 1)
		if kind == "distilbert" {
			require.ErrorContains(t, err, `module "pre_classifier" would be trained in full and through an adapter`)
		} else {
			require.NoError(t, err)
		}
	}
}

func TestApplyErrors(t *testing.T) {
	for want, cfg := range map[string]Config{
		`target "quary" matches no module; the nearest names are query, `:                                                    small4("key", "quary"),
		`target "selv.query" matches no module; the nearest names are self.query, `:                                          small4("selv.query"),
		`target "attention" matches no module; the nearest names are `:                                                       small4("attention"),
		`target "classifier" matches only modules that are excluded, trained in full or in other layers, such as classifier`: small4("key", "classifier"),
		`target pattern "query" matches no module; modules are named as bert.encoder.layer.0.attention.self.query`:           {Rank: 1, Alpha: 1, TargetPattern: "query"},
		`target pattern "(?!x)" is no regular expression that RE2 reads`:                                                     {Rank: 1, Alpha: 1, TargetPattern: "(?!x)"},
		`rank is 0, below 1`: {Alpha: 1, Targets: []string{"key"}},
		`rank 9 for "bert.encoder.layer.0.attention.self.key", which is (8,8): the rank is at most 8`: {Rank: 9, Alpha: 1, Targets: []string{"key"}},
		`alpha +Inf: want a finite number`:                                           {Rank: 1, Alpha: math.Inf(1), Targets: []string{"key"}},
		`alpha NaN: want a finite number`:                                            {Rank: 1, Alpha: 1, Targets: []string{"key"}, AlphaPattern: map[string]float64{"key": math.NaN()}},
		`rank for "key" is -1, below 1`:                                              {Rank: 1, Alpha: 1, Targets: []string{"key"}, RankPattern: map[string]int{"key": -1}},
		`pattern "kee" for a rank or alpha matches no module with an adapter`:        {Rank: 1, Alpha: 1, Targets: []string{"key"}, RankPattern: map[string]int{"kee": 1}},
		`kind "lokr" is not supported, only [lora dora ia3 allora dynamic moe-lora]`: {Kind: "lokr", Rank: 1, Alpha: 1, Targets: []string{"key"}},
		`dropout 1 is not in [0,1)`:                                                  {Rank: 1, Alpha: 1, Targets: []string{"key"}, Dropout: 1},
		`bias "some" is none of`:                                                     {Rank: 1, Alpha: 1, Targets: []string{"key"}, Bias: "some"},
		`task "CAUSAL_LM" is none of`:                                                {Rank: 1, Alpha: 1, Targets: []string{"key"}, Task: "CAUSAL_LM"},
		`no targets: name the modules to adapt, or "all-linear"`:                     {Rank: 1, Alpha: 1},
		`both targets and a target pattern`:                                          {Rank: 1, Alpha: 1, Targets: []string{"key"}, TargetPattern: "key"},
		`target "all-linear" does not stand beside others`:                           small4("key", AllLinear),
		`layers do not go with a target pattern`:                                     {Rank: 1, Alpha: 1, TargetPattern: ".*key", Layers: []int{0}},
		`a pattern of layers without layers`:                                         {Rank: 1, Alpha: 1, Targets: []string{"key"}, LayersPattern: []string{"layer"}},
		`target "key" matches only modules that are excluded, trained in full or in other layers, such as bert.encoder.layer.1`: {Rank: 1, Alpha: 1, Targets: []string{"key"}, Layers: []int{2}},
		`module to save "scores" is in no module's path`:                                                                        {Rank: 1, Alpha: 1, Targets: []string{"key"}, ModulesToSave: []string{"scores"}},
		`an empty name among ["key" ""]`:                                                                                        small4("key", ""),
	} {
		m := smallCross(t)
		_, err := Apply(m, cfg, 1)
		require.ErrorContains(t, err, want)
		require.True(t, strings.HasPrefix(err.Error(), "lora: ") && !strings.Contains(err.Error(), "\n"))
		require.Len(t, m.Params(), 41)
		for _, p := range m.Params() {
			require.True(t, p.Trainable)
		}
	}
	m := smallCross(t)
	_, err := Apply(m, small4("key"), 1)
	require.NoError(t, err)
	_, err = Apply(m, small4("key"), 1)
	require.ErrorContains(t, err, `module "bert.encoder.layer.0.attention.self.key" has an adapter already`)
}

func TestYAML(t *testing.T) {
	cfg := Defaults()
	require.NoError(t, yaml.UnmarshalWithOptions([]byte(`{kind: lora, rank: 4, alpha: 8, targets: [query, value], rank_pattern: {layer.0.query: 2}}`), &cfg, yaml.Strict()))
	require.Equal(t, Config{Kind: "lora", Rank: 4, Alpha: 8, Targets: []string{"query", "value"}, Bias: "none", RankPattern: map[string]int{"layer.0.query": 2}}, cfg)
}

// A model that differs from the adapter's is refused, and stays as it was.
func TestOpenErrors(t *testing.T) {
	m := smallCross(t)
	a, err := Apply(m, small4("query"), 1)
	require.NoError(t, err)
	s := golden.Store(t, golden.Ref[float32](t, 2), a.Params(), false)
	save := func(edit func(map[string]checkpoints.Tensor)) *File {
		dir := t.TempDir()
		require.NoError(t, a.Save(dir, Source{Name: "org/base"}, s))
		w, err := checkpoints.OpenWeights(dir)
		require.Error(t, err)
		require.Nil(t, w)
		f, err := Open(dir)
		require.NoError(t, err)
		ts := map[string]checkpoints.Tensor{}
		for _, n := range f.w.Names() {
			ts[n], err = f.w.Tensor(n)
			require.NoError(t, err)
		}
		edit(ts)
		var list []checkpoints.Tensor
		for _, x := range ts {
			list = append(list, x)
		}
		other := t.TempDir()
		require.NoError(t, checkpoints.CreateFile(other+"/"+checkpoints.AdapterFile, list, nil))
		require.NoError(t, os.WriteFile(other+"/"+configFile, []byte(contents(t, dir, configFile)), 0o600))
		require.NoError(t, f.Close())
		f, err = Open(other)
		require.NoError(t, err)
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	const q = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight"
	for want, edit := range map[string]func(map[string]checkpoints.Tensor){
		`there is no tensor "` + q + `"`: func(ts map[string]checkpoints.Tensor) { delete(ts, q) },
		`tensor "extra" has no place in the model: the adapter is for another base (it names "org/base")`: func(ts map[string]checkpoints.Tensor) {
			x, err := checkpoints.NewTensor("extra", []int{1}, []float32{1})
			require.NoError(t, err)
			ts["extra"] = x
		},
		`tensor "` + q + `" is [2 16], the model's is [4 8]`: func(ts map[string]checkpoints.Tensor) {
			x := ts[q]
			x.Shape = []int{2, 16}
			ts[q] = x
		},
	} {
		n := smallCross(t)
		_, err := save(edit).Apply(n)
		require.ErrorContains(t, err, want)
		require.Len(t, n.Params(), 41)
		require.True(t, n.Params()[0].Trainable)
	}
	n := smallCross(t)
	for _, p := range n.Params() {
		p.Created = strings.HasPrefix(p.Path, "bert.pooler")
	}
	_, err = save(func(map[string]checkpoints.Tensor) {}).Apply(n)
	require.ErrorContains(t, err, `neither the adapter nor the base has a tensor "base_model.model.bert.pooler.dense.weight"`)

	_, err = Open(t.TempDir())
	require.ErrorContains(t, err, configFile)
}
