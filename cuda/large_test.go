//go:build gpu

package cuda_test

import (
	"context"
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/cuda"
	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/backend/philox"
	"rung/nn/backend/ref"
	"rung/nn/nntest"
)

// A matrix of a call: values, or ids where it is an index.
type matrix struct {
	axis       backend.Axis
	rows, cols int
	v          []float32
	ids        []int32
	acc        bool
}

// normal is a matrix of N(0,1).
func normal(name string, axis backend.Axis, rows, cols int) matrix {
	d := make([]float64, rows*cols)
	philox.Normal(d, 7, name)
	m := matrix{axis: axis, rows: rows, cols: cols}
	for _, v := range d {
		m.v = append(m.v, float32(v))
	}
	return m
}

// A problem is one call on matrices without gaps.
type problem struct {
	op      backend.Op
	i       [4]int
	f       [4]float64
	out, in []matrix
	count   [backend.NumAxes]int
}

// bind places the call in a backend's memory: its arena has the floats, where those that are not given are NaN.
func (p *problem) bind(t testing.TB, be backend.Backend) (c backend.Call, bind backend.Binding, arena backend.Memory) {
	t.Helper()
	var bytes []byte
	place := func(m *matrix) backend.Buf {
		b := backend.Buf{Space: backend.Arena, Axis: m.axis, Rows: m.rows, Cols: m.cols, Ld: m.cols, Acc: m.acc}
		switch {
		case m.ids != nil:
			mem, err := be.Reserve(int64(4 * len(m.ids)))
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, mem.Free()) })
			require.NoError(t, mem.WriteAt(host.Bytes(m.ids), 0))
			b.Space, b.ID = backend.Index, len(bind.Blocks[backend.Index])
			bind.Blocks[backend.Index] = append(bind.Blocks[backend.Index], backend.Block{Mem: mem})
		case m.rows == 0:
			return backend.Buf{}
		default:
			b.Off = len(bytes) / 4
			v := m.v
			if v == nil {
				v = make([]float32, m.rows*m.cols)
				for i := range v {
					v[i] = float32(math.NaN())
				}
			}
			bytes = append(bytes, host.Bytes(v)...)
			for len(bytes)%64 != 0 {
				bytes = append(bytes, 0)
			}
		}
		return b
	}
	c = backend.Call{Op: p.op, Node: "test", I: p.i, F: p.f}
	for k := range p.out {
		c.Out = append(c.Out, place(&p.out[k]))
	}
	for k := range p.in {
		c.In = append(c.In, place(&p.in[k]))
	}
	arena, err := be.Reserve(int64(len(bytes)))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, arena.Free()) })
	require.NoError(t, arena.WriteAt(bytes, 0))
	bind.Arena = arena
	return c, bind, arena
}

// solve runs the call and returns its results.
func (p *problem) solve(t testing.TB, be backend.Backend) [][]float32 {
	t.Helper()
	c, bind, arena := p.bind(t, be)
	x, err := be.Encode([]backend.Call{c}, bind)
	require.NoError(t, err)
	defer func() { require.NoError(t, x.Close()) }()
	require.NoError(t, x.Launch(context.Background(), &backend.Scalars{Count: p.count, Seed: 5, Step: 3}))
	var all [][]float32
	for _, b := range c.Out {
		v := make([]float32, b.Rows*b.Cols)
		if len(v) > 0 {
			require.NoError(t, arena.ReadAt(host.Bytes(v), int64(4*b.Off)))
		}
		all = append(all, v)
	}
	return all
}

// agree runs the call on the device and by the reference, whose results it expects within tol.
func (p *problem) agree(t *testing.T, be backend.Backend, tol float64) {
	t.Helper()
	want, got := p.solve(t, ref.New[float32]()), p.solve(t, be)
	for k := range want {
		real := len(want[k])
		if m := &p.out[k]; m.axis != backend.Fixed { // rows past the count are left as they are
			real = min(m.rows, p.count[m.axis]) * m.cols
			for i, v := range got[k][real:] {
				require.True(t, v != v || m.v != nil && v == m.v[real+i], "result %d: element %d is written", k, real+i)
			}
		}
		require.LessOrEqual(t, nntest.Rel(got[k][:real], want[k][:real]), tol, "result %d", k)
	}
}

// Sizes that a training step has, which go past every tile and are split: those of the suite do not.
func TestLarge(t *testing.T) {
	be := open(t, cuda.FP32)
	rows := 1100
	if testing.Short() {
		rows = 600
	}
	count := [backend.NumAxes]int{backend.Tok: rows}
	x, dy, w := normal("x", backend.Tok, rows, 200), normal("dy", backend.Tok, rows, 136), normal("w", backend.Fixed, 136, 200)
	wide := normal("wide", backend.Fixed, 640, 200)
	h, u := normal("h", backend.Tok, rows, 8), normal("u", backend.Fixed, 136, 8)
	ids, kinds, chosen := make([]int32, rows), make([]int32, rows), matrix{axis: backend.Tok, rows: rows, cols: 2, v: make([]float32, 2*rows)}
	for i := range ids {
		chosen.v[2*i], chosen.v[2*i+1] = float32(i%3), float32(3+i*i%5)
		ids[i], kinds[i] = int32(i*i%97), int32(i%3)
	}
	for name, p := range map[string]problem{
		"matnt": {
			op: backend.MatNT, i: [4]int{2, backend.ActGELU},
			out: []matrix{{axis: backend.Tok, rows: rows, cols: 272}, {axis: backend.Tok, rows: rows, cols: 272}},
			in:  []matrix{x, w, normal("b", backend.Fixed, 1, 136), h, u, w, {}, {}, {}},
		},
		"matnt wide": {op: backend.MatNT, i: [4]int{1}, out: []matrix{{axis: backend.Tok, rows: rows, cols: 640}, {}}, in: []matrix{x, wide, {}, {}, {}}},
		"matnn":      {op: backend.MatNN, i: [4]int{2, backend.ActGELU}, out: []matrix{{axis: backend.Tok, rows: rows, cols: 200}}, in: []matrix{x, dy, w, dy, w}},
		"mattn":      {op: backend.MatTN, out: []matrix{{rows: 136, cols: 200, acc: true, v: w.v}}, in: []matrix{dy, x}},
		"colsum":     {op: backend.ColSum, out: []matrix{{rows: 1, cols: 200}}, in: []matrix{x}},
		"norm.dg": {
			op: backend.NormDG, out: []matrix{{rows: 1, cols: 200, acc: true, v: w.v[:200]}, {rows: 1, cols: 200}},
			in: []matrix{x, normal("m", backend.Tok, rows, 1), normal("r", backend.Tok, rows, 1), normal("d", backend.Tok, rows, 200)},
		},
		"grouptn":        {op: backend.GroupTN, out: []matrix{{rows: 72, cols: 200, acc: true, v: w.v[:14400]}}, in: []matrix{normal("m", backend.Tok, rows, 18), x, chosen}},
		"grouptn across": {op: backend.GroupTN, i: [4]int{1}, out: []matrix{{rows: 200, cols: 64}}, in: []matrix{normal("m", backend.Tok, rows, 16), x, chosen}},
		"embed.grad":     {op: backend.EmbedGrad, out: []matrix{{rows: 97, cols: 200}}, in: []matrix{{axis: backend.Fixed, rows: 1, cols: rows, ids: ids}, x}},
		"embed.grad few": {op: backend.EmbedGrad, out: []matrix{{rows: 3, cols: 200, acc: true, v: w.v[:600]}}, in: []matrix{{axis: backend.Fixed, rows: 1, cols: rows, ids: kinds}, x}},
		"sumsq":          {op: backend.SumSq, out: []matrix{{rows: 1, cols: 2}}, in: []matrix{x, wide}},
	} {
		t.Run(name, func(t *testing.T) {
			p.count = count
			p.agree(t, be, 2e-6)
		})
	}
}

// Heads of more columns than the tiled kernels have.
func TestWideHeads(t *testing.T) {
	be := open(t, cuda.FP32)
	offs := []int32{0, 5, 5, 75, 90}
	for _, d := range []int{65, 80, 130, 300} {
		for single := range 2 {
			t.Run(fmt.Sprintf("%d/%d", d, single), func(t *testing.T) { attention(t, be, offs, d, single, 2e-6, 4e-6) })
		}
	}
}

// Attention on tensor cores: what rounding to 11 bits leaves.
func TestTensorCoreAttention(t *testing.T) {
	be := open(t, cuda.TF32)
	offs := []int32{0, 5, 5, 75, 90, 290}
	for _, d := range []int{3, 32, 40, 64} {
		for single := range 2 {
			t.Run(fmt.Sprintf("%d/%d", d, single), func(t *testing.T) { attention(t, be, offs, d, single, 1e-3, 2e-3) })
		}
	}
}

// attention holds attention of two heads of d columns, and its gradient, to the reference within tolerances.
func attention(t *testing.T, be backend.Backend, offs []int32, d, single int, forward, backward float64) {
	seqs, tokens := len(offs)-1, int(offs[len(offs)-1])
	axis, n := backend.Tok, tokens
	if single == 1 {
		axis, n = backend.Seq, seqs
	}
	keys := []int32{3, 1, 4, 1 << 30, -7}[:seqs]
	q, k, v := normal("q", axis, n, 2*d), normal("k", backend.Tok, tokens, 2*d), normal("v", backend.Tok, tokens, 2*d)
	p := problem{op: backend.Attn, i: [4]int{2, single, 3}, f: [4]float64{.2}, count: [backend.NumAxes]int{backend.Tok: tokens, backend.Seq: seqs}}
	p.out = []matrix{{axis: axis, rows: n, cols: 2 * d}, {axis: axis, rows: n, cols: 2}}
	p.in = []matrix{q, k, v, {rows: 1, cols: seqs + 1, ids: offs}, {rows: 1, cols: seqs, ids: keys}}
	p.agree(t, be, forward)
	r := p.solve(t, ref.New[float32]())
	y, lse := matrix{axis: axis, rows: n, cols: 2 * d, v: r[0]}, matrix{axis: axis, rows: n, cols: 2, v: r[1]}
	p.op, p.in = backend.AttnGrad, append(p.in, y, lse, normal("dy", axis, n, 2*d))
	p.out = []matrix{{axis: axis, rows: n, cols: 2 * d}, {axis: backend.Tok, rows: tokens, cols: 2 * d}, {axis: backend.Tok, rows: tokens, cols: 2 * d}}
	p.agree(t, be, backward)
}

// round rounds to a number of significant bits, halves to even or away from 0.
func round(v float32, bits int, even bool) float64 {
	u, drop := math.Float32bits(v), 24-bits
	half := uint32(1) << (drop - 1)
	if even {
		half = half - 1 + u>>drop&1
	}
	return float64(math.Float32frombits((u + half) &^ (1<<drop - 1)))
}

// Products on tensor cores are those of rounded operands, with sums in float32.
func TestTensorCores(t *testing.T) {
	for _, precision := range []cuda.Precision{cuda.TF32, cuda.BF16} {
		be := open(t, precision)
		bits := map[cuda.Precision]int{cuda.TF32: 11, cuda.BF16: 8}[precision]
		for _, s := range [][3]int{{3, 5, 7}, {1, 1, 1}, {64, 64, 32}, {130, 72, 100}, {257, 136, 40}, {300, 260, 64}} {
			rows, n, k := s[0], s[1], s[2]
			for _, op := range []backend.Op{backend.MatNT, backend.MatNN, backend.MatTN} {
				t.Run(fmt.Sprintf("%v/%v/%v", precision, op, s), func(t *testing.T) {
					p := problem{op: op, i: [4]int{1}, count: [backend.NumAxes]int{backend.Tok: rows}}
					a, b := normal("a", backend.Tok, rows, k), matrix{}
					// c[i,j] = Σ a(i,l) b(l,j)
					at := func(i, l int) float32 { return a.v[i*k+l] }
					var bt func(l, j int) float32
					m, sum := rows, k
					switch op {
					case backend.MatNT:
						b = normal("b", backend.Fixed, n, k)
						bt = func(l, j int) float32 { return b.v[j*k+l] }
						p.in, p.out = []matrix{a, b, {}, {}, {}}, []matrix{{axis: backend.Tok, rows: rows, cols: n}, {}}
					case backend.MatNN:
						b = normal("b", backend.Fixed, k, n)
						bt = func(l, j int) float32 { return b.v[l*n+j] }
						p.in, p.out = []matrix{{}, a, b}, []matrix{{axis: backend.Tok, rows: rows, cols: n}}
					default:
						b = normal("b", backend.Tok, rows, n)
						m, sum = k, rows
						at = func(i, l int) float32 { return a.v[l*k+i] }
						bt = func(l, j int) float32 { return b.v[l*n+j] }
						p.in, p.out = []matrix{a, b}, []matrix{{rows: k, cols: n}}
					}
					got := p.solve(t, be)[0]
					for i := range m {
						for j := range n {
							var v, mag float64
							for l := range sum {
								x := round(at(i, l), bits, precision == cuda.BF16) * round(bt(l, j), bits, precision == cuda.BF16)
								v, mag = v+x, mag+math.Abs(x)
							}
							// tensor cores drop bits of what they add: a few units of 2^-23 a step
							require.InDelta(t, v, got[i*n+j], 0x1p-19*mag, "%d,%d", i, j)
						}
					}
				})
			}
		}
	}
}

// What does not fit is refused with the numbers, and calls of the host's with a reason.
func TestRefusals(t *testing.T) {
	be := open(t, cuda.FP32)
	_, err := be.Reserve(1 << 45)
	require.ErrorContains(t, err, fmt.Sprint(1<<45))
	require.ErrorContains(t, err, "are free")
	_, err = be.Encode([]backend.Call{{Op: backend.Host, Node: "stock.Sin"}}, backend.Binding{})
	require.ErrorContains(t, err, "stock.Sin")
	_, err = cuda.Open(99, cuda.FP32)
	require.ErrorContains(t, err, "no device 99")
}
