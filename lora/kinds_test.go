package lora

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/checkpoints"
	"rung/nn"
	"rung/nn/arch"
	"rung/nn/graph"
	"rung/nn/nntest/golden"
)

// A row is a kind of adapter, or a start, with what is particular about it.
type kindRow struct {
	config Config
	exact  bool // a fresh adapter changes no bit of a score
	rounds bool // what is saved has other factors than what is trained: scores agree to rounding
	rule   bool // its gradients are not derivatives
}

func with4(edit func(c *Config)) Config {
	c := small4(AllLinear)
	c.Bias = BiasLoRAOnly
	edit(&c)
	return c
}

// kindRows is every kind and every start: a new one needs a row.
var kindRows = map[string]kindRow{
	"lora":          {config: with4(func(*Config) {}), exact: true},
	"lora, dropout": {config: with4(func(c *Config) { c.Rank, c.Dropout = 2, .4 }), exact: true},
	"rslora":        {config: with4(func(c *Config) { c.UseRSLoRA = true }), exact: true},
	"gaussian":      {config: with4(func(c *Config) { c.Init = InitGaussian }), exact: true},
	"orthogonal":    {config: with4(func(c *Config) { c.Init = InitOrthogonal })},
	"lora-fa":       {config: with4(func(c *Config) { c.FreezeA = true }), exact: true},
	"lora+":         {config: with4(func(c *Config) { c.LoRAPlus = 16 }), exact: true},
	"pissa":         {config: with4(func(c *Config) { c.Init = InitPiSSA }), rounds: true},
	"pissa, sizes":  {config: with4(func(c *Config) { c.Init, c.UseRSLoRA, c.RankPattern = InitPiSSA, true, map[string]int{"key": 2} }), rounds: true},
	"dora":          {config: with4(func(c *Config) { c.Kind = DoRA }), rule: true},
	"dora, no bias": {config: with4(func(c *Config) { c.Kind, c.Bias, c.UseRSLoRA = DoRA, BiasNone, true }), rule: true},
	"dora, dropout": {config: with4(func(c *Config) { c.Kind, c.Dropout = DoRA, .4 }), rule: true},
	"ia3":           {config: Config{Kind: IA3, Targets: []string{"key", "value", "intermediate.dense", "pooler.dense"}, Feedforward: []string{"intermediate.dense"}}, exact: true},
	"ia3, patterns": {config: Config{Kind: IA3, TargetPattern: `.*\.(query|dense)`, FeedforwardPattern: `.*output\.dense`}, exact: true},
	"allora":        {config: with4(func(c *Config) { c.Kind, c.Alpha, c.Eta = ALLoRA, 0, 2 }), exact: true, rule: true},
	"allora, sizes": {config: with4(func(c *Config) { c.Kind, c.Alpha, c.Eta, c.RankPattern = ALLoRA, 0, .5, map[string]int{"query": 1} }), exact: true, rule: true},
	"dynamic":       {config: with4(func(c *Config) { c.Kind, c.Shrink = Dynamic, .1 }), exact: true, rounds: true},
	"moe-lora":      {config: with4(oneOf), exact: true},
	"dynamic, drop": {config: with4(func(c *Config) { c.Kind, c.Shrink, c.UseRSLoRA, c.Dropout = Dynamic, .1, true, .3 }), exact: true, rounds: true},
}

// oneOf is a mixture of one expert, which can be merged: those of more have tests of their own.
func oneOf(c *Config) {
	c.Kind, c.Mixture = Mixture, Experts{Experts: 1, TopK: 1, Router: RouteToken, Balance: BalanceNone, Partition: 1}
}

func eachKind(t *testing.T, f func(t *testing.T, k kindRow)) {
	seen := map[string]bool{}
	for name, k := range kindRows {
		if seen[k.config.Kind], seen[k.config.Init] = true, true; k.config.Kind == "" {
			seen[Plain] = true
		}
		t.Run(name, func(t *testing.T) { f(t, k) })
	}
	for _, kind := range append(Kinds(), InitGaussian, InitOrthogonal, InitPiSSA) {
		require.True(t, seen[kind], "no row for %s", kind)
	}
}

// stir moves every parameter of the adapter away from where it starts; of the weights of ranks some are zero, in one
// module all.
func stir(a *Adapter, seed uint64) {
	zeros := 0
	for _, p := range a.Params() {
		was, std := p.Init, .2
		if strings.HasPrefix(p.Path, "classifier.") {
			continue
		}
		if strings.HasSuffix(p.Path, ".lora_w") {
			some := []float32{1.5, 0, -.5, 0}
			if zeros++; zeros == 3 {
				some = make([]float32, 4)
			}
			p.Init = func(dst []float32) error { copy(dst, some); return nil }
			continue
		}
		p.Init = func(dst []float32) error {
			noise := make([]float32, len(dst))
			if err := p.Normal(seed, std)(noise); err != nil {
				return err
			}
			if was != nil {
				if err := was(dst); err != nil {
					return err
				}
			}
			for i, x := range noise {
				dst[i] += x
			}
			return nil
		}
	}
}

func near[F float32 | float64](t *testing.T, want, got []F, most float64) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		require.InDelta(t, want[i], got[i], most)
	}
}

func TestKindsFresh(t *testing.T) {
	eachKind(t, func(t *testing.T, k kindRow) {
		be, b, m := golden.Ref[float32](t, 2), smallBatch(), smallCross(t)
		before := scores[float32](t, m, b, golden.Store(t, be, m.Params(), false))
		a, err := Apply(m, k.config, 1)
		require.NoError(t, err)
		after := scores[float32](t, m, b, golden.Store(t, be, m.Params(), false))
		if k.exact {
			require.Equal(t, before, after)
		}
		near(t, before, after, 1e-5)
		a.Remove()
		require.Equal(t, before, scores[float32](t, m, b, golden.Store(t, be, m.Params(), false)))

		// Stirred, it is another model; taken out, it is the base again, also where W was changed.
		_, err = Apply(m, k.config, 1)
		require.NoError(t, err)
		require.Error(t, func() error { _, err := Apply(m, k.config, 1); return err }())
	})
}

func TestKindsMerge(t *testing.T) {
	eachKind(t, func(t *testing.T, k kindRow) {
		be, b, m := golden.Ref[float32](t, 2), smallBatch(), smallCross(t)
		plain := scores[float32](t, m, b, golden.Store(t, be, m.Params(), false))
		a, err := Apply(m, k.config, 1)
		require.NoError(t, err)
		stir(a, 2)
		own, base := golden.Store(t, be, a.Own(), false), golden.Store(t, be, a.Base(), false)
		want := scores[float32](t, m, b, own, base)
		ps, err := a.Merge(own, base)
		require.NoError(t, err)
		a.Remove()
		merged := golden.Store(t, be, ps, false)
		near(t, want, scores[float32](t, m, b, merged), 1e-5)
		var moved float64
		for i := range want {
			moved = max(moved, math.Abs(float64(want[i]-plain[i])))
		}
		require.Greater(t, moved, 1e-3)
	})
}

// Saved, opened and saved again: the same bytes, the same scores, and all that was trained travels.
func TestKindsSave(t *testing.T) {
	eachKind(t, func(t *testing.T, k kindRow) {
		be, b := golden.Ref[float32](t, 2), smallBatch()
		create := func() *arch.Cross {
			m := smallCross(t)
			for _, p := range m.Params() {
				p.Created = p.Path == "bert.embeddings.position_embeddings.weight"
			}
			return m
		}
		m := create()
		a, err := Apply(m, k.config, 1)
		require.NoError(t, err)
		stir(a, 3)
		own, base := golden.Store(t, be, a.Own(), false), golden.Store(t, be, smallCross(t).Params(), false)
		want := scores[float32](t, m, b, own, base)
		first, second := t.TempDir(), t.TempDir()
		require.NoError(t, a.Save(first, Source{"org/base", "v1"}, own, base))

		f, err := Open(first)
		require.NoError(t, err)
		defer f.Close()
		require.Contains(t, f.w.Names(), prefix+"bert.embeddings.position_embeddings.weight")
		n := create()
		c, err := f.Apply(n)
		require.NoError(t, err)
		loaded := golden.Store(t, be, c.Own(), false)
		got := scores[float32](t, n, b, loaded, base)
		if k.rounds {
			near(t, want, got, 1e-5)
		} else {
			require.Equal(t, want, got)
		}
		require.NoError(t, c.Save(second, f.Base, loaded, base))
		for _, file := range []string{configFile, checkpoints.AdapterFile} {
			require.Equal(t, contents(t, first, file), contents(t, second, file))
		}
		for _, p := range m.Params() {
			if p.Trainable {
				_, ok := own.Find(p.Path)
				require.True(t, ok, p.Path)
			}
		}
	})
}

// What is rewritten computes what the plain graph does; the gradients of units add up to those of the batch.
func TestKindsRewrittenAndByUnit(t *testing.T) {
	eachKind(t, func(t *testing.T, k kindRow) {
		be, m, b := golden.Ref[float64](t, 2), smallCross(t), smallBatch()
		a, err := Apply(m, k.config, 1)
		require.NoError(t, err)
		stir(a, 4)
		own, base := golden.Store(t, be, a.Own(), true), golden.Store(t, be, a.Base(), false)
		gradients := func(pl nn.Plan) [][]float64 {
			pl.Objective, pl.Dropout = bce.Objective, true
			j := start[float64](t, be, m, pl, b, own, base)
			if pl.PerUnit {
				setUnits(j, []int{0, 1, 2, 3})
				for i := range 3 {
					j.Set(nn.InWeights, i, 1./3)
				}
			}
			out := [][]float64{j.Result(t, nn.OutScores, 3)}
			for _, p := range a.Params() {
				if !p.Trainable {
					continue
				}
				if !pl.PerUnit {
					out = append(out, golden.Grad[float64](t, own, p.Path))
					continue
				}
				sum := make([]float64, p.Size())
				for u := range 3 {
					g, err := graph.UnitGradient[float64](j.Run, p.Path, u)
					require.NoError(t, err)
					for i, x := range g {
						sum[i] += x
					}
				}
				out = append(out, sum)
			}
			return out
		}
		want := gradients(nn.Plan{Plain: true})
		for _, pl := range []nn.Plan{{}, {PerUnit: true}} {
			for i, g := range gradients(pl) {
				require.Less(t, golden.Rel(g, want[i]), 1e-11, "%+v: result %d", pl, i)
			}
		}
	})
}

// Gradients are central differences; DoRA's are those at a constant norm.
func TestKindsGradients(t *testing.T) {
	eachKind(t, func(t *testing.T, k kindRow) {
		if k.config.Kind == ALLoRA { // whose rule TestALLoRA has
			return
		}
		be, m := golden.Ref[float64](t, 2), smallCross(t)
		a, err := Apply(m, k.config, 4)
		require.NoError(t, err)
		stir(a, 2)
		own, base := golden.Store(t, be, a.Own(), true), golden.Store(t, be, a.Base(), false)
		pl := bce
		pl.Dropout = true
		j := start[float64](t, be, m, pl, smallBatch(), own, base)
		loss := func() float64 { return j.Result(t, nn.OutLoss, 1)[0] }
		loss()
		grads := map[string][]float64{}
		for _, p := range a.Params() {
			if p.Trainable {
				grads[p.Path] = golden.Grad[float64](t, own, p.Path)
			}
		}
		for _, p := range a.Params() {
			if grads[p.Path] == nil {
				continue
			}
			d := doraOf(a, p)
			differences(t, own, p, grads[p.Path], 1e-8, func(write func()) float64 {
				return d.atConstantNorm(t, own, base, func() float64 {
					write()
					return loss()
				})
			})
		}
	})
}

// differences compares the gradient of a parameter with central differences of the loss, at a few of its elements. at is
// the loss after write has changed the parameter.
func differences(t *testing.T, own *graph.Store, p *nn.Param, grad []float64, tol float64, at func(write func()) float64) {
	const h = 1e-6
	w, err := graph.ReadWeight[float64](own, p.Path)
	require.NoError(t, err)
	for i := 0; i < len(w); i += 1 + len(w)/4 {
		moved := func(by float64) float64 {
			v := append([]float64(nil), w...)
			v[i] += by
			return at(func() { require.NoError(t, graph.WriteWeight(own, p.Path, v)) })
		}
		d := (moved(h) - moved(-h)) / (2 * h)
		require.NoError(t, graph.WriteWeight(own, p.Path, w))
		require.InDelta(t, d, grad[i], tol, "%s[%d]", p.Path, i)
	}
}

// doraOf is the DoRA whose A or B p is, nil for none.
func doraOf(a *Adapter, p *nn.Param) *doraLinear {
	for _, s := range a.sites {
		if d, ok := s.layer.(*doraLinear); ok && (d.A == p || d.B == p) {
			return d
		}
	}
	return nil
}

// atConstantNorm calls f, which changes A or B and takes the loss, with M changed so that M/|W + Scale B A| stays.
func (d *doraLinear) atConstantNorm(t *testing.T, own, base *graph.Store, f func() float64) float64 {
	if d == nil {
		return f()
	}
	stores := []*graph.Store{own, base}
	norms := func() []float64 {
		w, err := read(stores, d.Base.W.Path)
		require.NoError(t, err)
		require.NoError(t, d.Linear.fold(func(p *nn.Param) ([]float64, error) { return read(stores, p.Path) }, w, nil))
		return lengths(w, d.Base.Out())
	}
	was := map[*nn.Param][]float64{}
	for _, p := range []*nn.Param{d.A, d.B, d.M} {
		v, err := read(stores, p.Path)
		require.NoError(t, err)
		was[p] = v
	}
	before := norms()
	f() // the weights are what they are to be
	m := append([]float64(nil), was[d.M]...)
	for i, n := range norms() {
		m[i] *= n / before[i]
	}
	require.NoError(t, graph.WriteWeight(own, d.M.Path, m))
	y := f()
	for p, v := range was {
		require.NoError(t, graph.WriteWeight(own, p.Path, v))
	}
	return y
}

// What does not go together is refused in one line, and leaves the model as it was.
func TestKindErrors(t *testing.T) {
	low := func(kind string, edit func(c *Config)) Config {
		c := DefaultsOf(kind)
		c.Targets = []string{"key"}
		if c.Feedforward = nil; c.Rank > 0 {
			c.Rank = 2
		}
		edit(&c)
		return c
	}
	for want, cfg := range map[string]Config{
		`rank is 3: init orthogonal wants an even one`:                                      low(Plain, func(c *Config) { c.Init, c.Rank = InitOrthogonal, 3 }),
		`init "olora" is none of gaussian, orthogonal, pissa`:                               low(Plain, func(c *Config) { c.Init = "olora" }),
		`init: pissa does not go with kind dora`:                                            low(DoRA, func(c *Config) { c.Init = InitPiSSA }),
		`init: pissa does not go with kind dynamic`:                                         low(Dynamic, func(c *Config) { c.Init = InitPiSSA }),
		`init pissa wants a positive alpha, not -1`:                                         low(Plain, func(c *Config) { c.Init, c.Alpha = InitPiSSA, -1 }),
		`rank 9 for "bert.encoder.layer.0.attention.self.key", which is (8,8)`:              low(Plain, func(c *Config) { c.Init, c.Rank = InitPiSSA, 9 }),
		`lora_plus is the learning rate of B over that of A, which freeze_a does not train`: low(Plain, func(c *Config) { c.FreezeA, c.LoRAPlus = true, 4 }),
		`lora_plus +Inf: want a positive number`:                                            low(Plain, func(c *Config) { c.LoRAPlus = math.Inf(1) }),
		`lora_plus -1: want a positive number`:                                              low(Plain, func(c *Config) { c.LoRAPlus = -1 }),
		`rank does not go with kind ia3`:                                                    low(IA3, func(c *Config) { c.Rank = 4 }),
		`alpha does not go with kind ia3`:                                                   low(IA3, func(c *Config) { c.Alpha = 4 }),
		`dropout does not go with kind ia3`:                                                 low(IA3, func(c *Config) { c.Dropout = .1 }),
		`bias does not go with kind ia3`:                                                    low(IA3, func(c *Config) { c.Bias = BiasAll }),
		`init does not go with kind ia3`:                                                    low(IA3, func(c *Config) { c.Init = InitGaussian }),
		`freeze_a does not go with kind ia3`:                                                low(IA3, func(c *Config) { c.FreezeA = true }),
		`feedforward "dense" is no target`:                                                  low(IA3, func(c *Config) { c.Feedforward = []string{"dense"} }),
		`feedforward does not go with kind lora`:                                            low(Plain, func(c *Config) { c.Feedforward = []string{"key"} }),
		`both feedforward names and a pattern`:                                              low(IA3, func(c *Config) { c.Feedforward, c.FeedforwardPattern = []string{"key"}, "x" }),
		`feedforward pattern "(" is no regular expression`:                                  low(IA3, func(c *Config) { c.FeedforwardPattern = "(" }),
		`alpha does not go with kind allora`:                                                low(ALLoRA, func(c *Config) { c.Alpha = 4 }),
		`dropout does not go with kind allora`:                                              low(ALLoRA, func(c *Config) { c.Dropout = .1 }),
		`eta 0: want a positive number`:                                                     low(ALLoRA, func(c *Config) { c.Eta = 0 }),
		`eta NaN: want a positive number`:                                                   low(ALLoRA, func(c *Config) { c.Eta = math.NaN() }),
		`eta does not go with kind lora`:                                                    low(Plain, func(c *Config) { c.Eta = 1 }),
		`shrink 0: want a positive number`:                                                  low(Dynamic, func(c *Config) { c.Shrink = 0 }),
		`shrink does not go with kind dora`:                                                 low(DoRA, func(c *Config) { c.Shrink = 1 }),
		`target "quary" matches no module`:                                                  low(IA3, func(c *Config) { c.Targets = []string{"quary"} }),
		`rank is 0, below 1`:                                                                low(ALLoRA, func(c *Config) { c.Rank = 0 }),
		`alpha NaN: want a finite number`:                                                   low(DoRA, func(c *Config) { c.Alpha = math.NaN() }),
	} {
		m := smallCross(t)
		_, err := Apply(m, cfg, 1)
		require.ErrorContains(t, err, want)
		require.True(t, strings.HasPrefix(err.Error(), "lora: ") && !strings.Contains(err.Error(), "\n"), err)
		require.Len(t, m.Params(), 41)
		for _, p := range m.Params() {
			require.True(t, p.Trainable)
		}
	}
	for _, kind := range Kinds() {
		require.NoError(t, DefaultsOf(kind).Check(), kind)
	}
	// What needs no model to be wrong is refused without one.
	for want, cfg := range map[string]Config{
		`alpha 1e+300: want a finite number that is not 0`:               low(Plain, func(c *Config) { c.Alpha = 1e300 }),
		`alpha 1e-300: want a finite number that is not 0`:               low(Plain, func(c *Config) { c.Alpha = 1e-300 }),
		`in single precision and over rank for "key" 4096, too`:          low(Plain, func(c *Config) { c.Alpha, c.RankPattern = 2e-43, map[string]int{"key": 4096} }),
		`alpha -1e+39: want a finite number that is not 0`:               low(DoRA, func(c *Config) { c.AlphaPattern = map[string]float64{"key": -1e39} }),
		`lora_plus 1e+300: want a positive number`:                       low(Plain, func(c *Config) { c.LoRAPlus = 1e300 }),
		`eta 1e+30: want a positive number`:                              low(ALLoRA, func(c *Config) { c.Eta = 1e30 }),
		`eta 1e-30: want a positive number`:                              low(ALLoRA, func(c *Config) { c.Eta = 1e-30 }),
		`shrink 1e+39: want a positive number`:                           low(Dynamic, func(c *Config) { c.Shrink = 1e39 }),
		`z_loss is 1e+300, want a finite number of 0 or more`:            low(Mixture, func(c *Config) { c.Mixture.ZLoss = 1e300 }),
		`rank is 3: init orthogonal wants an even one`:                   low(Plain, func(c *Config) { c.Init, c.Rank = InitOrthogonal, 3 }),
		`rank for "key" is 3: init orthogonal wants an even one`:         low(Plain, func(c *Config) { c.Init, c.RankPattern = InitOrthogonal, map[string]int{"key": 3} }),
		`init pissa wants a positive alpha, not -1`:                      low(Plain, func(c *Config) { c.Init, c.AlphaPattern = InitPiSSA, map[string]float64{"key": -1} }),
		`rank pattern "(" is no regular expression that RE2 reads`:       low(Plain, func(c *Config) { c.RankPattern = map[string]int{"(": 2} }),
		`alpha pattern "[\n" is no regular expression that RE2 reads`:    low(Plain, func(c *Config) { c.AlphaPattern = map[string]float64{"[\n": 2} }),
		`target pattern "*" is no regular expression that RE2 reads`:     low(Plain, func(c *Config) { c.Targets, c.TargetPattern = nil, "*" }),
		`module to save "a)" is no regular expression that RE2 reads: u`: low(Plain, func(c *Config) { c.ModulesToSave = []string{"a)"} }),
	} {
		err := cfg.Check()
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "\n")
	}
	// A weight that is not finite has no singular values.
	m := smallCross(t)
	a, err := Apply(m, low(Plain, func(c *Config) { c.Init = InitPiSSA }), 1)
	require.NoError(t, err)
	a.Remove()
	for _, p := range m.Params() {
		if strings.HasSuffix(p.Path, "key.weight") {
			p.Init = func(dst []float32) error { dst[0] = float32(math.Inf(1)); return nil }
		}
	}
	a, err = Apply(m, low(Plain, func(c *Config) { c.Init = InitPiSSA }), 1)
	require.NoError(t, err)
	_, err = nn.NewStore(golden.Ref[float32](t, 1), a.Own(), false)
	require.ErrorContains(t, err, "is a weight not finite?")
	require.NotContains(t, err.Error(), "\n")
}
