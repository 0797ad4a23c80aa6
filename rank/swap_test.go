package rank_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/lora"
	"rung/nn/arch"
	"rung/nn/nntest/archtest"
	"rung/rank"
)

// adapted saves an adapter of the model in base, whose values are moved.
func adapted(t testing.TB, base, name string, c lora.Config, seed uint64) string {
	t.Helper()
	m, err := arch.OpenCross(context.Background(), base, arch.Options{})
	require.NoError(t, err)
	defer m.Close()
	a, err := lora.Apply(m, c, seed)
	require.NoError(t, err)
	for _, p := range a.Params() {
		if strings.HasSuffix(p.Path, ".lora_B.weight") {
			p.Init = p.Normal(seed, .5)
		}
	}
	return save(t, m, opened(t, m), filepath.Join(filepath.Dir(base), name))
}

func low(rank int, targets ...string) lora.Config {
	return lora.Config{Rank: rank, Alpha: 8, Targets: targets}
}

// Adapters take each other's place: scores are those of a ranker that is opened with it, and one of the same shape
// compiles nothing.
func TestSwap(t *testing.T) {
	ctx := context.Background()
	for name, set := range map[string]func(*archtest.Spec){"a base with a head": cross, "a base without": func(*archtest.Spec) {}} {
		t.Run(name, func(t *testing.T) {
			base := write(t, set)
			one, two := adapted(t, base, "one", low(4, "query"), 1), adapted(t, base, "two", low(4, "query"), 2)
			wide := adapted(t, base, "wide", low(2, "query", "dense"), 3)
			dora := low(4, "query")
			dora.Kind = lora.DoRA
			rows := adapted(t, base, "rows", dora, 4)
			scores := func(r *rank.Ranker) []float32 {
				t.Helper()
				s, err := r.Score(ctx, "who is the moon", passages)
				require.NoError(t, err)
				return s
			}
			want := map[string][]float32{}
			for _, dir := range []string{one, two, wide, rows} {
				want[dir] = scores(open(t, dir, rank.Options{}))
			}
			require.NotEqual(t, want[one], want[two])

			r := open(t, one, rank.Options{})
			require.Equal(t, want[one], scores(r))
			compiled := r.Programs()
			require.NoError(t, r.Swap(ctx, two))
			require.Equal(t, want[two], scores(r))
			require.Equal(t, compiled, r.Programs(), "the same shape compiles nothing")
			require.NoError(t, r.Swap(ctx, wide))
			require.Equal(t, want[wide], scores(r))
			more := r.Programs()
			require.Greater(t, more, compiled)
			for _, dir := range []string{one, wide, two, two, wide} {
				require.NoError(t, r.Swap(ctx, dir))
				require.Equal(t, want[dir], scores(r), dir)
			}
			require.Equal(t, more, r.Programs(), "each shape compiles once")
			require.NoError(t, r.Swap(ctx, rows))
			require.Equal(t, want[rows], scores(r))

			if err := r.Swap(ctx, ""); name == "a base without" {
				require.ErrorContains(t, err, "by itself has no scores: it lacks ")
				require.Equal(t, want[rows], scores(r))
			} else {
				require.NoError(t, err)
				require.Equal(t, scores(open(t, base, rank.Options{})), scores(r))
				plain := open(t, base, rank.Options{}) // and a base takes adapters
				require.NoError(t, plain.Swap(ctx, two))
				require.Equal(t, want[two], scores(plain))
			}
		})
	}
}

// Mixtures that differ in what only training reads share programs; others do not. A ranker for a domain takes adapters that
// route by none, and none that do not know it.
func TestSwapMixtures(t *testing.T) {
	ctx := context.Background()
	base := write(t, cross)
	mixed := func(name string, seed uint64, set func(c *lora.Config, x *lora.Experts)) string {
		c := lora.MixtureDefaults()
		c.Rank, c.Targets, c.Mixture.Experts = 2, []string{"query"}, 3
		set(&c, &c.Mixture)
		return adapted(t, base, name, c, seed)
	}
	one := mixed("one", 1, func(*lora.Config, *lora.Experts) {})
	two := mixed("two", 2, func(c *lora.Config, x *lora.Experts) {
		c.Dropout, x.Balance, x.BalanceWeight, x.ZLoss, x.BiasRate = .2, lora.BalanceTopK, .5, .1, .2
	})
	top := mixed("top", 3, func(_ *lora.Config, x *lora.Experts) { x.TopK = 1 })
	domains := func(name string, of ...string) string {
		return mixed(name, 4, func(_ *lora.Config, x *lora.Experts) {
			x.Router, x.Balance, x.Domains = lora.RouteDomain, lora.BalanceNone, of
		})
	}
	abc, xyz := domains("abc", "a", "b", "c"), domains("xyz", "x", "y", "z")
	plain, left := adapted(t, base, "plain", low(2, "query"), 5), low(2, "query")
	left.Dropout = .3
	dropping := adapted(t, base, "dropping", left, 6)
	scores := func(r *rank.Ranker) []float32 {
		t.Helper()
		s, err := r.Score(ctx, "moon", passages)
		require.NoError(t, err)
		return s
	}
	for _, pair := range [][2]string{{one, two}, {plain, dropping}} {
		r := open(t, pair[0], rank.Options{})
		scores(r)
		n := r.Programs()
		require.NoError(t, r.Swap(ctx, pair[1]))
		require.Equal(t, scores(open(t, pair[1], rank.Options{})), scores(r))
		require.Equal(t, n, r.Programs(), "what scoring does not read compiles nothing")
		require.NoError(t, r.Swap(ctx, top))
		require.Equal(t, scores(open(t, top, rank.Options{})), scores(r))
		require.Greater(t, r.Programs(), n)
	}

	r := open(t, abc, rank.Options{Domain: "b"})
	want := scores(r)
	require.ErrorContains(t, r.Swap(ctx, xyz), `domain "b": the adapter knows x, y, z`)
	require.Equal(t, want, scores(r))
	require.NoError(t, r.Swap(ctx, plain))
	require.Equal(t, scores(open(t, plain, rank.Options{})), scores(r))
	require.NoError(t, r.Swap(ctx, abc))
	require.Equal(t, want, scores(r))
	_, err := rank.Open(ctx, plain, rank.Options{Domain: "b"})
	require.ErrorContains(t, err, `domain "b" was given, but nothing routes by it`)
}

// What does not fit is refused in one line, and the old adapter goes on.
func TestSwapRefused(t *testing.T) {
	ctx := context.Background()
	base := write(t, cross)
	one := adapted(t, base, "one", low(4, "query"), 1)
	other := write(t, func(s *archtest.Spec) { s.Labels, s.Seed = 1, 5 })
	foreign := adapted(t, other, "foreign", low(4, "query"), 1)
	narrow := write(t, func(s *archtest.Spec) { s.Labels, s.Layers = 1, 1 })
	deeper := adapted(t, narrow, "deeper", low(4, "query"), 1)
	broken := adapted(t, base, "broken", low(4, "query"), 2)
	require.NoError(t, os.Truncate(filepath.Join(broken, "adapter_model.safetensors"), 100))
	bi := write(t, func(s *archtest.Spec) { s.Pooling = "mean" })

	r := open(t, one, rank.Options{})
	want, err := r.Score(ctx, "moon", passages)
	require.NoError(t, err)
	for dir, says := range map[string]string{
		foreign: "but the adapter was trained on", deeper: "but the adapter was trained on", broken: "adapter_model.safetensors",
		bi: "a base was given, but this is no adapter", filepath.Join(base, "nowhere"): "nowhere",
	} {
		err := r.Swap(ctx, dir)
		require.ErrorContains(t, err, says)
		require.True(t, strings.HasPrefix(err.Error(), "rank: swap: ") && !strings.Contains(err.Error(), "\n"), err)
		got, err := r.Score(ctx, "moon", passages)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	m, err := arch.OpenCross(ctx, base, arch.Options{})
	require.NoError(t, err)
	defer m.Close()
	own, err := rank.New(m)
	require.NoError(t, err)
	require.ErrorContains(t, own.Swap(ctx, one), "the ranker is of a model of this program")
	require.NoError(t, own.Close())
	gone, err := rank.Open(ctx, one, rank.Options{})
	require.NoError(t, err)
	require.NoError(t, gone.Close())
	require.ErrorContains(t, gone.Swap(ctx, one), "closed")
	require.NoError(t, gone.Close())
}

// While adapters are swapped each call sees one of them, whole.
func TestSwapUnderLoad(t *testing.T) {
	ctx := context.Background()
	base := write(t, cross)
	dirs := []string{adapted(t, base, "one", low(4, "query"), 1), adapted(t, base, "two", low(4, "query"), 2), adapted(t, base, "three", low(2, "dense"), 3)}
	var want []string
	for _, dir := range dirs {
		s, err := open(t, dir, rank.Options{}).Score(ctx, "moon", passages)
		require.NoError(t, err)
		want = append(want, fmt.Sprint(s))
	}
	r, err := rank.Open(ctx, dirs[0], rank.Options{})
	require.NoError(t, err)
	var wg sync.WaitGroup
	var stop atomic.Bool
	var seen [3]atomic.Int64
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				s, err := r.Score(ctx, "moon", passages)
				at := slices.Index(want, fmt.Sprint(s))
				if err != nil || at < 0 {
					t.Errorf("scores %v of no adapter: %v", s, err)
					return
				}
				seen[at].Add(1)
				_, _ = r.Labels(), r.Transform(s[0])
			}
		})
	}
	for i := range 12 {
		next := (i + 1) % 3
		require.NoError(t, r.Swap(ctx, dirs[next]))
		for n := seen[next].Load(); seen[next].Load() < n+2 && !t.Failed(); { // until somebody was served by it
			_, err := r.Score(ctx, "moon", passages[:1])
			require.NoError(t, err)
		}
	}
	stop.Store(true)
	wg.Wait()
	for i := range seen {
		require.NotZero(t, seen[i].Load())
	}
	require.NoError(t, r.Close())
}

// Several adapters become one that opens as any does.
func TestCombine(t *testing.T) {
	ctx := context.Background()
	base := write(t, cross)
	one, two := adapted(t, base, "one", low(4, "query"), 1), adapted(t, base, "two", low(2, "query", "dense"), 2)
	scores := func(dir string) []float32 {
		s, err := open(t, dir, rank.Options{}).Score(ctx, "moon", passages)
		require.NoError(t, err)
		return s
	}
	out := filepath.Join(t.TempDir(), "out")
	require.NoError(t, rank.Combine(ctx, []rank.Part{{Ref: one, Weight: 1}}, lora.Combination{Method: lora.Cat, Full: -1}, out, rank.Options{}, nil))
	want := scores(one)
	for i, s := range scores(out) {
		require.InDelta(t, want[i], s, 1e-5)
	}
	both := filepath.Join(t.TempDir(), "both")
	require.NoError(t, rank.Combine(ctx, []rank.Part{{Ref: one, Weight: .5}, {Ref: two, Weight: -1}}, lora.Combination{Method: lora.Cat}, both, rank.Options{}, nil))
	require.NotEqual(t, want, scores(both))
	other := adapted(t, write(t, func(s *archtest.Spec) { s.Labels, s.Seed = 1, 5 }), "other", low(4, "query"), 1)
	err := rank.Combine(ctx, []rank.Part{{Ref: one, Weight: 1}, {Ref: other, Weight: 1}}, lora.Combination{Method: lora.Cat}, filepath.Join(t.TempDir(), "x"), rank.Options{}, nil)
	require.ErrorContains(t, err, "are for different bases: the weights have the hashes ")
	err = rank.Combine(ctx, []rank.Part{{Ref: base, Weight: 1}}, lora.Combination{Method: lora.Cat}, filepath.Join(t.TempDir(), "x"), rank.Options{}, nil)
	require.ErrorContains(t, err, "is no adapter: there is nothing to combine")
}

// What is claimed of parts is handed on, and what that makes of them stands in the result; nothing is dropped unseen.
func TestCombineClaims(t *testing.T) {
	ctx := context.Background()
	base := write(t, cross)
	one, two := adapted(t, base, "one", low(4, "query"), 1), adapted(t, base, "two", low(2, "query"), 2)
	claim := func(dir, claim string) {
		m, err := arch.OpenCross(ctx, base, arch.Options{})
		require.NoError(t, err)
		defer m.Close()
		_, err = lora.Apply(m, low(2, "query"), 3)
		require.NoError(t, err)
		m.Claim(json.RawMessage(claim))
		save(t, m, opened(t, m), dir)
	}
	three := filepath.Join(t.TempDir(), "three")
	claim(three, `{"epsilon":3}`)
	parts := []rank.Part{{Ref: one, Weight: 1}, {Ref: three, Weight: 2}}
	sum := lora.Combination{Method: lora.Cat}
	out := filepath.Join(t.TempDir(), "out")
	require.ErrorContains(t, rank.Combine(ctx, parts, sum, out, rank.Options{}, nil), "three claims privacy, and nothing says what")
	require.NoDirExists(t, out)
	require.NoError(t, rank.Combine(ctx, parts, sum, out, rank.Options{}, func(parts []json.RawMessage) (json.RawMessage, error) {
		require.Empty(t, parts[0])
		require.JSONEq(t, `{"epsilon":3}`, string(parts[1]))
		return json.RawMessage(`{"epsilon":null}`), nil
	}))
	card, err := arch.ReadCard(out)
	require.NoError(t, err)
	require.JSONEq(t, `{"epsilon":null}`, string(card.Privacy))
	require.NoError(t, rank.Combine(ctx, []rank.Part{{Ref: one, Weight: 1}, {Ref: two, Weight: 1}}, sum, filepath.Join(t.TempDir(), "plain"), rank.Options{}, nil))
}
