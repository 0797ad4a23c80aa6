//go:build unix

package cpu_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/backend"
	"rung/nn/backend/host"
)

// Programs on the same weights run at once, each of them packing what the next of its products lacks;
// after each change of the weights all have the same results, the right ones.
func TestFormsTogether(t *testing.T) {
	const rows, d, layers, programs = 70, 40, 5, 4
	for isa, be := range backends(t, 2) {
		reserve := func(n int) backend.Memory {
			m, err := be.Reserve(int64(4 * n))
			require.NoError(t, err)
			t.Cleanup(func() { _ = m.Free() })
			return m
		}
		weights, version := reserve(layers*d*d), new(uint64)
		encode := func() (backend.Exec, backend.Memory) {
			arena := reserve((layers + 1) * rows * d)
			for i := range rows * d {
				host.Elements[float32](arena.Host())[i] = float32(i%17)/17 - .5
			}
			bind := backend.Binding{Arena: arena}
			var calls []backend.Call
			for k := range layers {
				at := func(k int) backend.Buf {
					return backend.Buf{Space: backend.Arena, Axis: backend.Tok, Off: k * rows * d, Rows: rows, Cols: d, Ld: d}
				}
				bind.Blocks[backend.Weight] = append(bind.Blocks[backend.Weight], backend.Block{Mem: weights, Off: k * d * d, Version: version})
				w := backend.Buf{Space: backend.Weight, ID: k, Rows: d, Cols: d, Ld: d}
				calls = append(calls, backend.Call{
					Op: backend.MatNT, Node: fmt.Sprint("layer ", k), Out: []backend.Buf{at(k + 1), {}}, In: []backend.Buf{at(k), w, {}, {}, {}}, I: [4]int{1},
				})
			}
			x, err := be.Encode(calls, bind)
			require.NoError(t, err)
			return x, arena
		}
		s := counts(rows, 1, 1)
		launch := func(x backend.Exec, arena backend.Memory) []float32 {
			err := x.Launch(t.Context(), &s)
			if err != nil {
				t.Error(err)
			}
			return slices.Clone(host.Elements[float32](arena.Host())[layers*rows*d:][:rows*d])
		}
		var xs [programs]backend.Exec
		var arenas [programs]backend.Memory
		for p := range xs {
			xs[p], arenas[p] = encode()
		}
		for change := range 20 {
			for i, w := range host.Elements[float32](weights.Host())[:layers*d*d] {
				host.Elements[float32](weights.Host())[i] = w/2 + float32((i*7+change*13)%23)/23 - .5
			}
			*version++
			var got [programs][]float32
			var all sync.WaitGroup
			for p := range xs {
				all.Go(func() { got[p] = launch(xs[p], arenas[p]) })
			}
			all.Wait()
			x := slices.Clone(host.Elements[float32](arenas[0].Host())[:rows*d])
			for k := range layers {
				y, w := make([]float32, rows*d), host.Elements[float32](weights.Host())[k*d*d:]
				for i := range y {
					var sum float64
					for j := range d {
						sum += float64(x[i/d*d+j]) * float64(w[i%d*d+j])
					}
					y[i] = float32(sum)
				}
				x = y
			}
			for p := range got {
				require.Equal(t, got[0], got[p], "%s, change %d, program %d", isa, change, p)
			}
			for i := range x {
				require.InDelta(t, x[i], got[0][i], 1e-3, "%s, change %d, element %d", isa, change, i)
			}
		}
		for _, x := range xs {
			require.NoError(t, x.Close())
		}
	}
}
