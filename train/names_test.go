package train

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/data"
	"rung/nn/loss"
)

// Lines without ids do not tell whose they are: a claim about queries cannot rest on their numbers.
func TestQueriesWithoutIDs(t *testing.T) {
	unnamed := func(yield func(data.Example, error) bool) {
		for x, err := range of(20, examples(60)) {
			x.Unnamed = true
			if !yield(x, err) {
				return
			}
		}
	}
	for unit, refused := range map[string]bool{"": true, "query": true, "row": false, "user": false} {
		c := privateConfig(t)
		c.Privacy.Unit = unit
		r, err := Start(context.Background(), newTiny(), loss.BCE{}, Data{unnamed, examples(10)}, c)
		if refused {
			require.ErrorContains(t, err, "train: privacy.unit: query: q0 has no id: two lines of one query would count as two units")
			continue
		}
		require.NoError(t, err, unit)
		require.NoError(t, r.Close())
	}
	c := privateConfig(t) // the dev data are public, and without privacy places are names
	r, err := Start(context.Background(), newTiny(), loss.BCE{}, Data{of(7, examples(60)), unnamed}, c)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	r, err = Start(context.Background(), newTiny(), loss.BCE{}, Data{unnamed, examples(10)}, config(t))
	require.NoError(t, err)
	require.NoError(t, r.Close())
}
