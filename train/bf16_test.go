package train

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/backend/cpu"
	"rung/nn/backend/host"
	"rung/nn/loss"
)

func needBF16(t testing.TB) {
	if len(cpu.BF16()) == 0 {
		t.Skip("this machine has no instructions that multiply bf16")
	}
}

// Products that round their factors to bf16 learn the same: losses near those of float32, the same ranking in the end,
// and the same bits whatever the number of workers.
func TestBF16(t *testing.T) {
	needBF16(t)
	run := func(isa string, workers int) ([]Step, string) {
		p := host.NewPool(workers)
		t.Cleanup(p.Close)
		c := config(t)
		c.Epochs, c.LR = 12, 1e-2
		var err error
		c.Backend, err = cpu.On(p, isa)
		require.NoError(t, err)
		r, err := Start(context.Background(), newTiny(), loss.BCE{}, Data{examples(60), examples(20)}, c)
		require.NoError(t, err)
		steps := all(t, r)
		require.NoError(t, r.Close())
		return steps, finalState(t, c.Out)
	}
	want, exact := run("", 2)
	for _, isa := range cpu.BF16() {
		got, state := run(isa, 2)
		require.Len(t, got, len(want))
		for i := range 20 {
			require.InEpsilon(t, want[i].Loss, got[i].Loss, .02, "%s: loss of step %d", isa, i)
		}
		last := got[len(got)-1]
		require.Less(t, last.Loss, got[0].Loss*.7, isa)
		require.InDelta(t, want[len(want)-1].Evaluation.Values["MAP"], last.Evaluation.Values["MAP"], .05, isa)
		require.NotEqual(t, exact, state, "%s: nothing was rounded", isa)
		_, again := run(isa, 3)
		require.Equal(t, state, again, isa)
	}
}
