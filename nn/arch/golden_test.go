package arch

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/checkpoints"
	"rung/nn"
	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/device"
	"rung/nn/graph"
	"rung/nn/loss"
	"rung/nn/nntest/shared"
)

func config(t testing.TB, path ...string) nn.Config {
	t.Helper()
	data, err := os.ReadFile(shared.Path(t, append(path, "config.json")...))
	require.NoError(t, err)
	c, err := nn.ParseConfig(data)
	require.NoError(t, err)
	return c
}

func tiny(t testing.TB) (*Cross, packed) {
	m := NewCross(config(t, "golden", "tiny"), 1)
	from(t, m.Params(), golden(t, "tiny", "model.safetensors"))
	return m, pack(t, golden(t, "tiny", "inputs.safetensors"))
}

func TestTiny(t *testing.T) {
	t.Run("float64", func(t *testing.T) { testTiny[float64](t, 1e-9, 1e-12) })
	t.Run("float32", func(t *testing.T) { testTiny[float32](t, 1e-5, 1e-7) })
}

func testTiny[F host.Float](t *testing.T, tol, zero float64) {
	m, b := tiny(t)
	want, grads := golden(t, "tiny", "expected_f64.safetensors"), golden(t, "tiny", "grads_bce_f64.safetensors")
	be := refs[F](2, t)
	for _, c := range []struct {
		plain          bool
		spareT, spareN int
	}{{plain: true}, {}, {spareT: 19, spareN: 3}} {
		j := start[F](t, be, m, nn.Plan{Objective: loss.BCE{}, Plain: c.plain}, b, c.spareT, c.spareN)
		j.do(t)
		require.Less(t, rel(j.out(t, nn.OutScores, 4), floats(t, want, "logits")), tol)
		require.Less(t, rel(j.out(t, nn.OutLoss, 1), floats(t, want, "loss")), tol)
		worst := 0.0
		for _, p := range m.Params() {
			e, limit := rel(j.grad(t, p.Path), floats(t, grads, p.Path)), tol
			if zeroByTheory(p.Path) {
				limit = zero
			} else {
				worst = max(worst, e)
			}
			require.Less(t, e, limit, "%+v: gradient of %s", c, p.Path)
		}
		t.Logf("%+v: %d calls, arena %d of at least %d elements, worst gradient %.1e", c, len(j.p.Calls), j.p.Arena, j.p.Bound, worst)
	}
}

// The last layer of a CLS-scored model computes one row a sequence: no feed-forward matmul reads the
// tokens there.
func TestRowSelectionIsPushedDown(t *testing.T) {
	m, b := tiny(t)
	j := start[float32](t, refs[float32](1, t), m, nn.Plan{}, b, 0, 0)
	rows := map[backend.Axis]int{}
	for _, c := range j.p.Calls {
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
	pad24 := pack(t, golden(t, "tiny", "inputs_pad24.safetensors"))
	want := golden(t, "tiny", "expected_unpadded_f32.safetensors")
	be := refs[float32](1, t)
	j, k := start[float32](t, be, m, nn.Plan{}, all, 0, 0), start[float32](t, be, m, nn.Plan{}, pad24, 7, 2)
	j.do(t)
	k.do(t)
	inOther := k.out(t, nn.OutScores, 4)
	for i, y := range j.out(t, nn.OutScores, 4) {
		one := start[float32](t, be, m, nn.Plan{}, all.only(i), 0, 0)
		one.do(t)
		require.Equal(t, y, one.out(t, nn.OutScores, 1)[0], "sequence %d alone", i)
		require.Equal(t, y, inOther[i], "sequence %d in another bucket", i)
		require.Less(t, rel([]float32{y}, floats(t, want, fmt.Sprintf("logits.%d", i))), 1e-5)
	}
}

func TestThreeLabels(t *testing.T) {
	m := NewCross(config(t, "golden", "tiny", "three_labels"), 3)
	from(t, m.Params(), golden(t, "tiny", "three_labels", "model.safetensors"))
	b := pack(t, golden(t, "tiny", "inputs.safetensors"))
	want := golden(t, "tiny", "three_labels", "expected_f64.safetensors")
	for i, y := range ints(t, want, "labels") {
		b.labels[i] = float64(y)
	}
	j := start[float64](t, refs[float64](1, t), m, nn.Plan{Objective: loss.CE{}}, b, 3, 1)
	j.do(t)
	require.Less(t, rel(j.out(t, nn.OutLoss, 1), floats(t, want, "loss")), 1e-9)
	for _, p := range m.Params() {
		limit := 1e-9
		if zeroByTheory(p.Path) {
			limit = 1e-12
		}
		require.Less(t, rel(j.grad(t, p.Path), floats(t, want, "grad."+p.Path)), limit, p.Path)
	}
	k := start[float64](t, refs[float64](1, t), m, nn.Plan{}, b, 0, 0)
	k.do(t)
	require.Less(t, rel(k.out(t, nn.OutLogits, 4), floats(t, want, "logits")), 1e-9)
}

// Same bits whatever the number of workers, run after run.
func TestDeterminism(t *testing.T) {
	m, b := tiny(t)
	var first []float32
	for _, w := range []int{1, 2, 3, 7} {
		j := start[float32](t, refs[float32](w, t), m, nn.Plan{Objective: loss.BCE{}, Dropout: true}, b, 5, 1)
		for range 3 {
			j.do(t)
			got := j.out(t, nn.OutScores, 4)
			for _, p := range m.Params() {
				got = append(got, j.grad(t, p.Path)...)
			}
			if first == nil {
				first = got
			}
			require.Equal(t, first, got, "%d workers", w)
		}
		require.Zero(t, testing.AllocsPerRun(10, func() { j.do(t) }), "%d workers: allocations in a step", w)
	}
}

// Gradients of Σ pool probe: an output that is no scalar, with a seed.
func TestPoolingSeeds(t *testing.T) {
	want := golden(t, "tiny", "grads_pooling_probe.safetensors")
	c := config(t, "golden", "tiny")
	b := pack(t, golden(t, "tiny", "inputs.safetensors"))
	for _, kind := range []nn.Pooling{nn.CLS, nn.Mean, nn.Max} {
		enc := nn.NewEncoder(c, "bert.")
		from(t, enc.Params(), golden(t, "tiny", "model.safetensors"))
		for _, rewrite := range []bool{false, true} {
			g := graph.New(backend.Float64)
			p := nn.NewPass(g, graph.Dims{T: len(b.ids), N: 4, B: 4, K: 1}, false)
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
			be := refs[float64](1, t)
			store, err := nn.NewStore(be, enc.Params(), true)
			require.NoError(t, err)
			r, err := prog.NewRun(be, 0)
			require.NoError(t, err)
			require.NoError(t, r.Bind(store))
			fill[float64](r, b)
			copy(graph.Floats[float64](r, "seed"), floats(t, want, "probe"))
			j := &job[float64]{p: prog, r: r, s: store, b: b}
			j.n.Count = [backend.NumAxes]int{backend.Tok: len(b.ids), backend.Seq: 4, backend.Unit: 4}
			j.do(t)
			n := 0
			for _, name := range want.Names() {
				var path string
				if _, err := fmt.Sscanf(name, string(kind)+".f64.%s", &path); err == nil {
					n++
					require.Less(t, rel(j.grad(t, path), floats(t, want, name)), 1e-9, name)
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
	testMiniLM(t, refs[float32](0, t), m, b)
}

func miniLM(t testing.TB) (*Cross, packed) {
	m := NewCross(config(t, "models", "all-MiniLM-L6-v2"), 1)
	w, err := checkpoints.OpenFile(shared.Path(t, "models", "all-MiniLM-L6-v2", "model.safetensors"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = w.Close() })
	head := golden(t, "minilm", "classifier.safetensors")
	for _, p := range m.Params() {
		name, f := p.Path, head
		if len(name) > 5 && name[:5] == "bert." {
			name, f = name[5:], w
		}
		x, err := f.Tensor(name)
		require.NoError(t, err)
		p.Init = func(dst []float32) error { return checkpoints.CopyFloat32s(dst, x) }
	}
	return m, pack(t, golden(t, "minilm", "inputs.safetensors"))
}

func testMiniLM(t *testing.T, be backend.Backend, m *Cross, b packed) {
	want, full := golden(t, "minilm", "expected_f64.safetensors"), golden(t, "minilm", "grads_full_f32.safetensors")
	rows := golden(t, "minilm", "grad_word_rows_f32.safetensors")
	var norms map[string]struct {
		L2     float64   `json:"l2_f64"`
		First8 []float64 `json:"first8_f64"`
	}
	data, err := os.ReadFile(shared.Path(t, "golden", "minilm", "grad_summary.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &norms))

	j := start[float32](t, be, m, nn.Plan{Objective: loss.BCE{}}, b, 100, 3)
	j.do(t)
	logits := floats(t, want, "logits")
	for i, y := range j.out(t, nn.OutScores, len(logits)) {
		require.InDelta(t, logits[i], y, 1e-5)
	}
	require.Less(t, rel(j.out(t, nn.OutLoss, 1), floats(t, want, "loss")), 1e-5)
	worst, whole := 0.0, 0
	for _, p := range m.Params() {
		g, ref := j.grad(t, p.Path), norms[p.Path]
		if zeroByTheory(p.Path) {
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
			e := rel(g, floats(t, full, p.Path))
			worst = max(worst, e)
			require.Less(t, e, 1e-4, p.Path)
		}
	}
	word := j.grad(t, "bert.embeddings.word_embeddings.weight")
	used, d := map[int]float64{}, m.Encoder.Config.Hidden
	for i, id := range ints(t, rows, "row_ids") {
		used[int(id)] = floats(t, rows, "row_l2")[i]
	}
	for r := range len(word) / d {
		require.InDelta(t, used[r], norm(word[r*d:(r+1)*d]), 1e-5*norms["bert.embeddings.word_embeddings.weight"].L2+1e-4*used[r], "row %d", r)
	}
	t.Logf("%s: %d calls, arena %.0f MB, %d whole gradients, worst %.1e", be.Name(), len(j.p.Calls), float64(j.p.Arena)*4e-6, whole, worst)
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
