package train

import (
	"context"
	"errors"
	"iter"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/data"
	"rung/nn"
	"rung/nn/arch"
	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/backend/ref"
	"rung/nn/graph"
	"rung/nn/loss"
)

// hooked is a model whose methods do something else first.
type hooked struct {
	ids
	scoring func() // before a program without dropout is built: that of evaluations
	saving  func(dir string) error
}

func (m hooked) Forward(p *nn.Pass) nn.Outputs {
	if m.scoring != nil && !p.Train {
		m.scoring()
	}
	return m.ids.Forward(p)
}

func (m hooked) Save(dir string, s *graph.Store) error {
	if m.saving != nil {
		if err := m.saving(dir); err != nil {
			return err
		}
	}
	return m.ids.Save(dir, s)
}

// A run that its patience ended is over: resuming it takes no step more.
func TestEarlyStopIsFinal(t *testing.T) {
	c := config(t)
	c.Epochs, c.EvalEvery, c.Patience, c.LR = 50, 2, 3, 1e-9
	d := Data{examples(30), examples(10)}
	n := len(whole(t, d, c))
	want := finalState(t, c.Out)

	c.Resume = true
	r, err := Start(context.Background(), newTiny(), loss.BCE{}, d, c)
	require.NoError(t, err)
	require.Equal(t, n, r.Done())
	require.Empty(t, all(t, r))
	require.NoError(t, r.Close())
	require.Equal(t, want, finalState(t, c.Out))
}

// Cancelled within an evaluation, or with a best checkpoint that cannot be written, a run keeps the step
// before and makes up for the evaluation when it is resumed.
func TestEvaluationCutOff(t *testing.T) {
	d := Data{examples(30), examples(10)}
	c := config(t)
	want := whole(t, d, c)
	disk := errors.New("the disk is full")
	for _, name := range []string{"cancelled", "disk"} {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		m := hooked{ids: newTiny()}
		wrong := disk
		if name == "cancelled" {
			wrong = context.Canceled
		}
		k := config(t)
		r, err := Start(ctx, m, loss.BCE{}, d, k)
		require.NoError(t, err)
		failed := false
		m.saving = func(dir string) error {
			if failed || name == "cancelled" {
				return nil
			}
			failed = true
			return disk
		}
		if name == "cancelled" {
			m.scoring = cancel
		}
		r.model = m
		n := 0
		for range r.Steps() {
			n++
		}
		require.ErrorIs(t, r.Err(), wrong, name)
		require.Equal(t, k.EvalEvery-1, n, name)
		require.Equal(t, k.EvalEvery, r.Done(), name)
		require.NoError(t, r.Close())

		k.Resume = true
		require.Equal(t, want[n:], whole(t, d, k), name)
		require.Equal(t, finalState(t, c.Out), finalState(t, k.Out), name)
		require.Equal(t, metrics(t, c.Out), metrics(t, k.Out), name)
		require.Equal(t, weights(t, c.Out, "best"), weights(t, k.Out, "best"), name)
	}
}

func weights(t testing.TB, out, name string) string {
	b, err := os.ReadFile(filepath.Join(out, name, "model.safetensors"))
	require.NoError(t, err)
	return string(b)
}

func TestClosedRun(t *testing.T) {
	c := config(t)
	r, err := Start(context.Background(), newTiny(), loss.BCE{}, Data{examples(12), nil}, without(c))
	require.NoError(t, err)
	require.NoError(t, r.Close())
	for range r.Steps() {
		t.Fatal("a step was taken")
	}
	require.ErrorContains(t, r.Err(), "closed")
	require.NoError(t, r.Close())
}

// without is c for a run without dev data.
func without(c Config) Config {
	c.KeepBest = ""
	return c
}

// lagged is a sampler with a setting of its own.
type lagged struct{ First int }

func (lagged) Name() string { return "lagged" }

func (s lagged) Epoch(e *data.Encoded, _ uint64, _ int) (out [][]int) {
	for i := s.First; i < len(e.Units); i++ {
		out = append(out, []int{i})
	}
	return out
}

func TestResumeRefusesOtherDraws(t *testing.T) {
	d := Data{examples(12), examples(4)}
	start := func(c Config, d Data) error {
		r, err := Start(context.Background(), newTiny(), loss.BCE{}, d, c)
		if err != nil {
			return err
		}
		for range r.Steps() {
			break
		}
		require.NoError(t, r.Err())
		return r.Close()
	}
	c := config(t)
	c.Seed, c.Sampler = 1<<60, lagged{0}
	require.NoError(t, start(c, d))
	c.Resume = true
	other := c
	other.Seed++ // the same as a float64
	require.ErrorContains(t, start(other, d), "seed (was 1152921504606846976, is 1152921504606846977)")
	other = c
	other.Sampler = lagged{3}
	require.ErrorContains(t, start(other, d), "batches")
	require.ErrorContains(t, start(c, Data{examples(12), examples(5)}), "the dev data")
	require.NoError(t, start(c, d))
}

// labelled is examples with another label for one candidate.
func labelled(n int, y float32) iter.Seq2[data.Example, error] {
	return func(yield func(data.Example, error) bool) {
		for x, err := range examples(n) {
			if x.ID == "q3" {
				x.Candidates[2].Label = y
			}
			if !yield(x, err) {
				return
			}
		}
	}
}

// What no update can learn from, or no evaluation can measure, is found before the first.
func TestUnfitData(t *testing.T) {
	nan := float32(math.NaN())
	inf := float32(math.Inf(1))
	for _, x := range []struct {
		o     nn.Objective
		y     float32
		wrong string
	}{
		{loss.BCE{}, nan, `query "q3", candidate "d2": label NaN: not a finite number`},
		{loss.MSE{}, inf, `query "q3", candidate "d2": label +Inf: not a finite number`},
		{loss.BCE{}, 2, `query "q3", candidate "d2": label 2: bce wants a number from 0 to 1`},
		{loss.BCE{}, -1, "label -1: bce wants"},
		{loss.Listwise{}, -1, "label -1: listwise wants"},
		{loss.CE{}, 3, `query "q3", candidate "d2": label 3: ce wants a whole number from 0 to 2`},
		{loss.CE{}, -1, "label -1: ce wants"},
		{loss.CE{}, .5, "label 0.5: ce wants"},
		{loss.MSE{}, -7, ""},
		{loss.CE{}, 2, ""},
	} {
		m := newTiny()
		if _, ok := x.o.(loss.CE); ok {
			m = ids{arch.NewCross(tinyConfig(), 3)}
		}
		r, err := Start(context.Background(), m, x.o, Data{Train: labelled(12, x.y)}, without(config(t)))
		if x.wrong != "" {
			require.ErrorContains(t, err, x.wrong)
			continue
		}
		require.NoError(t, err)
		for range r.Steps() {
			break
		}
		require.NoError(t, r.Err())
		require.NoError(t, r.Close())
	}

	_, err := Start(context.Background(), ids{arch.NewCross(tinyConfig(), 3)}, loss.CE{}, Data{examples(12), examples(4)}, config(t))
	require.ErrorContains(t, err, "no single score")
	_, err = Start(context.Background(), ids{arch.NewCross(tinyConfig(), 3)}, loss.BCE{}, Data{Train: examples(12)}, without(config(t)))
	require.ErrorContains(t, err, "bce")
	_, err = Start(context.Background(), newTiny(), loss.CE{}, Data{Train: examples(12)}, without(config(t)))
	require.ErrorContains(t, err, "ce wants a model of 2 classes or more")
	none := func(yield func(data.Example, error) bool) {
		for x := range examples(4) {
			for i := range x.Candidates {
				x.Candidates[i].Label = 0
			}
			if !yield(x, nil) {
				return
			}
		}
	}
	_, err = Start(context.Background(), newTiny(), loss.BCE{}, Data{examples(12), none}, config(t))
	require.ErrorContains(t, err, "dev data: no query has a positive")
	_, err = Start(context.Background(), newTiny(), loss.BCE{}, Data{examples(12), labelled(5, nan)}, config(t))
	require.ErrorContains(t, err, "dev data")
}

// inBatch stands for the losses that compare a unit with others of its batch.
type inBatch struct{ loss.BCE }

func (inBatch) Scope() nn.Scope { return nn.Batch }

func TestUnfitSettings(t *testing.T) {
	start := func(o nn.Objective, change func(c *Config)) error {
		c := config(t)
		change(&c)
		r, err := Start(context.Background(), newTiny(), o, Data{examples(12), examples(4)}, c)
		if err == nil {
			err = r.Close()
		}
		return err
	}
	require.ErrorContains(t, start(loss.BCE{}, func(c *Config) { c.Backend = ref.New[float64]() }), "float32")
	require.ErrorContains(t, start(loss.BCE{}, func(c *Config) { c.Groups = []Group{{Match: "clasifier", LR: 1}} }), `group "clasifier" matches no parameter that is trained`)
	require.ErrorContains(t, start(loss.BCE{}, func(c *Config) { c.KeepBest, c.Patience = "", 1 }), "patience")
	require.ErrorContains(t, start(loss.BCE{}, func(c *Config) { c.Sampler = lagged{-1} }), "unit -1")
	require.ErrorContains(t, start(loss.BCE{PosWeight: -1}, func(*Config) {}), "pos_weight")
	require.ErrorContains(t, start(inBatch{}, func(*Config) {}), "whole batches")
	require.NoError(t, start(inBatch{}, func(c *Config) { c.MicroTokens = 0 }))
}

// Units without candidates, and batches of nothing else, train nothing and break nothing.
func TestEmptyUnits(t *testing.T) {
	some := func(yield func(data.Example, error) bool) {
		for x := range examples(20) {
			if x.ID != "q5" && x.ID != "q11" {
				x.Candidates = nil
			}
			if !yield(x, nil) {
				return
			}
		}
	}
	for _, o := range []nn.Objective{loss.BCE{}, loss.Pairwise{}, loss.Listwise{}, loss.MSE{}} {
		c := config(t)
		c.Sampler, c.Epochs = data.InOrder{Batch: 2}, 2
		r, err := Start(context.Background(), newTiny(), o, Data{some, some}, c)
		require.NoError(t, err)
		steps := all(t, r)
		require.Len(t, steps, 20)
		require.Zero(t, steps[0].Loss)
		require.Zero(t, steps[0].GradNorm)
		require.NotZero(t, steps[2].Loss, o.Name())
		require.NoError(t, r.Close())
	}
}

// Where every gradient has a norm but all together have none that float32 holds, nothing changes.
func TestNormOverflow(t *testing.T) {
	p := []*nn.Param{{Path: "a", Dims: []int{1}, Trainable: true}, {Path: "b", Dims: []int{1}, Trainable: true}}
	for _, be := range []backend.Backend{workers(t, 1), ref.New[float32]()} {
		s, err := nn.NewStore(be, p, true)
		require.NoError(t, err)
		c := Defaults()
		o, err := newOptimizer(&c, s)
		require.NoError(t, err)
		for _, g := range s.Seg {
			require.NoError(t, s.Grad.WriteAt(host.Bytes([]float32{3e38}), int64(4*g.Off)))
		}
		_, err = o.step(&backend.Scalars{Clip: 1, LR: [8]float64{1}})
		require.ErrorIs(t, err, ErrNotFinite)
		for _, q := range p {
			v, err := graph.ReadWeight[float32](s, q.Path)
			require.NoError(t, err)
			require.Zero(t, v[0], be.Name())
		}
		require.NoError(t, o.close())
		require.NoError(t, s.Close())
	}
}
