package lora

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/checkpoints"
	"rung/nn"
	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/graph"
	"rung/nn/nntest/golden"
)

// mixtures are one of each way to route and to balance.
func mixtures() map[string]Config {
	make1 := func(set func(c *Config, x *Experts)) Config {
		c := MixtureDefaults()
		c.Rank, c.Alpha, c.Targets, c.Mixture.Experts = 2, 4, []string{"query", "value", "output.dense"}, 4
		set(&c, &c.Mixture)
		return c
	}
	return map[string]Config{
		"token": make1(func(_ *Config, x *Experts) { x.BalanceWeight, x.ZLoss = .5, .1 }),
		"bias":  make1(func(_ *Config, x *Experts) { x.Balance, x.BiasRate = BalanceBias, .01 }),
		"all":   make1(func(_ *Config, x *Experts) { x.TopK, x.Balance, x.BalanceWeight = 4, BalanceTopK, .3 }),
		"sequence": make1(func(_ *Config, x *Experts) {
			x.Router, x.Balance, x.BalanceWeight = RouteSequence, BalanceImportance, .2
		}),
		"domain": make1(func(_ *Config, x *Experts) {
			x.Router, x.Balance, x.SharedExperts, x.Domains = RouteDomain, BalanceNone, 1, []string{"a", "b", "c"}
		}),
		"rank": make1(func(c *Config, x *Experts) {
			c.Rank, c.Alpha = 6, 3
			x.Router, x.Balance, x.BiasRate, x.TopK, x.Partition = RouteRank, BalanceBias, 1e-3, 3, 2
		}),
		"shared A": make1(func(_ *Config, x *Experts) { x.SharedA, x.Balance, x.TopK = true, BalanceMixtral, 1 }),
		"grouped":  make1(func(_ *Config, x *Experts) { x.Experts, x.Balance, x.BalanceWeight = 9, BalanceTopK, .5 }),
		"grouped sequence": make1(func(_ *Config, x *Experts) {
			x.Experts, x.TopK, x.Router, x.Balance = 5, 1, RouteSequence, BalanceNone
		}),
		"grouped domain": make1(func(_ *Config, x *Experts) {
			x.Experts, x.Router, x.Balance, x.Domains = 4, RouteDomain, BalanceNone, []string{"a", "b", "c", "d"}
		}),
		"grouped, shared A": make1(func(_ *Config, x *Experts) { x.Experts, x.SharedA, x.Balance, x.ZLoss = 8, true, BalanceNone, .1 }),
		"pooler": make1(func(c *Config, x *Experts) {
			c.Targets, x.Balance, x.ZLoss = []string{"pooler.dense", "query"}, BalanceNone, .3
			c.Task = TaskUnnamed
		}),
	}
}

// mixed is a job on smallBatch whose sequences are of the domains in turn.
func mixed[F host.Float](t testing.TB, be backend.Backend, m nn.Model, pl nn.Plan, b golden.Batch, domains []int32, stores ...*graph.Store) *golden.Job[F] {
	t.Helper()
	j := start[F](t, be, m, pl, b, stores...)
	for i, s := range b.Seqs {
		if x := j.Run.Ints(nn.OnAxis(nn.InDomain, backend.Tok)); x != nil {
			x[i] = domains[s]
		}
		if x := j.Run.Ints(nn.OnAxis(nn.InDomain, backend.Seq)); x != nil {
			x[s] = domains[s]
		}
	}
	for _, a := range []backend.Axis{backend.Tok, backend.Seq} {
		j.Set(nn.OnAxis(nn.InShare, a), 0, 1)
	}
	return j
}

var domains3 = []int32{0, 2, 1}

func mixedScores(t testing.TB, m nn.Model, b golden.Batch, stores ...*graph.Store) []float32 {
	t.Helper()
	return mixed[float32](t, stores[0].Backend(), m, nn.Plan{}, b, domains3, stores...).Result(t, nn.OutScores, len(b.Labels))
}

// A fresh mixture changes no score; a trained one does, and is taken out again.
func TestMixtureFresh(t *testing.T) {
	for name, cfg := range mixtures() {
		t.Run(name, func(t *testing.T) {
			be, b, m := golden.Ref[float32](t, 2), smallBatch(), smallCross(t)
			before := scores[float32](t, m, b, golden.Store(t, be, m.Params(), false))
			a, err := Apply(m, cfg, 1)
			require.NoError(t, err)
			require.Equal(t, Mixture, a.Summary().Kind)
			require.Equal(t, before, mixedScores(t, m, b, golden.Store(t, be, m.Params(), false)))
			shake(a, 2)
			require.NotEqual(t, before, mixedScores(t, m, b, golden.Store(t, be, m.Params(), false)))
			_, err = Apply(m, cfg, 1)
			require.ErrorContains(t, err, "has an adapter already")
			a.Remove()
			require.Equal(t, before, scores[float32](t, m, b, golden.Store(t, be, m.Params(), false)))
		})
	}
}

// total is what training minimises.
func total[F host.Float](t testing.TB, j *golden.Job[F]) float64 {
	sum := float64(j.Result(t, nn.OutLoss, 1)[0])
	for _, a := range []backend.Axis{backend.Tok, backend.Seq} {
		if name := nn.OnAxis(nn.OutPenalty, a); j.Program.Out[name] != (backend.Buf{}) {
			sum += float64(j.Out(t, name, 1)[0])
		}
	}
	return sum
}

// Gradients of loss and penalties together are central differences, with dropout; rewriting changes neither them, nor what
// stands for the gradient of a bias.
func TestMixtureGradients(t *testing.T) {
	for name, cfg := range mixtures() {
		t.Run(name, func(t *testing.T) {
			be, m := golden.Ref[float64](t, 2), smallCross(t)
			cfg.Dropout = .3
			a, err := Apply(m, cfg, 4)
			require.NoError(t, err)
			shake(a, 2)
			own, base := golden.Store(t, be, a.Params(), true), golden.Store(t, be, a.Base(), false)
			var jobs [2]*golden.Job[float64]
			var grads [2]map[string][]float64
			for k, plain := range []bool{true, false} {
				pl := bce
				pl.Plain, pl.Dropout = plain, true
				jobs[k], grads[k] = mixed[float64](t, be, m, pl, smallBatch(), domains3, own, base), map[string][]float64{}
				total(t, jobs[k])
				for _, p := range a.Params() {
					grads[k][p.Path] = golden.Grad[float64](t, own, p.Path)
				}
			}
			require.InDelta(t, total(t, jobs[0]), total(t, jobs[1]), 1e-12)
			for _, p := range a.Params() {
				require.Less(t, golden.Rel(grads[1][p.Path], grads[0][p.Path]), 1e-11, p.Path)
				if p.Sign != 0 {
					require.Greater(t, golden.Rel(grads[0][p.Path], make([]float64, p.Size())), 0., p.Path)
					continue
				}
				differences(t, own, p, grads[0][p.Path], 2e-8, func(write func()) float64 {
					write()
					return total(t, jobs[1])
				})
			}
		})
	}
}

// What is saved opens with equal scores and saves to the same bytes.
func TestMixtureSaveLoadSave(t *testing.T) {
	for name, cfg := range mixtures() {
		t.Run(name, func(t *testing.T) {
			be, b, m := golden.Ref[float32](t, 2), smallBatch(), smallCross(t)
			base := golden.Store(t, be, m.Params(), false)
			a, err := Apply(m, cfg, 1)
			require.NoError(t, err)
			shake(a, 5)
			own := golden.Store(t, be, a.Params(), false)
			first, second, src := t.TempDir(), t.TempDir(), Source{"org/base", "v1"}
			require.NoError(t, a.Save(first, src, own))
			require.Equal(t, "MOE_LORA", object(t, first)["peft_type"])
			f, err := Open(first)
			require.NoError(t, err)
			require.Equal(t, a.Config(), f.Config)
			n := smallCross(t)
			c, err := f.Apply(n)
			require.NoError(t, err)
			loaded := golden.Store(t, be, c.Params(), true)
			require.NoError(t, f.Close())
			require.Equal(t, mixedScores(t, m, b, own, base), mixedScores(t, n, b, loaded, base))
			require.NoError(t, c.Save(second, f.Base, loaded))
			for _, file := range []string{configFile, checkpoints.AdapterFile} {
				require.Equal(t, contents(t, first, file), contents(t, second, file))
			}
		})
	}
}

// A sequence's score is the same bits whatever it is scored with.
func TestMixtureAlone(t *testing.T) {
	for name, cfg := range mixtures() {
		t.Run(name, func(t *testing.T) {
			be, b, m := golden.Ref[float32](t, 2), smallBatch(), smallCross(t)
			a, err := Apply(m, cfg, 1)
			require.NoError(t, err)
			shake(a, 2)
			s := golden.Store(t, be, m.Params(), false)
			want := mixedScores(t, m, b, s)
			for i, y := range want {
				got := mixed[float32](t, be, m, nn.Plan{}, b.Part(i, i+1), domains3[i:], s).Result(t, nn.OutScores, 1)
				require.Equal(t, y, got[0])
			}
		})
	}
}

// Where one weight computes the same it is that weight; elsewhere merging says why not.
func TestMixtureMerge(t *testing.T) {
	be, b := golden.Ref[float32](t, 2), smallBatch()
	one := mixtures()["token"]
	one.Mixture.Experts, one.Mixture.TopK = 1, 1
	domain := mixtures()["domain"]
	domain.Mixture.Experts, domain.Mixture.SharedExperts, domain.Mixture.Domains = 3, 2, []string{"a"}
	shared := domain
	shared.Mixture.SharedA = true
	for name, cfg := range map[string]Config{"one": one, "one domain": domain, "one domain, one A": shared} {
		m := smallCross(t)
		a, err := Apply(m, cfg, 1)
		require.NoError(t, err)
		shake(a, 2)
		all := golden.Store(t, be, m.Params(), false)
		want := mixed[float32](t, be, m, nn.Plan{}, b, []int32{0, 0, 0}, all).Result(t, nn.OutScores, 3)
		ps, err := a.Merge(all)
		require.NoError(t, err)
		a.Remove()
		got := scores[float32](t, m, b, golden.Store(t, be, ps, false))
		for i := range want {
			require.InDelta(t, want[i], got[i], 1e-5, name)
		}
	}
	for name, by := range map[string]string{"token": "token", "sequence": "sequence", "domain": "domain", "rank": "token"} {
		m := smallCross(t)
		a, err := Apply(m, mixtures()[name], 1)
		require.NoError(t, err)
		_, err = a.Merge(golden.Store(t, be, m.Params(), false))
		require.ErrorContains(t, err, "experts by "+by+": no single weight computes the same")
	}
}

func TestMixtureErrors(t *testing.T) {
	nan := math.NaN()
	for want, set := range map[string]func(c *Config, x *Experts){
		"top_k is 5 of 4 experts":                          func(_ *Config, x *Experts) { x.TopK = 5 },
		"top_k is 0 of 4 experts":                          func(_ *Config, x *Experts) { x.TopK = 0 },
		"experts is 0, want 1 to 256":                      func(_ *Config, x *Experts) { x.Experts = 0 },
		"balance_weight is NaN, want a finite number":      func(_ *Config, x *Experts) { x.BalanceWeight = nan },
		"z_loss is +Inf, want a finite number":             func(_ *Config, x *Experts) { x.ZLoss = math.Inf(1) },
		"bias_rate is -1, want a finite number":            func(_ *Config, x *Experts) { x.BiasRate = -1 },
		"bias_rate is 0: balance bias would never":         func(_ *Config, x *Experts) { x.Balance, x.BiasRate = BalanceBias, 0 },
		`router is "tokens", want one of token, sequence,`: func(_ *Config, x *Experts) { x.Router = "tokens" },
		`balance is "aux", want one of none, switch`:       func(_ *Config, x *Experts) { x.Balance = "aux" },
		"shared_experts goes with router domain only":      func(_ *Config, x *Experts) { x.SharedExperts = 1 },
		"domains go with router domain only":               func(_ *Config, x *Experts) { x.Domains = []string{"a"} },
		"rank_partition goes with router rank only":        func(_ *Config, x *Experts) { x.Partition = 2 },
		"0 domains for 4 experts that are not shared":      func(_ *Config, x *Experts) { x.Router, x.Balance = RouteDomain, BalanceNone },
		`domain "a" is empty or named twice`: func(_ *Config, x *Experts) {
			x.Router, x.Balance, x.Experts, x.Domains = RouteDomain, BalanceNone, 2, []string{"a", "a"}
		},
		"router domain learns nothing":                      func(_ *Config, x *Experts) { x.Router, x.Experts, x.Domains = RouteDomain, 1, []string{"a"} },
		"none is left for a domain":                         func(_ *Config, x *Experts) { x.Router, x.SharedExperts = RouteDomain, 4 },
		"rank_partition is 3, which does not divide rank 2": func(_ *Config, x *Experts) { x.Router, x.Partition = RouteRank, 3 },
		"top_k is 3 of rank 2":                              func(_ *Config, x *Experts) { x.Router, x.TopK = RouteRank, 3 },
		"router rank is balanced by bias, or not":           func(_ *Config, x *Experts) { x.Router = RouteRank },
		"shared_a does not go with router rank":             func(_ *Config, x *Experts) { x.Router, x.SharedA = RouteRank, true },
		"rank_pattern does not go with router rank":         func(c *Config, x *Experts) { x.Router, c.RankPattern = RouteRank, map[string]int{"query": 1} },
		"rank is 0, below 1":                                func(c *Config, _ *Experts) { c.Rank = 0 },
		"alpha NaN: want a finite number":                   func(c *Config, _ *Experts) { c.Alpha = nan },
	} {
		c := mixtures()["token"]
		c.Mixture.ZLoss = 0
		set(&c, &c.Mixture)
		_, err := Apply(smallCross(t), c, 1)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "\n")
	}
}

// What privacy cannot allow says why.
func TestMixtureCouples(t *testing.T) {
	c := mixtures()
	for name, want := range map[string]string{"token": "balance switch", "bias": "balance bias", "sequence": "balance importance", "rank": "moves the biases", "pooler": "z_loss", "domain": ""} {
		got := c[name].Couples()
		require.Equal(t, want == "", got == "", name)
		require.True(t, strings.Contains(got, want), got)
	}
	free := c["token"]
	free.Mixture.Balance, free.Mixture.ZLoss = BalanceNone, 0
	require.Empty(t, free.Couples())
	require.Empty(t, Defaults().Couples())
	m := smallCross(t) // which a run asks
	a, err := Apply(m, c["token"], 1)
	require.NoError(t, err)
	require.Equal(t, c["token"].Couples(), m.Couples())
	a.Remove()
	require.Empty(t, m.Couples())
}

// PEFT's reader of plain adapters, which this package also has, takes no mixture; and no field may be missing.
func TestMixtureConfigFile(t *testing.T) {
	c := mixtures()["token"]
	b, err := encodeConfig(&c, Source{})
	require.NoError(t, err)
	got, _, err := parseConfig(b)
	require.NoError(t, err)
	require.Equal(t, c.Mixture, got.Mixture)
	_, _, err = parseConfig([]byte(strings.Replace(string(b), `"MOE_LORA"`, `"LORA"`, 1)))
	require.ErrorContains(t, err, "is not known, and may change what the adapter computes")
	_, _, err = parseConfig([]byte(strings.Replace(string(b), `"use_dora": false`, `"use_dora": true`, 1)))
	require.ErrorContains(t, err, "use_dora is true")
	_, _, err = parseConfig([]byte(strings.Replace(string(b), `"top_k"`, `"top"`, 1)))
	require.ErrorContains(t, err, "top_k is missing")
}

// A run that goes on with other settings of its routers is refused by the fingerprint.
func TestMixtureFingerprint(t *testing.T) {
	seen := map[string]bool{}
	for _, set := range []func(x *Experts){
		func(*Experts) {}, func(x *Experts) { x.ZLoss++ }, func(x *Experts) { x.BalanceWeight++ }, func(x *Experts) { x.BiasRate++ },
		func(x *Experts) { x.Balance = BalanceTopK }, func(x *Experts) { x.TopK++ },
	} {
		c := mixtures()["token"]
		set(&c.Mixture)
		a, err := Apply(smallCross(t), c, 1)
		require.NoError(t, err)
		seen[attached{a}.Fingerprint()] = true
	}
	require.Len(t, seen, 6)
}

// Many experts for each that a row goes to are grouped; few, and ranks as experts, are side by side.
func TestMixtureForm(t *testing.T) {
	for name, grouped := range map[string]bool{
		"token": false, "all": false, "sequence": false, "domain": false, "rank": false,
		"grouped": true, "grouped sequence": true, "grouped domain": true, "grouped, shared A": true,
	} {
		cfg := mixtures()[name]
		require.Equal(t, grouped, newMixture("l", nn.NewLinear("l", 8, 8, true), cfg.Rank, &cfg, 1, 1).grouped, name)
	}
}
