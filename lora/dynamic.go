package lora

import (
	"fmt"

	"rung/nn"
	"rung/nn/graph"
)

// dynamicLinear is LoRA with a weight for each rank, which is trained and drawn to zero, so that the ranks that a
// module does not need are dropped (after Lu et al. 2024, "Adaptive Rank, Reduced Forgetting: Knowledge Retention in
// Continual Learning … with Dynamic Rank-Selective LoRA"; the proximal step is the one of sparse coding, Beck and
// Teboulle 2009):
//
//	y = W x + b + Scale B diag(w) A x    and after each update    w = sign(w) max(|w| - lr λ, 0)
//
// W (R) starts at ones, is not decayed, and learns rankRate times as fast as the matrices: Adam's steps are of the size
// of the rate, and with theirs no weight would come from 1 to 0 in a run. λ below 1 leaves what every step's gradient
// holds up. Saved is plain LoRA: w goes into B, and ranks whose weight is zero are left
// out; a module without any keeps one rank of zeros.
type dynamicLinear struct {
	*Linear
	W *nn.Param
}

// rankRate is the learning rate of ranks' weights over that of A and B: sizes of 1 against some hundredths.
const rankRate = 100

func newDynamic(l *Linear, shrink float64) *dynamicLinear {
	return &dynamicLinear{l, &nn.Param{Path: l.Path + ".lora_w", Dims: []int{l.Rank()}, Trainable: true, Init: nn.Ones, Rate: rankRate, Shrink: shrink}}
}

func (l *dynamicLinear) Params() []*nn.Param { return append(l.Base.Params(), l.own()...) }
func (l *dynamicLinear) own() []*nn.Param    { return append(l.Linear.own(), l.W) }
func (l *dynamicLinear) shape() string {
	return fmt.Sprintf("%s dynamic %v", l.Path, l.Scale)
}

func (l *dynamicLinear) Forward(p *nn.Pass, x graph.E) graph.E {
	h := p.Linear(l.drop(p, x), p.Weight(l.A), graph.E{}) // (rows,R)
	h = p.Scale(p.MulCols(h, p.Weight(l.W), graph.E{}, graph.E{}), l.Scale)
	return p.Add(l.Base.Forward(p, x), p.Linear(h, p.Weight(l.B), graph.E{}))
}

func (l *dynamicLinear) fold(v values, w, _ []float64) error {
	a, b, rank, err := l.kept(v)
	if err == nil {
		addProduct(w, b, a, rank, l.Scale)
	}
	return err
}

// kept is A and B diag(w) of the ranks that are left, and how many they are: at least one.
func (l *dynamicLinear) kept(v values) (a, b []float64, rank int, err error) {
	var all [3][]float64
	for i, p := range []*nn.Param{l.A, l.B, l.W} {
		if all[i], err = v(p); err != nil {
			return nil, nil, 0, err
		}
	}
	var ranks []int
	for r, w := range all[2] {
		if w != 0 {
			ranks = append(ranks, r)
		}
	}
	if len(ranks) == 0 { // its weight is zero, and so is B
		ranks = []int{0}
	}
	in, out, old := l.Base.In(), l.Base.Out(), l.Rank()
	for _, r := range ranks {
		a = append(a, all[0][r*in:(r+1)*in]...)
	}
	for o := range out {
		for _, r := range ranks {
			b = append(b, all[1][o*old+r]*all[2][r])
		}
	}
	return a, b, len(ranks), nil
}
