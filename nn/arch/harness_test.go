package arch

import (
	"context"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/checkpoints"
	"rung/nn"
	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/backend/ref"
	"rung/nn/graph"
	"rung/nn/nntest/shared"
)

// golden opens a reference file, or skips.
func golden(t testing.TB, path ...string) *checkpoints.File {
	t.Helper()
	f, err := checkpoints.OpenFile(shared.Path(t, append([]string{"golden"}, path...)...))
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func floats(t testing.TB, f *checkpoints.File, name string) []float64 {
	t.Helper()
	x, err := f.Tensor(name)
	require.NoError(t, err, filepath.Base(f.Path()))
	v, err := checkpoints.Float64s(x)
	require.NoError(t, err)
	return v
}

func ints(t testing.TB, f *checkpoints.File, name string) []int32 {
	t.Helper()
	x, err := f.Tensor(name)
	require.NoError(t, err)
	v, err := checkpoints.Int32s(x)
	require.NoError(t, err)
	return v
}

// from gives the parameters the values of checkpoint files.
func from(t testing.TB, ps []*nn.Param, files ...*checkpoints.File) {
	t.Helper()
next:
	for _, p := range ps {
		for _, f := range files {
			if x, err := f.Tensor(p.Path); err == nil {
				p.Init = func(dst []float32) error { return checkpoints.CopyFloat32s(dst, x) }
				continue next
			}
		}
		t.Fatalf("no file has %s", p.Path)
	}
}

// packed is a batch of sequences end to end, one unit of one candidate each.
type packed struct {
	ids, pos, types, seqs, offs []int32
	labels                      []float64
}

func (b *packed) add(ids, types []int32, label float64) {
	for j, id := range ids {
		b.ids, b.pos, b.types, b.seqs = append(b.ids, id), append(b.pos, int32(j)), append(b.types, types[j]), append(b.seqs, int32(len(b.labels)))
	}
	if b.offs == nil {
		b.offs = []int32{0}
	}
	b.offs, b.labels = append(b.offs, int32(len(b.ids))), append(b.labels, label)
}

// pack drops the padding of a golden batch.
func pack(t testing.TB, f *checkpoints.File) (b packed) {
	ids, types, mask, labels := ints(t, f, "input_ids"), ints(t, f, "token_type_ids"), ints(t, f, "attention_mask"), floats(t, f, "labels")
	n := len(labels)
	l := len(ids) / n
	for s := range n {
		k := l
		for k > 0 && mask[s*l+k-1] == 0 {
			k--
		}
		b.add(ids[s*l:s*l+k], types[s*l:s*l+k], labels[s])
	}
	return b
}

// only is sequence s alone.
func (b packed) only(s int) (o packed) {
	lo, hi := b.offs[s], b.offs[s+1]
	o.add(b.ids[lo:hi], b.types[lo:hi], b.labels[s])
	return o
}

// job is a program and its run on one batch.
type job[F host.Float] struct {
	p *graph.Program
	r *graph.Run
	s *graph.Store
	n backend.Scalars
	b packed
}

// start compiles m for b plus spare capacity, and fills the inputs.
func start[F host.Float](t testing.TB, be backend.Backend, m nn.Model, pl nn.Plan, b packed, spareT, spareN int) *job[F] {
	t.Helper()
	n := len(b.labels)
	pl.Dims, pl.Float = graph.Dims{T: len(b.ids) + spareT, N: n + spareN, B: n + spareN, K: 1}, be.Float()
	p, err := nn.Compile(m, pl)
	require.NoError(t, err)
	s, err := nn.NewStore(be, m.Params(), true)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	r, err := p.NewRun(be, n)
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.Close() })
	require.NoError(t, r.Bind(s))
	j := &job[F]{p: p, r: r, s: s, b: b}
	j.n.Count = [backend.NumAxes]int{backend.Tok: len(b.ids), backend.Seq: n, backend.Unit: n}
	fill[F](r, b)
	return j
}

func fill[F host.Float](r *graph.Run, b packed) {
	copy(r.Ints(nn.InIDs), b.ids)
	copy(r.Ints(nn.InPos), b.pos)
	copy(r.Ints(nn.InTypes), b.types)
	copy(r.Ints(nn.InSeqs), b.seqs)
	offs := r.Ints(nn.InOffsets)
	for i := range offs { // unused sequences are empty
		offs[i] = b.offs[min(i, len(b.labels))]
	}
	for i := range b.labels {
		for name, v := range map[string]float64{nn.InLabels: b.labels[i], nn.InMask: 1, nn.InWeights: 1 / float64(len(b.labels))} {
			if x := graph.Floats[F](r, name); x != nil {
				x[i] = F(v)
			}
		}
		for name, v := range map[string]int32{nn.InSlots: int32(i), nn.InClass: int32(b.labels[i]), nn.InKeys: int32(i)} {
			if x := r.Ints(name); x != nil {
				x[i] = v
			}
		}
	}
}

func (j *job[F]) do(t testing.TB) {
	t.Helper()
	require.NoError(t, j.r.Do(context.Background(), &j.n, false))
}

func (j *job[F]) out(t testing.TB, name string, rows int) []F {
	t.Helper()
	v, err := graph.Output[F](j.r, name, rows, nil)
	require.NoError(t, err)
	return v
}

func (j *job[F]) grad(t testing.TB, path string) []F {
	t.Helper()
	v, err := graph.ReadGradient[F](j.s, path)
	require.NoError(t, err)
	return v
}

// rel is |a-b| / |b|, or |a| where b is zero by theory.
func rel[F host.Float](a []F, b []float64) float64 {
	if len(a) != len(b) {
		return math.Inf(1)
	}
	var d, n float64
	for i := range a {
		d += (float64(a[i]) - b[i]) * (float64(a[i]) - b[i])
		n += b[i] * b[i]
	}
	if n < 1e-16 {
		return math.Sqrt(d)
	}
	return math.Sqrt(d / n)
}

func zeroByTheory(name string) bool { return strings.HasSuffix(name, "attention.self.key.bias") }

func refs[F host.Float](workers int, t testing.TB) backend.Backend {
	p := host.NewPool(workers)
	t.Cleanup(p.Close)
	return ref.On[F](p)
}
