package backend

// Op names a kernel. The comments give: results; inputs; numbers.
//
// Any result of several may be Dead: it is not computed. Inputs "or dead" may be, those in brackets may
// also be left out. Accumulates says which results may be marked Acc. No result overlaps an input or
// another result; where a result is also read (y += x, updates) the comment says so.
//
// Rows beyond the real count are stale: inputs there are not read, results are left as they are. So are
// the columns between Cols and Ld. A vector (n) is n consecutive elements, one row of a matrix. Indexes
// are int32: (R) has one value for each row, offsets are the first token row of each sequence and the
// end (Cols is the capacity of sequences + 1); values beyond the real rows or sequences are stale too.
//
// A row reduction whose result is a gradient runs once for each unit if the Binding says so (PerUnit):
// EmbedGrad, MatTN, ColSum, MulColsDG, NormDG. Without rows it is 0.
type Op uint8

// The kernels. T, N, B, K, D, H as in package nn; R is rows of any axis.
const (
	// Embedding.
	Embed     Op = iota // y (R,D); ids, pos, types (R), word (V,D), position (P,D), type (Y,D) or dead
	EmbedGrad           // dtable (V,D); ids (R), dy (R,D)

	// Linear layers. R rows; O outputs; I inputs; r the rank of a low-rank term. I[0] = n blocks.
	//
	// MatNT: blocks of columns side by side, y_k = f(x w_kT + h_k u_kT + b_k), for a fused f the value
	// before it is pre. b_k, and h_k with u_k, may be dead.
	MatNT  // y (R,ΣO), pre (R,ΣO); x (R,I), then for each block w (O,I), b (O), h (R,r), u (O,r); I[1] = Activation
	MatNN  // dx (R,I); pre (R,I) or dead, then n pairs dy (R,O), w (O,I). dx = Σ dy w, times f'(pre) if I[1] = Activation
	MatTN  // dw (O,I); dy (R,O), x (R,I). dw = dyT x
	ColSum // db (O); dy (R,O)

	// Element by element, on rows.
	//
	// Dropout: y = x / (1-rate), but 0 where philox.Word(Seed, Step, keys[seq], site, pos*Cols + column) is
	// less than philox.Threshold(rate).
	Unary     // y; x; I[0] = Func
	UnaryGrad // dx; x, y, dy; I[0] = Func. Tanh, Sigmoid and Exp read y, the others x; the one not read is dead
	Add       // y; a, b
	Sub       // y; a, b
	Mul       // y; a, b
	Scale     // y; x; F[0]
	MulCols   // y (R,C); x (R,C), g (C), c (C) or dead, b (C) or dead. y = x g c + b, g, c and b the same in every row
	MulColsDG // dg (C); x, dy (R,C), c (C) or dead. dg = c Σ x dy
	Fill      // y; ; F[0]
	AddTo     // y; x. y += x
	Dropout   // y; x, keys (N), [seqs, pos (R)]; F[0] = rate, I[0] = site. With no seqs rows are sequences at position 0

	// Rows.
	Norm          // y (R,D), mean (R,1), rstd (R,1), sum (R,D); x (R,D), res (R,D) or dead, g (D), b (D); F[0] = eps. y = norm(x + res)
	NormDX        // dx (R,D); s, mean, rstd, g, dy
	NormDG        // dg (D), db (D); s, mean, rstd, dy
	Normalize     // y (R,D), rnorm (R,1); x (R,D); F[0] = eps. y = x / max(|x|, eps)
	NormalizeGrad // dx (R,D); y, rnorm, dy; F[0] = eps. Where rnorm is 1/eps, but for rounding, dx = dy/eps
	RowSum        // y (R,1); x (R,C)
	RowSumGrad    // dx (R,C); dy (R,1)
	Softmax       // y (R,C), lse (R,1); x (R,C), mask (R,C) or dead. y = log softmax over what the mask keeps (not 0), else 0. Nothing kept: lse = 0
	SoftmaxGrad   // dx (R,C); y (R,C), mask or dead, dy (R,C)

	// Packed sequences: offsets (N+1) into token rows. Sequences may be empty: what is computed for them
	// is 0, and their offset may be that of the end.
	//
	// Attn: R is T, or N with I[1] = 1: then q has one row a sequence. lse is of q·k / √(D/heads). Without
	// keys nothing is dropped, else probabilities as in Dropout: each head is a site of its own, I[2] +
	// head, and the element is query<<16 | key, both counted from the sequence's first row.
	Attn      // y (R,D), lse (R,H); q (R,D), k, v (T,D), offsets, keys (N) or dead; I[0] = heads, I[1], I[2] = site, F[0] = dropout rate
	AttnGrad  // dq, dk, dv; q, k, v, offsets, keys, y, lse, dy; numbers of Attn
	First     // y (N,D); x (T,D), offsets
	FirstGrad // dx (T,D); dy (N,D), offsets
	Mean      // y (N,D); x (T,D), offsets
	MeanGrad  // dx (T,D); dy (N,D), offsets
	Max       // y (N,D), at (N,D); x (T,D), offsets. at is the row that was taken, the first of equals, counted from the sequence's first
	MaxGrad   // dx (T,D); dy (N,D), at, offsets

	// Candidates: slots (B,K) holds a sequence, or -1 for none.
	Gather      // y (B,K); x (N,1), slots
	GatherGrad  // dx (N,1); dy (B,K), slots
	PairDot     // y (B,K); e (N,D), queries (B), slots (B,K). y = e[query] · e[slot]
	PairDotGrad // de (N,D); e, queries, slots, dy (B,K)
	Pairs       // y (B,K·K); x (B,K). y[i,j] = x[i] - x[j]
	PairsGrad   // dx (B,K); dy (B,K·K)
	Outer       // y (B,K·K); x (B,K). y[i,j] = x[i] x[j]

	// Mixtures of experts: E experts, k of them for each row. y is gates (R,E), 0 for experts that are not chosen,
	// and beside them probabilities (R,C), E = C n. at (R,k) is the chosen experts as whole numbers, best first.
	//
	// Route chooses the greatest scores, of equals the first. Softmax: p = softmax(z), the scores are p + bias,
	// gates are the softmax over the chosen z. Sigmoid: p = σ(z), each counts for n experts in a row; the scores are
	// p + bias, gates are k times their share of the sum of the chosen. bias may be dead: then z is the score.
	Route       // y (R,E+C), at (R,k); z (R,C), bias (E); I[0] = k, I[1] = Router, I[2] = n
	RouteGrad   // dz (R,C); y, at, bias, dy (R,E+C); numbers of Route
	Assign      // y (R,E), at (R,1+s); ids (R); I[0] = s, I[1] = E: the gates of expert ids[i] and of the last s experts are 1
	Spread      // y (T,D); x (N,D), offsets: the row of its sequence for each token
	SpreadGrad  // dx (N,D); dy (T,D), offsets. The sum of the rows of a sequence
	GateMul     // y (R,E·r); h (R,E·r), or (R,r) for all experts, g (R,E); F[0]. y = F[0] g h, 0 where g is, whatever h
	GateMulGrad // dh like h, dg (R,E); h, g, dy; F[0]
	// Grouped products: those of each row's own experts, of rank r; of the others nothing is read. w is (E·r,C), or with
	// I[0] = 1 its transpose.
	GroupNT  // h (R,k·r); x (R,C), w, at (R,k). h_j = w_at[j] x
	GroupNN  // y (R,C); plus (R,C) or dead, h (R,k·r), w, at. y = plus + Σ_j w_at[j]T h_j
	GroupTN  // dw like w; h, x, at. dw_e = Σ h_jT x over rows and j with at[j] = e
	Take     // y (R,k); x (R,E), at (R,k). y_j = x_at[j]
	TakeGrad // dx (R,E); at, dy (R,k)
	Load     // n (E), h (1,1); at (R,k), p (R,C) or dead. How many rows chose each expert, less the mean with I[0] = 1; the mean entropy of p/Σp
	// Balance: what is to be small for experts to be used alike, and its derivative c by any row of x. f is the share
	// of rows that chose an expert, as I[0] says; no rows: 0.
	Balance   // s (1,1), c (1,E); x (R,E), at (R,k) or dead; I[0] = Balancing, F[0]
	Broadcast // y (R,C); v (1,C), s (1,1). Each row is v s
	ZLoss     // s (1,1); z (R,C); F[0]. s = F[0] mean (log Σ exp z)²
	ZLossGrad // dz (R,C); z, s (1,1); F[0]

	// Losses of logits, element by element; those of classes by rows.
	BCE      // l (R,C); x, y (R,C). l = log(1+exp(x)) - x y
	BCEGrad  // dx; x, y, dl
	CE       // l (R,1), lse (R,1); x (R,C), class (R). A class below 0: no loss
	CEGrad   // dx (R,C); x, lse, class, dl (R,1)
	Dot      // s (1,1); w, l (R,1). s = Σ w l, where a w of 0 takes nothing from any l, infinite or NaN
	MulConst // y (R,C); x (R,C), s (1,1)

	// Update: each call on one vector of weights, its gradient and moments, which it changes; moments
	// start at 0. f is what Clip wrote: the factor of the gradient, which is NaN where the update must
	// change nothing.
	SumSq   // s (1,n); n gradients of any shape. s[i] = |g_i|, the norm, its squares summed in float64
	Clip    // f (1,2); s (1,n). f[1] = norm of all, f[0] = min(1, Clip/(norm+1e-6)), NaN if the norm is not finite
	AdamW   // w, m, v, [vmax]; g, f; F = β1, β2, ε, decay; I[0] = group, I[1] = 1: decay is added to the gradient (Adam). vmax, also in Moment2: AMSGrad
	SGD     // w, m; g, f; F = momentum, -, -, decay; I[0] = group, I[1] = 1: Nesterov
	Adagrad // w, v; g, f; F = -, -, ε, decay; I[0] = group
	Shrink  // w; -, f; F[0] = λ, I[0] = group: w = sign(w) max(|w| - lr λ, 0), the proximal step of λ |w|
	SignSGD // w; g, f; F[0]. w -= F[0] sign(g), whatever f is, but for NaN

	// Clipping of what units of a batch contribute (Abadi et al. 2016, "Deep Learning with Differential
	// Privacy"): a row is the gradient of a unit. A unit whose norm is not finite counts nothing.
	RowNorm  // s (R,1); x (R,C). s = |x|, the norm of each row, its squares summed in float64
	ClipRows // f (R,n); s (R,n); F[0] = C. f = min(1, C/|s|), the same in all columns; I[0] = 1: min(1, C/(√n s)), each by itself. 0 where a norm is not finite
	SumRows  // y (1,C); x (R,C), f (R,1). y = Σ f x, front to back, where an f of 0 takes nothing from any x, infinite or NaN

	Host // I[0]: a stock Gorgonia operator of the program
	NumOps
)

// Activation of MatNT.
const (
	Identity = iota
	ActGELU
)

// Router is how Route turns logits into gates.
const (
	RouteSoftmax = iota // Fedus et al. 2022, Jiang et al. 2024 (Mixtral)
	RouteSigmoid        // SMoRA
)

// MaxExperts is the most experts, and probabilities, of a row.
const MaxExperts = 256

// Balancing of Balance.
const (
	BalanceAll   = iota // F E Σ_e f_e mean x_e, f of all choices (Mixtral)
	BalanceFirst        // the same, f of first choices only (Switch, GShard)
	BalanceCV           // F times variance by squared mean of Σ x_e (Shazeer et al. 2017)
)

// Func is a function of Unary.
type Func int

// The functions. GELU is x Φ(x) with the error function, not its tanh approximation.
const (
	GELU Func = iota
	Tanh
	ReLU
	Sigmoid
	Softplus
	Exp
	Square
	Positive // 1 where x > 0, else 0; no gradient
	InvSqrt  // 1/√x where x > 0, else 0
	NumFuncs
)

var opNames = [NumOps]string{
	"embed", "embed.grad", "matnt", "matnn", "mattn", "colsum", "unary", "unary.grad", "add", "sub", "mul", "scale", "mulcols", "mulcols.dg", "fill", "addto", "dropout",
	"norm", "norm.dx", "norm.dg", "normalize", "normalize.grad", "rowsum", "rowsum.grad", "softmax", "softmax.grad",
	"attn", "attn.grad", "first", "first.grad", "mean", "mean.grad", "max", "max.grad",
	"gather", "gather.grad", "pairdot", "pairdot.grad", "pairs", "pairs.grad", "outer",
	"route", "route.grad", "assign", "spread", "spread.grad", "gatemul", "gatemul.grad", "groupnt", "groupnn", "grouptn", "take", "take.grad", "load", "balance", "broadcast", "zloss", "zloss.grad",
	"bce", "bce.grad", "ce", "ce.grad", "dot", "mulconst", "sumsq", "clip", "adamw", "sgd", "adagrad", "shrink", "signsgd", "rownorm", "cliprows", "sumrows", "host",
}

func (o Op) String() string {
	if o < NumOps {
		return opNames[o]
	}
	return "?"
}

// Accumulates reports whether result i of o may be marked Acc.
func (o Op) Accumulates(i int) bool {
	switch o {
	case MatNT, MatNN, MatTN, GroupNN, GroupTN, ColSum, EmbedGrad,
		Unary, UnaryGrad, Add, Sub, Mul, Scale, MulCols, MulColsDG, Fill, Dropout, MulConst,
		NormDX, NormalizeGrad, RowSum, RowSumGrad, SoftmaxGrad, Pairs, PairsGrad, Outer, BCE, BCEGrad, CEGrad, Dot, SumRows:
		return i == 0
	case NormDG:
		return true
	}
	return false
}
