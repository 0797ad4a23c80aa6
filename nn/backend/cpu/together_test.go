//go:build unix

package cpu_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rung/nn/backend"
	"rung/nn/backend/host"
)

// Calls that run side by side, whose workers' scratch is of several sizes, compute what they do one after another on one
// worker.
func TestCallsTogether(t *testing.T) {
	const rows, o, i = 700, 900, 100 // of more depth than the sums of a product stay in registers for
	size := rows*o + rows*i + o*i + rows*i + o*i + o + rows*i + 3*rows
	run := func(be backend.Backend, alone bool, times int) (all [][]float32) {
		arena, err := be.Reserve(int64(4 * size))
		require.NoError(t, err)
		defer func() { require.NoError(t, arena.Free()) }()
		off := 0
		buf := func(axis backend.Axis, rows, cols int) backend.Buf {
			b := backend.Buf{Space: backend.Arena, Axis: axis, Off: off, Rows: rows, Cols: cols, Ld: cols}
			off += rows * cols
			return b
		}
		dy, x, w := buf(backend.Tok, rows, o), buf(backend.Tok, rows, i), buf(backend.Fixed, o, i)
		read := off
		dw, db, dx := buf(backend.Fixed, o, i), buf(backend.Fixed, 1, o), buf(backend.Tok, rows, i)
		y, mean, rstd := buf(backend.Tok, rows, i), buf(backend.Tok, rows, 1), buf(backend.Tok, rows, 1)
		g := w.ColsOf(0, i)
		g.Rows = 1
		none := backend.Buf{}
		exec, err := be.Encode([]backend.Call{
			{Op: backend.MatTN, Node: "dw", Out: []backend.Buf{dw}, In: []backend.Buf{dy, x}},
			{Op: backend.ColSum, Node: "db", Out: []backend.Buf{db}, In: []backend.Buf{dy}},
			{Op: backend.MatNN, Node: "dx", Out: []backend.Buf{dx}, In: []backend.Buf{none, dy, w}, I: [4]int{1}},
			{Op: backend.Norm, Node: "norm", Out: []backend.Buf{y, mean, rstd, none}, In: []backend.Buf{x, none, g, g}, F: [4]float64{1e-12}},
		}, backend.Binding{Arena: arena})
		require.NoError(t, err)
		defer func() { require.NoError(t, exec.Close()) }()
		if alone {
			exec.(backend.Tracer).Trace(func(int, time.Duration) {})
		}
		m := host.Elements[float32](arena.Host())
		for k := range read {
			m[k] = float32(k*7919%1013)/1013 - .5
		}
		s := counts(rows, 1, 1)
		for range times {
			clear(m[read:])
			require.NoError(t, exec.Launch(t.Context(), &s))
			all = append(all, slices.Clone(m[read:off]))
		}
		return all
	}
	times := 100
	if testing.Short() { // so that emulation takes no minutes
		times = 2
	}
	one := backends(t, 1)
	for _, workers := range []int{2, 3, 9} {
		for isa, be := range backends(t, workers) {
			want := run(one[isa], true, 1)[0]
			for n, got := range run(be, false, times) {
				if !slices.Equal(want, got) {
					t.Fatalf("%s, %d workers: launch %d differs", isa, workers, n)
				}
			}
		}
	}
}
