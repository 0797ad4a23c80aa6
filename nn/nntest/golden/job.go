package golden

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/checkpoints"
	"rung/nn"
	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/backend/ref"
	"rung/nn/graph"
)

// A Batch is N sequences of T tokens in all, end to end, one unit of one candidate each.
type Batch struct {
	IDs, Pos, Types, Seqs []int32   // (T)
	Offsets               []int32   // (N+1)
	Labels                []float64 // (N)
}

// Add appends a sequence.
func (b *Batch) Add(ids, types []int32, label float64) {
	for j, id := range ids {
		b.IDs, b.Pos, b.Types, b.Seqs = append(b.IDs, id), append(b.Pos, int32(j)), append(b.Types, types[j]), append(b.Seqs, int32(len(b.Labels)))
	}
	if b.Offsets == nil {
		b.Offsets = []int32{0}
	}
	b.Offsets, b.Labels = append(b.Offsets, int32(len(b.IDs))), append(b.Labels, label)
}

// Seq is sequence s.
func (b Batch) Seq(s int) (ids, types []int32) {
	lo, hi := b.Offsets[s], b.Offsets[s+1]
	return b.IDs[lo:hi], b.Types[lo:hi]
}

// Part is the sequences from lo to hi, without hi.
func (b Batch) Part(lo, hi int) (o Batch) {
	for s := lo; s < hi; s++ {
		ids, types := b.Seq(s)
		o.Add(ids, types, b.Labels[s])
	}
	return o
}

// Pack reads the batch in a file, without its padding.
func Pack(t testing.TB, f *checkpoints.File) (b Batch) {
	t.Helper()
	ids, types, mask, labels := Ints(t, f, "input_ids"), Ints(t, f, "token_type_ids"), Ints(t, f, "attention_mask"), Floats(t, f, "labels")
	l := len(ids) / len(labels)
	for s, y := range labels {
		k := l
		for k > 0 && mask[s*l+k-1] == 0 {
			k--
		}
		b.Add(ids[s*l:s*l+k], types[s*l:s*l+k], y)
	}
	return b
}

// A Job is a program and its run on one batch.
type Job[F host.Float] struct {
	Program *graph.Program
	Run     *graph.Run
	Scalars backend.Scalars
	Batch   Batch
}

// Start compiles m for b and spare tokens and sequences, and makes the job of it.
func Start[F host.Float](t testing.TB, be backend.Backend, m nn.Model, pl nn.Plan, b Batch, spareT, spareN int, stores ...*graph.Store) *Job[F] {
	t.Helper()
	n := len(b.Labels) + spareN
	pl.Dims, pl.Float = graph.Dims{T: len(b.IDs) + spareT, N: n, B: n, K: 1}, be.Float()
	p, err := nn.Compile(m, pl)
	require.NoError(t, err)
	return NewJob[F](t, be, p, b, stores...)
}

// NewJob binds a program to stores and fills the inputs that nn.Compile names.
func NewJob[F host.Float](t testing.TB, be backend.Backend, p *graph.Program, b Batch, stores ...*graph.Store) *Job[F] {
	t.Helper()
	n := len(b.Labels)
	r, err := p.NewRun(be, n)
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.Close() })
	require.NoError(t, r.Bind(stores...))
	j := &Job[F]{Program: p, Run: r, Batch: b}
	j.Scalars.Count = [backend.NumAxes]int{backend.Tok: len(b.IDs), backend.Seq: n, backend.Unit: n}
	for name, v := range map[string][]int32{nn.InIDs: b.IDs, nn.InPos: b.Pos, nn.InTypes: b.Types, nn.InSeqs: b.Seqs} {
		copy(r.Ints(name), v)
	}
	offs := r.Ints(nn.InOffsets)
	for i := range offs { // unused sequences are empty
		offs[i] = b.Offsets[min(i, n)]
	}
	for i, y := range b.Labels {
		for name, v := range map[string]float64{nn.InLabels: y, nn.InMask: 1, nn.InWeights: 1 / float64(n)} {
			j.Set(name, i, v)
		}
		for name, v := range map[string]int32{nn.InSlots: int32(i), nn.InClass: int32(y), nn.InKeys: int32(i)} {
			if x := r.Ints(name); x != nil {
				x[i] = v
			}
		}
	}
	return j
}

// Set sets element i of an input, if the program has it.
func (j *Job[F]) Set(name string, i int, v float64) {
	if x := graph.Floats[F](j.Run, name); x != nil {
		x[i] = F(v)
	}
}

// Do runs the program.
func (j *Job[F]) Do(t testing.TB) {
	t.Helper()
	require.NoError(t, j.Run.Do(context.Background(), &j.Scalars, false))
}

// Out is the first rows of an output of the last Do.
func (j *Job[F]) Out(t testing.TB, name string, rows int) []F {
	t.Helper()
	v, err := graph.Output[F](j.Run, name, rows, nil)
	require.NoError(t, err)
	return v
}

// Result is Do, then Out.
func (j *Job[F]) Result(t testing.TB, name string, rows int) []F {
	t.Helper()
	j.Do(t)
	return j.Out(t, name, rows)
}

// Store is a store of parameters at their initial values until the test ends.
func Store(t testing.TB, be backend.Backend, ps []*nn.Param, training bool) *graph.Store {
	t.Helper()
	s, err := nn.NewStore(be, ps, training)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// Grad is the gradient of a parameter.
func Grad[F host.Float](t testing.TB, s *graph.Store, path string) []F {
	t.Helper()
	g, err := graph.ReadGradient[F](s, path)
	require.NoError(t, err)
	return g
}

// Ref is the reference backend with its own workers, until the test ends.
func Ref[F host.Float](t testing.TB, workers int) backend.Backend {
	t.Helper()
	p := host.NewPool(workers)
	t.Cleanup(p.Close)
	return ref.On[F](p)
}
