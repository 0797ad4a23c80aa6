package report

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A log whose writer died in a line is read up to there, and goes on from the step that is asked for.
func TestTornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), File)
	l, err := Open(path, 0)
	require.NoError(t, err)
	loss := .5
	for n := 1; n <= 3; n++ {
		require.NoError(t, l.Step(Record{Step: n, Loss: &loss}))
	}
	require.NoError(t, l.Step(Record{Step: 3, Metrics: map[string]float64{"MAP": .25}}))
	require.NoError(t, l.Sync())
	require.NoError(t, l.Close())
	whole, err := Read(path)
	require.NoError(t, err)
	require.Len(t, whole, 4)

	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString(`{"step":4,"lo`)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	got, err := Read(path)
	require.NoError(t, err)
	require.Equal(t, whole, got)

	l, err = Open(path, 2)
	require.NoError(t, err)
	require.NoError(t, l.Step(whole[2]))
	require.NoError(t, l.Close())
	got, err = Read(path)
	require.NoError(t, err)
	require.Equal(t, whole[:3], got)
}

func TestBadLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), File)
	require.NoError(t, os.WriteFile(path, []byte("{\"step\":1}\nstep 2\n"), 0o666))
	_, err := Read(path)
	require.ErrorContains(t, err, File+":2: ")
	_, err = Read(path + "x")
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestNilLog(t *testing.T) {
	var l *Log
	require.NoError(t, l.Step(Record{Step: 1}))
	require.NoError(t, l.Sync())
	require.NoError(t, l.Close())
}
