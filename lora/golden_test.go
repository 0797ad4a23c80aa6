package lora

import (
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/checkpoints"
	"rung/nn"
	"rung/nn/arch"
	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/graph"
	"rung/nn/nntest/golden"
	"rung/nn/nntest/shared"
)

// tiny is golden/tiny with its weights.
func tiny(t testing.TB) *arch.Cross {
	t.Helper()
	m := arch.NewCross(golden.Config(t, shared.Path(t, "golden", "tiny")), 1)
	golden.Load(t, m.Params(), golden.File(t, "tiny", "model.safetensors"))
	return m
}

func openGolden(t testing.TB, path ...string) *File {
	t.Helper()
	f, err := Open(shared.Path(t, append([]string{"golden"}, path...)...))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

var variants = []string{"lora", "rslora", "dora", "patterns", "all_linear_bias", "layers_1_only", "ia3"}

// Adapters that PEFT saved: logits, every gradient, merged weights.
func TestGolden(t *testing.T) {
	for _, v := range variants {
		t.Run(v+"/float64", func(t *testing.T) { testGolden[float64](t, v, 1e-9) })
		t.Run(v+"/float32", func(t *testing.T) { testGolden[float32](t, v, 1e-5) })
	}
}

func testGolden[F host.Float](t *testing.T, variant string, tol float64) {
	want := golden.File(t, "lora", variant, "expected.safetensors")
	b, be, m := golden.Pack(t, golden.File(t, "lora", "inputs.safetensors")), golden.Ref[F](t, 2), tiny(t)
	base := golden.Store(t, be, m.Params(), false)
	alone := scores[F](t, m, b, base)
	logits, grads := "logits_f64", "grad64."
	if variant == "ia3" { // of which only float32 results are kept
		logits, grads, tol = "logits", "grad.", 1e-5
	} else {
		for i, y := range golden.Floats(t, want, "logits_adapter_disabled") {
			require.InDelta(t, y, alone[i], 1e-6)
		}
	}
	a, err := openGolden(t, "lora", variant).Apply(m)
	require.NoError(t, err)
	own := golden.Store(t, be, a.Params(), true)
	for _, plain := range []bool{false, true} {
		pl := bce
		pl.Plain = plain
		j := start[F](t, be, m, pl, b, own, base)
		got := j.Result(t, nn.OutScores, len(b.Labels))
		if variant != "ia3" {
			require.InDelta(t, golden.Floats(t, want, "loss")[0], float64(j.Result(t, nn.OutLoss, 1)[0]), 1e-6)
		}
		for i, y := range golden.Floats(t, want, logits) {
			require.InDelta(t, y, got[i], 1e-6)
		}
		require.Less(t, golden.Rel(got, golden.Floats(t, want, logits)), tol)
		n := 0
		for _, p := range a.Params() {
			g := golden.Grad[F](t, own, p.Path)
			ref := golden.Floats(t, want, grads+peftName(a, p))
			if golden.ZeroByTheory(p.Path) {
				require.Less(t, golden.Rel(g, make([]float64, len(g))), 1e-6)
			} else {
				require.Less(t, golden.Rel(g, ref), tol, p.Path)
			}
			n++
		}
		require.Equal(t, count(want.Names(), grads), n)
	}
	testMerged[F](t, a, b, want, golden.File(t, "lora", variant, "merged_state_dict.safetensors"), own, base)
}

// testMerged compares merged weights, and the scores of a model that starts from them.
func testMerged[F host.Float](t *testing.T, a *Adapter, b golden.Batch, want, merged *checkpoints.File, stores ...*graph.Store) {
	ps, err := a.Merge(stores...)
	require.NoError(t, err)
	m := tiny(t)
	byPath := map[string]*nn.Param{}
	for _, p := range ps {
		v := make([]float32, p.Size())
		require.NoError(t, p.Init(v))
		ref := golden.Floats(t, merged, p.Path)
		for i, x := range v {
			require.InDelta(t, ref[i], x, 1e-6, p.Path)
		}
		byPath[p.Path] = p
	}
	require.Len(t, merged.Names(), len(ps))
	for _, p := range m.Params() {
		p.Init = byPath[p.Path].Init
	}
	got := scores[F](t, m, b, golden.Store(t, stores[0].Backend(), m.Params(), false))
	for i, y := range golden.Floats(t, want, "logits_merged") {
		require.InDelta(t, y, got[i], 1e-6)
	}
}

func count(names []string, begin string) (n int) {
	for _, s := range names {
		if strings.HasPrefix(s, begin) {
			n++
		}
	}
	return n
}

// What Save writes of an adapter of PEFT is what PEFT wrote: the tensors byte for byte, the same
// configuration.
func TestGoldenSave(t *testing.T) {
	var info map[string]struct {
		Trainable int
		Keys      []string
	}
	golden.JSON(t, shared.Path(t, "golden", "lora", "info.json"), &info)
	be := golden.Ref[float32](t, 2)
	for _, v := range variants {
		f, m := openGolden(t, "lora", v), tiny(t)
		require.Equal(t, Source{Name: "tiny"}, f.Base)
		a, err := f.Apply(m)
		require.NoError(t, err)
		if v != "ia3" { // of which the number was not kept
			require.Equal(t, info[v].Trainable, a.Summary().Trainable, v)
		}
		dir := t.TempDir()
		require.NoError(t, a.Save(dir, f.Base, golden.Store(t, be, a.Params(), false)))
		require.Equal(t, contents(t, f.dir, checkpoints.AdapterFile), contents(t, dir, checkpoints.AdapterFile), v)
		want, got := object(t, f.dir), object(t, dir)
		want["modules_to_save"] = []any{"classifier", "score"} // PEFT repeats names that are given to it
		require.Equal(t, want, got, v)
	}
}

func contents(t *testing.T, dir, name string) string {
	data, err := os.ReadFile(dir + "/" + name)
	require.NoError(t, err)
	return string(data)
}

func object(t *testing.T, dir string) (o map[string]any) {
	golden.JSON(t, filepath.Join(dir, configFile), &o)
	return o
}

// The adapter of golden/checkpoints opens on its base, and on no other.
func TestGoldenCheckpoint(t *testing.T) {
	f := openGolden(t, "checkpoints", "peft_adapter_cross_encoder")
	require.Equal(t, "../plain_bert_seqcls_1", f.Base.Name)
	c := golden.Config(t, shared.Path(t, "golden", "checkpoints", "plain_bert_seqcls_1"))
	_, err := f.Apply(arch.NewCross(c, 1))
	require.NoError(t, err)
	_, err = f.Apply(arch.NewCross(c, 3))
	require.ErrorContains(t, err, `tensor "base_model.model.classifier.weight" is [1 32], the model's is [3 32]`)
	require.ErrorContains(t, err, `(it names "../plain_bert_seqcls_1")`)
}

// On MiniLM as a cross-encoder: PEFT's 676,225 parameters, under its names and of its shapes.
func TestMiniLM(t *testing.T) {
	c := golden.Config(t, shared.Path(t, "models", "all-MiniLM-L6-v2"))
	want := golden.File(t, "replay", "lora", "initial.safetensors")
	for _, targets := range [][]string{{"query", "key", "value", "dense"}, {AllLinear}} {
		m := arch.NewCross(c, 1)
		cfg := Defaults()
		cfg.Targets = targets
		a, err := Apply(m, cfg, 1)
		require.NoError(t, err)
		s := a.Summary()
		require.Equal(t, 676_225, s.Trainable)
		require.Len(t, s.Modules, 37)
		require.Contains(t, s.String(), "lora on 37 modules: 676,225 of ")
		shapes := map[string][]int{}
		for _, p := range a.Params() {
			shapes["net."+peftName(a, p)] = p.Dims
		}
		require.Equal(t, want.Names(), slices.Sorted(maps.Keys(shapes)))
		for name, dims := range shapes {
			x, err := want.Tensor(name)
			require.NoError(t, err)
			require.Equal(t, x.Shape, dims, name)
		}
	}
}

// dpModel is golden/tiny with the adapter of golden/dp.
func dpModel(t *testing.T) (*arch.Cross, *Adapter, golden.Batch) {
	m, f := tiny(t), golden.File(t, "dp", "lora_params.safetensors")
	a, err := Apply(m, Config{Rank: 4, Alpha: 8, Targets: []string{"query", "value"}}, 0)
	require.NoError(t, err)
	require.Len(t, a.Params(), len(f.Names()))
	for _, p := range a.Params() {
		p.Init = golden.Init(t, f, peftName(a, p))
	}
	return m, a, golden.Pack(t, golden.File(t, "dp", "inputs.safetensors"))
}

// setUnits makes unit u the rows rows[u] to rows[u+1], each of weight 1 over their number.
func setUnits(j *golden.Job[float64], rows []int) {
	at := func(u int) int { return rows[min(u, len(rows)-1)] }
	for axis, first := range map[backend.Axis]func(int) int32{
		backend.Tok:  func(u int) int32 { return j.Batch.Offsets[at(u)] },
		backend.Seq:  func(u int) int32 { return int32(at(u)) },
		backend.Unit: func(u int) int32 { return int32(at(u)) },
	} {
		for u, x := 0, j.Run.Ints(graph.UnitRows(axis)); u < len(x); u++ {
			x[u] = first(u)
		}
	}
	for u := range len(rows) - 1 {
		for i := rows[u]; i < rows[u+1]; i++ {
			j.Set(nn.InWeights, i, 1/float64(rows[u+1]-rows[u]))
		}
	}
}

// Gradients of single units through an adapter are those of Opacus: rows as units, and queries.
func TestGoldenPerUnit(t *testing.T) {
	m, a, b := dpModel(t)
	be := golden.Ref[float64](t, 2)
	each, query := golden.File(t, "dp", "per_sample_grads.safetensors"), golden.File(t, "dp", "query_level.safetensors")
	pl := bce
	pl.PerUnit = true
	j := start[float64](t, be, m, pl, b, golden.Store(t, be, a.Params(), true), golden.Store(t, be, a.Base(), false))
	rows := []int{0, 1, 2, 3, 4, 5, 6, 7, 8}
	setUnits(j, rows)
	j.Result(t, nn.OutLoss, 1)
	for _, p := range a.Params() {
		want := golden.Floats(t, each, "f64."+peftName(a, p))
		for u := range 8 {
			g, err := graph.UnitGradient[float64](j.Run, p.Path, u)
			require.NoError(t, err)
			require.Less(t, golden.Rel(g, want[u*len(g):(u+1)*len(g)]), 1e-9, "%s of unit %d", p.Path, u)
		}
	}

	of := golden.Ints(t, query, "query_of_row")
	rows = []int{0}
	for i := range of {
		if i == len(of)-1 || of[i] != of[i+1] {
			rows = append(rows, i+1)
		}
	}
	setUnits(j, rows)
	j.Result(t, nn.OutLoss, 1)
	norms, factors := golden.Floats(t, query, "per_query_norm"), golden.Floats(t, query, "clip_factor")
	require.Len(t, norms, len(rows)-1)
	squares := make([]float64, len(norms))
	for _, p := range a.Params() {
		clipped := make([]float64, p.Size())
		for u, f := range factors {
			g, err := graph.UnitGradient[float64](j.Run, p.Path, u)
			require.NoError(t, err)
			for i, x := range g {
				squares[u] += x * x
				clipped[i] += f * x
			}
		}
		require.Less(t, golden.Rel(clipped, golden.Floats(t, query, "clipped_sum."+peftName(a, p))), 1e-9, p.Path)
	}
	for u, s := range squares {
		require.InEpsilon(t, norms[u], math.Sqrt(s), 1e-9)
	}
}

// Twenty updates of an adapter, by PyTorch's AdamW, from golden/optim's start.
func TestGoldenTrajectory(t *testing.T) {
	var info map[string]struct {
		F64 struct {
			Losses []float64
			Norms  []float64 `json:"grad_norms_before_clip"`
			LR     []float64 `json:"lr_used"`
		}
	}
	golden.JSON(t, shared.Path(t, "golden", "optim", "trajectories.json"), &info)
	want, first, batches := info["lora"].F64, golden.File(t, "optim", "lora_init.safetensors"), golden.Pack(t, golden.File(t, "optim", "batches.safetensors"))
	be, m := golden.Ref[float64](t, 2), tiny(t)
	a, err := Apply(m, Config{Rank: 4, Alpha: 8, Targets: []string{"query", "value"}}, 0)
	require.NoError(t, err)
	require.Len(t, a.Params(), len(first.Names()))
	for _, p := range a.Params() {
		p.Init = golden.Init(t, first, peftName(a, p))
	}
	own, base := golden.Store(t, be, a.Params(), true), golden.Store(t, be, a.Base(), false)
	moments := map[string][2][]float64{}
	for step, lr := range want.LR {
		j := start[float64](t, be, m, bce, batches.Part(4*step, 4*step+4), own, base)
		require.InDelta(t, want.Losses[step], j.Result(t, nn.OutLoss, 1)[0], 1e-9, "update %d", step)
		require.InDelta(t, want.Norms[step], update(t, a, own, moments, step, lr), 1e-8, "update %d", step)
		for after, file := range map[int]string{1: "lora.after_2_updates_f64.safetensors", 19: "lora.final_f64.safetensors"} {
			for _, p := range a.Params() {
				if step == after {
					w, err := graph.ReadWeight[float64](own, p.Path)
					require.NoError(t, err)
					require.Less(t, golden.Rel(w, golden.Floats(t, golden.File(t, "optim", file), peftName(a, p))), 1e-8, "%s: %s", file, p.Path)
				}
			}
		}
	}
	require.Len(t, want.LR, 20)
}

// update is one update of AdamW (Loshchilov and Hutter 2019) with gradients clipped to a norm of 1; it
// returns their norm before.
func update(t *testing.T, a *Adapter, s *graph.Store, moments map[string][2][]float64, step int, lr float64) float64 {
	var square float64
	grads := map[string][]float64{}
	for _, p := range a.Params() {
		g := golden.Grad[float64](t, s, p.Path)
		for _, x := range g {
			square += x * x
		}
		grads[p.Path] = g
	}
	const b1, b2 = .9, .999
	clip := min(1, 1/(math.Sqrt(square)+1e-6))
	c1, c2 := 1-math.Pow(b1, float64(step+1)), 1-math.Pow(b2, float64(step+1))
	for _, p := range a.Params() {
		w, err := graph.ReadWeight[float64](s, p.Path)
		require.NoError(t, err)
		mv := moments[p.Path]
		if mv[0] == nil {
			mv = [2][]float64{make([]float64, len(w)), make([]float64, len(w))}
			moments[p.Path] = mv
		}
		decay := .01
		if strings.HasSuffix(p.Path, "bias") {
			decay = 0
		}
		for i, g := range grads[p.Path] {
			g *= clip
			mv[0][i] = b1*mv[0][i] + (1-b1)*g
			mv[1][i] = b2*mv[1][i] + (1-b2)*g*g
			w[i] = w[i]*(1-lr*decay) - lr/c1*mv[0][i]/(math.Sqrt(mv[1][i])/math.Sqrt(c2)+1e-8)
		}
		require.NoError(t, graph.WriteWeight(s, p.Path, w))
	}
	return math.Sqrt(square)
}
