package base

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/checkpoints"
	"rung/nn/arch"
	"rung/nn/device"
	"rung/train"
)

func record(t testing.TB) (r Record) {
	b, err := fs.ReadFile(files, folder+"/"+recordFile)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &r))
	return r
}

// What is committed is what the generator wrote, and is small.
func TestCommitted(t *testing.T) {
	b, err := fs.ReadFile(files, folder+"/"+checkpoints.ModelFile)
	require.NoError(t, err)
	sum := sha256.Sum256(b)
	r := record(t)
	require.Equal(t, r.SHA256, hex.EncodeToString(sum[:]))
	require.Len(t, r.First, first)
	require.Less(t, r.Last, r.First[0]/2)
	size := 0
	entries, err := fs.ReadDir(files, folder)
	require.NoError(t, err)
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(t, err)
		size += int(info.Size())
	}
	require.Less(t, size, 2<<20)
}

// The encoder opens, and the files beside the weights are those that this source makes.
func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "base")
	require.NoError(t, Write(context.Background(), dir))
	require.NoError(t, Write(context.Background(), dir), "again")
	_, err := checkpoints.Verify(dir)
	require.NoError(t, err)
	m, err := arch.OpenBi(context.Background(), dir, arch.Options{})
	require.NoError(t, err)
	defer m.Close()
	require.Equal(t, positions, m.MaxLength)
	made, err := Files(m.Encoder.Params(), record(t))
	require.NoError(t, err)
	require.Contains(t, made, "config.json")
	for name, b := range made {
		got, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.True(t, string(b) == string(got), "%s differs", name)
	}
	require.Error(t, Write(context.Background(), filepath.Join(dir, "config.json", "x")))
}

// The pre-training begins as it did when the encoder was made, to rounding: instruction sets differ.
func TestPretrainReproduces(t *testing.T) {
	if testing.Short() {
		t.Skip("encodes all texts of a stage")
	}
	be, err := device.Open("")
	require.NoError(t, err)
	want := record(t)
	ps, got, err := Pretrain(context.Background(), be, func(s train.Step) bool { return s.N < first })
	require.NoError(t, err)
	require.Nil(t, ps, "stopped")
	require.InDeltaSlice(t, want.First, got.First, 1e-5)
}

// Cancelled, the pre-training says so.
func TestPretrainCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	be, err := device.Open("")
	require.NoError(t, err)
	_, _, err = Pretrain(ctx, be, func(train.Step) bool { return true })
	require.ErrorIs(t, err, context.Canceled)
}

// The examples are made of texts alone: the first candidate is the other half of the query's text, the
// others are of other texts, and many of them have a word of the query too.
func TestExamples(t *testing.T) {
	const n = 2000
	l := language()
	i, common, asked := 0, 0, map[int]int{}
	for x, err := range examples(l, "test", n) {
		require.NoError(t, err)
		text := l.Text("test", i)
		asked[len(strings.Fields(x.Query))]++
		for _, w := range strings.Fields(x.Query) {
			require.Contains(t, strings.Fields(text.Halves[0]), w)
			_, means := l.Concept(w)
			require.True(t, means, w)
		}
		require.Len(t, x.Candidates, choices)
		for k, c := range x.Candidates {
			require.Equal(t, k == 0, c.Label == 1)
			require.Equal(t, k == 0, c.Text == text.Halves[1])
			for _, w := range strings.Fields(x.Query) {
				if k > 0 && strings.Contains(" "+c.Text, " "+w+" ") {
					common++
					break
				}
			}
		}
		i++
	}
	require.Equal(t, n, i)
	for k := fewest; k <= 6; k++ {
		require.Greater(t, asked[k], n/10, "%d words", k)
	}
	require.Greater(t, common, n*2, "of %d others", n*(choices-1))
}
