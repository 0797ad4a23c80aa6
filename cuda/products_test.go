//go:build gpu && gpuemu

package cuda_test

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/cuda"
	"rung/cuda/emu"
	"rung/nn/backend"
	"rung/nn/backend/cpu"
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
		"low rank":   {op: backend.MatNT, i: [4]int{1}, out: []matrix{of(backend.Tok, 96), {}}, in: []matrix{tok(64), fixed(96, 64), {}, tok(8), fixed(96, 8)}},
		"narrow":     {op: backend.MatNT, i: [4]int{1}, out: []matrix{of(backend.Tok, 8), {}}, in: []matrix{tok(64), fixed(8, 64), {}, {}, {}}},
		"odd":        {op: backend.MatNT, i: [4]int{1}, out: []matrix{of(backend.Tok, 97), {}}, in: []matrix{tok(64), fixed(97, 64), {}, {}, {}}},
		"sequences":  {op: backend.MatNT, i: [4]int{1}, out: []matrix{of(backend.Seq, 96), {}}, in: []matrix{normal("x", backend.Seq, rows, 64), fixed(96, 64), {}, {}, {}}},
		"short sums": {op: backend.MatNT, i: [4]int{1}, out: []matrix{of(backend.Tok, 96), {}}, in: []matrix{tok(48), fixed(96, 48), {}, {}, {}}},
		"narrow nn":  {op: backend.MatNN, i: [4]int{2}, out: []matrix{of(backend.Tok, 64)}, in: []matrix{{}, tok(96), fixed(96, 64), tok(8), fixed(8, 64)}},
		"narrow tn":  {op: backend.MatTN, out: []matrix{{rows: 8, cols: 64}}, in: []matrix{tok(8), tok(64)}},
	} {
		p.count = count
		t.Run(name, func(t *testing.T) { p.agree(t, be, 2e-6) })
	}
	// columns from the second on of rows that begin at 16 bytes
	p := problem{op: backend.MatNT, i: [4]int{1}, out: []matrix{of(backend.Tok, 96), {}}, in: []matrix{tok(68), fixed(96, 64), {}, {}, {}}}
	c, bind, _ := p.bind(t, be)
	c.In[0] = c.In[0].ColsOf(1, 64)
	x, err := be.Encode([]backend.Call{c}, bind)
	require.NoError(t, err)
	require.NoError(t, x.Launch(context.Background(), &backend.Scalars{Count: count}))
	require.NoError(t, x.Close())
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

// Training steps with the library's products, full and through LoRA, are the CPU's; a second run gives the same bits.
func TestLibrarySteps(t *testing.T) {
	own, err := cpu.New()
	require.NoError(t, err)
	for name, targets := range map[string][]string{"full": nil, "lora": {"query", "value"}} {
		t.Run(name, func(t *testing.T) {
			be := withLibrary(t, cuda.FP32)
			model := func() numbered { return sized(t, 64, 96, targets...) }
			want, weights := steps(t, own, model(), "sgd")
			got, w := steps(t, be, model(), "sgd")
			require.Positive(t, emu.Calls()["cublasLtMatmul"])
			t.Logf("%d products by the library of %d kernels", emu.Calls()["cublasLtMatmul"], emu.Kernels())
			alike(t, "sgd", want, got, weights, w)
			again, w2 := steps(t, be, model(), "sgd")
			require.Equal(t, got, again)
			for path, v := range w {
				require.Equal(t, host.Bytes(v), host.Bytes(w2[path]), path)
			}
		})
	}
	for p, tol := range map[cuda.Precision]float64{cuda.TF32: .01, cuda.BF16: .05} {
		t.Run(p.String(), func(t *testing.T) {
			want, _ := steps(t, own, sized(t, 64, 96), "sgd")
			got, _ := steps(t, withLibrary(t, p), sized(t, 64, 96), "sgd")
			for i := range want {
				require.InEpsilon(t, want[i].Loss, got[i].Loss, tol, "loss of step %d", i)
				require.NotEqual(t, want[i].Loss, got[i].Loss)
			}
		})
	}
}

// A program is launched one by one until the same rows come twice in a row; then a graph serves as long as they do, with the
// same results.
func TestLibraryGraph(t *testing.T) {
	be := withLibrary(t, cuda.FP32)
	p := libraryProblems(80, 0)["nt pre"]
	c, bind, arena := p.bind(t, be)
	x, err := be.Encode([]backend.Call{c}, bind)
	require.NoError(t, err)
	defer func() { require.NoError(t, x.Close()) }()
	want := map[int][]byte{}
	for i, step := range []struct{ rows, products, graphs int }{
		{70, 1, 0}, {70, 1, 1}, {70, 0, 1}, {33, 1, 0}, {70, 0, 1}, {33, 1, 0}, {33, 1, 1}, {33, 0, 1}, {0, 0, 0}, {33, 0, 1}, {70, 1, 0},
	} {
		for k := range c.Out {
			fill := make([]float32, 80*96)
			require.NoError(t, arena.WriteAt(host.Bytes(fill), int64(4*c.Out[k].Off)))
		}
		before := emu.Calls()
		require.NoError(t, x.Launch(context.Background(), &backend.Scalars{Count: [backend.NumAxes]int{backend.Tok: step.rows}}))
		after := emu.Calls()
		require.Equal(t, step.products, after["cublasLtMatmul"]-before["cublasLtMatmul"], "products of launch %d", i)
		require.Equal(t, step.graphs, after["cuGraphLaunch"]-before["cuGraphLaunch"], "graphs of launch %d", i)
		got := make([]float32, 80*96)
		require.NoError(t, arena.ReadAt(host.Bytes(got), int64(4*c.Out[1].Off)))
		if want[step.rows] == nil {
			want[step.rows] = host.Bytes(got)
		}
		require.Equal(t, want[step.rows], host.Bytes(got), "launch %d", i)
		for j, v := range got {
			require.Equal(t, j < step.rows*96, v != 0, "element %d of launch %d", j, i)
		}
	}
}
