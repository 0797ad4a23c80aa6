package cpu_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/backend"
	"rung/nn/backend/host"
)

// A table of which few rows are in use, and a dense weight behind it: neither starts on a page.
const (
	tableAt, tableRows, tableCols = 48, 5000, 40
	denseAt, denseRows, denseCols = tableAt + tableRows*tableCols, 30, 64
	flat                          = denseAt + denseRows*denseCols
)

// TestTracked trains both for some updates: weights, moments and norms have the same bits whether what is zero
// is left out or not.
func TestTracked(t *testing.T) {
	for _, workers := range []int{1, 3} {
		for isa, be := range backends(t, workers) {
			want, _ := trained(t, be, false)
			got, used := trained(t, be, true)
			require.Equal(t, want, got, isa)
			require.Less(t, used, flat/1024/2, "pages in use on %s", isa)
			require.Greater(t, used, denseRows*denseCols/1024)
		}
	}
}

// trained returns weights, moments and norms after each update, and the pages of the first moment in use.
func trained(t *testing.T, be backend.Backend, track bool) (out []float32, used int) {
	t.Helper()
	draw := rand.New(rand.NewPCG(1, 2))
	reserve := func(n int) backend.Memory {
		m, err := be.Reserve(int64(4 * n))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, m.Free()) })
		return m
	}
	w, g, m, v := reserve(flat), reserve(flat), reserve(flat), reserve(flat)
	if track {
		g.(backend.Sparse).Track()
		m.(backend.Sparse).Track()
		v.(backend.Sparse).Track()
	}
	const rows = 24
	in, ids := reserve(rows*(tableCols+denseRows+denseCols)+3*16), reserve(rows)
	x := host.Elements[float32](in.Host())
	start := host.Elements[float32](w.Host())
	for i := range start {
		start[i] = draw.Float32() - .5
	}
	bind := backend.Binding{Arena: in}
	bind.Blocks[backend.Grad] = []backend.Block{{Mem: g}}
	bind.Blocks[backend.Weight] = []backend.Block{{Mem: w}}
	bind.Blocks[backend.Moment1] = []backend.Block{{Mem: m}, {Mem: v}}
	bind.Blocks[backend.Index] = []backend.Block{{Mem: ids}}
	buf := func(s backend.Space, id, off, rows, cols int) backend.Buf {
		return backend.Buf{Space: s, ID: id, Off: off, Rows: rows, Cols: cols, Ld: cols}
	}
	added := func(b backend.Buf) backend.Buf { b.Acc = true; return b }
	arena := func(off, rows, cols int) backend.Buf { return buf(backend.Arena, 0, off, rows, cols) }
	dTable, dy, dx := arena(0, rows, tableCols), arena(rows*tableCols, rows, denseRows), arena(rows*(tableCols+denseRows), rows, denseCols)
	norms, factor := arena(rows*(tableCols+denseRows+denseCols), 1, 2), arena(rows*(tableCols+denseRows+denseCols)+16, 1, 2)
	exec, err := be.Encode([]backend.Call{
		{Op: backend.EmbedGrad, Out: []backend.Buf{added(buf(backend.Grad, 0, tableAt, tableRows, tableCols))}, In: []backend.Buf{buf(backend.Index, 0, 0, 1, rows), dTable}},
		{Op: backend.MatTN, Out: []backend.Buf{added(buf(backend.Grad, 0, denseAt, denseRows, denseCols))}, In: []backend.Buf{dy, dx}},
		{Op: backend.SumSq, Out: []backend.Buf{norms}, In: []backend.Buf{buf(backend.Grad, 0, tableAt, 1, tableRows*tableCols), buf(backend.Grad, 0, denseAt, 1, denseRows*denseCols)}},
		{Op: backend.Clip, Out: []backend.Buf{factor}, In: []backend.Buf{norms}},
		{
			Op: backend.AdamW, In: []backend.Buf{buf(backend.Grad, 0, 0, 1, flat), factor}, F: [4]float64{.9, .999, 1e-8, .01},
			Out: []backend.Buf{buf(backend.Weight, 0, 0, 1, flat), buf(backend.Moment1, 0, 0, 1, flat), buf(backend.Moment1, 1, 0, 1, flat)},
		},
	}, bind)
	require.NoError(t, err)
	defer func() { require.NoError(t, exec.Close()) }()
	for step := range 5 {
		require.NoError(t, g.Clear(0, g.Size()))
		for i := range rows * (tableCols + denseRows + denseCols) {
			x[i] = draw.Float32() - .5
		}
		for i := range rows {
			host.Elements[int32](ids.Host())[i] = int32(draw.IntN(tableRows / 4))
		}
		s := backend.Scalars{Step: uint64(step), Clip: 1}
		s.LR[0] = 1e-2
		require.NoError(t, exec.Launch(t.Context(), &s))
		out = append(out, x[norms.Off:norms.Off+2]...)
	}
	for _, mem := range []backend.Memory{w, g, m, v} {
		out = append(out, host.Elements[float32](mem.Host())...)
	}
	for page := range slices.Chunk(host.Elements[float32](m.Host()), 1024) {
		if slices.ContainsFunc(page, func(v float32) bool { return v != 0 }) {
			used++
		}
	}
	return out, used
}

// Clearing leaves out what is not in use, and nothing else.
func TestTrackedClear(t *testing.T) {
	m, err := host.Reserve(5*4096 + 100)
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Free()) }()
	m.Track()
	ones := slices.Repeat([]byte{1}, int(m.Size()))
	for _, c := range []struct{ off, n, from, to int64 }{
		{0, 10, 0, 5 * 4096}, {4090, 20, 4000, 4100}, {0, m.Size(), 1, m.Size() - 1}, {5*4096 + 1, 99, 0, m.Size()}, {4096, 4096, 4096, 8192},
	} {
		require.NoError(t, m.Clear(0, m.Size()))
		require.Equal(t, make([]byte, m.Size()), m.Host())
		require.NoError(t, m.WriteAt(ones[:c.n], c.off))
		require.NoError(t, m.Clear(c.from, c.to-c.from))
		for i, b := range m.Host() {
			i := int64(i)
			want := i >= c.off && i < c.off+c.n && (i < c.from || i >= c.to)
			require.Equal(t, want, b == 1, "byte %d after %+v", i, c)
		}
	}
}
