package metric

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A Measure is a measure with its parameters, made by Parse. Measures are equal (==) when their names are.
type Measure struct {
	name    string
	cutoff  int     // 0: the whole ranking
	rel     int     // 0: Options.Rel
	at      float64 // recall level, or multiple of the number of relevant documents
	exp     bool    // gain 2^grade - 1
	gains   string  // gains of single grades, "1:3,2:9", ascending
	p       float64 // persistence of RBP
	beta    float64
	a, b, c float64 // weights of Utility
}

// params says which parameters a measure takes.
type params uint16

const (
	takesCutoff params = 1 << iota
	needsCutoff
	takesRel
	takesGain
	takesRecall   // @level, 0 to 1
	takesMultiple // @multiple of R
	takesP
	takesBeta
	takesWeights
)

type definition struct {
	name    string
	aliases []string // lower case: trec_eval's names first
	params  params
	value   func(*ranking, *compiled) float64
	over    func([]float64) float64 // all queries' values to one
	about   string
}

// definitions lists every measure. A new one is a function and a row.
func definitions() []definition {
	return []definition{
		{"nDCG", []string{"ndcg_cut"}, takesCutoff | takesGain, ndcg, mean, "normalised discounted cumulative gain; gain is the grade, (exp) 2^grade - 1, or (gains={1:3,2:9})"},
		{"MAP", []string{"map_cut", "ap"}, takesCutoff | takesRel, averagePrecision, mean, "average precision"},
		{"GMAP", []string{"gm_map"}, takesRel, averagePrecision, geometricMean, "average precision, geometric mean over queries"},
		{"MRR", []string{"recip_rank", "rr"}, takesCutoff | takesRel, reciprocalRank, mean, "reciprocal rank of the first relevant document"},
		{"P", []string{"precision"}, needsCutoff | takesRel, precision, mean, "precision"},
		{"R", []string{"recall"}, needsCutoff | takesRel, recall, mean, "recall"},
		{"RelP", []string{"relative_p"}, needsCutoff | takesRel, relativePrecision, mean, "precision over the best possible at the cutoff"},
		{"Success", []string{"hit", "hits"}, needsCutoff | takesRel, success, mean, "1 if a relevant document is among the first"},
		{"Rprec", []string{"r-prec"}, takesRel, rPrecision, mean, "precision at the number of relevant documents"},
		{"RprecMult", []string{"rprec_mult"}, takesMultiple | takesRel, rPrecisionMultiple, mean, "precision at a multiple of the number of relevant documents"},
		{"Bpref", nil, takesRel, bpref, mean, "relevant documents above judged non-relevant ones"},
		{"GBpref", []string{"gm_bpref"}, takesRel, bpref, geometricMean, "Bpref, geometric mean over queries"},
		{"infAP", nil, takesRel, inferredAP, mean, "average precision inferred from a sampled pool"},
		{"IPrec", []string{"iprec_at_recall"}, takesRecall | takesRel, interpolatedPrecision, mean, "interpolated precision at a recall level"},
		{"IPrec11", []string{"11pt_avg"}, takesRel, elevenPoint, mean, "interpolated precision, mean of recall 0, .1, … 1"},
		{"RBP", nil, takesP, rankBiasedPrecision, mean, "rank-biased precision"},
		{"RBPresid", []string{"rbp_resid"}, takesP, rankBiasedResidual, mean, "what RBP could gain from unjudged documents"},
		{"G", nil, takesGain, gMeasure, mean, "gain, discounted by the gain missed above it"},
		{"binG", nil, takesRel, binaryG, mean, "G with binary gain"},
		{"nDCGrel", []string{"ndcg_rel"}, takesGain, ndcgRel, mean, "nDCG averaged at the relevant documents"},
		{"RnDCG", nil, takesGain, rNDCG, mean, "nDCG averaged where the ideal gain falls"},
		{"SetP", []string{"set_p"}, takesRel, setPrecision, mean, "precision of the whole run"},
		{"SetR", []string{"set_recall"}, takesRel, setRecall, mean, "recall of the whole run"},
		{"SetF", []string{"set_f"}, takesRel | takesBeta, setF, mean, "F measure of the whole run"},
		{"SetAP", []string{"set_map"}, takesRel, setAP, mean, "precision times recall of the whole run"},
		{"SetRelP", []string{"set_relative_p"}, takesRel, setRelativePrecision, mean, "precision of the whole run over the best possible"},
		{"Utility", nil, takesRel | takesWeights, utility, mean, "a · relevant retrieved + b · other retrieved + c · relevant missed"},
		{"Judged", nil, needsCutoff, judged, mean, "share of the first ranks with a judged document"},
		{"Unjudged", []string{"unj"}, needsCutoff, unjudged, mean, "share of the first ranks with an unjudged document"},
		{"NumQ", []string{"num_q"}, 0, numQ, sum, "queries"},
		{"NumRet", []string{"num_ret"}, 0, numRet, sum, "documents retrieved"},
		{"NumRel", []string{"num_rel"}, takesRel, numRel, sum, "relevant documents"},
		{"NumRelRet", []string{"num_rel_ret"}, takesRel, numRelRet, sum, "relevant documents retrieved"},
		{"NumNonrelRet", []string{"num_nonrel_judged_ret"}, takesRel, numNonrelRet, sum, "judged non-relevant documents retrieved"},
	}
}

// An Info describes a measure for people.
type Info struct {
	Name    string
	Syntax  string   // what Parse takes: "P(rel=1)@k"
	Aliases []string // other names, trec_eval's first
	About   string
}

// List describes every measure.
func List() []Info {
	defs := definitions()
	out := make([]Info, len(defs))
	for i, d := range defs {
		out[i] = Info{Name: d.name, Syntax: d.syntax(), Aliases: slices.Clone(d.aliases), About: d.about}
	}
	return out
}

func (d *definition) syntax() string {
	var in []string
	for _, p := range []struct {
		bit  params
		text string
	}{{takesRel, "rel=n"}, {takesGain, "exp"}, {takesP, "p=.9"}, {takesBeta, "beta=1"}, {takesWeights, "a=1,b=-1,c=0"}} {
		if d.params&p.bit != 0 {
			in = append(in, p.text)
		}
	}
	s := d.name
	if len(in) > 0 {
		s += "[(" + strings.Join(in, ",") + ")]"
	}
	switch {
	case d.params&takesCutoff != 0:
		s += "[@k]"
	case d.params&needsCutoff != 0:
		s += "@k"
	case d.params&takesRecall != 0:
		s += "@recall"
	case d.params&takesMultiple != 0:
		s += "@multiple"
	}
	return s
}

// String is the measure's canonical name, which Parse reads back: "nDCG(dcg='exp-log2')@10".
func (m Measure) String() string {
	d := lookup(m.name)
	if d == nil {
		return "(no measure)"
	}
	var in []string
	if m.rel != 0 {
		in = append(in, "rel="+strconv.Itoa(m.rel))
	}
	if m.exp {
		in = append(in, "dcg='exp-log2'")
	}
	if m.gains != "" {
		in = append(in, "gains={"+m.gains+"}")
	}
	if d.params&takesP != 0 {
		in = append(in, "p="+number(m.p))
	}
	if d.params&takesBeta != 0 && m.beta != 1 {
		in = append(in, "beta="+number(m.beta))
	}
	if d.params&takesWeights != 0 {
		in = append(in, "a="+number(m.a), "b="+number(m.b), "c="+number(m.c))
	}
	s := m.name
	if len(in) > 0 {
		s += "(" + strings.Join(in, ",") + ")"
	}
	switch {
	case m.cutoff > 0:
		s += "@" + strconv.Itoa(m.cutoff)
	case d.params&(takesRecall|takesMultiple) != 0:
		s += "@" + number(m.at)
	}
	return s
}

func number(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }

func lookup(name string) *definition {
	for _, d := range definitions() {
		if d.name == name {
			return &d
		}
	}
	return nil
}

// compiled is a measure with its definition and every default filled in.
type compiled struct {
	Measure
	rel         int // never 0
	def         *definition
	persistence float64
	weights     [3]float64
	gainOf      map[int]float64
}

func compile(measures []Measure, opts Options) ([]compiled, error) {
	if len(measures) == 0 {
		return nil, errors.New("metric: no measure is asked for")
	}
	out := make([]compiled, len(measures))
	for i, m := range measures {
		def := lookup(m.name)
		if def == nil {
			return nil, fmt.Errorf("metric: measure %d of %d is empty: Parse makes measures", i+1, len(measures))
		}
		c := compiled{Measure: m, rel: m.rel, def: def, persistence: m.p, weights: [3]float64{m.a, m.b, m.c}}
		if c.rel == 0 {
			c.rel = max(1, opts.Rel)
		}
		if m.gains != "" {
			var err error
			if c.gainOf, _, err = parseGains(m.gains); err != nil {
				return nil, err
			}
		}
		out[i] = c
	}
	return out, nil
}

func sum(values []float64) float64 {
	s := 0.0
	for _, v := range values {
		s += v
	}
	return s
}

func mean(values []float64) float64 { return sum(values) / float64(len(values)) }

// geometricMean takes values below 1e-5 as 1e-5, as trec_eval does.
func geometricMean(values []float64) float64 {
	s := 0.0
	for _, v := range values {
		s += math.Log(max(v, 1e-5))
	}
	return math.Exp(s / float64(len(values)))
}
