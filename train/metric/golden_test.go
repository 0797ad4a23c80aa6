package metric

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/nntest/shared"
)

// TestGolden compares with 50 runs measured by pytrec_eval, per query and in the mean.
func TestGolden(t *testing.T) {
	raw, err := os.ReadFile(shared.Path(t, "golden", "metrics", "runs.json"))
	require.NoError(t, err)
	var cases []struct {
		ID       int                           `json:"id"`
		Qrels    Qrels                         `json:"qrels"`
		Run      map[string]map[string]float64 `json:"run"`
		PerQuery map[string]map[string]float64 `json:"per_query"`
		Mean     map[string]float64            `json:"mean_over_evaluated_queries"`
	}
	require.NoError(t, json.Unmarshal(raw, &cases))
	require.Len(t, cases, 50)
	values := 0
	for _, c := range cases {
		run := Run{}
		for q, scores := range c.Run {
			run[q] = []Doc{}
			for id, s := range scores {
				run[q] = append(run[q], Doc{id, float32(s)})
			}
		}
		var names []string
		var measures []Measure
		for name := range c.Mean {
			if len(name) > 14 && name[:14] == "recip_rank_at_" {
				measures = append(measures, mustParse(t, "MRR@"+name[14:]))
			} else {
				measures = append(measures, mustParse(t, name))
			}
			names = append(names, name)
		}
		r, err := Evaluate(c.Qrels, run, measures, Options{PresentOnly: true})
		require.NoError(t, err)
		require.Len(t, r.Queries, len(c.PerQuery))
		for i, name := range names {
			for j, q := range r.Queries {
				require.InDelta(t, c.PerQuery[q][name], r.Values[i][j], 1e-9, "run %d query %s %s", c.ID, q, name)
				values++
			}
			// The reference averages counts, where trec_eval and All sum them.
			require.InDelta(t, c.Mean[name], mean(r.Values[i]), 1e-9, "run %d %s", c.ID, name)
		}
	}
	require.Greater(t, values, 4000)
}

func mustParse(t testing.TB, s string) Measure {
	t.Helper()
	m, err := Parse(s)
	require.NoError(t, err)
	return m
}
