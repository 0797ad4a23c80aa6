package lora

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/checkpoints"
	"rung/nn"
	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/graph"
	"rung/nn/nntest/golden"
	"rung/nn/nntest/shared"
)

// oneLayer is one adapted layer over rows that are weights, so that they have gradients: the score is the mean over rows of
// the product of its result with probe.
type oneLayer struct {
	layer *MixtureLinear
	x     *nn.Param // (in,T)
}

func (m oneLayer) Params() []*nn.Param { return append(m.layer.Params(), m.x) }

func (m oneLayer) Forward(p *nn.Pass) nn.Outputs {
	rows := m.x.Dims[1]
	eye := p.Input("eye", graph.Rows(backend.Tok, p.Dims.T, rows))
	y := m.layer.Forward(p, p.Linear(eye, p.Weight(m.x), graph.E{})) // (T,out)
	probe := p.Input("probe", graph.Rows(backend.Tok, p.Dims.T, y.Shape().Cols()))
	p.Report("y", y)
	return nn.Outputs{Scores: p.Gather(p.Mean(p.RowSum(p.Mul(y, probe)), p.Offsets), p.Slots())}
}

// itself is the loss of a score that is one.
type itself struct{}

func (itself) Name() string                                        { return "itself" }
func (itself) Scope() nn.Scope                                     { return nn.Unit }
func (itself) Terms([]float32) int                                 { return 1 }
func (itself) Loss(_ *nn.Pass, o nn.Outputs, _ nn.Targets) graph.E { return o.Scores }

// moeCase is one layer of the reference data with its weights, on the first rows rows of its inputs.
type moeCase[F host.Float] struct {
	job    *golden.Job[F]
	store  *graph.Store
	model  oneLayer
	in     *checkpoints.File
	rows   int
	weight float64 // of the score
}

func startCase[F host.Float](t *testing.T, in *checkpoints.File, router string, cfg Config, rows int, weight float64, grouped bool) *moeCase[F] {
	t.Helper()
	dims := func(name string) []int { x, err := in.Tensor(name); require.NoError(t, err); return x.Shape }
	w := dims("in.W")
	base := nn.NewLinear("l", w[1], w[0], slices.Contains(in.Names(), "in.bias"))
	require.NoError(t, cfg.check())
	l := newMixture("l", base, cfg.Rank, &cfg, cfg.scale(cfg.Rank, cfg.Alpha), 1)
	l.grouped = grouped
	m := oneLayer{l, &nn.Param{Path: "x", Dims: []int{w[1], dims("in.x")[0]}, Trainable: true}}
	for _, p := range m.Params() {
		p.Init = nil
	}
	be := golden.Ref[F](t, 2)
	c := &moeCase[F]{model: m, in: in, rows: rows, weight: weight, store: golden.Store(t, be, m.Params(), true)}
	for _, p := range m.Params() {
		var v []float64
		switch p {
		case m.x:
			v = turned(golden.Floats(t, in, "in.x"), dims("in.x")[0])
		case l.Router:
			v = golden.Floats(t, in, router)
		case l.Bias:
			v = golden.Floats(t, in, "in.route_bias")
		default:
			v = c.packed(t, p, golden.Floats(t, in, "in."+c.name(p)))
		}
		require.NoError(t, graph.WriteWeight(c.store, p.Path, to[F](v)))
	}
	prog, err := nn.Compile(m, nn.Plan{Dims: graph.Dims{T: dims("in.x")[0], N: 2, B: 2, K: 1}, Float: be.Float(), Objective: itself{}})
	require.NoError(t, err)
	b := golden.Batch{Offsets: []int32{0, int32(rows)}, Labels: []float64{1}, IDs: make([]int32, rows)}
	c.job = golden.NewJob[F](t, be, prog, b, c.store)
	for i := range rows {
		c.job.Set("eye", i*m.x.Dims[1]+i, 1)
	}
	for i, v := range golden.Floats(t, in, "probe")[:rows*w[0]] {
		c.job.Set("probe", i, v)
	}
	c.job.Set(nn.InWeights, 0, weight)
	c.job.Set(nn.OnAxis(nn.InShare, backend.Tok), 0, 1)
	c.job.Do(t)
	return c
}

// name is that of a parameter in the reference data.
func (c *moeCase[F]) name(p *nn.Param) string {
	switch p {
	case c.model.layer.A:
		return "A"
	case c.model.layer.B:
		return "B"
	case c.model.layer.Router:
		return "router"
	case c.model.x:
		return "x"
	}
	return map[string]string{"l.weight": "W", "l.bias": "bias"}[p.Path]
}

// packed is a tensor as the parameter has it: B's experts lie side by side.
func (c *moeCase[F]) packed(t *testing.T, p *nn.Param, v []float64) []float64 {
	if p != c.model.layer.B || c.model.layer.x.Router == RouteRank {
		return v
	}
	out, r := p.Dims[0], c.model.layer.rank
	experts := len(v) / out / r
	w := make([]float64, len(v))
	for e := range experts {
		for o := range out {
			copy(w[o*experts*r+e*r:][:r], v[(e*out+o)*r:][:r])
		}
	}
	return w
}

// turned is the transpose of rows rows.
func turned(v []float64, rows int) []float64 {
	w, cols := make([]float64, len(v)), len(v)/rows
	for i := range rows {
		for j := range cols {
			w[j*rows+i] = v[i*cols+j]
		}
	}
	return w
}

func to[F host.Float](v []float64) []F {
	w := make([]F, len(v))
	for i, x := range v {
		w[i] = F(x)
	}
	return w
}

// compare compares the result, the loss and every gradient.
func (c *moeCase[F]) compare(t *testing.T, y, grad string, task, penalty, tol float64) {
	t.Helper()
	require.Less(t, golden.Rel(c.job.Out(t, nn.OutReport+"y", c.rows), golden.Floats(t, c.in, y)[:c.rows*c.model.layer.B.Dims[0]]), tol)
	require.InEpsilon(t, task, float64(c.job.Out(t, nn.OutLoss, 1)[0]), 10*tol)
	if penalty != 0 {
		require.InEpsilon(t, penalty, float64(c.job.Out(t, nn.OnAxis(nn.OutPenalty, backend.Tok), 1)[0]), tol)
	}
	for _, p := range c.model.Params() {
		if p == c.model.layer.Bias {
			continue
		}
		got := golden.Grad[F](t, c.store, p.Path)
		want := golden.Floats(t, c.in, grad+c.name(p))
		if p == c.model.x {
			want = turned(want, c.model.x.Dims[1])
		}
		require.Less(t, golden.Rel(got, c.packed(t, p, want)), tol, p.Path)
	}
}

// A mixture with every balancing loss, on all rows and on those that are no padding.
func TestGoldenMixture(t *testing.T) {
	var info map[string]struct {
		Aux  float64 `json:"aux_value"`
		Task float64
		Coef float64 `json:"aux_coef"`
	}
	golden.JSON(t, shared.Path(t, "golden", "moe", "info.json"), &info)
	for aux, set := range map[string]func(x *Experts){
		"mixtral":         func(x *Experts) { x.Balance = BalanceMixtral },
		"topk_normalised": func(x *Experts) { x.Balance = BalanceTopK },
		"switch_top1":     func(x *Experts) { x.Balance = BalanceSwitch },
		"cv2_importance":  func(x *Experts) { x.Balance = BalanceImportance },
		"z_loss":          func(x *Experts) { x.Balance, x.ZLoss = BalanceNone, .01 },
	} {
		for part, rows := range map[string]int{"nomask": 12, "masked": 9} {
			name := part + "." + aux
			t.Run(name, func(t *testing.T) {
				in := golden.File(t, "moe", "moe_lora.safetensors")
				cfg := MixtureDefaults()
				cfg.Rank, cfg.Alpha, cfg.Mixture.Experts = 3, 6, 4
				set(&cfg.Mixture)
				c := info[name]
				for _, grouped := range []bool{false, true} {
					startCase[float64](t, in, "in.router", cfg, rows, 1, grouped).compare(t, part+".y", name+".grad.", c.Task, c.Coef*c.Aux, 1e-12)
					startCase[float32](t, in, "in.router", cfg, rows, 1, grouped).compare(t, part+".y", name+".grad.", c.Task, c.Coef*c.Aux, 1e-5)
				}
			})
		}
	}
}

// SMoRA, whose experts are ranks, and what its biases are after an update.
func TestGoldenRanks(t *testing.T) {
	var info map[string]struct {
		Loss      float64
		Partition int `json:"rank_partition"`
		K         int
		Alpha     float64
		Rate      float64 `json:"bias_update_rate"`
	}
	golden.JSON(t, shared.Path(t, "golden", "moe", "info.json"), &info)
	for _, part := range []string{"part1", "part2"} {
		t.Run(part, func(t *testing.T) {
			in, c := golden.File(t, "moe", "smora.safetensors"), info["smora."+part]
			cfg := MixtureDefaults()
			cfg.Rank, cfg.Alpha = 8, c.Alpha
			cfg.Mixture = Experts{Experts: 1, TopK: c.K, Router: RouteRank, Balance: BalanceBias, BiasRate: c.Rate, Partition: c.Partition}
			startCase[float32](t, in, part+".in.router", cfg, 12, 12, false).compare(t, part+".y", part+".grad.", c.Loss, 0, 1e-5)
			x := startCase[float64](t, in, part+".in.router", cfg, 12, 12, false)
			x.compare(t, part+".y", part+".grad.", c.Loss, 0, 1e-12)
			load := golden.Floats(t, in, part+".load")
			n := x.job.Out(t, nn.OutReport+ReportLoad+"l", 1)
			require.Equal(t, load, n)
			after := golden.Floats(t, in, part+".route_bias_after_update")
			bias, g := golden.Floats(t, in, "in.route_bias"), golden.Grad[float64](t, x.store, x.model.layer.Bias.Path)
			for e, d := range g {
				switch {
				case d > 0:
					bias[e] -= x.model.layer.Bias.Sign
				case d < 0:
					bias[e] += x.model.layer.Bias.Sign
				}
				require.InDelta(t, after[e], bias[e], 1e-15, "bias %d", e)
			}
		})
	}
}
