//go:build gpu && gpuemu

package cuda_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/cuda"
	"rung/cuda/emu"
	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/nntest"
)

// withLibrary opens an emulated device whose plain products are cuBLASLt's.
func withLibrary(t *testing.T, p cuda.Precision) *cuda.Backend {
	t.Helper()
	emu.Reset(emu.Defaults(), false)
	t.Setenv(cuda.Variable, "cublaslt")
	be, err := cuda.Open(0, p)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, be.Close())
		require.Empty(t, emu.Faults())
		require.Empty(t, emu.Leaks())
		emu.Reset(emu.Defaults(), false)
	})
	return be
}

// The suite's products, of sizes that the library is given, too.
func TestLibraryConformance(t *testing.T) {
	be := withLibrary(t, cuda.FP32)
	nntest.TestAligned(t, be, 130, backend.MatNT, backend.MatNN, backend.MatTN, backend.ColSum)
	require.Positive(t, emu.Calls()["cublasLtMatmul"])
	t.Logf("%d products by the library", emu.Calls()["cublasLtMatmul"])
}

// libraryProblems are products that the library is given: with all that our kernels do to them, and partly real.
func libraryProblems(rows, real int) map[string]problem {
	count := [backend.NumAxes]int{backend.Tok: real}
	tok := func(name string, cols int) matrix { return normal(name, backend.Tok, rows, cols) }
	of := func(cols int) matrix { return matrix{axis: backend.Tok, rows: rows, cols: cols} }
	fixed := func(name string, rows, cols int) matrix { return normal(name, backend.Fixed, rows, cols) }
	added := func(m matrix) matrix { m.acc = true; return m }
	x, w, v, b := tok("x", 64), fixed("w", 96, 64), fixed("v", 68, 64), fixed("b", 1, 96)
	return map[string]problem{
		"nt":         {op: backend.MatNT, i: [4]int{1}, out: []matrix{of(96), {}}, in: []matrix{x, w, {}, {}, {}}, count: count},
		"nt blocks":  {op: backend.MatNT, i: [4]int{2}, out: []matrix{of(164), {}}, in: []matrix{x, w, b, {}, {}, v, {}, {}, {}}, count: count},
		"nt added":   {op: backend.MatNT, i: [4]int{1}, out: []matrix{added(tok("y", 96)), {}}, in: []matrix{x, w, b, {}, {}}, count: count},
		"nt gelu":    {op: backend.MatNT, i: [4]int{1, backend.ActGELU}, out: []matrix{of(96), {}}, in: []matrix{x, w, b, {}, {}}, count: count},
		"nt pre":     {op: backend.MatNT, i: [4]int{1, backend.ActGELU}, out: []matrix{of(96), of(96)}, in: []matrix{x, w, b, {}, {}}, count: count},
		"nt pre add": {op: backend.MatNT, i: [4]int{1, backend.ActGELU}, out: []matrix{added(tok("y", 96)), of(96)}, in: []matrix{x, w, b, {}, {}}, count: count},
		"nn":         {op: backend.MatNN, i: [4]int{2}, out: []matrix{of(64)}, in: []matrix{{}, tok("dy", 96), w, tok("dz", 68), v}, count: count},
		"nn added":   {op: backend.MatNN, i: [4]int{1}, out: []matrix{added(tok("dx", 64))}, in: []matrix{{}, tok("dy", 96), w}, count: count},
		"nn gelu":    {op: backend.MatNN, i: [4]int{1, backend.ActGELU}, out: []matrix{of(64)}, in: []matrix{tok("pre", 64), tok("dy", 96), w}, count: count},
		"tn":         {op: backend.MatTN, out: []matrix{{rows: 96, cols: 64}}, in: []matrix{tok("dy", 96), x}, count: count},
		"tn added":   {op: backend.MatTN, out: []matrix{added(w)}, in: []matrix{tok("dy", 96), x}, count: count},
	}
}

// Each kind of product, by whichever way its rows are computed: stale rows are neither read nor written.
func TestLibraryProducts(t *testing.T) {
	be := withLibrary(t, cuda.FP32)
	for _, real := range []int{0, 1, 40, 79, 80} {
		for name, p := range libraryProblems(80, real) {
			t.Run(fmt.Sprintf("%s/%d", name, real), func(t *testing.T) {
				for _, side := range [][]matrix{p.in, p.out} {
					for k := range side {
						if m := &side[k]; m.axis == backend.Tok {
							for i := real * m.cols; i < len(m.v); i++ {
								m.v[i] = float32(math.NaN())
							}
						}
					}
				}
				before := emu.Calls()["cublasLtMatmul"]
				p.agree(t, be, 2e-6)
				// of one row a sum cannot be split as the library's algorithm for many would: our kernel adds it up
				by := emu.Calls()["cublasLtMatmul"] > before
				require.Equal(t, real > 0 && !(real < 64 && strings.HasPrefix(name, "tn")), by, "by the library")
			})
		}
	}
}

// What the library may not be given is computed by our kernels: low-rank terms, narrow results, rows that do not begin at 16
// bytes, rows that are not tokens.
func TestNotForTheLibrary(t *testing.T) {
	be := withLibrary(t, cuda.FP32)
	rows := 80
	count := [backend.NumAxes]int{backend.Tok: rows, backend.Seq: rows}
	of := func(axis backend.Axis, cols int) matrix { return matrix{axis: axis, rows: rows, cols: cols} }
	tok := func(cols int) matrix { return normal("x", backend.Tok, rows, cols) }
	fixed := func(rows, cols int) matrix { return normal("w", backend.Fixed, rows, cols) }
	for name, p := range map[string]problem{
		"low rank":  {op: backend.MatNT, i: [4]int{1}, out: []matrix{of(backend.Tok, 96), {}}, in: []matrix{tok(64), fixed(96, 64), {}, tok(8), fixed(96, 8)}},
		"narrow":    {op: backend.MatNT, i: [4]int{1}, out: []matrix{of(backend.Tok, 8), {}}, in: []matrix{tok(64), fixed(8, 64), {}, {}, {}}},
		"odd":       {op: backend.MatNT, i: [4]int{1}, out: []matrix{of(backend.Tok, 97), {}}, in: []matrix{tok(64), fixed(97, 64), {}, {}, {}}},
		"sequences": {op: backend.MatNT, i: [4]int{1}, out: []matrix{of(backend.Seq, 96), {}}, in: []matrix{normal("x", backend.Seq, rows, 64), fixed(96, 64), {}, {}, {}}},
		"narrow nn": {op: backend.MatNN, i: [4]int{2}, out: []matrix{of(backend.Tok, 64)}, in: []matrix{{}, tok(96), fixed(96, 64), tok(8), fixed(8, 64)}},
		"narrow tn": {op: backend.MatTN, out: []matrix{{rows: 8, cols: 64}}, in: []matrix{tok(8), tok(64)}},
	} {
		p.count = count
		t.Run(name, func(t *testing.T) { p.agree(t, be, 2e-6) })
	}
	require.Zero(t, emu.Calls()["cublasLtMatmul"])
}

// A row's result is the same bits whatever stands beside it and how many rows there is memory for, and the second and third
// launch of the same rows, which is a graph then, gives those of the first.
func TestLibraryRowsAlone(t *testing.T) {
	be := withLibrary(t, cuda.FP32)
	var want []float32
	for _, shape := range [][2]int{{80, 80}, {80, 33}, {300, 33}, {40, 20}} {
		p := libraryProblems(300, shape[1])["nt blocks"]
		for k := range p.in {
			if m := &p.in[k]; m.axis == backend.Tok {
				m.rows, m.v = shape[0], m.v[:shape[0]*m.cols]
			}
		}
		p.out[0].rows = shape[0]
		got := p.solve(t, be)[0][:20*164]
		if want == nil {
			want = got
		}
		require.Equal(t, host.Bytes(want), host.Bytes(got), "%d of %d rows", shape[1], shape[0])
	}
}
