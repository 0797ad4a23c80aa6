package graph

import (
	"fmt"

	"rung/nn/backend"
)

// Gather arranges scores x (N,1) as units of candidates: slots (B,K) says which sequence a candidate
// is, -1 for none (then 0).
func (b *Builder) Gather(x, slots E) E {
	return b.Apply(gather{}, x, b.index("gather", "slots", slots))
}

type gather struct{}

func (gather) Name() string { return "gather" }

func (gather) Infer(in []Shape) ([]Shape, error) {
	if !in[0].rows(1) || in[0].Axis != backend.Seq || !in[1].rows(-1) || in[1].Axis != backend.Unit {
		return nil, fmt.Errorf("want x (N,1) and slots (B,K)")
	}
	return []Shape{in[1]}, nil
}

func (gather) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(backend.Gather, out, in, [4]int{}, [4]float64{})
}

func (gather) Diff(b *Builder, _ E, in []E, dy E) []E {
	return []E{b.Apply(plain{name: "gather.dx", call: backend.GatherGrad, shape: of(in[0].Shape())}, dy, in[1]), {}}
}

// PairDot scores passages against their query: y[b,k] = e[queries[b]] · e[slots[b,k]], 0 for slot -1.
// e (N,D), queries (B), slots (B,K).
func (b *Builder) PairDot(e, queries, slots E) E {
	return b.Apply(pairDot{}, e, b.index("pairdot", "queries", queries), b.index("pairdot", "slots", slots))
}

type pairDot struct{}

func (pairDot) Name() string { return "pairdot" }

func (pairDot) Infer(in []Shape) ([]Shape, error) {
	if !in[0].rows(-1) || in[0].Axis != backend.Seq || !in[2].rows(-1) || in[2].Axis != backend.Unit || !in[1].Equal(Each(backend.Unit, in[2].Dims[0])) {
		return nil, fmt.Errorf("want e (N,D), queries (B) and slots (B,K)")
	}
	return []Shape{in[2]}, nil
}

func (pairDot) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(backend.PairDot, out, in, [4]int{}, [4]float64{})
}

func (pairDot) Diff(b *Builder, _ E, in []E, dy E) []E {
	d := b.Apply(plain{name: "pairdot.de", call: backend.PairDotGrad, shape: of(in[0].Shape())}, in[0], in[1], in[2], dy)
	return []E{d, {}, {}}
}

// Pairs is all differences of a unit's candidates: x (B,K) to (B,K·K), y[i,j] = x[i] - x[j].
func (b *Builder) Pairs(x E) E { return b.Apply(pairs{backend.Pairs}, x) }

// Outer is all products of a unit's candidates: x (B,K) to (B,K·K), y[i,j] = x[i] x[j]. It is for
// masks: it has no gradient.
func (b *Builder) Outer(x E) E { return b.Apply(outer{pairs{backend.Outer}}, x) }

type pairs struct{ call backend.Op }

func (o pairs) Name() string { return o.call.String() }
func (o pairs) RowWise()     {}

func (o pairs) Infer(in []Shape) ([]Shape, error) {
	if !in[0].rows(-1) {
		return nil, fmt.Errorf("want rows of values")
	}
	k := in[0].Cols()
	return []Shape{in[0].withCols(k * k)}, nil
}

func (o pairs) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(o.call, out, in, [4]int{}, [4]float64{})
}

func (o pairs) Diff(b *Builder, _ E, in []E, dy E) []E {
	return []E{b.Apply(plain{name: "pairs.dx", call: backend.PairsGrad, shape: of(in[0].Shape())}, dy)}
}

// outer is pairs without a gradient.
type outer struct{ of pairs }

func (o outer) Name() string                             { return o.of.Name() }
func (o outer) RowWise()                                 {}
func (o outer) Infer(in []Shape) ([]Shape, error)        { return o.of.Infer(in) }
func (o outer) Lower(l *Lowering, out, in []backend.Buf) { o.of.Lower(l, out, in) }

// bce is the binary cross-entropy of logits.
type bce struct{}

// BCE is log(1 + exp(x)) - x y for each logit x and label y of one shape.
func (b *Builder) BCE(x, y E) E { return b.Apply(bce{}, x, y) }

func (bce) Name() string                      { return "bce" }
func (bce) Infer(in []Shape) ([]Shape, error) { return alike(in) }

func (bce) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(backend.BCE, out, in, [4]int{}, [4]float64{})
}

func (bce) Diff(b *Builder, _ E, in []E, dy E) []E {
	dx := b.Apply(plain{name: "bce.dx", call: backend.BCEGrad, shape: likeFirst}, in[0], in[1], dy)
	return []E{dx, b.Scale(b.Mul(in[0], dy), -1)} // labels may be another model's
}

// ce is the cross-entropy of class logits. Saved: log Σ exp.
type ce struct{}

// CE is -log softmax(x)[class] for each row of logits x (R,C) and class index (R); a class below 0 has
// no loss. The result is (R,1).
func (b *Builder) CE(x, class E) E { return b.Apply(ce{}, x, b.index("ce", "class", class)) }

func (ce) Name() string { return "ce" }

func (ce) Infer(in []Shape) ([]Shape, error) {
	if !in[0].rows(-1) || !in[1].Equal(Each(in[0].Axis, in[0].Dims[0])) {
		return nil, fmt.Errorf("want logits (R,C) and one class for each row")
	}
	return []Shape{in[0].withCols(1), in[0].withCols(1)}, nil
}

func (ce) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(backend.CE, out, in, [4]int{}, [4]float64{})
}

func (ce) Diff(b *Builder, n E, in []E, dy E) []E {
	return []E{b.Apply(plain{name: "ce.dx", call: backend.CEGrad, shape: likeFirst}, in[0], b.Saved(n, 1), in[1], dy), {}}
}

// weighted is the scalar sum of w l.
type weighted struct{}

// WeightedSum is Σ w l for w, l (R,1); the result is (1,1). A row that weighs 0 adds nothing, whatever
// its l.
func (b *Builder) WeightedSum(w, l E) E { return b.Apply(weighted{}, w, l) }

func (weighted) Name() string { return "weighted" }

func (weighted) Infer(in []Shape) ([]Shape, error) {
	if !in[0].Equal(in[1]) || !in[0].rows(1) {
		return nil, fmt.Errorf("want w and l (R,1)")
	}
	return []Shape{Mat(1, 1)}, nil
}

func (weighted) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(backend.Dot, out, in, [4]int{}, [4]float64{})
}

func (weighted) Diff(b *Builder, _ E, in []E, dy E) []E {
	by := plain{name: "weighted.dx", call: backend.MulConst, shape: likeFirst}
	return []E{b.Apply(by, in[1], dy), b.Apply(by, in[0], dy)}
}
