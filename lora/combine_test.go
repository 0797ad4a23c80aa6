package lora

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/graph"
	"rung/nn/nntest/golden"
)

// savedAs is an adapter of smallCross with values of its own, saved and opened.
func savedAs(t *testing.T, c Config, seed uint64, edits ...func(a *Adapter)) *File {
	t.Helper()
	m := smallCross(t)
	a, err := Apply(m, c, seed)
	require.NoError(t, err)
	stir(a, seed)
	for _, edit := range edits {
		edit(a)
	}
	dir := t.TempDir()
	require.NoError(t, a.Save(dir, Source{Name: "org/base"}, golden.Store(t, golden.Ref[float32](t, 2), m.Params(), false)))
	f, err := Open(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

// deltas are ΔW of every module that has an adapter: merged weights less those of the base.
func deltas(t *testing.T, f *File) map[string][]float64 {
	t.Helper()
	m := smallCross(t)
	a, err := f.Apply(m)
	require.NoError(t, err)
	st := golden.Store(t, golden.Ref[float64](t, 2), m.Params(), false)
	out := map[string][]float64{}
	for _, s := range a.sites {
		d := make([]float64, s.base.W.Size())
		require.NoError(t, s.low.fold(valuesOf([]*graph.Store{st}), d, nil))
		out[s.slot.Path] = d
	}
	return out
}

func combined(t *testing.T, c Combination, parts ...Part) *File {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, c.Combine(dir, parts...))
	f, err := Open(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	require.Equal(t, Plain, f.Config.Kind)
	return f
}

// One adapter with weight 1 is itself, by every method, whatever its ranks and scales.
func TestCombineIsItself(t *testing.T) {
	for name, c := range map[string]Config{
		"lora": small4("query", "value"), "rslora": {Rank: 4, Alpha: 8, UseRSLoRA: true, Targets: []string{"query", "dense"}},
		"negative": {Rank: 2, Alpha: -3, Targets: []string{"key"}},
		"patterns": {Rank: 4, Alpha: 8, Targets: []string{"query", "key"}, RankPattern: map[string]int{"key": 2}, AlphaPattern: map[string]float64{"query": 3}},
	} {
		f := savedAs(t, c, 1)
		want := deltas(t, f)
		for _, method := range Methods() {
			comb := Combination{Method: method, Full: -1}
			if method == TIES {
				comb.Density = 1
			}
			got := deltas(t, combined(t, comb, Part{f, 1}))
			require.Len(t, got, len(want))
			for m, d := range want {
				require.Less(t, golden.Rel(got[m], d), 1e-6, "%s, %s: %s", name, method, m)
			}
		}
		empty := deltas(t, combined(t, Combination{Method: Cat, Full: -1}, Part{f, 0}))
		for m := range empty {
			require.Zero(t, slices.Max(empty[m]))
		}
	}
}

// Of several, cat is the sum of their updates, by weight; so is svd of the whole rank, and of less the nearest.
func TestCombineSums(t *testing.T) {
	a := savedAs(t, small4("query", "value"), 1)
	b := savedAs(t, Config{Rank: 2, Alpha: 3, UseRSLoRA: true, Targets: []string{"value", "key"}}, 2)
	parts := []Part{{a, .7}, {b, -1.3}}
	da, db := deltas(t, a), deltas(t, b)
	want := map[string][]float64{}
	for _, m := range append(sortedKeys(da), sortedKeys(db)...) {
		sum := make([]float64, 64)
		for i := range sum {
			if x := da[m]; x != nil {
				sum[i] += .7 * x[i]
			}
			if x := db[m]; x != nil {
				sum[i] -= 1.3 * x[i]
			}
		}
		want[m] = sum
	}
	for _, c := range []Combination{{Method: Cat}, {Method: SVD, Rank: 6}, {Method: SVD, Rank: 8}} {
		c.Full = 0
		got := deltas(t, combined(t, c, parts...))
		require.Len(t, got, len(want))
		for m, d := range want {
			require.Less(t, golden.Rel(got[m], d), 1e-6, "%+v: %s", c, m)
		}
	}
	for m, d := range deltas(t, combined(t, Combination{Method: SVD, Rank: 1}, parts...)) {
		values, rest := singular(want[m], 8, 8), 0.
		for _, v := range values[1:] {
			rest += v * v
		}
		off := 0.
		for i := range d {
			off += (d[i] - want[m][i]) * (d[i] - want[m][i])
		}
		require.InDelta(t, math.Sqrt(rest), math.Sqrt(off), 1e-5*values[0], m)
	}
	cat := combined(t, Combination{Method: Cat}, parts...)
	require.Equal(t, map[string]int{
		"bert.encoder.layer.0.attention.self.key": 2, "bert.encoder.layer.1.attention.self.key": 2,
		"bert.encoder.layer.0.attention.self.value": 6, "bert.encoder.layer.1.attention.self.value": 6,
	}, ranksOf(t, cat, 4))
}

// ranksOf are the ranks of modules, but for the usual one.
func ranksOf(t *testing.T, f *File, usual int) map[string]int {
	lows, err := f.lows()
	require.NoError(t, err)
	out := map[string]int{}
	for m, l := range lows {
		if r, _ := l.a.Dims(); r != usual {
			out[m] = r
		}
	}
	return out
}

// The sum of factors has the products of one's B and another's A; of equal adapters it is exact.
func TestCombineFactors(t *testing.T) {
	a, b := savedAs(t, small4("query"), 1), savedAs(t, small4("query"), 2)
	la, err := a.lows()
	require.NoError(t, err)
	lb, err := b.lows()
	require.NoError(t, err)
	got := deltas(t, combined(t, Combination{Method: Sum}, Part{a, .5}, Part{b, -2}))
	for m, d := range got {
		x, y := math.Sqrt(.5*2), math.Sqrt(2*2)
		want := make([]float64, len(d))
		A, B := make([]float64, 32), make([]float64, 32)
		for i := range A {
			A[i] = x*flat(la[m].a)[i] - y*flat(lb[m].a)[i]
			B[i] = x*flat(la[m].b)[i] + y*flat(lb[m].b)[i]
		}
		addProduct(want, B, A, 4, 1)
		require.Less(t, golden.Rel(d, want), 1e-6)
	}
	one := deltas(t, a)
	for m, d := range deltas(t, combined(t, Combination{Method: Sum}, Part{a, .25}, Part{a, .25})) {
		require.Less(t, golden.Rel(d, one[m]), 1e-6, "two quarters: √¼ + √¼ is 1")
	}
}

func TestTIES(t *testing.T) {
	// Trimmed to two of four; then element 0 agrees, 1 is one adapter's, 2 the greater sum's, 3 nobody's.
	x, y := []float64{3, -2, .1, 0}, []float64{1, .5, -4, .2}
	require.Equal(t, []float64{3, -2, 0, 0}, trim(x, .5))
	require.Equal(t, []float64{1, 0, -4, 0}, trim(y, .5))
	require.Equal(t, []float64{2, -2, 0, 0}, trim([]float64{2, -2, 2, 2}, .5), "of equals the first")
	require.Equal(t, []float64{(10*3 + 100*1) / 2., 10 * -2, 100 * -4, 0}, ties([][]float64{x, y}, []float64{10, 100}, .5))
	// Where signs are against each other the greater sum's counts alone.
	require.Equal(t, []float64{100 * -4}, ties([][]float64{{3}, {-4}}, []float64{10, 100}, 1))
	require.Equal(t, []float64{10 * 4}, ties([][]float64{{4}, {-4}}, []float64{10, 100}, 1), "a tie is positive, as in PEFT")
}

func TestCombineErrors(t *testing.T) {
	lora, other := savedAs(t, small4("query"), 1), savedAs(t, Config{Rank: 2, Alpha: 4, Targets: []string{"query"}}, 2)
	dora := savedAs(t, Config{Kind: DoRA, Rank: 2, Alpha: 4, Targets: []string{"query"}}, 2)
	ia3 := savedAs(t, Config{Kind: IA3, Targets: []string{"query"}}, 2)
	full := savedAs(t, Config{Rank: 4, Alpha: 8, Targets: []string{"query"}, ModulesToSave: []string{"pooler"}}, 2)
	elsewhere := savedAs(t, small4("query"), 3)
	elsewhere.Base.Name = "org/other"
	pissa := savedAs(t, small4("query"), 3)
	pissa.Config.Init = InitPiSSA
	for want, c := range map[string]struct {
		c     Combination
		parts []Part
	}{
		"no adapters": {Combination{Method: Cat}, nil},
		`method "mean" is none of cat, svd, linear, ties`:  {Combination{Method: "mean"}, []Part{{lora, 1}}},
		"rank 2: only svd takes one":                       {Combination{Method: Cat, Rank: 2}, []Part{{lora, 1}}},
		"density 0 is not in (0,1]":                        {Combination{Method: TIES}, []Part{{lora, 1}}},
		"density 0.5: only ties takes one":                 {Combination{Method: SVD, Density: .5}, []Part{{lora, 1}}},
		"weight NaN is no finite number":                   {Combination{Method: Cat}, []Part{{lora, math.NaN()}}},
		"weight 1e+39: single precision does not hold it":  {Combination{Method: Cat}, []Part{{lora, 1e39}}},
		"weight -1e-60: single precision does not hold it": {Combination{Method: Cat}, []Part{{lora, -1e-60}}},
		"there is no adapter 1 of 1":                       {Combination{Method: Cat, Full: 1}, []Part{{lora, 1}}},
		"adapters of kind dora have no sum":                {Combination{Method: Cat}, []Part{{lora, 1}, {dora, 1}}},
		"adapters of kind ia3 have no sum":                 {Combination{Method: Cat}, []Part{{ia3, 1}}},
		"its base is not the untouched one":                {Combination{Method: Cat}, []Part{{pissa, 1}}},
		`is for the base "org/other", `:                    {Combination{Method: Cat}, []Part{{lora, 1}, {elsewhere, 1}}},
		"ranks 4 and 2: linear wants equal ones":           {Combination{Method: Sum}, []Part{{lora, 1}, {other, 1}}},
		"do not train the same modules in full":            {Combination{Method: Cat, Full: -1}, []Part{{lora, 1}, {full, 1}}},
	} {
		err := c.c.Combine(t.TempDir(), c.parts...)
		require.ErrorContains(t, err, want)
		require.True(t, strings.HasPrefix(err.Error(), "lora: combine: ") && !strings.Contains(err.Error(), "\n"))
	}
	broken := savedAs(t, small4("query"), 2, func(a *Adapter) {
		a.sites[0].low.B.Init = func(dst []float32) error { dst[3] = float32(math.NaN()); return nil }
	})
	for _, c := range []Combination{{Method: Cat}, {Method: SVD}, {Method: Sum}, {Method: TIES, Density: .5}} {
		require.ErrorContains(t, c.Combine(t.TempDir(), Part{broken, 1}), `query.lora_B.weight" has a value that is not finite`)
	}
	mixture := savedAs(t, mixtures()["token"], 2)
	require.ErrorContains(t, Combination{Method: Cat}.Combine(t.TempDir(), Part{mixture, 1}), "of kind moe-lora have no sum: their routers choose")
	// A head that differs is refused, and taken from the one that is named.
	m := smallCross(t)
	a, err := Apply(m, small4("query"), 1)
	require.NoError(t, err)
	for _, p := range a.Params() {
		if p.Path == "classifier.weight" {
			p.Init = p.Normal(77, 1)
		}
	}
	dir := t.TempDir()
	require.NoError(t, a.Save(dir, Source{Name: "org/base"}, golden.Store(t, golden.Ref[float32](t, 2), m.Params(), false)))
	head, err := Open(dir)
	require.NoError(t, err)
	defer head.Close()
	parts := []Part{{lora, 1}, {head, 1}}
	require.ErrorContains(t, Combination{Method: Cat, Full: -1}.Combine(t.TempDir(), parts...),
		`tensor "base_model.model.classifier.weight", which is trained in full, differs between `)
	f := combined(t, Combination{Method: Cat, Full: 1}, parts...)
	x, err := f.matrix(prefix + "classifier.weight")
	require.NoError(t, err)
	y, err := head.matrix(prefix + "classifier.weight")
	require.NoError(t, err)
	require.Equal(t, flat(y), flat(x))
}

// Adapters of a model under names: each scores as it does alone, and none is in the way of another.
func TestNamed(t *testing.T) {
	be, b, m := golden.Ref[float32](t, 2), smallBatch(), smallCross(t)
	base := scores[float32](t, m, b, golden.Store(t, be, m.Params(), false))
	files := map[string]*File{
		"one": savedAs(t, small4("query"), 1), "two": savedAs(t, Config{Kind: DoRA, Rank: 2, Alpha: 3, Targets: []string{"dense"}}, 2),
		"three": savedAs(t, Config{Kind: IA3, Targets: []string{"key"}, ModulesToSave: []string{"pooler"}}, 3),
	}
	want := map[string][]float32{"": base}
	n := NewNamed(m)
	for name, f := range files {
		alone := smallCross(t)
		_, err := f.Apply(alone)
		require.NoError(t, err)
		want[name] = scores[float32](t, alone, b, golden.Store(t, be, alone.Params(), false))
		require.NoError(t, n.Load(name, f))
		require.Empty(t, n.Active())
	}
	require.Equal(t, []string{"one", "three", "two"}, n.Names())
	check := func(name string) {
		t.Helper()
		require.Equal(t, name, n.Active())
		require.Equal(t, want[name], scores[float32](t, m, b, golden.Store(t, be, m.Params(), false)), name)
	}
	check("")
	for _, name := range []string{"one", "two", "three", "", "three", "three", "one"} {
		require.NoError(t, n.Use(name))
		check(name)
	}
	require.NoError(t, n.Load("four", files["two"])) // the one in use stays
	check("one")
	require.ErrorContains(t, n.Use("five"), `lora: no adapter "five", only ["four" "one" "three" "two"]`)
	require.ErrorContains(t, n.Load("one", files["two"]), `there is an adapter "one" already`)
	require.ErrorContains(t, n.Load("", files["two"]), "without a name")
	check("one")
	broken := savedAs(t, small4("query"), 1)
	broken.Config.Targets = []string{"nothing"}
	require.ErrorContains(t, n.Load("five", broken), "matches no module")
	check("one")
	require.NoError(t, n.Delete("three"))
	check("one")
	require.NoError(t, n.Delete("one"))
	check("")
	require.Error(t, n.Delete("one"))
	require.Equal(t, "dora", n.Get("four").Summary().Kind)
}
