package lora

import (
	"fmt"
	"math"

	"rung/nn"
	"rung/nn/backend"
	"rung/nn/graph"
)

// MixtureLinear is a linear layer with a mixture of E adapters of rank R beside it (Li et al. 2024, MixLoRA; Dou et al. 2024,
// LoRAMoE):
//
//	y = Base(x) + Scale Σ_e g_e B_e A_e dropout(x)
//
// The gates g (rows,E) are 0 for all experts but those that are chosen for a row; none is left out, whatever the load.
// A (E·R,in) and B (out,E·R) are those of all experts side by side. The sum is two products with the gates between them: of
// each row with its own experts, or, where there are few others, of all rows with all. With one A for all it is (R,in) (Tian
// et al. 2024, HydraLoRA). With RouteRank the experts are the R ranks of one adapter, E = R (SMoRA).
type MixtureLinear struct {
	Path    string // of the module
	Base    *nn.Linear
	A, B    *nn.Param
	Router  *nn.Param // (C,in), C = E but where ranks share logits; nil where the domain chooses
	Bias    *nn.Param // (E) of the choice, or nil
	Scale   float64
	Dropout float64

	x       Experts
	rank    int     // of an expert
	share   float64 // of the layer in the mean over layers
	grouped bool    // rows meet only the experts that they go to
}

// few is how many times the experts that a row goes to there may be for all of them to be computed: side by side they are one
// dense matmul, most of whose columns are gated to 0.
const few = 4

// newMixture puts experts beside base. A and the router are drawn as a plain adapter's A is.
func newMixture(path string, base *nn.Linear, rank int, c *Config, scale float64, seed uint64) *MixtureLinear {
	x := c.Mixture
	l := &MixtureLinear{Path: path, Base: base, Scale: scale, Dropout: c.Dropout, x: x, rank: rank, share: 1}
	param := func(name string, dims ...int) *nn.Param {
		return &nn.Param{Path: path + ".lora_" + name, Dims: dims, Trainable: true}
	}
	uniform := func(p *nn.Param) *nn.Param {
		p.Init = p.Uniform(seed, 1/math.Sqrt(float64(base.In())))
		return p
	}
	rows, logits := x.Experts*rank, x.Experts-x.SharedExperts
	if x.Router == RouteRank {
		l.rank, l.x.Experts, rows, logits = 1, rank, rank, rank/x.Partition
		l.Scale *= float64(rank) / float64(x.TopK) // α/k in place of α/R
	}
	if x.SharedA {
		rows = rank
	}
	k := x.TopK
	if x.Router == RouteDomain {
		k = 1 + x.SharedExperts
	}
	l.grouped = x.Router != RouteRank && x.Experts >= few*k
	l.A, l.B = uniform(param("A.weight", rows, base.In())), param("B.weight", base.Out(), l.x.Experts*l.rank)
	if x.Router != RouteDomain {
		l.Router = uniform(param("router.weight", logits, base.In()))
	}
	if x.Balance == BalanceBias {
		l.Bias = param("router.bias", l.x.Experts)
		l.Bias.Sign = x.BiasRate
	}
	return l
}

// Params are those of the base, then A, B and the router's.
func (l *MixtureLinear) Params() []*nn.Param { return append(l.Base.Params(), l.own()...) }

func (l *MixtureLinear) shape() string {
	x := &l.x
	return fmt.Sprintf("%s moe-lora %s %d of %d, %d, %d %v", l.Path, x.Router, x.TopK, x.Experts, x.SharedExperts, x.Partition, l.Scale)
}

func (l *MixtureLinear) own() []*nn.Param {
	ps := []*nn.Param{l.A, l.B}
	for _, p := range []*nn.Param{l.Router, l.Bias} {
		if p != nil {
			ps = append(ps, p)
		}
	}
	return ps
}

// Forward applies the layer to rows x. It tells the pass what balances the router, and how the experts are used.
func (l *MixtureLinear) Forward(p *nn.Pass, x graph.E) graph.E {
	y := l.Base.Forward(p, x) // (rows,out)
	gates, chosen := l.gates(p, x)
	x = p.Dropout(x, l.Dropout, l.Path+".lora_dropout")
	a, b := p.Weight(l.A), p.Weight(l.B)
	if !l.grouped {
		h := p.Linear(x, a, graph.E{})            // (rows,E·R) or (rows,R)
		m := p.GateMul(h, gates, l.rank, l.Scale) // (rows,E·R)
		return p.Add(y, p.Linear(m, b, graph.E{}))
	}
	var h graph.E // (rows,k·R) or (rows,R)
	if l.x.SharedA {
		h = p.Linear(x, a, graph.E{})
	} else {
		h = p.GroupIn(x, a, chosen, l.rank, false)
	}
	m := p.GateMul(h, p.Take(gates, chosen), l.rank, l.Scale) // (rows,k·R)
	return p.GroupOut(y, m, b, chosen, l.rank, true)
}

// gates are (rows,E), and the experts that rows go to (rows,k).
func (l *MixtureLinear) gates(p *nn.Pass, x graph.E) (gates, chosen graph.E) {
	axis := x.Shape().Axis
	if l.x.Router == RouteDomain {
		r := p.Assign(p.Domain(axis), l.x.Experts, l.x.SharedExperts)
		l.report(p, r)
		return r.Gates, r.Chosen
	}
	pooled := l.x.Router == RouteSequence && axis == backend.Tok
	if pooled {
		x, axis = p.Mean(x, p.Offsets), backend.Seq
	}
	z := p.Linear(x, p.Weight(l.Router), graph.E{}) // (rows,C) or (N,C)
	var bias graph.E
	if l.Bias != nil {
		bias = p.Weight(l.Bias)
	}
	how, each := backend.RouteSoftmax, 1
	if l.x.Router == RouteRank {
		how, each = backend.RouteSigmoid, l.x.Partition
	}
	r := p.Route(z, bias, l.x.TopK, how, each)
	l.balance(p, z, r, axis)
	l.report(p, r)
	if pooled {
		return p.Spread(r.Gates, p.Offsets, p.Dims.T), p.Spread(r.Chosen, p.Offsets, p.Dims.T)
	}
	return r.Gates, r.Chosen
}

// balance adds what keeps the router even to the loss.
func (l *MixtureLinear) balance(p *nn.Pass, z graph.E, r graph.Routing, axis backend.Axis) {
	of, how, by := r.Probs, backend.BalanceAll, l.x.BalanceWeight*l.share
	switch l.x.Balance {
	case BalanceSwitch:
		how = backend.BalanceFirst
	case BalanceTopK:
		by /= float64(l.x.TopK)
	case BalanceImportance:
		of, how = r.Gates, backend.BalanceCV
	case BalanceNone, BalanceBias:
		by = 0
	}
	if by > 0 {
		p.Penalise(p.Balance(of, r.Chosen, how, by), axis)
	}
	if l.x.ZLoss > 0 {
		p.Penalise(p.ZLoss(z, l.x.ZLoss*l.share), axis)
	}
}

// Names of what a mixture reports of a layer, before its path.
const (
	ReportLoad    = "load:"    // (1,E) how many rows chose each expert
	ReportEntropy = "entropy:" // (1,1) mean entropy of the router's probabilities, in nats
)

func (l *MixtureLinear) report(p *nn.Pass, r graph.Routing) {
	n, h := p.Load(r)
	p.Report(ReportLoad+l.Path, n)
	if r.Probs.OK() {
		p.Report(ReportEntropy+l.Path, h)
	}
}

// fold adds Scale Σ_e g_e B_e A_e to w (out,in), where the gates are the same for every input.
func (l *MixtureLinear) fold(v values, w, _ []float64) error {
	if l.x.Experts > 1 && !(l.x.Router == RouteDomain && len(l.x.Domains) == 1) {
		by := map[string]string{RouteToken: "token", RouteSequence: "sequence", RouteDomain: "domain", RouteRank: "token"}[l.x.Router]
		return fmt.Errorf("module %q chooses among %d experts by %s: no single weight computes the same", l.Path, l.x.Experts, by)
	}
	a, b, err := v.both(l.A, l.B)
	if err != nil {
		return err
	}
	rows, in, ranks := l.A.Dims[0], l.A.Dims[1], l.B.Dims[1]
	for o := range l.B.Dims[0] {
		for r, s := range b[o*ranks : (o+1)*ranks] {
			for i, x := range a[r%rows*in:][:in] { // every gate is 1
				w[o*in+i] += l.Scale * s * x
			}
		}
	}
	return nil
}
