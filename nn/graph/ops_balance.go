package graph

import (
	"fmt"

	"rung/nn/backend"
)

// balance is a number that is small where experts are used alike. Saved: its derivative by any row of x.
type balance struct {
	how int
	by  float64
}

// Balance is by times what backend.BalanceAll, BalanceFirst or BalanceCV says of the real rows of x (R,E),
// which are probabilities, or gates for BalanceCV, and of the choice (R,k). The result is (1,1). It has a gradient by x;
// the choice has none.
func (b *Builder) Balance(x, chosen E, how int, by float64) E {
	return b.Apply(balance{how, by}, x, chosen)
}

func (o balance) Name() string { return "balance" }

func (o balance) Infer(in []Shape) ([]Shape, error) {
	if x, at := in[0], in[1]; !x.rows(-1) || !at.Equal(x.withCols(at.Cols())) || x.Cols() > backend.MaxExperts {
		return nil, fmt.Errorf("want x (R,E) of at most %d experts, and the choice (R,k)", backend.MaxExperts)
	}
	return []Shape{Mat(1, 1), Mat(1, in[0].Cols())}, nil
}

func (o balance) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(backend.Balance, out, in, [4]int{o.how}, [4]float64{o.by})
}

func (o balance) Diff(b *Builder, n E, in []E, dy E) []E {
	return []E{b.Apply(plain{name: "balance.dx", call: backend.Broadcast, shape: of(in[0].Shape())}, b.Saved(n, 1), dy), {}}
}

// zLoss is the router z-loss.
type zLoss struct{ by float64 }

// ZLoss is by times the mean over the real rows of z (R,C) of (log Σ exp z)² (Zoph et al. 2022, ST-MoE, equation
// 5), (1,1).
func (b *Builder) ZLoss(z E, by float64) E { return b.Apply(zLoss{by}, z) }

func (o zLoss) Name() string { return "zloss" }

func (o zLoss) Infer(in []Shape) ([]Shape, error) {
	if !in[0].rows(-1) {
		return nil, fmt.Errorf("want rows of logits")
	}
	return []Shape{Mat(1, 1)}, nil
}

func (o zLoss) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(backend.ZLoss, out, in, [4]int{}, [4]float64{o.by})
}

func (o zLoss) Diff(b *Builder, _ E, in []E, dy E) []E {
	return []E{b.Apply(plain{name: "zloss.dz", call: backend.ZLossGrad, shape: likeFirst, f: [4]float64{o.by}}, in[0], dy)}
}

// load counts choices. Its value is counts; saved: the mean entropy of the probabilities.
type load struct{ experts int }

// Load is how many real rows chose each expert (1,E), and the mean entropy of the router's probabilities, in
// nats (1,1), which is 0 where there are none. Neither has a gradient.
func (b *Builder) Load(r Routing) (counts, entropy E) {
	in := []E{r.Chosen}
	if r.Probs.OK() {
		in = append(in, r.Probs)
	}
	n := b.Apply(load{r.Gates.Shape().Cols()}, in...)
	return n, b.Saved(n, 1)
}

func (o load) Name() string { return "load" }

func (o load) Infer(in []Shape) ([]Shape, error) {
	if at := in[0]; !at.rows(-1) || !in[len(in)-1].Equal(at.withCols(in[len(in)-1].Cols())) {
		return nil, fmt.Errorf("want the choice (R,k) and probabilities (R,C)")
	}
	return []Shape{Mat(1, o.experts), Mat(1, 1)}, nil
}

func (o load) Lower(l *Lowering, out, in []backend.Buf) {
	args := []backend.Buf{in[0], {}}
	copy(args, in)
	l.Call(backend.Load, out, args, [4]int{}, [4]float64{})
}

// Diff has nothing to give.
func (load) Diff(_ *Builder, _ E, in []E, _ E) []E { return make([]E, len(in)) }
