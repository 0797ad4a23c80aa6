package train

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rung/checkpoints"
	"rung/data"
	"rung/lora"
	"rung/nn"
	"rung/nn/arch"
	"rung/nn/backend"
	"rung/nn/backend/cpu"
	"rung/nn/backend/host"
	"rung/nn/backend/philox"
	"rung/nn/graph"
	"rung/nn/loss"
	"rung/nn/nntest/golden"
	"rung/nn/nntest/shared"
	"rung/train/report"
)

// ids is a cross-encoder whose texts are token ids: "5 6 7".
type ids struct{ *arch.Cross }

func tinyConfig() nn.Config {
	return nn.Config{ModelType: "bert", Layers: 2, Hidden: 16, Heads: 2, FF: 32, Vocab: 50, Positions: 40, Types: 2, Embedding: 16, Eps: 1e-12, Dropout: .1, AttnDrop: .1, HeadDrop: .1, InitStd: .2}
}

func newTiny() ids {
	m := ids{arch.NewCross(tinyConfig(), 1)}
	for _, p := range m.Params() {
		if p.Init == nil {
			p.Init = p.Normal(3, .2)
		}
	}
	return m
}

func (m ids) Encode(e *data.Encoded, x data.Example) error {
	parse := func(s string) (v []int32, err error) {
		for f := range strings.FieldsSeq(s) {
			n, err := strconv.Atoi(f)
			if err != nil {
				return nil, err
			}
			v = append(v, int32(n))
		}
		return v, nil
	}
	q, err := parse(x.Query)
	if err != nil {
		return err
	}
	u := data.Unit{ID: x.ID, User: x.User, Query: data.None}
	for i, c := range x.Candidates {
		p, err := parse(c.Text)
		if err != nil {
			return err
		}
		u.Seqs = append(u.Seqs, e.Add(x.ID, int32(i), append(append([]int32{}, q...), p...), len(q)))
		u.IDs, u.Labels = append(u.IDs, c.ID), append(u.Labels, c.Label)
	}
	e.Units = append(e.Units, u)
	return nil
}

func (m ids) Fingerprint() string { return "tiny" }

func (m ids) Save(dir string, s *graph.Store) error {
	var ts []checkpoints.Tensor
	for _, p := range m.Params() {
		v, err := graph.ReadWeight[float32](s, p.Path)
		if err != nil {
			return err
		}
		t, err := checkpoints.NewTensor(p.Path, p.Dims, v)
		if err != nil {
			return err
		}
		ts = append(ts, t)
	}
	return checkpoints.CreateFile(filepath.Join(dir, checkpoints.ModelFile), ts, nil)
}

// examples are made-up queries: a candidate is relevant if it has the query's second token.
func examples(n int) iter.Seq2[data.Example, error] {
	return func(yield func(data.Example, error) bool) {
		for i := range n {
			draw := func(k int) int { return 5 + int(philox.Uint64(9, "examples", uint64(i*100+k))%40) }
			q := draw(0)
			x := data.Example{ID: fmt.Sprint("q", i), Query: fmt.Sprintf("1 %d 2", q)}
			for c := range 4 {
				t, y := draw(10+c), float32(0)
				if c == i%4 {
					t, y = q, 1
				}
				x.Candidates = append(x.Candidates, data.Candidate{ID: fmt.Sprint("d", c), Text: fmt.Sprintf("%d %d %d 2", t, draw(20+c), draw(30+c)), Label: y})
			}
			if !yield(x, nil) {
				return
			}
		}
	}
}

func workers(t testing.TB, n int) backend.Backend {
	p := host.NewPool(n)
	t.Cleanup(p.Close)
	be, err := cpu.On(p, os.Getenv(cpu.Variable))
	require.NoError(t, err)
	return be
}

// alone is a backend whose programs run call after call, none beside another.
type alone struct{ backend.Backend }

func (b alone) Encode(calls []backend.Call, bind backend.Binding) (backend.Exec, error) {
	x, err := b.Backend.Encode(calls, bind)
	if err == nil {
		x.(backend.Tracer).Trace(func(int, time.Duration) {})
	}
	return x, err
}

func config(t testing.TB) Config {
	c := Defaults()
	c.Epochs, c.Batch, c.Window, c.LR, c.MicroTokens = 3, 12, 2, 3e-3, 40
	c.Metrics, c.KeepBest, c.EvalEvery, c.SaveEvery = []string{"MAP"}, "MAP", 4, 3
	c.Out = filepath.Join(t.TempDir(), "run")
	return c
}

func all(t testing.TB, r *Run) (steps []Step) { return until(t, r, 0) }

// until takes so many steps of a run, or with 0 all that are left.
func until(t testing.TB, r *Run, stop int) (steps []Step) {
	for s := range r.Steps() {
		s.Seconds = 0
		if steps = append(steps, s); len(steps) == stop {
			break
		}
	}
	require.NoError(t, r.Err())
	return steps
}

// whole is the steps of a run to its end, from where it stopped if c resumes.
func whole(t testing.TB, d Data, c Config) []Step {
	t.Helper()
	r, err := Start(context.Background(), newTiny(), loss.BCE{}, d, c)
	require.NoError(t, err)
	steps := all(t, r)
	require.NoError(t, r.Close())
	return steps
}

func TestLearns(t *testing.T) {
	c := config(t)
	c.Epochs, c.LR = 12, 1e-2
	r, err := Start(context.Background(), newTiny(), loss.BCE{}, Data{examples(60), examples(20)}, c)
	require.NoError(t, err)
	steps := all(t, r)
	require.Len(t, steps, r.Total())
	require.NoError(t, r.Close())
	first, last := steps[0].Loss, steps[len(steps)-1]
	t.Logf("%d steps, loss %.3f to %.3f, %v", len(steps), first, last.Loss, last.Evaluation.Values)
	require.Less(t, last.Loss, first*.7)
	require.Greater(t, last.Evaluation.Values["MAP"], .75)

	recs, err := report.Read(filepath.Join(c.Out, report.File))
	require.NoError(t, err)
	n := 0
	for _, rec := range recs {
		if rec.Loss != nil {
			n++
		}
	}
	require.Equal(t, len(steps), n)
	for _, name := range []string{"best", "last", "state"} {
		_, err := checkpoints.Verify(filepath.Join(c.Out, name))
		require.NoError(t, err)
	}
}

// finalState is the bytes of the saved state's tensors.
func finalState(t testing.TB, out string) string {
	b, err := os.ReadFile(filepath.Join(out, "state", "state.safetensors"))
	require.NoError(t, err)
	return string(b)
}

// The number of workers changes no bit of what is learned, nor does what runs side by side.
func TestWorkersChangeNothing(t *testing.T) {
	var want string
	var steps []Step
	for _, w := range []int{1, 2, 3, 7, -2} {
		c := config(t)
		if w > 0 {
			c.Backend = workers(t, w)
		} else {
			c.Backend = alone{workers(t, -w)}
		}
		r, err := Start(context.Background(), newTiny(), loss.Pairwise{}, Data{examples(30), examples(10)}, c)
		require.NoError(t, err)
		got := all(t, r)
		require.NoError(t, r.Close())
		if w == 1 {
			want, steps = finalState(t, c.Out), got
		}
		require.Equal(t, steps, got, "%d workers", w)
		require.Equal(t, want, finalState(t, c.Out), "%d workers", w)
	}
}

func TestSetupErrors(t *testing.T) {
	bad := func(change func(c *Config, d *Data), want string) {
		t.Helper()
		c, d := config(t), Data{examples(12), examples(4)}
		change(&c, &d)
		_, err := Start(context.Background(), newTiny(), loss.BCE{}, d, c)
		require.ErrorContains(t, err, want)
	}
	bad(func(c *Config, d *Data) { c.LR = 0 }, "lr is 0")
	bad(func(c *Config, d *Data) { c.LR = math.NaN() }, "lr is NaN")
	bad(func(c *Config, d *Data) { c.Schedule = "step" }, `schedule is "step", want one of linear`)
	bad(func(c *Config, d *Data) { c.Epochs = 0 }, "nothing to do")
	bad(func(c *Config, d *Data) { c.Batch = 0 }, "batch is 0")
	bad(func(c *Config, d *Data) { c.Epochs = math.MaxInt }, "updates, at most")
	bad(func(c *Config, d *Data) { c.Epochs, c.Steps = 0, math.MaxInt }, "updates, at most")
	bad(func(c *Config, d *Data) { d.Train = examples(0) }, "train data: no examples")
	bad(func(c *Config, d *Data) { d.Train = nil }, "no training data")
	bad(func(c *Config, d *Data) { c.Memory = 1000 }, "MiB of memory")
	bad(func(c *Config, d *Data) { c.Metrics = []string{"MAQ"}; c.KeepBest = "" }, "MAQ")
	bad(func(c *Config, d *Data) { c.Groups = []Group{{Match: "(", LR: 1}} }, "group")
	bad(func(c *Config, d *Data) {
		d.Train = func(yield func(data.Example, error) bool) { yield(data.Example{}, errors.New("f:3: bad row")) }
	}, "f:3: bad row")
}

// A loss that is not finite stops before the weights change, and names step and tensor.
func TestNotFinite(t *testing.T) {
	m := newTiny()
	for _, p := range m.Params() {
		if p.Path == "classifier.weight" {
			p.Init = func(dst []float32) error {
				for i := range dst {
					dst[i] = 3e38
				}
				return nil
			}
		}
	}
	c := config(t)
	r, err := Start(context.Background(), m, loss.MSE{}, Data{examples(12), examples(4)}, c)
	require.NoError(t, err)
	defer r.Close()
	for range r.Steps() {
		t.Fatal("a step was taken")
	}
	require.ErrorIs(t, r.Err(), ErrNotFinite)
	require.ErrorContains(t, r.Err(), "step 1")
	v, err := graph.ReadWeight[float32](r.Store(), "classifier.weight")
	require.NoError(t, err)
	require.EqualValues(t, float32(3e38), v[0])
}

// golden/optim: twenty updates of a tiny BERT, with and without accumulation.
func TestTrajectories(t *testing.T) {
	in := golden.Pack(t, golden.File(t, "optim", "batches.safetensors"))
	var want map[string]struct {
		LR  float64
		F32 struct {
			Losses []float64
			Norms  []float64 `json:"grad_norms_before_clip"`
			LRs    []float64 `json:"lr_used"`
		}
	}
	golden.JSON(t, shared.Path(t, "golden", "optim", "trajectories.json"), &want)
	nc, w := golden.Config(t, shared.Path(t, "golden", "tiny")), golden.File(t, "tiny", "model.safetensors")

	for _, name := range []string{"full_ft", "full_ft_accum2", "lora", "lora_accum2"} {
		m := ids{arch.NewCross(nc, 1)}
		golden.Load(t, m.Params(), w)
		trained, nameOf := m.Params(), func(path string) string { return path }
		if strings.HasPrefix(name, "lora") {
			a, err := lora.Apply(m, lora.Config{Rank: 4, Alpha: 8, Targets: []string{"query", "value"}}, 1)
			require.NoError(t, err)
			trained, nameOf = a.Params(), peftName
			f := golden.File(t, "optim", "lora_init.safetensors")
			for _, p := range trained {
				p.Init = golden.Init(t, f, peftName(p.Path))
			}
		}
		c := Defaults()
		c.LR, c.Steps, c.Epochs, c.Warmup, c.Dropout, c.Unit = want[name].LR, 20, 0, 4, false, "row"
		c.Batch = 4
		if strings.HasSuffix(name, "accum2") {
			c.Batch, c.MicroTokens = 8, 30
		}
		c.Sampler = data.InOrder{Batch: c.Batch}
		r, err := Start(context.Background(), m, loss.BCE{}, Data{Train: goldenRows(in)}, c)
		require.NoError(t, err)
		for i, s := range all(t, r) {
			require.InDelta(t, want[name].F32.Losses[i], s.Loss, 2e-5, "%s: loss of update %d", name, i)
			require.InEpsilon(t, want[name].F32.Norms[i], s.GradNorm, 1e-3)
			require.InDelta(t, want[name].F32.LRs[i], s.LR, 1e-12)
		}
		final := golden.File(t, "optim", name+".final_f32.safetensors")
		for _, p := range trained {
			if golden.ZeroByTheory(p.Path) {
				continue // wanders
			}
			got, err := graph.ReadWeight[float32](r.Store(), p.Path)
			require.NoError(t, err)
			require.Less(t, golden.Rel(got, golden.Floats(t, final, nameOf(p.Path))), 1e-5, p.Path)
		}
		require.NoError(t, r.Close())
	}
}

// peftName is what PEFT calls a parameter of an adapted model.
func peftName(path string) string {
	module, name, _ := strings.Cut(path, ".lora_")
	if name == "" {
		i := strings.LastIndexByte(path, '.')
		return "base_model.model." + path[:i] + ".modules_to_save.default" + path[i:]
	}
	return "base_model.model." + module + ".lora_" + strings.Replace(name, ".", ".default.", 1)
}

// Evaluations without a better one end a run, which keeps its best.
func TestPatience(t *testing.T) {
	c := config(t)
	c.Epochs, c.EvalEvery, c.Patience, c.LR = 50, 2, 3, 1e-9 // learns nothing
	steps := whole(t, Data{examples(30), examples(10)}, c)
	require.Len(t, steps, 2*(1+c.Patience))
	require.True(t, steps[1].Evaluation.Best)
	require.False(t, steps[len(steps)-1].Evaluation.Best)
}

// Every optimiser learns, resumes exactly, and gives groups their rates.
func TestOptimizers(t *testing.T) {
	for _, name := range []string{"adamw", "adam", "amsgrad", "sgd", "adagrad"} {
		c := config(t)
		c.Optimizer, c.Momentum, c.Nesterov, c.Epochs = name, .9, true, 4
		c.Groups = []Group{{Match: "^classifier", LR: 2 * c.LR}}
		if name == "sgd" {
			c.LR = .05
		}
		d := Data{examples(30), examples(10)}
		want := whole(t, d, c)
		require.Less(t, want[len(want)-1].Loss, want[0].Loss, name)

		k := c
		k.Out = filepath.Join(t.TempDir(), "run")
		r, err := Start(context.Background(), newTiny(), loss.BCE{}, d, k)
		require.NoError(t, err)
		n := 0
		for range r.Steps() {
			if n++; n == 7 {
				break
			}
		}
		require.NoError(t, r.Close())
		k.Resume = true
		require.Equal(t, want[7:], whole(t, d, k), name)
		require.Equal(t, finalState(t, c.Out), finalState(t, k.Out), name)
	}
}

// goldenRows are the rows of golden/optim's batches, one query each.
func goldenRows(b golden.Batch) iter.Seq2[data.Example, error] {
	return func(yield func(data.Example, error) bool) {
		for i, y := range b.Labels {
			ids, types := b.Seq(i)
			if !yield(row(i, ids, types, float32(y)), nil) {
				return
			}
		}
	}
}

// row is query n with one candidate, as texts of token ids: those of type 0 are the query's.
func row(n int, ids, types []int32, label float32) data.Example {
	var parts [2][]string
	for j, id := range ids {
		parts[types[j]] = append(parts[types[j]], fmt.Sprint(id))
	}
	return data.Example{
		ID: fmt.Sprint(n), Query: strings.Join(parts[0], " "),
		Candidates: []data.Candidate{{ID: "d", Text: strings.Join(parts[1], " "), Label: label}},
	}
}

func TestSchedules(t *testing.T) {
	var want map[string]struct {
		Base   float64 `json:"base_lr"`
		Warmup float64
		Total  int
		LR     []float64 `json:"lr_at_update"`
	}
	golden.JSON(t, shared.Path(t, "golden", "optim", "schedules.json"), &want)
	for name, kind := range map[string]string{"linear": "linear", "cosine": "cosine", "linear_no_warmup": "linear", "cosine_100_w10": "cosine", "constant_warmup": "constant"} {
		w := want[name]
		require.NotEmpty(t, w.LR, name)
		c := Config{LR: w.Base, Schedule: kind, Warmup: w.Warmup}
		for n, lr := range w.LR {
			require.InDelta(t, lr, c.rates([]rate{{0, 1}}, n, w.Total)[0], 1e-12, "%s: update %d", name, n)
		}
	}
}
