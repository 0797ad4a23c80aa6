package arch

import (
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/checkpoints"
	"rung/nn"
	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/device"
	"rung/nn/graph"
	"rung/nn/loss"
	"rung/nn/nntest/golden"
	"rung/nn/nntest/shared"
)

// job is a run with its store.
type job[F host.Float] struct {
	*golden.Job[F]
	s *graph.Store
}

// start compiles m for b plus spare capacity, and fills the inputs.
func start[F host.Float](t testing.TB, be backend.Backend, m nn.Model, pl nn.Plan, b golden.Batch, spareT, spareN int) job[F] {
	t.Helper()
	s := golden.Store(t, be, m.Params(), true)
	return job[F]{golden.Start[F](t, be, m, pl, b, spareT, spareN, s), s}
}

func (j job[F]) grad(t testing.TB, path string) []F {
	t.Helper()
	return golden.Grad[F](t, j.s, path)
}

func tiny(t testing.TB) (*Cross, golden.Batch) {
	m := NewCross(golden.Config(t, shared.Path(t, "golden", "tiny")), 1)
	golden.Load(t, m.Params(), golden.File(t, "tiny", "model.safetensors"))
	return m, golden.Pack(t, golden.File(t, "tiny", "inputs.safetensors"))
}

func TestTiny(t *testing.T) {
	t.Run("float64", func(t *testing.T) { testTiny[float64](t, 1e-9, 1e-12) })
	t.Run("float32", func(t *testing.T) { testTiny[float32](t, 1e-5, 1e-7) })
}

func testTiny[F host.Float](t *testing.T, tol, zero float64) {
	m, b := tiny(t)
	want, grads := golden.File(t, "tiny", "expected_f64.safetensors"), golden.File(t, "tiny", "grads_bce_f64.safetensors")
	be := golden.Ref[F](t, 2)
	for _, c := range []struct {
		plain          bool
		spareT, spareN int
	}{{plain: true}, {}, {spareT: 19, spareN: 3}} {
		j := start[F](t, be, m, nn.Plan{Objective: loss.BCE{}, Plain: c.plain}, b, c.spareT, c.spareN)
		j.Do(t)
		require.Less(t, golden.Rel(j.Out(t, nn.OutScores, 4), golden.Floats(t, want, "logits")), tol)
		require.Less(t, golden.Rel(j.Out(t, nn.OutLoss, 1), golden.Floats(t, want, "loss")), tol)
		worst := 0.0
		for _, p := range m.Params() {
			e, limit := golden.Rel(j.grad(t, p.Path), golden.Floats(t, grads, p.Path)), tol
			if golden.ZeroByTheory(p.Path) {
				limit = zero
			} else {
				worst = max(worst, e)
			}
			require.Less(t, e, limit, "%+v: gradient of %s", c, p.Path)
		}
		t.Logf("%+v: %d calls, arena %d of at least %d elements, worst gradient %.1e", c, len(j.Program.Calls), j.Program.Arena, j.Program.Bound, worst)
	}
}

// The last layer of a CLS-scored model computes one row a sequence: no feed-forward matmul reads the
// tokens there.
func TestRowSelectionIsPushedDown(t *testing.T) {
	m, b := tiny(t)
	j := start[float32](t, golden.Ref[float32](t, 1), m, nn.Plan{}, b, 0, 0)
	rows := map[backend.Axis]int{}
	for _, c := range j.Program.Calls {
		if c.Op == backend.MatNT {
			rows[c.Out[0].Axis]++
		}
	}
	// Layer 0: q,k,v; out; up; down. Layer 1: k,v on tokens; q, out, up, down on sequences; pooler, classifier.
	require.Equal(t, map[backend.Axis]int{backend.Tok: 5, backend.Seq: 6}, rows)
}

// A sequence's score does not depend on its neighbours, its bucket or its padding.
func TestUnpadded(t *testing.T) {
	m, all := tiny(t)
	pad24 := golden.Pack(t, golden.File(t, "tiny", "inputs_pad24.safetensors"))
	want := golden.File(t, "tiny", "expected_unpadded_f32.safetensors")
	be := golden.Ref[float32](t, 1)
	j, k := start[float32](t, be, m, nn.Plan{}, all, 0, 0), start[float32](t, be, m, nn.Plan{}, pad24, 7, 2)
	j.Do(t)
	k.Do(t)
	inOther := k.Out(t, nn.OutScores, 4)
	for i, y := range j.Out(t, nn.OutScores, 4) {
		one := start[float32](t, be, m, nn.Plan{}, all.Part(i, i+1), 0, 0)
		one.Do(t)
		require.Equal(t, y, one.Out(t, nn.OutScores, 1)[0], "sequence %d alone", i)
		require.Equal(t, y, inOther[i], "sequence %d in another bucket", i)
		require.Less(t, golden.Rel([]float32{y}, golden.Floats(t, want, fmt.Sprintf("logits.%d", i))), 1e-5)
	}
}

func TestThreeLabels(t *testing.T) {
	m := NewCross(golden.Config(t, shared.Path(t, "golden", "tiny", "three_labels")), 3)
	golden.Load(t, m.Params(), golden.File(t, "tiny", "three_labels", "model.safetensors"))
	b := golden.Pack(t, golden.File(t, "tiny", "inputs.safetensors"))
	want := golden.File(t, "tiny", "three_labels", "expected_f64.safetensors")
	for i, y := range golden.Ints(t, want, "labels") {
		b.Labels[i] = float64(y)
	}
	j := start[float64](t, golden.Ref[float64](t, 1), m, nn.Plan{Objective: loss.CE{}}, b, 3, 1)
	j.Do(t)
	require.Less(t, golden.Rel(j.Out(t, nn.OutLoss, 1), golden.Floats(t, want, "loss")), 1e-9)
	for _, p := range m.Params() {
		limit := 1e-9
		if golden.ZeroByTheory(p.Path) {
			limit = 1e-12
		}
		require.Less(t, golden.Rel(j.grad(t, p.Path), golden.Floats(t, want, "grad."+p.Path)), limit, p.Path)
	}
	k := start[float64](t, golden.Ref[float64](t, 1), m, nn.Plan{}, b, 0, 0)
	k.Do(t)
	require.Less(t, golden.Rel(k.Out(t, nn.OutLogits, 4), golden.Floats(t, want, "logits")), 1e-9)
}

// Same bits whatever the number of workers, run after run.
func TestDeterminism(t *testing.T) {
	m, b := tiny(t)
	var first []float32
	for _, w := range []int{1, 2, 3, 7} {
		j := start[float32](t, golden.Ref[float32](t, w), m, nn.Plan{Objective: loss.BCE{}, Dropout: true}, b, 5, 1)
		for range 3 {
			j.Do(t)
			got := j.Out(t, nn.OutScores, 4)
			for _, p := range m.Params() {
				got = append(got, j.grad(t, p.Path)...)
			}
			if first == nil {
				first = got
			}
			require.Equal(t, first, got, "%d workers", w)
		}
		require.Zero(t, testing.AllocsPerRun(10, func() { j.Do(t) }), "%d workers: allocations in a step", w)
	}
}

// Gradients of Σ pool probe: an output that is no scalar, with a seed.
func TestPoolingSeeds(t *testing.T) {
	want := golden.File(t, "tiny", "grads_pooling_probe.safetensors")
	c := golden.Config(t, shared.Path(t, "golden", "tiny"))
	b := golden.Pack(t, golden.File(t, "tiny", "inputs.safetensors"))
	for _, kind := range []nn.Pooling{nn.CLS, nn.Mean, nn.Max} {
		enc := nn.NewEncoder(c, "bert.")
		golden.Load(t, enc.Params(), golden.File(t, "tiny", "model.safetensors"))
		for _, rewrite := range []bool{false, true} {
			g := graph.New(backend.Float64)
			p := nn.NewPass(g, graph.Dims{T: len(b.IDs), N: 4, B: 4, K: 1}, false)
			outs := []graph.E{kind.Forward(p, enc.Forward(p))}
			if rewrite {
				g, outs = graph.Rewrite(outs)
			}
			s := graph.Spec{Outputs: map[string]graph.E{"pool": outs[0]}, Seeds: []graph.Seed{{Out: outs[0], Grad: g.Input("seed", outs[0].Shape())}}}
			for _, q := range enc.Params() {
				s.Wrt = append(s.Wrt, g.Param(q.Path, q.Dims...))
			}
			prog, err := graph.Compile(g, s)
			require.NoError(t, err)
			be := golden.Ref[float64](t, 1)
			store := golden.Store(t, be, enc.Params(), true)
			j := job[float64]{golden.NewJob[float64](t, be, prog, b, store), store}
			copy(graph.Floats[float64](j.Run, "seed"), golden.Floats(t, want, "probe"))
			j.Do(t)
			n := 0
			for _, name := range want.Names() {
				var path string
				if _, err := fmt.Sscanf(name, string(kind)+".f64.%s", &path); err == nil {
					n++
					require.Less(t, golden.Rel(j.grad(t, path), golden.Floats(t, want, name)), 1e-9, name)
				}
			}
			require.NotZero(t, n)
		}
	}
}

// The real model: logits and every gradient of MiniLM.
func TestMiniLM(t *testing.T) {
	shared.Long(t)
	m, b := miniLM(t)
	testMiniLM(t, golden.Ref[float32](t, 0), m, b)
}

func miniLM(t testing.TB) (*Cross, golden.Batch) {
	dir := shared.Path(t, "models", "all-MiniLM-L6-v2")
	m, w := NewCross(golden.Config(t, dir), 1), golden.Open(t, filepath.Join(dir, checkpoints.ModelFile))
	head := golden.File(t, "minilm", "classifier.safetensors")
	for _, p := range m.Params() {
		name, f := p.Path, head
		if len(name) > 5 && name[:5] == "bert." {
			name, f = name[5:], w
		}
		p.Init = golden.Init(t, f, name)
	}
	return m, golden.Pack(t, golden.File(t, "minilm", "inputs.safetensors"))
}

func testMiniLM(t *testing.T, be backend.Backend, m *Cross, b golden.Batch) {
	want, full := golden.File(t, "minilm", "expected_f64.safetensors"), golden.File(t, "minilm", "grads_full_f32.safetensors")
	rows := golden.File(t, "minilm", "grad_word_rows_f32.safetensors")
	var norms map[string]struct {
		L2     float64   `json:"l2_f64"`
		First8 []float64 `json:"first8_f64"`
	}
	golden.JSON(t, shared.Path(t, "golden", "minilm", "grad_summary.json"), &norms)

	j := start[float32](t, be, m, nn.Plan{Objective: loss.BCE{}}, b, 100, 3)
	j.Do(t)
	logits := golden.Floats(t, want, "logits")
	for i, y := range j.Out(t, nn.OutScores, len(logits)) {
		require.InDelta(t, logits[i], y, 1e-5)
	}
	require.Less(t, golden.Rel(j.Out(t, nn.OutLoss, 1), golden.Floats(t, want, "loss")), 1e-5)
	worst, whole := 0.0, 0
	for _, p := range m.Params() {
		g, ref := j.grad(t, p.Path), norms[p.Path]
		if golden.ZeroByTheory(p.Path) {
			require.Less(t, norm(g), 1e-6, p.Path)
			continue
		}
		require.NotZero(t, ref.L2, p.Path)
		require.InEpsilon(t, ref.L2, norm(g), 1e-4, p.Path)
		for k, x := range ref.First8 {
			require.InDelta(t, x, g[k], 1e-4*ref.L2, p.Path)
		}
		if _, err := full.Tensor(p.Path); err == nil {
			whole++
			e := golden.Rel(g, golden.Floats(t, full, p.Path))
			worst = max(worst, e)
			require.Less(t, e, 1e-4, p.Path)
		}
	}
	word := j.grad(t, "bert.embeddings.word_embeddings.weight")
	used, d := map[int]float64{}, m.Encoder.Config.Hidden
	for i, id := range golden.Ints(t, rows, "row_ids") {
		used[int(id)] = golden.Floats(t, rows, "row_l2")[i]
	}
	for r := range len(word) / d {
		require.InDelta(t, used[r], norm(word[r*d:(r+1)*d]), 1e-5*norms["bert.embeddings.word_embeddings.weight"].L2+1e-4*used[r], "row %d", r)
	}
	t.Logf("%s: %d calls, arena %.0f MB, %d whole gradients, worst %.1e", be.Name(), len(j.Program.Calls), float64(j.Program.Arena)*4e-6, whole, worst)
}

func norm[F host.Float](v []F) float64 {
	var s float64
	for _, x := range v {
		s += float64(x) * float64(x)
	}
	return math.Sqrt(s)
}

func TestMiniLMOnDevice(t *testing.T) {
	be, err := device.Open("")
	require.NoError(t, err)
	m, b := miniLM(t)
	testMiniLM(t, be, m, b)
}
