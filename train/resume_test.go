package train

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/loss"
	"rung/train/report"
)

// Stopped after any step and resumed, a run ends as if it had not been: same losses, weights, moments,
// same log.
func TestResumeIsExact(t *testing.T) {
	d := Data{examples(30), examples(10)}
	c := config(t)
	want := whole(t, d, c)
	for stop := 1; stop < len(want); stop += 5 {
		k := config(t)
		k.Backend = workers(t, 1+stop%3)
		ctx, cancel := context.WithCancel(context.Background())
		r, err := Start(ctx, newTiny(), loss.BCE{}, d, k)
		require.NoError(t, err)
		n := 0
		for range r.Steps() {
			if n++; n == stop {
				if stop%2 == 0 {
					break
				}
				cancel() // within the next step
			}
		}
		cancel()
		if stop%2 != 0 {
			require.ErrorIs(t, r.Err(), context.Canceled)
		}
		require.NoError(t, r.Close())

		k.Resume = true
		r, err = Start(context.Background(), newTiny(), loss.BCE{}, d, k)
		require.NoError(t, err)
		require.Equal(t, stop, r.Done())
		require.Equal(t, want[stop:], all(t, r))
		require.NoError(t, r.Close())
		require.Equal(t, finalState(t, c.Out), finalState(t, k.Out), "stopped after %d", stop)
		a, b := metrics(t, c.Out), metrics(t, k.Out)
		require.Equal(t, a, b)
	}
}

func metrics(t testing.TB, out string) []report.Record {
	recs, err := report.Read(filepath.Join(out, report.File))
	require.NoError(t, err)
	for i := range recs {
		recs[i].Seconds = 0
	}
	return recs
}

func TestResumeRefusesAnotherRun(t *testing.T) {
	d := Data{examples(12), examples(4)}
	c := config(t)
	r, err := Start(context.Background(), newTiny(), loss.BCE{}, d, c)
	require.NoError(t, err)
	for range r.Steps() {
		break
	}
	require.NoError(t, r.Err())

	_, err = Start(context.Background(), newTiny(), loss.BCE{}, d, c)
	require.ErrorContains(t, err, "another") // somebody writes there
	require.NoError(t, r.Close())
	_, err = Start(context.Background(), newTiny(), loss.BCE{}, d, c)
	require.ErrorContains(t, err, "holds a run already")

	c.Resume = true
	other := c
	other.LR, other.Seed = 1, 77
	_, err = Start(context.Background(), newTiny(), loss.BCE{}, d, other)
	require.ErrorContains(t, err, "lr (was 0.003, is 1)")
	require.ErrorContains(t, err, "seed (was 1, is 77)")
	_, err = Start(context.Background(), newTiny(), loss.BCE{PosWeight: 2}, d, c)
	require.ErrorContains(t, err, "loss")
	_, err = Start(context.Background(), newTiny(), loss.BCE{}, Data{examples(13), nil}, c)
	require.ErrorContains(t, err, "dev data")
	_, err = Start(context.Background(), newTiny(), loss.BCE{}, Data{examples(13), examples(4)}, c)
	require.ErrorContains(t, err, "the training data")
}

// A best checkpoint that somebody has removed is not claimed to be there: the best of what follows is.
func TestResumeWithoutBest(t *testing.T) {
	c := config(t)
	c.KeepBest = "MAP"
	r, err := Start(context.Background(), newTiny(), loss.BCE{}, Data{examples(12), examples(4)}, c)
	require.NoError(t, err)
	all(t, r)
	require.NoError(t, r.Close())
	require.NoError(t, os.RemoveAll(r.Best()))
	c.Resume = true
	r, err = Start(context.Background(), newTiny(), loss.BCE{}, Data{examples(12), examples(4)}, c)
	require.NoError(t, err)
	defer r.Close()
	require.Len(t, r.Warnings(), 1)
	require.Contains(t, r.Warnings()[0], "is gone")
	require.Empty(t, all(t, r))
	require.DirExists(t, r.Best())
}
