package train

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/data"
	"rung/nn"
	"rung/nn/graph"
	"rung/nn/loss"
	"rung/nn/nntest/golden"
	"rung/train/privacy"
	"rung/train/report"
)

// of is the examples, each of one of some users, whose queries are not side by side.
func of(users int, examples iter.Seq2[data.Example, error]) iter.Seq2[data.Example, error] {
	return func(yield func(data.Example, error) bool) {
		i := 0
		for x, err := range examples {
			x.User = fmt.Sprint("user", i*3%users)
			if i++; !yield(x, err) {
				return
			}
		}
	}
}

// encodedTiny is made-up queries as token ids.
func encodedTiny(t testing.TB, m ids, n int) *data.Encoded {
	e := &data.Encoded{}
	for x, err := range of(5, examples(n)) {
		require.NoError(t, err)
		x.Candidates = x.Candidates[:1+len(e.Units)%4]
		require.NoError(t, m.Encode(e, x))
		e.Units[len(e.Units)-1].User = x.User
	}
	return e
}

// Owners stay together whatever the budget of a micro-batch.
func TestOwnersStayTogether(t *testing.T) {
	m := newTiny()
	e, err := encodedTiny(t, m, 30).ByUser()
	require.NoError(t, err)
	everyone := make([]int, len(e.Units))
	for i := range everyone {
		everyone[i] = i
	}
	for _, budget := range []int{1, 50, 200, 1 << 20} {
		seen, at := map[int32]bool{}, 0
		for _, micro := range e.Split(everyone, budget) {
			for _, own := range e.Owned(micro) {
				o := e.Units[own[0]].Owner
				require.False(t, seen[o], "budget %d: owner %d in two micro-batches", budget, o)
				seen[o] = true
				at += len(own)
			}
		}
		require.Equal(t, len(everyone), at)
		require.Len(t, seen, 5)
	}
}

// private is a configuration with privacy for examples.
func privateConfig(t testing.TB) Config {
	c := config(t)
	c.Sampler, c.Window, c.WeightDecay = nil, 0, 0
	c.Privacy = &Privacy{Delta: 1e-3, Noise: .8, Clip: .5, Dev: "public"}
	return c
}

// What cannot be accounted for is refused, in a line that says why.
func TestPrivacyRefusals(t *testing.T) {
	for _, c := range []struct {
		want   string
		change func(c *Config)
		obj    nn.Objective
		noDev  bool
	}{
		{`privacy.unit: "team", want query, row or user`, func(c *Config) { c.Privacy.Unit = "team" }, nil, false},
		{`privacy.unit: query, but train.unit is row`, func(c *Config) { c.Unit = "row" }, nil, false},
		{`privacy.clipping: "none"`, func(c *Config) { c.Privacy.Clipping = "none" }, nil, false},
		{`privacy.clip: 0`, func(c *Config) { c.Privacy.Clip = 0 }, nil, false},
		{`privacy.clip: NaN`, func(c *Config) { c.Privacy.Clip = math.NaN() }, nil, false},
		{`privacy.delta: 1`, func(c *Config) { c.Privacy.Delta = 1 }, nil, false},
		{`privacy.delta: 0.04 for 30 units`, func(c *Config) { c.Privacy.Delta = .04 }, nil, false},
		{`privacy.epsilon: missing`, func(c *Config) { c.Privacy.Noise = 0 }, nil, false},
		{`privacy.epsilon: -1`, func(c *Config) { c.Privacy.Epsilon = -1 }, nil, false},
		{`privacy.noise: +Inf`, func(c *Config) { c.Privacy.Noise = math.Inf(1) }, nil, false},
		{`privacy.dev: "mine"`, func(c *Config) { c.Privacy.Dev = "mine" }, nil, false},
		{`evaluations would tell of the dev data`, func(c *Config) { c.Privacy.Dev = "" }, nil, false},
		{`a sampler of its own (in order)`, func(c *Config) { c.Sampler = data.InOrder{Batch: 3} }, nil, false},
		{`batch is 31, but there are 30 units (query)`, func(c *Config) { c.Batch = 31 }, nil, false},
		{`query "q0" has no user`, func(c *Config) { c.Privacy.Unit = "user" }, nil, false},
		{`compares a unit with others of its batch`, func(*Config) {}, batchLoss{}, false},
	} {
		conf := privateConfig(t)
		c.change(&conf)
		obj := c.obj
		if obj == nil {
			obj = loss.BCE{}
		}
		_, err := Start(context.Background(), newTiny(), obj, Data{examples(30), examples(10)}, conf)
		require.ErrorContains(t, err, c.want)
	}
}

// batchLoss says that it is of whole batches.
type batchLoss struct{ loss.BCE }

func (batchLoss) Name() string    { return "in-batch" }
func (batchLoss) Scope() nn.Scope { return nn.Batch }

// startPrivate starts a run and returns it.
func startPrivate(t testing.TB, c Config) *Run {
	t.Helper()
	r, err := Start(context.Background(), newTiny(), loss.BCE{}, Data{of(7, examples(60)), examples(10)}, c)
	require.NoError(t, err)
	return r
}

// some takes n steps of a run, without telling it that it has to stop, and closes it.
func some(t testing.TB, r *Run, n int) {
	t.Helper()
	for s := range r.Steps() {
		require.True(t, s.Withheld)
		if n--; n == 0 {
			break
		}
	}
	require.NoError(t, r.Err())
	require.NoError(t, r.Close())
}

// killed takes n steps, and returns a copy of the run's directory as it was then: as if it had been killed.
func killed(t testing.TB, r *Run, n int) (dir string) {
	t.Helper()
	for range r.Steps() {
		if n--; n == 0 {
			dir = filepath.Join(t.TempDir(), "killed")
			require.NoError(t, os.CopyFS(dir, os.DirFS(r.cfg.Out)))
			require.NoError(t, os.Chmod(filepath.Join(dir, privacy.Dir), 0o700))
			for _, f := range []string{"key", "ledger.jsonl"} {
				require.NoError(t, os.Chmod(filepath.Join(dir, privacy.Dir, f), 0o600))
			}
			break
		}
	}
	require.NoError(t, r.Err())
	require.NoError(t, r.Close())
	return dir
}

// privateState is the bytes of the saved tensors of a run with privacy.
func privateState(t testing.TB, out string) string {
	b, err := os.ReadFile(filepath.Join(out, privacy.Dir, "state", "state.safetensors"))
	require.NoError(t, err)
	return string(b)
}

// A run that stopped and went on ends with the same bits and spends the same, whatever the number of threads and the
// size of micro-batches, with units of each kind.
func TestPrivateResume(t *testing.T) {
	for _, unit := range []string{unitQuery, unitRow, unitUser} {
		t.Run(unit, func(t *testing.T) {
			c := privateConfig(t)
			c.Privacy.Unit, c.Epochs, c.Batch, c.SaveEvery = unit, 1, 4, 3
			if unit == unitUser {
				c.Epochs, c.Batch, c.Privacy.Delta = 6, 2, .1
			}
			r := startPrivate(t, c)
			total := r.Total()
			require.Greater(t, total, 8)
			whole := killed(t, r, 5)
			c.Resume = true
			go1 := c
			go1.Out, go1.Backend = whole, workers(t, 1)
			c.Backend = workers(t, 3)
			for range 2 {
				some(t, startPrivate(t, c), 2)
			}
			some(t, startPrivate(t, c), -1)
			r = startPrivate(t, go1)
			claim := r.Claim()
			some(t, r, -1)
			require.Equal(t, privateState(t, whole), privateState(t, c.Out))
			l, err := privacy.OpenLedger(c.Out)
			require.NoError(t, err)
			require.Equal(t, claim.Phases, l.Phases())
			require.Equal(t, int64(total), l.Phases()[0].Steps)
			require.NoError(t, l.Close())
		})
	}
}

// What is kept outside private tells nothing of a step, and has no key in it.
func TestNothingIsTold(t *testing.T) {
	c := privateConfig(t)
	r := startPrivate(t, c)
	require.Contains(t, r.Claim().String(), "The unit is a query with all its candidates; neighbouring data sets: add or remove one unit. There are 60 units")
	for s := range r.Steps() {
		require.Equal(t, Step{N: s.N, Total: s.Total, Epoch: s.Epoch, LR: s.LR, Withheld: true, Evaluation: s.Evaluation}, s)
	}
	require.NoError(t, r.Err())
	require.NoError(t, r.Close())
	secret, err := os.ReadFile(filepath.Join(c.Out, privacy.Dir, "key"))
	require.NoError(t, err)
	files := 0
	require.NoError(t, filepath.WalkDir(c.Out, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if filepath.Base(filepath.Dir(path)) != privacy.Dir || filepath.Base(path) != "key" {
			require.NotContains(t, string(b), string(secret), path)
			require.NotContains(t, strings.ToLower(string(b)), hex.EncodeToString(secret), path)
			files++
		}
		return err
	}))
	require.Greater(t, files, 6)
	b, err := os.ReadFile(filepath.Join(c.Out, report.File))
	require.NoError(t, err)
	require.NotRegexp(t, "loss|norm|seqs|tokens|seconds", string(b))
	require.Contains(t, string(b), `"metrics":{"MAP"`)
}

// Without the key steps are drawn anew and count again; where ε does not allow that, the run stops before.
func TestLostKey(t *testing.T) {
	for _, tight := range []bool{false, true} {
		c := privateConfig(t)
		r := startPrivate(t, c)
		claimed := *r.Claim().Epsilon
		c.Out = killed(t, r, 7) // of which the state has six
		require.NoError(t, os.Remove(filepath.Join(c.Out, privacy.Dir, "key")))
		c.Resume = true
		if tight {
			again, err := Start(context.Background(), newTiny(), loss.BCE{}, Data{of(7, examples(60)), examples(10)}, withEpsilon(c, claimed*1.0001))
			require.Nil(t, again)
			require.ErrorContains(t, err, "the configuration has changed: privacy")
			continue
		}
		r = startPrivate(t, c)
		require.Contains(t, fmt.Sprint(r.Warnings()), "1 steps are drawn anew and count twice")
		require.Greater(t, *r.Claim().Epsilon, claimed)
		require.Equal(t, int64(r.Total()+1), r.Claim().Steps)
		some(t, r, -1)
	}
}

// withEpsilon is c with the most that it may spend.
func withEpsilon(c Config, e float64) Config {
	p := *c.Privacy
	p.Epsilon = e
	c.Privacy = &p
	return c
}

// A budget that the steps which count twice would exceed is not exceeded.
func TestBudget(t *testing.T) {
	c := privateConfig(t)
	c.Privacy.Noise, c.Privacy.Epsilon = 0, 3
	r := startPrivate(t, c)
	require.LessOrEqual(t, *r.Claim().Epsilon, 3.)
	require.Greater(t, *r.Claim().Epsilon, 2.99)
	c.Out = killed(t, r, 7)
	require.NoError(t, os.Remove(filepath.Join(c.Out, privacy.Dir, "key")))
	c.Resume = true
	_, err := Start(context.Background(), newTiny(), loss.BCE{}, Data{of(7, examples(60)), examples(10)}, c)
	require.ErrorContains(t, err, "1 steps have to be drawn anew and count twice")
	require.ErrorContains(t, err, "of the 3 that privacy.epsilon allows")
	_, err = os.Stat(filepath.Join(c.Out, privacy.Dir, "key"))
	require.ErrorIs(t, err, fs.ErrNotExist, "what is refused leaves no key")

	c = privateConfig(t)
	c.Privacy.Noise, c.Privacy.Epsilon = .5, 1
	_, err = Start(context.Background(), newTiny(), loss.BCE{}, Data{of(7, examples(60)), examples(10)}, c)
	require.ErrorContains(t, err, "steps with σ 0.5 spend ε")
}

// A ledger that was cut, edited or is missing stops a run from going on.
func TestLedgerOfAnotherRun(t *testing.T) {
	c := privateConfig(t)
	some(t, startPrivate(t, c), 7)
	path := filepath.Join(c.Out, privacy.Dir, "ledger.jsonl")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	c.Resume = true
	for want, b := range map[string][]byte{
		"lines are missing": text[:bytes.IndexByte(text, '\n')+1],
		"ledger.jsonl:1":    append([]byte("x\n"), text...),
		"ledger.jsonl:3":    bytes.Replace(text, []byte(`"sigma":0.8`), []byte(`"sigma":9.8`), 1),
	} {
		require.NoError(t, os.WriteFile(path, b, 0o600))
		_, err := Start(context.Background(), newTiny(), loss.BCE{}, Data{of(7, examples(60)), examples(10)}, c)
		require.ErrorContains(t, err, want)
	}
}

// With all units in every step, next to no noise and norms that nothing reaches it is a run without privacy, update by
// update. An insecure seed claims nothing, and is the same every time.
func TestPrivateIsTraining(t *testing.T) {
	var paths []string
	learned := func(p *Privacy) (all [][]float32) {
		c := config(t)
		c.Epochs, c.Steps, c.Batch, c.Optimizer, c.Momentum, c.LR, c.Clip = 0, 12, 60, "sgd", .9, .1, 0
		c.KeepBest, c.Sampler, c.Privacy = "", data.InOrder{Batch: 60}, p
		if p != nil {
			c.Sampler = nil
		}
		r := startPrivate(t, c)
		require.Nil(t, r.Claim())
		read := func() (all [][]float32) {
			for _, g := range r.Store().Seg {
				v, err := graph.ReadWeight[float32](r.Store(), g.Path)
				require.NoError(t, err)
				all = append(all, v)
				paths = append(paths, g.Path)
			}
			return all
		}
		first := read()
		for range r.Steps() {
		}
		require.NoError(t, r.Err())
		for i, v := range read() { // what was learned is compared
			for k := range v {
				v[k] -= first[i][k]
			}
			all = append(all, v)
		}
		require.NoError(t, r.Close())
		_, err := os.Stat(filepath.Join(c.Out, privacy.Dir, "key"))
		require.ErrorIs(t, err, fs.ErrNotExist)
		return all
	}
	all := Privacy{Delta: 1e-3, Noise: 1e-12, Clip: 1e3, Dev: "public", InsecureSeed: true}
	want, got, again := learned(nil), learned(&all), learned(&all)
	require.Equal(t, got, again)
	for i := range want {
		if !golden.ZeroByTheory(paths[i]) {
			require.Less(t, golden.Rel(got[i], wide(want[i])), 2e-4, paths[i])
		}
	}
}

// The first update of a run is noise of the standard deviation σC/L where σ is large: as much as is told, no more, no less.
func TestPrivateNoise(t *testing.T) {
	c := privateConfig(t)
	c.Epochs, c.Steps, c.Batch, c.Optimizer, c.Momentum, c.LR, c.Schedule, c.Warmup = 0, 1, 6, "sgd", 0, 1, "constant", 0
	c.KeepBest, c.Privacy.Noise, c.Privacy.Clip = "", 200, .5
	r := startPrivate(t, c)
	require.Equal(t, 200., r.Claim().Phases[0].Sigma)
	before := map[string][]float32{}
	for _, g := range r.Store().Seg {
		v, err := graph.ReadWeight[float32](r.Store(), g.Path)
		require.NoError(t, err)
		before[g.Path] = v
	}
	for range r.Steps() {
	}
	require.NoError(t, r.Err())
	sum, n := 0., 0
	for _, g := range r.Store().Seg {
		v, err := graph.ReadWeight[float32](r.Store(), g.Path)
		require.NoError(t, err)
		for i, x := range v {
			z := float64(before[g.Path][i]-x) / (200 * .5 / 6)
			sum, n = sum+z*z, n+1
		}
	}
	require.NoError(t, r.Close())
	require.InDelta(t, 1, sum/float64(n), 5*math.Sqrt(2/float64(n))) // five standard deviations: 6e-7
}
