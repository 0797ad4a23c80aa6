package loss

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn"
	"rung/nn/backend"
	"rung/nn/backend/philox"
	"rung/nn/backend/ref"
	"rung/nn/graph"
	"rung/nn/nntest/golden"
	"rung/nn/nntest/shared"
)

// units is what an objective sees: (B,K) tables, row by row.
type units struct {
	b, k                 int
	scores, labels, mask []float64
}

// rows are the labels of each unit's candidates.
func (u units) rows() [][]float32 {
	out := make([][]float32, u.b)
	for i := range out {
		for j := range u.k {
			if u.mask[i*u.k+j] != 0 {
				out[i] = append(out[i], float32(u.labels[i*u.k+j]))
			}
		}
	}
	return out
}

// run computes the objective as training does: Σ of losses over Σ of terms, and its gradient by the
// scores. There is a spare unit, which weighs 0.
func run(t testing.TB, o nn.Objective, u units) (value float64, grad []float64) {
	t.Helper()
	b := graph.New(backend.Float64)
	d := graph.Dims{T: 1, N: 1, B: u.b + 1, K: u.k}
	p := nn.NewPass(b, d, true)
	s := b.Input("scores", graph.Rows(backend.Unit, d.B, d.K))
	// A weight of 1 times the scores, so that their gradient is one of a weight's inputs.
	w := b.Param("w", u.k, u.k)
	l := o.Loss(p, nn.Outputs{Scores: b.Linear(s, w, graph.E{})}, p.Targets())
	b2, outs := graph.Rewrite([]graph.E{l})
	seed := b2.Input(nn.InWeights, graph.Rows(backend.Unit, d.B, 1))
	in := b2.Input("scores", graph.Rows(backend.Unit, d.B, d.K))
	grads := b2.VJP([]graph.Seed{{Out: outs[0], Grad: seed}}, []graph.E{in})
	require.NoError(t, b2.Err())
	require.Len(t, grads[0], 1)
	prog, err := graph.Compile(b2, graph.Spec{Outputs: map[string]graph.E{"loss": b2.WeightedSum(seed, outs[0]), "grad": grads[0][0]}})
	require.NoError(t, err)
	be := ref.New[float64]()
	r, err := prog.NewRun(be, 0)
	require.NoError(t, err)
	defer r.Close()
	store, err := graph.NewStore(be, []graph.Segment{{Path: "w", Dims: []int{u.k, u.k}}}, false)
	require.NoError(t, err)
	defer store.Close()
	eye := make([]float64, u.k*u.k)
	for i := range u.k {
		eye[i*u.k+i] = 1
	}
	require.NoError(t, graph.WriteWeight(store, "w", eye))
	require.NoError(t, r.Bind(store))
	copy(graph.Floats[float64](r, "scores"), u.scores)
	copy(graph.Floats[float64](r, nn.InLabels), u.labels)
	copy(graph.Floats[float64](r, nn.InMask), u.mask)
	terms := 0
	for _, y := range u.rows() {
		terms += o.Terms(y)
	}
	for i, y := range u.rows() {
		if o.Terms(y) > 0 {
			graph.Floats[float64](r, nn.InWeights)[i] = 1 / float64(terms)
		}
	}
	n := backend.Scalars{Count: [backend.NumAxes]int{backend.Tok: 1, backend.Seq: 1, backend.Unit: u.b}}
	require.NoError(t, r.Do(context.Background(), &n, false))
	v, err := graph.Output[float64](r, "loss", 1, nil)
	require.NoError(t, err)
	grad, err = graph.Output[float64](r, "grad", u.b, nil)
	require.NoError(t, err)
	return v[0], grad
}

// random is units with candidates that are none, graded labels, and a unit without a positive.
func random(b, k int) units {
	u := units{b: b, k: k}
	for i := range b {
		for j := range k {
			word := philox.Uint64(5, "units", uint64(i*k+j))
			s, y, m := float64(word%1000)/200-2.5, float64(word>>20%3), 1.0
			if i == b-1 {
				y = 0
			}
			if j > 1 && j >= k-i {
				s, y, m = 0, 0, 0
			}
			u.scores, u.labels, u.mask = append(u.scores, s), append(u.labels, y), append(u.mask, m)
		}
	}
	return u
}

// objectives is every objective of scores, with the formula of one unit.
var objectives = []struct {
	o       nn.Objective
	binary  bool
	formula func(s, y []float64) float64
}{
	{BCE{}, true, func(s, y []float64) (l float64) {
		for i := range s {
			p := 1 / (1 + math.Exp(-s[i]))
			l -= y[i]*math.Log(p) + (1-y[i])*math.Log(1-p)
		}
		return l
	}},
	{BCE{PosWeight: 3}, true, func(s, y []float64) (l float64) {
		for i := range s {
			p := 1 / (1 + math.Exp(-s[i]))
			l -= 3*y[i]*math.Log(p) + (1-y[i])*math.Log(1-p)
		}
		return l
	}},
	{MSE{}, false, func(s, y []float64) (l float64) {
		for i := range s {
			l += (s[i] - y[i]) * (s[i] - y[i])
		}
		return l
	}},
	{Pairwise{}, false, func(s, y []float64) (l float64) {
		for i := range s {
			for j := range s {
				if y[i] > y[j] {
					l += math.Log(1 + math.Exp(s[j]-s[i]))
				}
			}
		}
		return l
	}},
	{Listwise{}, false, func(s, y []float64) (l float64) {
		z := 0.0
		for _, v := range s {
			z += math.Exp(v)
		}
		for i := range s {
			l -= y[i] * (s[i] - math.Log(z))
		}
		return l
	}},
}

// Every objective is its formula, and its gradient that of differences.
func TestFormulas(t *testing.T) {
	for _, c := range objectives {
		u := random(5, 4)
		if c.binary {
			for i, y := range u.labels {
				u.labels[i] = math.Min(y, 1)
			}
		}
		value := func(scores []float64) float64 {
			sum, terms := 0.0, 0
			for i, y := range u.rows() {
				var s, l []float64
				for j := range y {
					s, l = append(s, scores[i*u.k+j]), append(l, float64(y[j]))
				}
				if n := c.o.Terms(y); n > 0 {
					sum, terms = sum+c.formula(s, l), terms+n
				}
			}
			return sum / float64(terms)
		}
		got, grad := run(t, c.o, u)
		require.InDelta(t, value(u.scores), got, 1e-12, c.o.Name())
		for i := range u.scores {
			if u.mask[i] == 0 {
				require.Zero(t, grad[i], "%s: a candidate that is none", c.o.Name())
				continue
			}
			x := u.scores[i]
			u.scores[i] = x + 1e-5
			up := value(u.scores)
			u.scores[i] = x - 1e-5
			d := (up - value(u.scores)) / 2e-5
			u.scores[i] = x
			require.InDelta(t, d, grad[i], 1e-9, "%s: score %d", c.o.Name(), i)
		}
		require.Equal(t, nn.Unit, c.o.Scope())
	}
}

// Scores of ±200 have finite losses and gradients.
func TestExtremeScores(t *testing.T) {
	for _, c := range objectives {
		u := units{b: 2, k: 3, scores: []float64{200, -200, 0, -200, 200, 200}, labels: []float64{0, 1, 0, 1, 0, 0}, mask: []float64{1, 1, 1, 1, 1, 1}}
		v, grad := run(t, c.o, u)
		for _, x := range append(grad, v) {
			require.False(t, math.IsNaN(x) || math.IsInf(x, 0), "%s: %v %v", c.o.Name(), v, grad)
		}
	}
}

// golden/losses: what sentence-transformers computes in float64.
func TestGolden(t *testing.T) {
	var lists map[string]struct {
		B, K           int
		Scores, Labels [][]float64
		Teacher        [][]float64
		Mask           [][]bool
	}
	golden.JSON(t, shared.Path(t, "golden", "losses", "lists.json"), &lists)
	for _, c := range []struct {
		file   string
		o      nn.Objective
		labels func(y, teacher float64) float64
	}{
		{"pointwise_bce", BCE{}, func(y, _ float64) float64 { return positive(y) }},
		{"pointwise_bce_pos_weight", BCE{PosWeight: 3}, func(y, _ float64) float64 { return positive(y) }},
		{"pointwise_mse", MSE{}, func(_, teacher float64) float64 { return teacher }},
	} {
		var want struct {
			Entries []struct {
				Case  string
				Value float64
				Grad  [][]float64
			}
		}
		golden.JSON(t, shared.Path(t, "golden", "losses", c.file+".json"), &want)
		n := 0
		for _, e := range want.Entries {
			l, ok := lists[e.Case]
			if !ok {
				continue // its inputs are its own
			}
			n++
			u := units{b: l.B, k: l.K}
			var grad []float64
			for i := range l.Scores {
				for j := range l.Scores[i] {
					y, m := c.labels(l.Labels[i][j], l.Teacher[i][j]), 1.0
					if !l.Mask[i][j] {
						y, m = 0, 0
					}
					u.scores, u.labels, u.mask = append(u.scores, l.Scores[i][j]), append(u.labels, y), append(u.mask, m)
				}
				grad = append(grad, e.Grad[i]...)
			}
			v, g := run(t, c.o, u)
			require.InDelta(t, e.Value, v, 1e-12*math.Max(1, math.Abs(e.Value)), "%s %s", c.file, e.Case)
			require.InDeltaSlice(t, grad, g, 1e-12, "%s %s", c.file, e.Case)
		}
		require.NotZero(t, n, c.file)
	}
}

func positive(y float64) float64 {
	if y > 0 {
		return 1
	}
	return 0
}
