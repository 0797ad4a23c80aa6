package cpu_test

import (
	"maps"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/backend"
)

// Weight gradients of few rows read their right factor where it lies, but no further than its last column: behind it
// is memory that faults.
func TestMatTNReadsNoFurther(t *testing.T) {
	const rows, out, half = 9, 8, 1 << 20
	all := backends(t, 2)
	maps.Copy(all, rounding(t, 2))
	for isa, be := range all {
		for _, in := range []int{1, 33, 40, 71} {
			mem, err := be.Reserve(2 * half)
			require.NoError(t, err)
			require.NoError(t, syscall.Mprotect(mem.Host()[half:], syscall.PROT_NONE))
			at := func(axis backend.Axis, off, rows, cols int) backend.Buf {
				return backend.Buf{Space: backend.Arena, Axis: axis, Off: off, Rows: rows, Cols: cols, Ld: cols}
			}
			call := backend.Call{
				Op: backend.MatTN, Node: "guard", Out: []backend.Buf{at(backend.Fixed, 0, out, in)},
				In: []backend.Buf{at(backend.Tok, 4096, rows, out), at(backend.Tok, half/4-rows*in, rows, in)},
			}
			x, err := be.Encode([]backend.Call{call}, backend.Binding{Arena: mem})
			require.NoError(t, err)
			s := counts(rows, 1, 1)
			require.NoError(t, x.Launch(t.Context(), &s), "%s: %d columns", isa, in)
			require.NoError(t, x.Close())
			require.NoError(t, syscall.Mprotect(mem.Host()[half:], syscall.PROT_READ|syscall.PROT_WRITE))
			require.NoError(t, mem.Free())
		}
	}
}
