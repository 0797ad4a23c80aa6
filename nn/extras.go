package nn

import (
	"fmt"
	"slices"

	"rung/nn/backend"
	"rung/nn/graph"
)

// Inputs and outputs of models that route rows to experts, by the axis of the rows: "domain.T" is the domain of each
// token. The output "penalty.T" is the sum of the penalties over tokens, which is minimised with the weight of the input
// "share.T": the part of the batch's tokens that a micro-batch has. What is reported is an output under "report." and its
// name.
const (
	InDomain  = "domain"
	InShare   = "share"
	OutReport = "report."
)

// rowsOf are the axes that penalties and domains may be of.
var rowsOf = []backend.Axis{backend.Tok, backend.Seq}

// OnAxis is a name of an input or output for the rows of an axis.
func OnAxis(name string, a backend.Axis) string { return name + "." + a.String() }

// Domain is the domain of each row (R) along an axis: tokens or sequences. A batch has to say it.
func (p *Pass) Domain(a backend.Axis) graph.E {
	switch a {
	case backend.Tok:
		return p.Index(OnAxis(InDomain, a), graph.Each(a, p.Dims.T))
	case backend.Seq:
		return p.Index(OnAxis(InDomain, a), graph.Each(a, p.Dims.N))
	}
	return p.Fail(fmt.Errorf("nn: rows along %v have no domain", a))
}

// Penalise adds e (1,1), a mean over rows along axis a, to what training minimises: a term of the batch, not of one unit.
// With several micro-batches it is the mean over them, each with the weight of its rows.
func (p *Pass) Penalise(e graph.E, a backend.Axis) {
	if !slices.Contains(rowsOf, a) {
		p.Fail(fmt.Errorf("nn: a penalty on rows along %v", a))
		return
	}
	if p.penalties[a].OK() {
		e = p.Add(p.penalties[a], e)
	}
	p.penalties[a] = e
}

// Report makes e an output of programs for training: a statistic.
func (p *Pass) Report(name string, e graph.E) {
	p.reports = append(p.reports, named{OutReport + name, e})
}

// extras are the outputs that training has beside the loss.
func (p *Pass) extras() []named {
	var out []named
	for _, a := range rowsOf {
		if e := p.penalties[a]; e.OK() {
			out = append(out, named{OnAxis(OutPenalty, a), e})
		}
	}
	return append(out, p.reports...)
}
