package lora

import (
	"context"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/checkpoints"
	"rung/nn"
	"rung/nn/arch"
	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/backend/ref"
	"rung/nn/graph"
	"rung/nn/loss"
	"rung/nn/nntest/shared"
)

// small is a BERT of two layers for tests that need no reference data.
const small = `{"model_type":"bert","hidden_size":8,"num_hidden_layers":2,"num_attention_heads":2,"intermediate_size":12,
	"vocab_size":20,"max_position_embeddings":10,"type_vocab_size":2,"hidden_act":"gelu","layer_norm_eps":1e-12,
	"hidden_dropout_prob":0.1,"attention_probs_dropout_prob":0.1}`

// smallCross is a cross-encoder with random weights.
func smallCross(t testing.TB) *arch.Cross {
	t.Helper()
	c, err := nn.ParseConfig([]byte(small))
	require.NoError(t, err)
	m := arch.NewCross(c, 1)
	for _, p := range m.Params() {
		if !strings.Contains(p.Path, "LayerNorm.weight") {
			p.Init = p.Normal(3, .3)
		}
	}
	return m
}

// embedder is an encoder of single texts: no classifier.
type embedder struct{ *nn.Encoder }

func (m embedder) Forward(p *nn.Pass) nn.Outputs {
	return nn.Outputs{Embed: nn.Mean.Forward(p, m.Encoder.Forward(p))}
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

// smallBatch is three sequences for smallCross.
func smallBatch() (b packed) {
	b.add([]int32{1, 5, 9, 2, 7}, []int32{0, 0, 0, 1, 1}, 1)
	b.add([]int32{3, 4, 19}, []int32{0, 1, 1}, 0)
	b.add([]int32{8, 8, 0, 11, 6, 13, 2}, []int32{0, 0, 0, 0, 1, 1, 1}, 1)
	return b
}

// pack drops the padding of a golden batch.
func pack(t testing.TB, f *checkpoints.File) (b packed) {
	ids, types, mask, labels := ints(t, f, "input_ids"), ints(t, f, "token_type_ids"), ints(t, f, "attention_mask"), floats(t, f, "labels")
	l := len(ids) / len(labels)
	for s, y := range labels {
		k := l
		for k > 0 && mask[s*l+k-1] == 0 {
			k--
		}
		b.add(ids[s*l:s*l+k], types[s*l:s*l+k], y)
	}
	return b
}

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
	require.NoError(t, err)
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

func copies(x checkpoints.Tensor) func([]float32) error {
	return func(dst []float32) error { return checkpoints.CopyFloat32s(dst, x) }
}

// job is a program, its stores and its run on one batch.
type job[F host.Float] struct {
	p *graph.Program
	r *graph.Run
	n backend.Scalars
	b packed
}

func store(t testing.TB, be backend.Backend, ps []*nn.Param, training bool) *graph.Store {
	t.Helper()
	s, err := nn.NewStore(be, ps, training)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// start compiles m for b, with a little spare capacity, and fills the inputs.
func start[F host.Float](t testing.TB, be backend.Backend, m nn.Model, pl nn.Plan, b packed, stores ...*graph.Store) *job[F] {
	t.Helper()
	n := len(b.labels)
	pl.Dims, pl.Float = graph.Dims{T: len(b.ids) + 3, N: n + 1, B: n + 1, K: 1}, be.Float()
	p, err := nn.Compile(m, pl)
	require.NoError(t, err)
	r, err := p.NewRun(be, n)
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.Close() })
	require.NoError(t, r.Bind(stores...))
	j := &job[F]{p: p, r: r, b: b}
	j.n.Seed = 17
	j.n.Count = [backend.NumAxes]int{backend.Tok: len(b.ids), backend.Seq: n, backend.Unit: n}
	for name, v := range map[string][]int32{nn.InIDs: b.ids, nn.InPos: b.pos, nn.InTypes: b.types, nn.InSeqs: b.seqs} {
		copy(r.Ints(name), v)
	}
	offs := r.Ints(nn.InOffsets)
	for i := range offs { // unused sequences are empty
		offs[i] = b.offs[min(i, n)]
	}
	for i, y := range b.labels {
		j.float(nn.InLabels, i, y)
		j.float(nn.InMask, i, 1)
		j.float(nn.InWeights, i, 1/float64(n))
		for _, name := range []string{nn.InSlots, nn.InKeys} {
			if x := r.Ints(name); x != nil {
				x[i] = int32(i)
			}
		}
	}
	return j
}

func (j *job[F]) float(name string, i int, v float64) {
	if x := graph.Floats[F](j.r, name); x != nil {
		x[i] = F(v)
	}
}

// do runs the program and returns the first rows of an output.
func (j *job[F]) do(t testing.TB, name string, rows int) []F {
	t.Helper()
	require.NoError(t, j.r.Do(context.Background(), &j.n, false))
	v, err := graph.Output[F](j.r, name, rows, nil)
	require.NoError(t, err)
	return v
}

// scores are the scores of m on b.
func scores[F host.Float](t testing.TB, m nn.Model, b packed, stores ...*graph.Store) []F {
	t.Helper()
	j := start[F](t, stores[0].Backend(), m, nn.Plan{}, b, stores...)
	return j.do(t, nn.OutScores, len(b.labels))
}

func refs[F host.Float](t testing.TB) backend.Backend {
	p := host.NewPool(2)
	t.Cleanup(p.Close)
	return ref.On[F](p)
}

// bce trains on the labels of the batch.
var bce = nn.Plan{Objective: loss.BCE{}}

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

// peftName is PEFT's name of a parameter while it is in a model, from that in its file.
func peftName(a *Adapter, p *nn.Param) string {
	name := a.names()[p]
	module, last := moduleOf(name), name[strings.LastIndexByte(name, '.'):]
	switch {
	case strings.Contains(name, ".lora_"):
		return module + ".default" + last
	case strings.HasSuffix(module, ".base_layer"):
		return name
	}
	return module + ".modules_to_save.default" + last
}
