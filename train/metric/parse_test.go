package metric

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]string{
		"nDCG@10": "nDCG@10", "NDCG": "nDCG", " ndcg_cut_10 ": "nDCG@10", "ndcg_cut.20": "nDCG@20", "ndcg": "nDCG",
		"nDCG(exp)@10": "nDCG(dcg='exp-log2')@10", "nDCG(gains=exp)@10": "nDCG(dcg='exp-log2')@10",
		"nDCG(dcg='exp-log2')@10": "nDCG(dcg='exp-log2')@10", "nDCG(dcg=log2)": "nDCG", "nDCG(gains=linear)": "nDCG",
		"nDCG( gains = {2:9, 1:3.5} )@5": "nDCG(gains={1:3.5,2:9})@5", "nDCG@5(exp)": "nDCG(dcg='exp-log2')@5",
		"map": "MAP", "AP": "MAP", "map_cut_100": "MAP@100", "MAP(rel=2)": "MAP(rel=2)", "ap@10": "MAP@10", "gm_map": "GMAP",
		"recip_rank": "MRR", "MRR@10": "MRR@10", "RR(rel=2)@10": "MRR(rel=2)@10", "rr": "MRR",
		"P_5": "P@5", "P.5": "P@5", "p@20": "P@20", "recall_1000": "R@1000", "R@50": "R@50", "Rprec": "Rprec",
		"success_1": "Success@1", "bpref": "Bpref", "infap": "infAP", "iprec_at_recall_0.10": "IPrec@0.1",
		"iprec_at_recall..10": "IPrec@0.1", "IPrec@1.0": "IPrec@1", "11pt_avg": "IPrec11", "Rprec_mult_0.20": "RprecMult@0.2",
		"rbp": "RBP(p=0.9)", "RBP(p=0.8)": "RBP(p=0.8)", "SetF(beta=.5)": "SetF(beta=0.5)", "set_F": "SetF", "unj_5": "Unjudged@5",
		"Judged@10": "Judged@10", "num_rel_ret": "NumRelRet", "NumRel(rel=2)": "NumRel(rel=2)", "utility": "Utility(a=1,b=-1,c=0)",
		"relative_P_5": "RelP@5", "set_relative_P": "SetRelP", "ndcg_rel": "nDCGrel", "Rndcg": "RnDCG", "binG": "binG",
	} {
		m, err := Parse(in)
		require.NoError(t, err)
		require.Equal(t, want, m.String(), in)
		again, err := Parse(want)
		require.NoError(t, err)
		require.True(t, m == again, in)
	}
}

func TestParseErrors(t *testing.T) {
	for in, want := range map[string]string{
		"nDGC@10":               `metric: measure "nDGC@10": unknown name: did you mean nDCG@10?`,
		"MPA":                   `metric: measure "MPA": unknown name: did you mean MAP?`,
		"recal_100":             `metric: measure "recal_100": unknown name: did you mean recall?`,
		"Sucess(rel=2)@5":       `metric: measure "Sucess(rel=2)@5": unknown name: did you mean Success(rel=2)@5?`,
		"":                      `metric: measure "": no name`,
		"@10":                   `metric: measure "@10": no name`,
		"P":                     `metric: measure "P": needs a cutoff: P@10`,
		"P@0":                   `metric: measure "P@0": cutoff "0" is not a whole number of at least 1`,
		"P@ten":                 `metric: measure "P@ten": cutoff "ten" is not a whole number of at least 1`,
		"P@":                    `metric: measure "P@": no number after @`,
		"P_1.5":                 `metric: measure "P_1.5": cutoff "1.5" is not a whole number of at least 1`,
		"Rprec@5":               `metric: measure "Rprec@5": Rprec takes no cutoff`,
		"IPrec":                 `metric: measure "IPrec": needs a recall level from 0 to 1: IPrec@0.5`,
		"IPrec@1.5":             `metric: measure "IPrec@1.5": needs a recall level from 0 to 1: IPrec@0.5`,
		"RprecMult@0":           `metric: measure "RprecMult@0": needs a multiple above 0: RprecMult@0.5`,
		"MAP(rel=0)":            `metric: measure "MAP(rel=0)": rel "0" is not a whole number of at least 1`,
		"MAP(rel=2,rel=3)":      `metric: measure "MAP(rel=2,rel=3)": rel is given twice`,
		"MAP(":                  `metric: measure "MAP(": a parenthesis is not closed`,
		"MAP()":                 `metric: measure "MAP()": the parentheses are empty`,
		"nDCG(rel=2)":           `metric: measure "nDCG(rel=2)": nDCG has no parameter "rel": want nDCG[(exp)][@k]`,
		"nDCG(dcg=ln)":          `metric: measure "nDCG(dcg=ln)": dcg "ln" is neither log2 nor exp-log2`,
		"nDCG(gains={1})":       `metric: measure "nDCG(gains={1})": gains: "1" is not grade:gain`,
		"nDCG(gains={1:2,1:3})": `metric: measure "nDCG(gains={1:2,1:3})": gains: grade 1 is given twice`,
		"nDCG(exp,gains={1:2})": `metric: measure "nDCG(exp,gains={1:2})": exp and gains exclude each other`,
		"RBP(p=1)":              `metric: measure "RBP(p=1)": p "1" is not between 0 and 1`,
		"SetF(beta=-1)":         `metric: measure "SetF(beta=-1)": beta "-1" is not a number of at least 0`,
		"Utility(a=inf)":        `metric: measure "Utility(a=inf)": "inf" is not a finite number`,
	} {
		_, err := Parse(in)
		require.EqualError(t, err, want)
	}
	_, err := Parse("perplexity of it all")
	require.ErrorContains(t, err, "known are nDCG, MAP, GMAP, MRR, P, R,")
	_, err = ParseAll("MAP", "ap")
	require.EqualError(t, err, "metric: measure MAP is given twice")
	require.Equal(t, "(no measure)", Measure{}.String())
}

// TestDefinitions: no name or alias leads to two measures, and each is described and has a syntax that parses.
func TestDefinitions(t *testing.T) {
	for _, info := range List() {
		require.NotEmpty(t, info.About)
		for _, n := range append(info.Aliases, info.Name) {
			require.Equal(t, info.Name, resolve(n).name)
		}
	}
	require.Equal(t, "P[(rel=n)]@k", lookup("P").syntax())
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"nDCG(gains={1:3,2:9})@10", "P_5", "iprec_at_recall_0.10", "Utility(a=1,b=-0,c=2)", "RBP(p=.8)", "((@_.", "x@1(y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(m.String())
		if err != nil || again != m {
			t.Fatalf("%q reads as %v, which reads as %v, %v", s, m, again, err)
		}
		r, err := Evaluate(Qrels{"q": {"a": 2, "b": 0}}, Run{"q": {{"b", 1}, {"a", 0}}}, []Measure{m}, Options{})
		if err != nil || r.All[0] != r.All[0] {
			t.Fatalf("%v: %v, %v", m, r, err)
		}
	})
}
