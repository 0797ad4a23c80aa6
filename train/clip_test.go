package train

import (
	"context"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/lora"
	"rung/nn"
	"rung/nn/arch"
	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/device"
	"rung/nn/graph"
	"rung/nn/loss"
	"rung/nn/nntest/golden"
	"rung/nn/nntest/shared"
)

// dpJob is golden/dp's rows on golden/tiny with its adapter: a unit's gradients each.
func dpJob(t *testing.T, be backend.Backend) (*lora.Adapter, *golden.Job[float32], *graph.Store) {
	dir := shared.Path(t, "golden", "tiny")
	m := arch.NewCross(golden.Config(t, dir), 1)
	golden.Load(t, m.Params(), golden.File(t, "tiny", "model.safetensors"))
	a, err := lora.Apply(m, lora.Config{Rank: 4, Alpha: 8, Targets: []string{"query", "value"}}, 0)
	require.NoError(t, err)
	f := golden.File(t, "dp", "lora_params.safetensors")
	for _, p := range a.Params() {
		p.Init = golden.Init(t, f, opacusName(p.Path))
	}
	own := golden.Store(t, be, a.Params(), true)
	j := golden.Start[float32](t, be, m, nn.Plan{Objective: loss.BCE{}, PerUnit: true}, golden.Pack(t, golden.File(t, "dp", "inputs.safetensors")), 3, 1, own, golden.Store(t, be, a.Base(), false))
	return a, j, own
}

// opacusName is what PEFT calls a parameter in a model.
func opacusName(path string) string {
	i := strings.LastIndexByte(path, '.')
	if strings.Contains(path, ".lora_") {
		return "base_model.model." + path[:i] + ".default" + path[i:]
	}
	return "base_model.model." + path[:i] + ".modules_to_save.default" + path[i:]
}

// units makes owner u the rows rows[u] to rows[u+1], each of weight 1 over their number.
func units(j *golden.Job[float32], rows []int) {
	for u := range j.Run.Ints(graph.UnitRows(backend.Tok)) {
		at := rows[min(u, len(rows)-1)]
		j.Run.Ints(graph.UnitRows(backend.Tok))[u] = j.Batch.Offsets[at]
		j.Run.Ints(graph.UnitRows(backend.Seq))[u] = int32(at)
		j.Run.Ints(graph.UnitRows(backend.Unit))[u] = int32(at)
	}
	for u := range len(rows) - 1 {
		for i := rows[u]; i < rows[u+1]; i++ {
			j.Set(nn.InWeights, i, 1/float64(rows[u+1]-rows[u]))
		}
	}
}

// Clipped sums and noisy means are those of golden/dp: flat, by layer and of queries, in one micro-batch or in two.
func TestGoldenClipping(t *testing.T) {
	be, err := device.Open("cpu")
	require.NoError(t, err)
	a, j, own := dpJob(t, be)
	want, query := golden.File(t, "dp", "clipped.safetensors"), golden.File(t, "dp", "query_level.safetensors")
	const clip, sigma, mean = .5, 1.1, 8
	each := []int{0, 1, 2, 3, 4, 5, 6, 7, 8}
	queries := []int{0}
	of := golden.Ints(t, query, "query_of_row")
	for i := range of {
		if i == len(of)-1 || of[i] != of[i+1] {
			queries = append(queries, i+1)
		}
	}
	ctx := context.Background()
	for _, c := range []struct {
		name, clipping string
		rows           []int
		times          int // the same micro-batch so often
		want           func(name string) []float64
	}{
		{"flat", "", each, 1, func(n string) []float64 { return golden.Floats(t, want, "clipped_sum_exact."+n) }},
		{"twice", "flat", each, 2, func(n string) []float64 {
			v := golden.Floats(t, want, "clipped_sum_exact."+n)
			for i := range v {
				v[i] *= 2
			}
			return v
		}},
		{"per layer", clipPerLayer, each, 1, func(n string) []float64 { return golden.Floats(t, want, "perlayer_clipped_sum."+n) }},
		{"queries", "", queries, 1, func(n string) []float64 { return golden.Floats(t, query, "clipped_sum."+n) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			gradients, stride := j.Run.UnitGradients()
			k, err := newClipper(&Privacy{Clip: clip, Clipping: c.clipping}, own, gradients, stride, 8, mean)
			require.NoError(t, err)
			defer func() { require.NoError(t, k.close()) }()
			units(j, c.rows)
			require.NoError(t, k.begin())
			for range c.times {
				j.Do(t)
				require.NoError(t, k.micro(ctx, &j.Scalars, len(c.rows)-1))
			}
			for _, noisy := range []bool{false, true} {
				var z []float64
				for _, p := range a.Params() {
					z = append(z, golden.Floats(t, want, "noise_standard_normal."+opacusName(p.Path))...)
				}
				require.NoError(t, k.end(ctx, &j.Scalars, func(dst []float32, first uint64) {
					for i := range dst {
						if noisy {
							dst[i] += float32(sigma * clip * z[int(first)+i])
						}
					}
				}))
				for _, p := range a.Params() {
					name := opacusName(p.Path)
					sum, z := c.want(name), golden.Floats(t, want, "noise_standard_normal."+name)
					for i := range sum {
						if noisy {
							sum[i] += sigma * clip * z[i]
						}
						sum[i] /= mean
					}
					got := golden.Grad[float32](t, own, p.Path)
					if len(sum) == 1 && !noisy { // where units as good as cancel
						require.InDelta(t, sum[0], got[0], 1e-6*clip, name)
					} else {
						require.Less(t, golden.Rel(got, sum), 1e-5, "%s, noisy: %t", name, noisy)
					}
					if noisy && c.name == "flat" { // Opacus divides by |g| + 1e-6: the same but for that
						require.Less(t, golden.Rel(sum, golden.Floats(t, want, "dp_grad_with_noise."+name)), 1e-5, name)
					}
				}
			}
		})
	}
}

// No unit moves the sum by more than C, whatever its gradient; and what others contribute does not change a bit of it.
func TestClippedNorm(t *testing.T) {
	be, err := device.Open("cpu")
	require.NoError(t, err)
	_, j, own := dpJob(t, be)
	const most = .5
	units(j, []int{0, 1, 2, 3, 4, 5, 6, 7, 8})
	j.Do(t)
	memory, stride := j.Run.UnitGradients()
	g := make([]float32, 8*stride)
	require.NoError(t, memory.ReadAt(host.Bytes(g), 0))
	sum := func(k *clipper, rows int) []float32 {
		require.NoError(t, memory.WriteAt(host.Bytes(g), 0))
		require.NoError(t, k.begin())
		require.NoError(t, k.micro(context.Background(), &j.Scalars, rows))
		v := make([]float32, stride)
		require.NoError(t, k.sum.ReadAt(host.Bytes(v), 0))
		return v
	}
	for _, clipping := range []string{clipFlat, clipPerLayer} {
		k, err := newClipper(&Privacy{Clip: most, Clipping: clipping}, own, memory, stride, 8, 1)
		require.NoError(t, err)
		clean := append([]float32{}, g...)
		for name, x := range map[string]float64{
			"huge": 3e38, "large": 1e20, "denormal": 1e-44, "zero": 0, "NaN": math.NaN(), "infinite": math.Inf(1), "as it is": 1,
		} {
			for i := range g {
				g[i] = clean[i]
				if i < stride && clean[i] != 0 {
					g[i] = float32(x)
				}
			}
			var norm float64
			for _, v := range sum(k, 1) {
				norm += float64(v) * float64(v)
			}
			require.LessOrEqual(t, math.Sqrt(norm), most*(1+1e-6), "%s, %s", clipping, name)
			if x := x; x == 1 || x == 1e20 {
				require.InEpsilon(t, most, math.Sqrt(norm), 1e-6, "%s, %s", clipping, name)
			}
		}
		copy(g, clean)
		require.NoError(t, k.close())
	}
}
