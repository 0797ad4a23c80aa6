//go:build gpu

package cuda

import (
	"fmt"
	"math"
	"slices"

	"rung/nn/backend"
	"rung/nn/backend/philox"
)

// kernelFiles says which kernels are in which file of package kern.
var kernelFiles = []struct {
	file    string
	kernels []string
}{
	{"element", []string{
		"unary1", "unary4", "unary_grad1", "unary_grad4", "add1", "add4", "sub1", "sub4", "mul1", "mul4", "scale1", "scale4",
		"mulcols1", "mulcols4", "fill1", "fill4", "copy1", "copy4", "mulconst1", "mulconst4", "bce1", "bce4", "bce_grad1", "bce_grad4",
		"dropout1", "dropout4", "rowsum_grad1", "pairs1", "outer1", "pairs_grad1", "gather1",
	}},
	{"rows", []string{
		"embed", "normalize", "normalize_grad", "rowsum", "softmax", "softmax_grad", "ce", "ce_grad", "dot",
		"gather_grad", "pairdot", "pairdot_grad",
	}},
	{"norm", []string{"norm1", "norm4", "norm_dx1", "norm_dx4", "norm_any", "norm_dx_any"}},
	{"pool", []string{"first", "mean", "max_pool", "first_grad", "mean_grad", "max_grad"}},
	{"moe", []string{
		"route", "route_grad", "assign", "spread", "spread_grad", "gatemul", "gatemul_grad", "load", "balance", "broadcast", "zloss", "zloss_grad", "signsgd",
	}},
	{"group", []string{"group_nt", "group_nn", "group_tn", "take", "take_grad"}},
	{"reduce", []string{"colsum", "mulcols_dg", "norm_dg", "sum_parts", "sum_products", "clear", "embed_grad", "embed_few"}},
	{"update", []string{"sumsq_pieces", "sumsq", "clip", "adamw", "sgd", "adagrad", "shrink", "row_norm", "clip_rows", "sum_rows"}},
	{"attn", []string{"attn_32", "attn_64"}},
	{"attn_grad", []string{"attn_dq_32", "attn_dq_64", "attn_dkv_32", "attn_dkv_64"}},
	{"attn_tf32", []string{"attn_tf32_32", "attn_tf32_64", "attn_dq_tf32_32", "attn_dq_tf32_64", "attn_dkv_tf32_32", "attn_dkv_tf32_64"}},
	{"attn_any", []string{"attn_any", "attn_dq_any", "attn_dkv_any"}},
	{"gemm_fp32", []string{"fp32_nt_128", "fp32_nn_128", "fp32_tn_128", "fp32_nt_96", "fp32_nn_96", "fp32_nt_64", "fp32_nn_64", "fp32_tn_64"}},
	{"gemm_sum", []string{"gemm_sum"}},
	{"gemm_tf32", []string{"tf32_nt_128", "tf32_nn_128", "tf32_tn_128", "tf32_nt_64", "tf32_nn_64", "tf32_tn_64"}},
	{"gemm_bf16", []string{"bf16_nt_128", "bf16_nn_128", "bf16_tn_128", "bf16_nt_64", "bf16_nn_64", "bf16_tn_64"}},
}

// encoders give each operation its launches.
var encoders = func() (t [backend.NumOps]func(*encoder, *resolved) error) {
	t[backend.Embed] = byWarps("embed", outRows)
	t[backend.EmbedGrad] = (*encoder).embedGrad
	t[backend.MatNT] = (*encoder).matNT
	t[backend.MatNN] = (*encoder).matNN
	t[backend.MatTN] = (*encoder).matTN
	t[backend.ColSum] = sumRows("colsum", 1)
	t[backend.MulColsDG] = sumRows("mulcols_dg", 1)
	t[backend.NormDG] = sumRows("norm_dg", 2)

	t[backend.Unary] = elements("unary", 1)
	t[backend.UnaryGrad] = elements("unary_grad", 3)
	t[backend.Add] = elements("add", 2)
	t[backend.Sub] = elements("sub", 2)
	t[backend.Mul] = elements("mul", 2)
	t[backend.Scale] = elements("scale", 1)
	t[backend.MulCols] = elements("mulcols", 1)
	t[backend.Fill] = elements("fill", 0)
	t[backend.AddTo] = func(e *encoder, r *resolved) error {
		r.a.acc = 1
		return elements("copy", 1)(e, r)
	}
	t[backend.MulConst] = elements("mulconst", 1)
	t[backend.BCE] = elements("bce", 2)
	t[backend.BCEGrad] = elements("bce_grad", 3)
	t[backend.Dropout] = func(e *encoder, r *resolved) error {
		r.threshold()
		return elements("dropout", 1)(e, r)
	}
	t[backend.RowSumGrad] = elements("rowsum_grad", -1)
	t[backend.Pairs] = elements("pairs", -1)
	t[backend.Outer] = elements("outer", -1)
	t[backend.PairsGrad] = elements("pairs_grad", -1)
	t[backend.Gather] = elements("gather", -1)

	t[backend.Norm] = norms("norm", inRows)
	t[backend.NormDX] = norms("norm_dx", outRows)
	t[backend.Normalize] = byWarps("normalize", inRows)
	t[backend.NormalizeGrad] = byWarps("normalize_grad", outRows)
	t[backend.RowSum] = byWarps("rowsum", outRows)
	t[backend.Softmax] = byWarps("softmax", inRows)
	t[backend.SoftmaxGrad] = byWarps("softmax_grad", outRows)
	t[backend.CE] = byWarps("ce", inRows)
	t[backend.CEGrad] = byWarps("ce_grad", outRows)
	t[backend.GatherGrad] = byWarps("gather_grad", outRows)
	t[backend.PairDot] = byWarps("pairdot", func(r *resolved) int { return r.Out[0].Rows * r.Out[0].Cols })
	t[backend.PairDotGrad] = byBlocks("pairdot_grad", 1, outRows)
	t[backend.Dot] = byBlocks("dot", 1, func(*resolved) int { return 1 })
	t[backend.Clip] = byBlocks("clip", 1, func(*resolved) int { return 1 })

	t[backend.Attn] = (*encoder).attn
	t[backend.AttnGrad] = (*encoder).attnGrad
	t[backend.First] = byBlocks("first", 1, outRows)
	t[backend.Mean] = byBlocks("mean", 1, outRows)
	t[backend.Max] = byBlocks("max_pool", 1, func(r *resolved) int { return r.In[1].Cols - 1 })
	t[backend.FirstGrad] = byBlocks("first_grad", 8, func(r *resolved) int { return r.In[1].Cols - 1 })
	t[backend.MeanGrad] = byBlocks("mean_grad", 8, func(r *resolved) int { return r.In[1].Cols - 1 })
	t[backend.MaxGrad] = byBlocks("max_grad", 8, func(r *resolved) int { return r.In[2].Cols - 1 })

	once := func(*resolved) int { return 1 }
	t[backend.Route] = byWarps("route", inRows)
	t[backend.RouteGrad] = byWarps("route_grad", outRows)
	t[backend.Assign] = byWarps("assign", func(r *resolved) int { return max(r.Out[0].Rows, r.Out[1].Rows) })
	t[backend.Spread] = byBlocks("spread", 8, func(r *resolved) int { return r.In[1].Cols - 1 })
	t[backend.SpreadGrad] = byBlocks("spread_grad", 1, outRows)
	t[backend.GateMul] = byWarps("gatemul", outRows)
	t[backend.GateMulGrad] = byWarps("gatemul_grad", inRows)
	groups(&t)
	t[backend.Load] = byBlocks("load", 1, func(r *resolved) int { return r.Out[0].Cols + 1 })
	t[backend.Balance] = byBlocks("balance", 1, once)
	t[backend.Broadcast] = byWarps("broadcast", outRows)
	t[backend.ZLoss] = byBlocks("zloss", 1, once)
	t[backend.ZLossGrad] = byWarps("zloss_grad", outRows)
	t[backend.SignSGD] = byBlocks("signsgd", 1, func(r *resolved) int { return ceil(r.Out[0].Cols, threads) })

	t[backend.SumSq] = (*encoder).sumSq
	t[backend.AdamW] = (*encoder).update
	t[backend.SGD] = (*encoder).update
	t[backend.Adagrad] = (*encoder).update
	t[backend.RowNorm] = byBlocks("row_norm", 1, outRows)
	t[backend.ClipRows] = byWarps("clip_rows", outRows)
	t[backend.SumRows] = func(e *encoder, r *resolved) error {
		e.add(r.Node, launch{kernel: "sum_rows", grid: [3]int{ceil(r.Out[0].Cols, threads), 1, 1}, block: threads, args: &r.a})
		return nil
	}
	t[backend.Shrink] = (*encoder).update
	return t
}()

func outRows(r *resolved) int { return r.Out[0].Rows }
func inRows(r *resolved) int  { return r.In[0].Rows }

const threads = 256 // of a block, where nothing else is said

// elements launches a thread for each element of the result, or for four where inputs 0 to n-1 allow it;
// with n < 0 never.
func elements(kernel string, n int) func(*encoder, *resolved) error {
	return func(e *encoder, r *resolved) error {
		y, width := &r.a.out[0], 1
		if n >= 0 && y.wide() {
			width = 4
			for k := range n {
				if !r.a.in[k].wide() {
					width = 1
				}
			}
		}
		size := int(y.rows) * int(y.cols)
		if size > math.MaxUint32-threads {
			return fmt.Errorf("%dx%d elements are more than a kernel counts", y.rows, y.cols)
		}
		e.add(r.Node, launch{kernel: fmt.Sprint(kernel, width), grid: [3]int{ceil(size/width, threads), 1, 1}, block: threads, args: &r.a})
		return nil
	}
}

// threshold leaves where dropout begins to keep in I[3].
func (r *resolved) threshold() { r.a.i[3] = int32(philox.Threshold(r.F[0])) }

// byWarps launches a warp for each row.
func byWarps(kernel string, rows func(*resolved) int) func(*encoder, *resolved) error {
	return func(e *encoder, r *resolved) error {
		const warps = 4
		e.add(r.Node, launch{kernel: kernel, grid: [3]int{ceil(rows(r), warps), 1, 1}, block: 32 * warps, args: &r.a})
		return nil
	}
}

// norms launches a warp for each row: one that keeps it in registers, if it is short enough.
func norms(kernel string, rows func(*resolved) int) func(*encoder, *resolved) error {
	return func(e *encoder, r *resolved) error {
		suffix := "4"
		for _, list := range [][]mat{r.a.out[:], r.a.in[:]} {
			for k := range list {
				if m := &list[k]; m.cols > 1 && !m.wide() {
					suffix = "1"
				}
			}
		}
		if n := r.In[0].Cols; n > 1024 {
			suffix = "_any"
		} else if n == 1 {
			suffix = "1"
		}
		return byWarps(kernel+suffix, rows)(e, r)
	}
}

// byBlocks launches blocks for each row.
func byBlocks(kernel string, each int, rows func(*resolved) int) func(*encoder, *resolved) error {
	return func(e *encoder, r *resolved) error {
		e.add(r.Node, launch{kernel: kernel, grid: [3]int{rows(r), each, 1}, block: threads, args: &r.a})
		return nil
	}
}

const (
	atOnce    = 64  // units that blocks of their own work at; they go on with the next
	splitRows = 128 // rows that a block of a split reduction should have
	mostParts = 64
)

// sumRows launches a reduction of rows with n vectors as results.
func sumRows(kernel string, n int) func(*encoder, *resolved) error {
	return func(e *encoder, r *resolved) error {
		x, a := r.In[0], &r.a
		a.most = math.MaxInt32
		for k := range n {
			if r.Out[k].Dead() {
				continue
			}
			units, stride, most, err := e.apart(r.Call, k, x.Axis)
			if err != nil {
				return err
			}
			if a.units, a.stride = units, stride; units != 0 {
				a.most = min(a.most, int32(most))
			}
		}
		a.splits = int32(max(1, min(mostParts, ceil(x.Rows, splitRows))))
		cols := ceil(x.Cols, 32)
		if a.units != 0 {
			a.splits = 1
			e.add(r.Node, launch{kernel: kernel, grid: [3]int{cols, 1, min(int(a.most), atOnce)}, block: threads, args: a})
			return nil
		}
		split := a.splits > 1
		first := launch{kernel: kernel, grid: [3]int{cols, int(a.splits), 1}, block: threads, args: a, scratch: split}
		if split {
			first.does, first.moves = []backend.Call{reads(r.Call)}, int(a.splits)*n*x.Cols
			e.need(first.moves)
		}
		e.add(r.Node, first)
		if split {
			sum := *a
			sum.i[0] = int32(n)
			e.add(r.Node, launch{
				kernel: "sum_parts", grid: [3]int{ceil(x.Cols, threads), n, 1}, block: threads, args: &sum, scratch: true,
				does: []backend.Call{writes(r.Out...)}, moves: first.moves,
			})
		}
		return nil
	}
}

// inParts launches a kernel whose parts of the rows give partial sums of a result of so many elements, and what adds those up.
func (e *encoder) inParts(r *resolved, first launch, size int) {
	parts := int(r.a.splits) * size
	e.need(parts)
	first.scratch, first.does, first.moves = true, []backend.Call{reads(r.Call)}, parts
	e.add(r.Node, first)
	e.add(r.Node, launch{
		kernel: "sum_products", grid: [3]int{ceil(size, threads), 1, 1}, block: threads, args: &r.a, scratch: true,
		does: []backend.Call{writes(r.Out...)}, moves: parts,
	})
}

// few is how many rows a table has at most whose gradient is summed by parts of the rows.
const few = 16

// embedGrad sums rows by their ids: of a table of few rows in parts, else a row at a time.
func (e *encoder) embedGrad(r *resolved) error {
	a, dy, out := &r.a, r.In[1], r.Out[0]
	units, stride, most, err := e.apart(r.Call, 0, dy.Axis)
	if err != nil {
		return err
	}
	size := out.Rows * out.Cols
	if size > math.MaxUint32-threads {
		return fmt.Errorf("a table of %dx%d elements is more than a kernel counts", out.Rows, out.Cols)
	}
	if units == 0 && out.Rows <= few {
		a.splits = int32(max(1, min(mostParts, ceil(dy.Rows, splitRows))))
		e.inParts(r, launch{kernel: "embed_few", grid: [3]int{out.Rows, int(a.splits), 1}, block: threads, args: a}, size)
		return nil
	}
	a.units, a.stride, a.most = units, stride, int32(most)
	if !out.Acc {
		each := 1
		if units != 0 {
			each = min(most, atOnce)
		}
		e.add(r.Node, launch{kernel: "clear", grid: [3]int{ceil(size, threads), each, 1}, block: threads, args: a, does: []backend.Call{writes(out)}})
	}
	e.add(r.Node, launch{kernel: "embed_grad", grid: [3]int{dy.Rows, 1, 1}, block: 128, args: a})
	return nil
}

// Attention works on tiles of 64 rows, with a row stride of 4 more than the head's columns, or of 68.
const attnTile = 64

// tiles is how many tiles sequences of capacities of tokens and sequences can have.
func tiles(tokens, seqs int) int { return tokens/attnTile + min(tokens, seqs) }

// attnSize is the columns that a kernel is made for: 0 for any.
func (r *resolved) attnSize() (int, error) {
	heads := r.I[0]
	if heads <= 0 || r.In[0].Cols%heads != 0 {
		return 0, fmt.Errorf("%d columns in %d heads", r.In[0].Cols, heads)
	}
	r.threshold()
	d := r.In[0].Cols / heads
	r.a.vec = 1
	for _, k := range []int{0, 1, 2, 7} { // q, k, v, dy
		if m := &r.a.in[k]; d%4 != 0 || !m.dead() && !m.aligned() {
			r.a.vec = 0
		}
	}
	switch {
	case d <= 32:
		return 32, nil
	case d <= 64:
		return 64, nil
	}
	return 0, nil
}

// attnShared is the bytes of shared memory of attention's kernels for heads of so many columns, or of its gradient's.
func (p Precision) attnShared(size int, gradient bool) int {
	rows, probabilities := attnTile*(size+4), attnTile*(attnTile+4)
	if p != FP32 { // which stay in registers
		probabilities = 0
	}
	if gradient {
		return elem * (4*rows + 2*probabilities + 2*attnTile)
	}
	return elem * (3*rows + probabilities)
}

func (e *encoder) attn(r *resolved) error {
	size, err := r.attnSize()
	if err != nil {
		return err
	}
	r.a.f[1] = 1 / math.Sqrt(float64(r.In[0].Cols/r.I[0]))
	if size == 0 {
		e.attnAny("attn_any", r, r.In[0].Rows)
		return nil
	}
	e.attnTiles("attn", r, size, r.I[1] == 1, e.be.precision.attnShared(size, false))
	return nil
}

func (e *encoder) attnGrad(r *resolved) error {
	size, err := r.attnSize()
	if err != nil {
		return err
	}
	r.a.f[1] = 1 / math.Sqrt(float64(r.In[0].Cols/r.I[0]))
	shared := e.be.precision.attnShared(size, true)
	whole := e.now
	defer func() { e.now = whole }()
	part := func(dead ...int) *backend.Call { // what one of the two kernels does
		c := *whole
		c.Out = slices.Clone(c.Out)
		for _, k := range dead {
			c.Out[k] = backend.Buf{}
		}
		return &c
	}
	if !r.Out[0].Dead() {
		e.now = part(1, 2)
		if size == 0 {
			e.attnAny("attn_dq_any", r, r.In[0].Rows)
		} else {
			e.attnTiles("attn_dq", r, size, r.I[1] == 1, shared)
		}
	}
	if !r.Out[1].Dead() || !r.Out[2].Dead() {
		e.now = part(0)
		if size == 0 {
			e.attnAny("attn_dkv_any", r, r.In[1].Rows)
		} else {
			e.attnTiles("attn_dkv", r, size, false, shared)
		}
	}
	return nil
}

// attnTiles launches a block for each tile and head; single: there is one tile a sequence.
func (e *encoder) attnTiles(kernel string, r *resolved, size int, single bool, shared int) {
	seqs := r.In[3].Cols - 1
	n := tiles(r.In[1].Rows, seqs)
	if single {
		n = seqs
	}
	block := 256
	if e.be.precision != FP32 { // the tensor cores' tf32 serves bf16 too
		kernel, block = kernel+"_tf32", 128
	}
	e.add(r.Node, launch{kernel: fmt.Sprintf("%s_%d", kernel, size), grid: [3]int{n, r.I[0], 1}, block: block, shared: shared, args: &r.a})
}

// attnAny launches a warp for each row and head.
func (e *encoder) attnAny(kernel string, r *resolved, rows int) {
	const warps = 4
	e.add(r.Node, launch{kernel: kernel, grid: [3]int{ceil(rows, warps), r.I[0], 1}, block: 32 * warps, args: &r.a})
}
