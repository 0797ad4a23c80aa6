package train

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/data"
	"rung/lora"
	"rung/nn"
	"rung/nn/arch"
	"rung/nn/backend"
	"rung/nn/graph"
	"rung/nn/loss"
	"rung/nn/nntest/golden"
)

// A unitJob computes the gradients of owners.
type unitJob struct {
	r      *Run
	params []*nn.Param
}

func newUnitJob(t testing.TB, m ids, be backend.Backend, e *data.Encoded, dims graph.Dims) *unitJob {
	p, err := nn.Compile(m, nn.Plan{Dims: dims, Float: be.Float(), Objective: loss.BCE{}, Dropout: true, PerUnit: true})
	require.NoError(t, err)
	run, err := p.NewRun(be, dims.B)
	require.NoError(t, err)
	s := golden.Store(t, be, m.Params(), true)
	require.NoError(t, run.Bind(s))
	t.Cleanup(func() { _ = run.Close() })
	return &unitJob{&Run{run: run, obj: loss.BCE{}, train: e, plan: &plan{dims: dims, program: p}}, m.Params()}
}

// gradients are those of the owners of units, every weight's after another.
func (j *unitJob) gradients(t testing.TB, units []int) (all [][]float32) {
	var s backend.Scalars
	s.Seed, s.Step = 7, 3
	_, err := arch.Feed(j.r.run, j.r.plan.dims, j.r.train, units, &s)
	require.NoError(t, err)
	owners := j.r.train.Owned(units)
	j.r.weighOwners(owners)
	require.NoError(t, j.r.run.Do(context.Background(), &s, false))
	for o := range owners {
		var g []float32
		for _, p := range j.params {
			if !p.Trainable {
				continue
			}
			v, err := graph.UnitGradient[float32](j.r.run, p.Path, o)
			require.NoError(t, err)
			g = append(g, v...)
		}
		all = append(all, g)
	}
	return all
}

// A unit's gradient is the same bit for bit whatever stands beside it, and that of a batch of one.
func TestUnitAmongOthers(t *testing.T) {
	experts := lora.MixtureDefaults()
	experts.Mixture.Balance = lora.BalanceNone
	for name, adapter := range map[string]*lora.Config{"full": nil, "grouped experts": &experts} {
		t.Run(name, func(t *testing.T) {
			m := newTiny()
			if adapter != nil {
				a, err := lora.Apply(m, *adapter, 1)
				require.NoError(t, err)
				for _, p := range a.Own() { // B, too
					p.Init = p.Normal(4, .2)
				}
			}
			e := encodedTiny(t, m, 12)
			be := workers(t, 2)
			j := newUnitJob(t, m, be, e, graph.Dims(e.Sizes([]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11})))
			for _, u := range []int{0, 3, 6, 9} {
				one := newUnitJob(t, m, be, e, graph.Dims(e.Sizes([]int{u}))).gradients(t, []int{u})[0]
				for _, others := range [][]int{{}, {1}, {1, 2, 4}, {10, 8, 7, 5, 11}} {
					for at := range len(others) + 1 {
						units := append(append(append([]int{}, others[:at]...), u), others[at:]...)
						got := j.gradients(t, units)[at]
						if at == 0 && len(others) == 0 {
							require.Less(t, golden.Rel(got, wide(one)), 1e-6)
							one = got
						}
						require.Equal(t, one, got, "unit %d at %d of %v", u, at, others)
					}
				}
			}
		})
	}
}

func wide(v []float32) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = float64(x)
	}
	return out
}

// A user's gradient is that of the mean over all that the user's queries have.
func TestUserGradients(t *testing.T) {
	m := newTiny()
	e := encodedTiny(t, m, 12)
	users, err := e.ByUser()
	require.NoError(t, err)
	require.Equal(t, 5, users.Owners)
	everyone := make([]int, len(users.Units))
	for i := range everyone {
		everyone[i] = i
	}
	be, dims := workers(t, 1), graph.Dims(e.Sizes(everyone))
	got := newUnitJob(t, m, be, users, dims).gradients(t, everyone)
	require.Len(t, got, 5)
	queries := *users
	queries.Owners = 0
	each := newUnitJob(t, m, be, &queries, dims).gradients(t, everyone)
	for o, own := range users.Owned(everyone) {
		sum, terms := make([]float64, len(got[o])), 0
		for _, u := range own {
			require.Equal(t, int32(o), users.Units[u].Owner)
			n := len(users.Units[u].Seqs)
			for i, g := range each[u] {
				sum[i] += float64(n) * float64(g)
			}
			terms += n
		}
		for i := range sum {
			sum[i] /= float64(terms)
		}
		require.Less(t, golden.Rel(got[o], sum), 1e-5)
	}
	e.Units[3].User = ""
	_, err = e.ByUser()
	require.ErrorContains(t, err, `query "q3" has no user`)
}
