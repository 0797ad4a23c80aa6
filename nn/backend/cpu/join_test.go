package cpu_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/backend/philox"
)

// TestJoined compares GELU, a weight's gradient and the sums of a bias's as one kernel with the three by themselves:
// products are the same bits, sums nearly, and of any number of workers too.
func TestJoined(t *testing.T) {
	for _, m := range []struct{ rows, out, in int }{
		{0, 20, 100}, {1, 384, 70}, {300, 8, 400}, {300, 45, 8}, {513, 30, 33}, {600, 390, 50}, {2100, 384, 100}, {2101, 70, 390},
	} {
		for _, acc := range []bool{false, true} {
			var first map[string][]float32
			for _, workers := range []int{1, 2, 7} {
				got := map[string][]float32{}
				for isa, be := range backends(t, workers) {
					name := fmt.Sprint(m, acc, isa, workers)
					whole, n := gradients(t, be, m.rows, m.out, m.in, acc, true)
					parts, _ := gradients(t, be, m.rows, m.out, m.in, acc, false)
					require.Equal(t, parts[:n], whole[:n], name)
					for j, v := range parts[n:] {
						require.InDelta(t, v, whole[n+j], 1e-6*(1+math.Sqrt(float64(m.rows)))*8, "%s: sum %d", name, j)
					}
					got[isa] = whole
				}
				if first == nil {
					first = got
				}
				require.Equal(t, first, got, "%v of %d workers", m, workers)
			}
		}
	}
}

// gradients is dw (out,in) of dy and GELU(pre), and db: the calls encoded together or each by itself. n is the
// elements of dw.
func gradients(t *testing.T, be backend.Backend, rows, out, in int, acc, together bool) (all []float32, n int) {
	t.Helper()
	total := 0
	place := func(axis backend.Axis, rows, cols, pad int) backend.Buf {
		b := backend.Buf{Space: backend.Arena, Axis: axis, Off: total, Rows: rows, Cols: cols, Ld: cols + pad}
		total += rows*b.Ld + 16
		return b
	}
	pre, y, dy := place(backend.Tok, rows+2, in, 3), place(backend.Tok, rows+2, in, 1), place(backend.Tok, rows+2, out, 2)
	dw, db := place(backend.Fixed, out, in, 2), place(backend.Fixed, 1, out, 0)
	y.Once = true
	to, sum := dw, db
	to.Acc, sum.Acc = acc, acc
	mem, err := be.Reserve(int64(4 * total))
	require.NoError(t, err)
	defer func() { require.NoError(t, mem.Free()) }()
	x, draws := host.Elements[float32](mem.Host()), make([]float64, total)
	philox.Normal(draws, 7, "joined")
	for j, v := range draws {
		x[j] = float32(2 * v)
	}
	calls := []backend.Call{
		{Op: backend.Unary, Out: []backend.Buf{y}, In: []backend.Buf{pre}, I: [4]int{int(backend.GELU)}},
		{Op: backend.MatTN, Out: []backend.Buf{to}, In: []backend.Buf{dy, y}},
		{Op: backend.ColSum, Out: []backend.Buf{sum}, In: []backend.Buf{dy}},
	}
	s := counts(rows, 1, 1)
	for len(calls) > 0 {
		k := 1
		if together {
			k = len(calls)
		}
		e, err := be.Encode(calls[:k], backend.Binding{Arena: mem})
		require.NoError(t, err)
		require.NoError(t, e.Launch(t.Context(), &s))
		require.NoError(t, e.Close())
		calls = calls[k:]
	}
	all = append(all, x[dw.Off:dw.Off+out*dw.Ld]...)
	return append(all, x[db.Off:db.Off+out+16]...), out * dw.Ld
}
