package metric

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/nntest/shared"
)

// TestTrecEval compares with the printed outputs of trec_eval's own quick test, value by value.
//
// Not covered, and why: relstring (a string of grades, no number), runid (the run's own text), and the
// preference and multi-judge measures of out.test.prefs, out.test.qrels_prefs and out.test.qrels_jg, which
// need input formats that nothing else here reads.
func TestTrecEval(t *testing.T) {
	for _, c := range []struct {
		out, qrels, run string
		opts            Options
		values          int
	}{
		{"out.test", "qrels.test", "results.test", Options{PresentOnly: true}, 29},
		{"out.test", "qrels.test.with-comments", "results.test", Options{PresentOnly: true}, 29},
		{"out.comment.test", "qrels.comment.test", "results.comment.test", Options{PresentOnly: true}, 29},
		{"out.test.a", "qrels.test", "results.test", Options{PresentOnly: true}, 98},
		{"out.test.aq", "qrels.test", "results.test", Options{PresentOnly: true}, 383},
		{"out.test.aqc", "qrels.test", "results.trunc", Options{}, 383},
		{"out.test.aqcM", "qrels.test", "results.trunc", Options{Depth: 100}, 383},
		{"out.test.aql", "qrels.rel_level", "results.test", Options{PresentOnly: true, Rel: 2}, 383},
		{"out.test.meas_params", "qrels.test", "results.test", Options{PresentOnly: true}, 88},
	} {
		t.Run(c.out+"/"+c.qrels, func(t *testing.T) {
			dir := shared.Path(t, "data", "trec_eval_test")
			qrels, run := readTrec(t, dir+"/"+c.qrels, dir+"/"+c.run)
			n := 0
			for _, line := range readPrinted(t, dir+"/"+c.out) {
				if line.name == "runid" || line.name == "relstring" || strings.HasPrefix(line.name, "relstring_") {
					continue
				}
				got, ok := trecValue(t, qrels, run, c.opts, line)
				require.True(t, ok, "%s %s", line.name, line.query)
				require.Equal(t, line.value, printed(got, line.value), "%s %s: %g", line.name, line.query, got)
				n++
			}
			require.Equal(t, c.values, n)
		})
	}
}

// TestTrecEvalZ scales our values with the z-score table of trec_eval -Z, which shows more of their digits.
func TestTrecEvalZ(t *testing.T) {
	dir := shared.Path(t, "data", "trec_eval_test")
	qrels, run := readTrec(t, dir+"/qrels.test", dir+"/results.test")
	type norm struct{ mean, sd float64 }
	norms := map[string]norm{}
	for _, f := range fields(t, dir+"/zscores_file") {
		m, err := strconv.ParseFloat(f[2], 64)
		require.NoError(t, err)
		sd, err := strconv.ParseFloat(f[3], 64)
		require.NoError(t, err)
		norms[f[0]+" "+f[1]] = norm{m, sd}
	}
	n := 0
	for _, line := range readPrinted(t, dir+"/out.test.aqZ") {
		name := strings.TrimPrefix(line.name, "Z")
		z, ok := norms[line.query+" "+name]
		if !ok || z.sd == 0 || line.query == "all" {
			continue
		}
		got, ok := trecValue(t, qrels, run, Options{PresentOnly: true}, printedLine{name, line.query, ""})
		require.True(t, ok)
		require.Equal(t, line.value, fmt.Sprintf("%.4f", (got-z.mean)/z.sd), "%s %s", name, line.query)
		n++
	}
	require.Greater(t, n, 200)
}

type printedLine struct{ name, query, value string }

// trecValue evaluates the measure that trec_eval calls line.name.
func trecValue(t *testing.T, qrels Qrels, run Run, opts Options, line printedLine) (float64, bool) {
	names := []string{line.name}
	switch line.name { // names with parameters that Parse writes differently
	case "ndcg_1=3,2=9,4=4.5":
		names = []string{"nDCG(gains={1:3,2:9,4:4.5})"}
	case "utility_2,-1,0,0":
		names = []string{"Utility(a=2,b=-1,c=0)"}
	case "11pt_avg_.25,.5,.75":
		names = []string{"IPrec@.25", "IPrec@.5", "IPrec@.75"}
	}
	total := 0.0
	for _, name := range names {
		m := mustParse(t, name)
		r, err := Evaluate(qrels, run, []Measure{m}, opts)
		require.NoError(t, err)
		v, ok := r.Value(m)
		if line.query != "all" {
			ok = false
			for i, q := range r.Queries {
				if q == line.query {
					v, ok = r.PerQuery(m)[i], true
				}
			}
		}
		if !ok {
			return 0, false
		}
		total += v
	}
	return total / float64(len(names)), true
}

func printed(v float64, like string) string {
	if strings.Contains(like, ".") {
		return fmt.Sprintf("%.4f", v)
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

func readPrinted(t *testing.T, path string) []printedLine {
	var out []printedLine
	for _, f := range fields(t, path) {
		out = append(out, printedLine{f[0], f[1], f[2]})
	}
	return out
}

func readTrec(t *testing.T, qrelsPath, runPath string) (Qrels, Run) {
	qrels, run := Qrels{}, Run{}
	for _, f := range fields(t, qrelsPath) {
		grade, err := strconv.Atoi(f[3])
		require.NoError(t, err)
		if qrels[f[0]] == nil {
			qrels[f[0]] = map[string]int{}
		}
		qrels[f[0]][f[2]] = grade
	}
	for _, f := range fields(t, runPath) {
		s, err := strconv.ParseFloat(f[4], 64)
		require.NoError(t, err)
		require.False(t, math.IsNaN(s))
		run[f[0]] = append(run[f[0]], Doc{f[2], float32(s)})
	}
	return qrels, run
}

func fields(t *testing.T, path string) [][]string {
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	var out [][]string
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if line := strings.Fields(sc.Text()); len(line) > 0 && line[0] != "#" {
			out = append(out, line)
		}
	}
	require.NoError(t, sc.Err())
	return out
}
