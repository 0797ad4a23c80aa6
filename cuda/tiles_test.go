//go:build gpu && gpuemu

package cuda_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rung/cuda"
	"rung/cuda/emu"
	"rung/nn/backend"
	"rung/nn/backend/ref"
	"rung/nn/nntest"
)

// On a device of few multiprocessors small products take the great tiles: the suite's go through them.
func TestTiles(t *testing.T) {
	for cols, sms := range map[int]int{128: 1, 96: 3} {
		t.Run(fmt.Sprint(cols), func(t *testing.T) {
			be := emulated(t, func(c *emu.Config) { c.SMs = sms })
			if cols == 128 {
				nntest.TestOps(t, be, nntest.Size(17), backend.MatNT, backend.MatNN)
			}
			for name, p := range products(cols) {
				t.Run(name, func(t *testing.T) { p.agree(t, be, 2e-6) })
			}
			require.Empty(t, emu.Faults())
		})
	}
}

// Products of numbers that rounding leaves as they are, through all that a kernel does to them: tensor cores give what
// float32 does.
func TestTensorCoreEpilogues(t *testing.T) {
	for _, precision := range []cuda.Precision{cuda.TF32, cuda.BF16} {
		for _, sms := range []int{1, 100} { // tiles of 128 and of 64 columns
			t.Run(fmt.Sprintf("%v/%d", precision, sms), func(t *testing.T) {
				c := emu.Defaults()
				c.SMs = sms
				emu.Reset(c, false)
				t.Cleanup(func() { emu.Reset(emu.Defaults(), false) })
				be, err := cuda.Open(0, precision)
				require.NoError(t, err)
				for name, p := range products(128) {
					for _, side := range [][]matrix{p.in, p.out} {
						for k := range side {
							for i, v := range side[k].v { // sixteenths of at most 7 bits
								side[k].v[i] = float32(int(v*16)) / 16
							}
						}
					}
					t.Run(name, func(t *testing.T) { p.agree(t, be, 2e-6) })
				}
				require.Empty(t, emu.Faults())
			})
		}
	}
}

// products are calls whose results go past one tile of so many columns, by little: with rows that are whole vectors, and
// without; with all that is in the same sum, or done to it; and partly real.
func products(cols int) map[string]problem {
	all := map[string]problem{}
	for odd := range 2 {
		rows, n, k := 131, cols+4-odd, 40-odd
		at := func(op backend.Op) string { return fmt.Sprintf("%v/%dx%dx%d", op, rows, n, k) }
		count := [backend.NumAxes]int{backend.Tok: rows - 2}
		tok := func(name string, cols int) matrix { return normal(name, backend.Tok, rows, cols) }
		x, dy, w := tok("x", k), tok("dy", n), normal("w", backend.Fixed, n, k)
		y := tok("y", n)
		y.acc = true
		pre := matrix{axis: backend.Tok, rows: rows, cols: n}
		all[at(backend.MatNT)] = problem{
			op: backend.MatNT, i: [4]int{1, backend.ActGELU}, out: []matrix{{axis: backend.Tok, rows: rows, cols: n}, pre}, count: count,
			in: []matrix{x, w, normal("b", backend.Fixed, 1, n), tok("h", 4), normal("u", backend.Fixed, n, 4)},
		}
		all[at(backend.MatNT)+"+"] = problem{op: backend.MatNT, i: [4]int{1}, out: []matrix{y, {}}, in: []matrix{x, w, {}, {}, {}}, count: count}
		all[at(backend.MatNN)] = problem{
			op: backend.MatNN, i: [4]int{2, backend.ActGELU}, out: []matrix{{axis: backend.Tok, rows: rows, cols: n}}, count: count,
			in: []matrix{tok("pre", n), x, normal("w", backend.Fixed, k, n), tok("h", 4), normal("u", backend.Fixed, 4, n)},
		}
		dw := normal("dw", backend.Fixed, n, 100-odd)
		dw.acc = true
		all[at(backend.MatTN)] = problem{op: backend.MatTN, out: []matrix{dw}, in: []matrix{dy, tok("z", 100-odd)}, count: count}
	}
	return all
}

// Attention whose heads' columns are whole vectors, and nearly fill the kernels that are made for 32 and 64.
func TestAttention(t *testing.T) {
	be := emulated(t, func(*emu.Config) {})
	offs := []int32{0, 5, 5, 75, 90}
	for _, d := range []int{32, 36, 64} {
		for single := range 2 {
			t.Run(fmt.Sprintf("%d/%d", d, single), func(t *testing.T) {
				attention(t, be, offs, d, single, 2e-6, 4e-6)
			})
		}
	}
	require.Empty(t, emu.Faults())
}

// Optimizers' steps are the CPU's to rounding, each with what it keeps.
func TestOptimizers(t *testing.T) {
	began := time.Now()
	for _, o := range []string{"adamw", "adam", "amsgrad", "adagrad"} {
		t.Run(o, func(t *testing.T) { sameSteps(t, false, o) })
	}
	t.Logf("%.1f s", time.Since(began).Seconds())
}

// Rows of more columns than a warp takes at once: loops that the compiler has unrolled.
func TestWideRows(t *testing.T) {
	be := emulated(t, func(*emu.Config) {})
	nntest.TestOps(
		t, be, 384, backend.Embed, backend.Norm, backend.NormDX, backend.Normalize, backend.NormalizeGrad, backend.RowSum, backend.Softmax,
		backend.SoftmaxGrad, backend.CE, backend.CEGrad, backend.GatherGrad, backend.PairDot, backend.SumSq,
	)
	require.Empty(t, emu.Faults())
}

// Sizes that the suite has not: rows that no warp keeps in registers, gradients of more than one piece, long dot products.
func TestDirect(t *testing.T) {
	be := emulated(t, func(*emu.Config) {})
	seq := func(name string, rows, cols int) matrix { return normal(name, backend.Seq, rows, cols) }
	of := func(rows, cols int) matrix { return matrix{axis: backend.Seq, rows: rows, cols: cols} }
	fixed := func(name string, rows, cols int) matrix { return normal(name, backend.Fixed, rows, cols) }
	count := [backend.NumAxes]int{backend.Seq: 3, backend.Unit: 2}
	for name, all := range map[string][]problem{
		"norm":         {},
		"norm.dx":      {},
		"softmax":      {},
		"softmax.grad": {},
		"embed": { // without types
			{
				op: backend.Embed, out: []matrix{of(3, 300)}, count: count,
				in: []matrix{{rows: 1, cols: 3, ids: []int32{4, 0, 2}}, {rows: 1, cols: 3, ids: []int32{0, 1, 1}}, {}, fixed("word", 5, 300), fixed("position", 2, 300), {}},
			},
		},
		"sumsq": { // one piece and its end, 16-byte rows and none; more pieces than a warp adds up
			{op: backend.SumSq, out: []matrix{{rows: 1, cols: 1}}, in: []matrix{fixed("e", 1, 34<<14+7)}},
			{op: backend.SumSq, out: []matrix{{rows: 1, cols: 4}}, in: []matrix{fixed("a", 130, 200), fixed("b", 33, 131), fixed("c", 1, 1<<14+5), fixed("d", 2, 1)}},
		},
		"pairdot": {
			{
				op: backend.PairDot, out: []matrix{{axis: backend.Unit, rows: 2, cols: 3}}, count: count,
				in: []matrix{seq("e", 3, 300), {rows: 1, cols: 2, ids: []int32{2, 0}}, {axis: backend.Unit, rows: 2, cols: 3, ids: []int32{0, -1, 1, 2, 1, 0}}},
			},
		},
	} {
		for _, cols := range []int{129, 200, 300, 1000, 1100} {
			mask := of(3, cols)
			for i := range 3 * cols {
				mask.v = append(mask.v, float32(i*i%5%2))
			}
			softmax := problem{op: backend.Softmax, out: []matrix{of(3, cols), of(3, 1)}, in: []matrix{seq("scores", 3, cols), mask}, count: count}
			x, res, g, b, dy := seq("x", 3, cols), seq("res", 3, cols), fixed("g", 1, cols), fixed("b", 1, cols), seq("dy", 3, cols)
			norm := problem{op: backend.Norm, f: [4]float64{1e-12}, out: []matrix{of(3, cols), of(3, 1), of(3, 1), of(3, cols)}, in: []matrix{x, res, g, b}, count: count}
			switch name {
			case "norm":
				all = append(all, norm)
			case "norm.dx":
				r := norm.solve(t, ref.New[float32]())
				mean, rstd, sum := of(3, 1), of(3, 1), of(3, cols)
				mean.v, rstd.v, sum.v = r[1], r[2], r[3]
				all = append(all, problem{op: backend.NormDX, out: []matrix{of(3, cols)}, in: []matrix{sum, mean, rstd, g, dy}, count: count})
			case "softmax":
				all = append(all, softmax)
			case "softmax.grad":
				y := of(3, cols)
				y.v = softmax.solve(t, ref.New[float32]())[0]
				all = append(all, problem{op: backend.SoftmaxGrad, out: []matrix{of(3, cols)}, in: []matrix{y, mask, dy}, count: count})
			}
		}
		t.Run(name, func(t *testing.T) {
			for i := range all {
				all[i].agree(t, be, 2e-6)
			}
		})
	}
	require.Empty(t, emu.Faults())
}
