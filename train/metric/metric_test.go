package metric

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// The worked example: ranks 1 to 5 are b (grade 2), x (unjudged), c (0), a (1), u (pooled, not judged);
// e (3) is not retrieved. Relevant: a, b, e.
func example() (Qrels, Run) {
	return Qrels{"q": {"a": 1, "b": 2, "c": 0, "e": 3, "u": -1}},
		Run{"q": {{"a", 2}, {"u", 1}, {"b", 5}, {"c", 3}, {"x", 4}}}
}

func TestByHand(t *testing.T) {
	lg := math.Log2
	ideal := 3 + 2/lg(3) + 1/lg(4)
	qrels, run := example()
	for name, want := range map[string]float64{
		"nDCG":                      (2 + 1/lg(5)) / ideal,
		"nDCG@2":                    2 / (3 + 2/lg(3)),
		"nDCG(exp)":                 (3 + 1/lg(5)) / (7 + 3/lg(3) + 1/lg(4)),
		"nDCG(gains={1:9})":         (2 + 9/lg(5)) / (9 + 3/lg(3) + 2/lg(4)),
		"nDCG(gains={1:-1,0:4})":    (2 + 4/lg(4) - 1/lg(5)) / (4 + 3/lg(3) + 2/lg(4)),
		"MAP":                       (1 + 2./4) / 3,
		"MAP@3":                     1. / 3,
		"MAP(rel=2)":                1. / 2,
		"MAP(rel=3)":                0,
		"GMAP(rel=3)":               1e-5,
		"MRR":                       1,
		"MRR@3":                     1,
		"P@2":                       .5,
		"P@10":                      .2,
		"P(rel=2)@4":                .25,
		"R@4":                       2. / 3,
		"RelP@4":                    2. / 3,
		"Success@1":                 1,
		"Success(rel=3)@5":          0,
		"Rprec":                     1. / 3,
		"RprecMult@2":               2. / 6,
		"Bpref":                     (1 + 0.) / 3,
		"infAP":                     (1 + 1./4 + 2./4*(1+1e-5)/(2+2e-5)) / 3,
		"IPrec@0":                   1,
		"IPrec@.5":                  .5,
		"IPrec@1":                   0,
		"IPrec11":                   (5*1. + 4*.5) / 11, // the levels need 0 0 1 1 1 2 2 2 2 3 3 relevant documents
		"RBP(p=.5)":                 .5 * (2./3 + .125/3),
		"RBPresid(p=.5)":            1./32 + .5*(.5+.0625),
		"SetP":                      .4,
		"SetR":                      2. / 3,
		"SetF":                      2 * .4 * (2. / 3) / (.4 + 2./3),
		"SetF(beta=2)":              5 * .4 * (2. / 3) / (4*.4 + 2./3),
		"SetAP":                     .4 * 2 / 3,
		"SetRelP":                   2. / 3,
		"Utility":                   2 - 3,
		"Utility(a=2,b=-0.5,c=-10)": 4 - 1.5 - 10,
		"Judged@2":                  .5,
		"Judged@10":                 .3,
		"Unjudged@10":               .2,
		"NumQ":                      1,
		"NumRet":                    5,
		"NumRel":                    3,
		"NumRelRet":                 2,
		"NumNonrelRet":              1,
		"binG":                      (1/lg(2) + 1/lg(4)) / 3,
		"G":                         (2/lg(3) + 1/lg(2+7-3)) / 6,
		"nDCGrel":                   (2./3 + (2+1/lg(5))/ideal + (2+1/lg(5))/ideal) / 3,
		"RnDCG":                     (2./3 + 2/(3+2/lg(3)) + 2/ideal + (2+1/lg(5))/ideal) / 4,
	} {
		m := mustParse(t, name)
		r, err := Evaluate(qrels, run, []Measure{m}, Options{})
		require.NoError(t, err)
		require.InDelta(t, want, r.All[0], 1e-12, name)
	}
}

func TestOptions(t *testing.T) {
	qrels, run := example()
	qrels["missing"] = map[string]int{"a": 1}
	qrels["barren"] = map[string]int{"a": 0}
	run["barren"] = []Doc{{"a", 1}}
	run["stray"] = []Doc{{"a", 1}}
	run["q"] = append(run["q"], Doc{"q", 9})
	ms, err := ParseAll("MRR", "R@9", "NumRet", "NumRel")
	require.NoError(t, err)
	for _, c := range []struct {
		opts Options
		want []float64
	}{
		{Options{}, []float64{.5 / 3, 2. / 3 / 3, 7, 4}},
		{Options{PresentOnly: true}, []float64{.5 / 2, 2. / 3 / 2, 7, 3}},
		{Options{PresentOnly: true, DropSelf: true}, []float64{1. / 2, 2. / 3 / 2, 6, 3}},
		{Options{PresentOnly: true, JudgedOnly: true}, []float64{1. / 2, 2. / 3 / 2, 4, 3}},
		{Options{PresentOnly: true, CandidatesOnly: true}, []float64{.5 / 2, 1. / 2, 7, 2}},
		{Options{PresentOnly: true, Depth: 2}, []float64{.5 / 2, 1. / 3 / 2, 3, 3}},
		{Options{PresentOnly: true, Depth: 1, DropSelf: true}, []float64{1. / 2, 1. / 3 / 2, 2, 3}},
		{Options{PresentOnly: true, Rel: 2}, []float64{.5 / 2, 1. / 2 / 2, 7, 2}},
	} {
		r, err := Evaluate(qrels, run, ms, c.opts)
		require.NoError(t, err)
		require.InDeltaSlice(t, c.want, r.All, 1e-12, "%+v", c.opts)
		require.Equal(t, []string{"missing"}, r.Missing)
		require.Equal(t, []string{"stray"}, r.Unjudged)
		v, ok := r.Value(ms[1])
		require.True(t, ok)
		require.Equal(t, r.All[1], v)
		require.Len(t, r.PerQuery(ms[0]), len(r.Queries))
	}
	require.Nil(t, (&Result{}).PerQuery(ms[0]))
}

// TestTies: equal as float32 is equal, -0 equals 0, and the greater id comes first.
func TestTies(t *testing.T) {
	for _, c := range []struct {
		docs []Doc
		want []string
	}{
		{[]Doc{{"a", 1}, {"b", float32(1 + 1e-9)}}, []string{"b", "a"}},
		{[]Doc{{"a", 0}, {"b", float32(math.Copysign(0, -1))}, {"c", -1e-45}}, []string{"b", "a", "c"}},
		{[]Doc{{"d9", 1}, {"d10", 1}, {"é", 1}, {"z", 1}}, []string{"é", "z", "d9", "d10"}},
		{[]Doc{{"a", float32(math.Inf(-1))}, {"b", -3e38}, {"c", 3e38}, {"d", float32(math.Inf(1))}}, []string{"d", "c", "b", "a"}},
	} {
		var rk ranking
		require.NoError(t, rk.set("q", c.docs, nil, Options{}))
		var got []string
		for _, key := range rk.order {
			got = append(got, c.docs[uint32(key)].ID)
		}
		require.Equal(t, c.want, got)
		require.NoError(t, Rank(c.docs))
		for i, d := range c.docs {
			require.Equal(t, c.want[i], d.ID)
		}
	}
}

func TestEvaluateErrors(t *testing.T) {
	nan := float32(math.NaN())
	ms := []Measure{mustParse(t, "MAP")}
	for _, c := range []struct {
		qrels Qrels
		run   Run
		ms    []Measure
		opts  Options
		want  string
	}{
		{Qrels{"q": {"d": 1}}, Run{"q": {{"d", nan}}}, ms, Options{}, `metric: query "q", document "d": the score is not a number`},
		{Qrels{"q": {"d": 1}}, Run{"q": {{"d", 1}, {"e", 1}, {"d", 2}}}, ms, Options{}, `metric: query "q": document "d" is listed twice`},
		{Qrels{}, Run{"q": {{"d", 1}}}, ms, Options{}, `metric: no judgements`},
		{Qrels{"q": {"d": 1}}, Run{}, ms, Options{}, `metric: the run is empty`},
		{Qrels{"q1": {"d": 1}}, Run{"1": {{"d", 1}}}, ms, Options{}, `metric: run and judgements share no query: the run has "1", the judgements have "q1"`},
		{Qrels{"q": {"d": 1}}, Run{"q": {{"d", 1}}}, nil, Options{}, `metric: no measure is asked for`},
		{Qrels{"q": {"d": 1}}, Run{"q": {{"d", 1}}}, make([]Measure, 1), Options{}, `metric: measure 1 of 1 is empty: Parse makes measures`},
		{Qrels{"q": {"d": 1}}, Run{"q": {{"d", 1}}}, ms, Options{Depth: -1}, `metric: depth -1 and relevance level 0 must not be negative`},
		{Qrels{"q": {"d": 60}}, Run{"q": {{"d", 1}}}, []Measure{mustParse(t, "nDCG(exp)@3")}, Options{}, `metric: query "q": grade 60 is too large for nDCG(dcg='exp-log2')@3 (at most 52)`},
	} {
		_, err := Evaluate(c.qrels, c.run, c.ms, c.opts)
		require.EqualError(t, err, c.want)
	}
	require.EqualError(t, Rank([]Doc{{"d", nan}}), `metric: document "d": the score is not a number`)
}

// TestFirstError: whatever the number of workers, the first bad query is the one that is named.
func TestFirstError(t *testing.T) {
	qrels, run := synthetic(1000, 3)
	run["q000700"] = []Doc{{"x", 1}, {"x", 1}}
	run["q000100"] = []Doc{{"y", 1}, {"y", 1}}
	for range 5 {
		_, err := Evaluate(qrels, run, []Measure{mustParse(t, "MAP")}, Options{})
		require.EqualError(t, err, `metric: query "q000100": document "y" is listed twice`)
	}
}

// TestEmptyRanking: a query with an empty ranking is present, and 0 in every mean.
func TestEmptyRanking(t *testing.T) {
	for _, info := range List() {
		name := info.Name
		if d := lookup(name); d.params&(needsCutoff|takesRecall|takesMultiple) != 0 {
			name += "@1"
		}
		m := mustParse(t, name)
		r, err := Evaluate(Qrels{"q": {"d": 1}, "r": {"d": 0}}, Run{"q": nil, "r": {}}, []Measure{m}, Options{PresentOnly: true})
		require.NoError(t, err)
		switch info.Name {
		case "NumQ":
			require.Equal(t, 2., r.All[0])
		case "NumRel":
			require.Equal(t, 1., r.All[0])
		case "GMAP", "GBpref":
			require.InDelta(t, 1e-5, r.All[0], 1e-18)
		default:
			require.Zero(t, r.All[0], info.Name)
		}
	}
}

// synthetic makes runs in which each query has docs documents and up to 20 judgements.
func synthetic(queries, docs int) (Qrels, Run) {
	qrels, run := Qrels{}, Run{}
	for q := range queries {
		id := fmt.Sprintf("q%06d", q)
		list, grades := make([]Doc, docs), map[string]int{}
		for d := range list {
			x := draw(7, uint64(q), uint64(d))
			list[d] = Doc{fmt.Sprintf("MARCO_%08d", x%1e5*1000+uint64(d)), float32(x>>40) / 1000}
			if d%50 == 0 {
				grades[list[d].ID] = int(x % 3)
			}
		}
		run[id], qrels[id] = list, grades
	}
	return qrels, run
}

func BenchmarkEvaluate(b *testing.B) {
	qrels, run := synthetic(7000, 1000)
	ms, err := ParseAll("nDCG@10", "MAP", "MRR@10", "R@1000", "P@10")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Evaluate(qrels, run, ms, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleEvaluate() {
	qrels := Qrels{"q1": {"d1": 1, "d2": 0}, "q2": {"d3": 2}}
	run := Run{"q1": {{"d1", .3}, {"d2", .9}}, "q2": {{"d3", 1.5}}}
	measures, _ := ParseAll("MRR@10", "nDCG@10")
	r, _ := Evaluate(qrels, run, measures, Options{})
	for i, m := range r.Measures {
		fmt.Printf("%v %.4f %.4f\n", m, r.All[i], r.Values[i])
	}
	// Output:
	// MRR@10 0.7500 [0.5000 1.0000]
	// nDCG@10 0.8155 [0.6309 1.0000]
}
