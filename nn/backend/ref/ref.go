// Package ref is the kernels in plain Go, generic over float32 and float64: the specification that
// every other backend is tested against. Sums run in one fixed order, front to back.
package ref

import (
	"unsafe"

	"rung/nn/backend"
	"rung/nn/backend/host"
)

type (
	args[F host.Float] = host.Args[F]
	mat[F host.Float]  = host.Mat[F]
)

// New returns the reference backend on the process's workers.
func New[F host.Float]() backend.Backend { return On[F](host.SharedPool()) }

// On returns the reference backend on given workers.
func On[F host.Float](p *host.Pool) backend.Backend {
	name := "ref"
	if host.New[F]("", p, nil).Float() == backend.Float64 {
		name = "ref/float64"
	}
	return host.New(name, p, Kernels[F]())
}

// Kernels returns the table of reference kernels.
func Kernels[F host.Float]() *host.Kernels[F] {
	var t host.Kernels[F]
	rows, cols := rowsOf[F](0), colsOf[F](0)
	one := func(*args[F]) int { return 1 }
	set := func(op backend.Op, n func(*args[F]) int, grain int, run func(a *args[F], lo, hi int)) {
		t[op] = host.Kernel[F]{Phases: []host.Phase[F]{{N: n, Grain: func(*args[F]) int { return grain }, Run: run}}}
	}
	set(backend.Embed, rows, 64, embed[F])
	set(backend.EmbedGrad, cols, 16, embedGrad[F])
	inBlocks := func(op backend.Op, n func(*args[F]) int, grain int, cols func(*args[F]) int, run func(a *args[F], worker, lo, hi int)) {
		t[op] = host.Kernel[F]{
			Scratch: func(a *args[F]) int { return blockBytes(a, cols(a)) },
			Phases:  []host.Phase[F]{{N: n, Grain: func(*args[F]) int { return grain }, RunAs: run}},
		}
	}
	inBlocks(backend.MatNT, rowsOfIn[F](0), 2*blockRows, columns[F], matNT[F])
	inBlocks(backend.MatNN, rows, 2*blockRows, cols, matNN[F])
	t[backend.MatNN].Forms = transposed[F]()
	set(backend.MatTN, fixedRows[F], 4, matTN[F])
	set(backend.ColSum, cols, 64, colSum[F])

	set(backend.Unary, rows, 16, unary[F])
	set(backend.UnaryGrad, rows, 16, unaryGrad[F])
	set(backend.Add, rows, 64, binary(func(a, b F) F { return a + b }))
	set(backend.Sub, rows, 64, binary(func(a, b F) F { return a - b }))
	set(backend.Mul, rows, 64, binary(func(a, b F) F { return a * b }))
	set(backend.Scale, rows, 64, scale[F])
	set(backend.MulCols, rows, 64, mulCols[F])
	set(backend.MulColsDG, cols, 64, mulColsDG[F])
	set(backend.Fill, rows, 64, fill[F])
	set(backend.AddTo, rows, 64, addTo[F])
	set(backend.Dropout, rows, 16, dropout[F])

	set(backend.Norm, rowsOfIn[F](0), 64, norm[F])
	set(backend.NormDX, rows, 64, normDX[F])
	t[backend.Norm].Scratch = func(a *args[F]) int { return sizeOf[F](a.In[0]) }
	set(backend.NormDG, func(a *args[F]) int { return a.Src[0].Cols }, 64, normDG[F])
	set(backend.Normalize, rowsOfIn[F](0), 64, normalize[F])
	set(backend.NormalizeGrad, rows, 64, normalizeGrad[F])
	set(backend.RowSum, rows, 64, rowSum[F])
	set(backend.RowSumGrad, rows, 64, rowSumGrad[F])
	set(backend.Softmax, rowsOfIn[F](0), 16, softmax[F])
	set(backend.SoftmaxGrad, rows, 16, softmaxGrad[F])

	inBlocks(backend.Attn, seqs[F], 1, attnColumns[F], attn[F])
	inBlocks(backend.AttnGrad, seqs[F], 1, func(a *args[F]) int { return 2 * attnColumns(a) }, attnGrad[F])
	set(backend.First, rows, 64, first[F])
	set(backend.FirstGrad, seqs[F], 64, firstGrad[F])
	set(backend.Mean, rows, 64, mean[F])
	set(backend.MeanGrad, seqs[F], 64, meanGrad[F])
	set(backend.Max, rowsOfIn2[F], 64, maxPool[F])
	set(backend.MaxGrad, seqs[F], 64, maxGrad[F])

	set(backend.Gather, rows, 64, gather[F])
	set(backend.GatherGrad, one, 1, gatherGrad[F])
	set(backend.PairDot, rows, 4, pairDot[F])
	set(backend.PairDotGrad, cols, 16, pairDotGrad[F])
	set(backend.Pairs, rows, 16, pairs(func(u, v F) F { return u - v }))
	set(backend.Outer, rows, 16, pairs(func(u, v F) F { return u * v }))
	set(backend.PairsGrad, rows, 16, pairsGrad[F])

	set(backend.Route, rowsOfIn[F](0), 64, route[F])
	set(backend.RouteGrad, rows, 64, routeGrad[F])
	set(backend.Assign, assigned[F], 256, assign[F])
	set(backend.Spread, seqs[F], 16, spread[F])
	set(backend.SpreadGrad, rows, 16, spreadGrad[F])
	set(backend.GateMul, rows, 64, gateMul[F])
	set(backend.GateMulGrad, rowsOfIn[F](0), 64, gateMulGrad[F])
	set(backend.GroupNT, rows, 16, groupNT[F])
	set(backend.GroupNN, rows, 16, groupNN[F])
	set(backend.GroupTN, expertsOf[F], 1, groupTN[F])
	set(backend.Take, rows, 256, take[F])
	set(backend.TakeGrad, rows, 256, takeGrad[F])
	set(backend.Load, one, 1, load[F])
	set(backend.Balance, one, 1, balance[F])
	set(backend.Broadcast, rows, 256, broadcast[F])
	set(backend.ZLoss, one, 1, zLoss[F])
	set(backend.ZLossGrad, rows, 64, zLossGrad[F])

	set(backend.BCE, rows, 256, bce[F])
	set(backend.BCEGrad, rows, 256, bceGrad[F])
	set(backend.CE, rowsOfIn[F](0), 64, ce[F])
	set(backend.CEGrad, rows, 64, ceGrad[F])
	set(backend.Dot, one, 1, dot[F])
	set(backend.MulConst, rows, 64, mulConst[F])

	t[backend.SumSq] = sumSq[F]()
	set(backend.Clip, one, 1, clip[F])
	set(backend.AdamW, cols, 4096, adamW[F])
	set(backend.SGD, cols, 4096, sgd[F])
	set(backend.Adagrad, cols, 4096, adagrad[F])
	set(backend.Shrink, cols, 4096, shrink[F])
	set(backend.RowNorm, rows, 1, rowNorm[F])
	set(backend.ClipRows, rows, 64, clipRows[F])
	set(backend.SumRows, cols, 1024, sumRows[F])
	set(backend.SignSGD, cols, 4096, signSGD[F])
	return &t
}

func rowsOf[F host.Float](i int) func(*args[F]) int {
	return func(a *args[F]) int { return a.Dst[i].Rows }
}

func rowsOfIn[F host.Float](i int) func(*args[F]) int {
	return func(a *args[F]) int { return a.Src[i].Rows }
}

func colsOf[F host.Float](i int) func(*args[F]) int {
	return func(a *args[F]) int { return a.Out[i].Cols }
}

// fixedRows is the rows of a result that is a weight's gradient.
func fixedRows[F host.Float](a *args[F]) int { return a.Out[0].Rows }

// rowsOfIn2 is the sequences that the offsets (input 1) describe.
func rowsOfIn2[F host.Float](a *args[F]) int {
	return min(a.In[1].Cols-1, a.S.Count[backend.Seq])
}

// seqs finds the offsets among a call's indexes: they are N+1 long and the only index there, but
// for keys (N), which come after them.
func seqs[F host.Float](a *args[F]) int {
	for k, x := range a.Int {
		if x != nil {
			return min(a.In[k].Cols-1, a.S.Count[backend.Seq])
		}
	}
	return 0
}

// sizeOf is the bytes of a matrix without gaps.
func sizeOf[F host.Float](b backend.Buf) int { return b.Rows * b.Cols * int(unsafe.Sizeof(F(0))) }
