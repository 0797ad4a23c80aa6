package graph_test

import (
	"bytes"
	"context"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/backend/philox"
	"rung/nn/backend/ref"
	"rung/nn/graph"
)

// The batch of all tests: sequences of 3, 0, 1 and 3 tokens, three units of at most three candidates,
// of which the last has none.
var (
	batch  = graph.Dims{T: 7, N: 4, B: 3, K: 3}
	counts = [backend.NumAxes]int{backend.Tok: batch.T, backend.Seq: batch.N, backend.Unit: batch.B}
	ints   = map[string][]int32{
		"ids": {3, 1, 4, 1, 0, 2, 4}, "pos": {0, 1, 2, 0, 0, 1, 2}, "types": {0, 0, 1, 1, 0, 1, 1},
		"seqs": {0, 0, 0, 2, 3, 3, 3}, "offsets": {0, 3, 3, 4, 7}, "keys": {11, 7, 5, 900},
		"slots": {0, 2, -1, 3, 0, 2, -1, -1, -1}, "queries": {2, 0, 3}, "class": {1, -1, 0, 2},
	}
	floats = map[string][]float64{
		"mask": {1, 1, 0, 1, 1, 1, 0, 0, 0}, "weights": {.5, 2, 0},
	}
)

// empty is the sequence without tokens.
const empty = 1

// A net is a graph that a test builds. It remembers the weights.
type net struct {
	*graph.Builder
	d      graph.Dims
	params []string
	dims   map[string][]int
}

func (g *net) param(name string, dims ...int) graph.E {
	if g.dims[name] == nil {
		g.params, g.dims[name] = append(g.params, name), dims
	}
	return g.Param(name, dims...)
}

// index is one of the inputs named in ints.
func (g *net) index(name string) graph.E {
	switch name {
	case "offsets":
		return g.Index(name, graph.Vec(g.d.N+1))
	case "keys", "class":
		return g.Index(name, graph.Each(backend.Seq, g.d.N))
	case "queries":
		return g.Index(name, graph.Each(backend.Unit, g.d.B))
	case "slots":
		return g.Index(name, graph.Rows(backend.Unit, g.d.B, g.d.K))
	}
	return g.Index(name, graph.Each(backend.Tok, g.d.T))
}

// rows are rows along an axis with a gradient: an input by a weight of the same name.
func (g *net) rows(a backend.Axis, name string, cols int) graph.E {
	n := map[backend.Axis]int{backend.Tok: g.d.T, backend.Seq: g.d.N, backend.Unit: g.d.B}[a]
	return g.Linear(g.Input(name+".in", graph.Rows(a, n, 3)), g.param(name, cols, 3), graph.E{})
}

func (g *net) tok(name string, cols int) graph.E  { return g.rows(backend.Tok, name, cols) }
func (g *net) seq(name string, cols int) graph.E  { return g.rows(backend.Seq, name, cols) }
func (g *net) unit(name string, cols int) graph.E { return g.rows(backend.Unit, name, cols) }

// table is an input (B,K).
func (g *net) table(name string) graph.E {
	return g.Input(name, graph.Rows(backend.Unit, g.d.B, g.d.K))
}

// build returns the output, and what recomputation keeps.
type build func(g *net) []graph.E

type option struct {
	rewrite bool
	spareT  int // capacity beyond the batch
	spareN  int
	spareB  int
	keep    bool // recompute all but what build says
	perUnit bool
	workers int
	frozen  []string
	quiet   bool // the empty sequence has a gradient of 0, and its value is not compared
	stale   byte // what the memory of a run is painted with; 0: 0xff, which are NaN
}

// A job is a compiled net with weights, bound to the batch.
type job struct {
	g  *net
	p  *graph.Program
	r  *graph.Run
	s  *graph.Store
	be backend.Backend
	y  graph.Shape
	o  option
	n  backend.Scalars
}

// painted reserves memory that is not zero.
type painted struct {
	backend.Backend
	with byte
}

func (p painted) Reserve(n int64) (backend.Memory, error) {
	m, err := p.Backend.Reserve(n)
	if err == nil {
		copy(m.Host(), bytes.Repeat([]byte{p.with}, int(n)))
	}
	return m, err
}

func workers(t testing.TB, n int) backend.Backend {
	p := host.NewPool(max(1, n))
	t.Cleanup(p.Close)
	return ref.On[float64](p)
}

// draw is values in (-1,1) that only the name decides.
func draw(name string, n int) []float64 {
	v := make([]float64, n)
	philox.Uniforms(v, 7, name)
	for i := range v {
		v[i] = 2*v[i] - 1
	}
	return v
}

// compile builds the program: outputs "y" and, with a gradient of each weight, the seed "probe".
func compile(f build, o option) (*net, *graph.Program, graph.Shape, error) {
	g := &net{Builder: graph.New(backend.Float64), dims: map[string][]int{}}
	g.d = graph.Dims{T: batch.T + o.spareT, N: batch.N + o.spareN, B: batch.B + o.spareB, K: batch.K}
	outs := f(g)
	if !o.keep {
		outs = outs[:1]
	}
	b := g.Builder
	if o.rewrite {
		b, outs = graph.Rewrite(outs)
	}
	y := outs[0]
	s := graph.Spec{Outputs: map[string]graph.E{"y": y}, PerUnit: o.perUnit, Keep: outs[1:]}
	s.Seeds = []graph.Seed{{Out: y, Grad: b.Input("probe", y.Shape())}}
	for _, name := range g.params {
		if !slices.Contains(o.frozen, name) {
			s.Wrt = append(s.Wrt, b.Param(name, g.dims[name]...))
		}
	}
	p, err := graph.Compile(b, s)
	return g, p, y.Shape(), err
}

func start(t testing.TB, f build, o option) *job {
	t.Helper()
	g, p, y, err := compile(f, o)
	require.NoError(t, err)
	j := &job{g: g, p: p, y: y, o: o, be: workers(t, o.workers)}
	j.n = backend.Scalars{Count: counts, Seed: 42, Step: 3}
	j.s = j.store(t, "", o.frozen...)
	j.r = j.run(t, o)
	require.NoError(t, j.r.Bind(j.s))
	return j
}

// store is weights drawn by their names after salt.
func (j *job) store(t testing.TB, salt string, frozen ...string) *graph.Store {
	t.Helper()
	var seg []graph.Segment
	for _, name := range j.g.params {
		seg = append(seg, graph.Segment{Path: name, Dims: j.g.dims[name], Trainable: !slices.Contains(frozen, name)})
	}
	s, err := graph.NewStore(j.be, seg, true)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	for _, x := range s.Seg {
		require.NoError(t, graph.WriteWeight(s, x.Path, draw(salt+x.Path, x.Size())))
	}
	return s
}

// run is memory for one execution, its inputs filled.
func (j *job) run(t testing.TB, o option) *graph.Run {
	t.Helper()
	if o.stale == 0 {
		o.stale = 0xff
	}
	r, err := j.p.NewRun(painted{j.be, o.stale}, batch.B)
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.Close() })
	for name, v := range ints {
		x := r.Ints(name)
		copy(x, v)
		if name == "offsets" { // unused sequences are empty
			for i := len(v); i < len(x); i++ {
				x[i] = v[len(v)-1]
			}
		}
	}
	for _, l := range j.p.Leaves[backend.Input] {
		x := graph.Floats[float64](r, l.Name)
		if v, ok := floats[l.Name]; ok {
			copy(x, v)
			continue
		}
		n := l.Shape.Size()
		if l.Shape.Axis != backend.Fixed {
			n = counts[l.Shape.Axis] * l.Shape.Cols()
		}
		copy(x, draw(l.Name, n))
	}
	if o.quiet && j.y.Axis == backend.Seq {
		clear(graph.Floats[float64](r, "probe")[empty*j.y.Cols():][:j.y.Cols()])
	}
	return r
}

func (j *job) do(t testing.TB) {
	t.Helper()
	require.NoError(t, j.r.Do(context.Background(), &j.n, false))
}

// value is the real rows of the output.
func (j *job) value(t testing.TB) []float64 {
	t.Helper()
	rows := j.y.Dims[0]
	if j.y.Axis != backend.Fixed {
		rows = min(rows, j.n.Count[j.y.Axis])
	}
	v, err := graph.Output[float64](j.r, "y", rows, nil)
	require.NoError(t, err)
	if j.o.quiet && j.y.Axis == backend.Seq {
		clear(v[empty*j.y.Cols():][:j.y.Cols()])
	}
	return v
}

// gradients of all weights that have one.
func (j *job) gradients(t testing.TB) map[string][]float64 {
	t.Helper()
	g := map[string][]float64{}
	for _, l := range j.p.Leaves[backend.Grad] {
		v, err := graph.ReadGradient[float64](j.s, l.Name)
		require.NoError(t, err)
		g[l.Name] = v
	}
	return g
}

// loss is Σ probe y.
func (j *job) loss(t testing.TB) float64 {
	t.Helper()
	j.do(t)
	probe, s := graph.Floats[float64](j.r, "probe"), 0.0
	for i, v := range j.value(t) {
		s += probe[i] * v
	}
	return s
}

// differences requires the gradients of all weights to be central differences, to 1e-7.
func (j *job) differences(t testing.TB) {
	t.Helper()
	const h = 1e-5
	j.do(t)
	for path, got := range j.gradients(t) {
		w, err := graph.ReadWeight[float64](j.s, path)
		require.NoError(t, err)
		want := make([]float64, len(w))
		for i, x := range w {
			w[i] = x + h
			require.NoError(t, graph.WriteWeight(j.s, path, w))
			up := j.loss(t)
			w[i] = x - h
			require.NoError(t, graph.WriteWeight(j.s, path, w))
			want[i] = (up - j.loss(t)) / (2 * h)
			w[i] = x
		}
		require.NoError(t, graph.WriteWeight(j.s, path, w))
		require.Less(t, rel(got, want), 1e-7, "gradient of %s: %v, by differences %v", path, got, want)
	}
}

// rel is |a-b| / max(|b|, 1e-3): what has no gradient must have none.
func rel(a, b []float64) float64 {
	if len(a) != len(b) {
		return math.Inf(1)
	}
	var d, n float64
	for i := range a {
		d += (a[i] - b[i]) * (a[i] - b[i])
		n += b[i] * b[i]
	}
	if math.IsNaN(d) {
		return math.Inf(1)
	}
	return math.Sqrt(d) / max(math.Sqrt(n), 1e-3)
}

// near requires the same value and gradients, to a part in 10^12.
func near(t testing.TB, a, b *job) {
	t.Helper()
	require.Less(t, rel(a.value(t), b.value(t)), 1e-12)
	ga, gb := a.gradients(t), b.gradients(t)
	require.Equal(t, len(ga), len(gb))
	for path := range ga {
		require.Less(t, rel(ga[path], gb[path]), 1e-12, path)
	}
}

// same requires the same bits.
func same(t testing.TB, a, b *job) {
	t.Helper()
	require.Equal(t, a.value(t), b.value(t))
	require.Equal(t, a.gradients(t), b.gradients(t))
}
