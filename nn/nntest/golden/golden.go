// Package golden reads the reference data into what tests compare with, and runs models on batches of it.
package golden

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/checkpoints"
	"rung/nn"
	"rung/nn/backend/host"
	"rung/nn/nntest/shared"
)

// File opens a file of the reference data's folder golden until the test ends. The test is skipped where there is none.
func File(t testing.TB, elem ...string) *checkpoints.File {
	t.Helper()
	return Open(t, shared.Path(t, append([]string{"golden"}, elem...)...))
}

// Open opens a file until the test ends.
func Open(t testing.TB, path string) *checkpoints.File {
	t.Helper()
	f, err := checkpoints.OpenFile(path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// Floats are the elements of a tensor, row by row.
func Floats(t testing.TB, f *checkpoints.File, name string) []float64 {
	t.Helper()
	v, err := checkpoints.Float64s(tensor(t, f, name))
	require.NoError(t, err)
	return v
}

// Ints are the elements of a tensor of integers, row by row.
func Ints(t testing.TB, f *checkpoints.File, name string) []int32 {
	t.Helper()
	v, err := checkpoints.Int32s(tensor(t, f, name))
	require.NoError(t, err)
	return v
}

// Init starts a parameter from a tensor.
func Init(t testing.TB, f *checkpoints.File, name string) func(dst []float32) error {
	t.Helper()
	x := tensor(t, f, name)
	return func(dst []float32) error {
		defer f.Forget(name) // else it is in memory twice
		return checkpoints.CopyFloat32s(dst, x)
	}
}

// Load starts parameters from the tensors that have their names.
func Load(t testing.TB, ps []*nn.Param, f *checkpoints.File) {
	t.Helper()
	for _, p := range ps {
		p.Init = Init(t, f, p.Path)
	}
}

func tensor(t testing.TB, f *checkpoints.File, name string) checkpoints.Tensor {
	t.Helper()
	x, err := f.Tensor(name)
	require.NoError(t, err, f.Path())
	return x
}

// JSON reads a file.
func JSON(t testing.TB, path string, into any) {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, into), path)
}

// Config is the configuration of the model in a directory.
func Config(t testing.TB, dir string) nn.Config {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "config.json"))
	require.NoError(t, err)
	c, err := nn.ParseConfig(b)
	require.NoError(t, err)
	return c
}

// Rel is |a-b| / |b|, or |a| where b is zero by theory.
func Rel[F host.Float](a []F, b []float64) float64 {
	if len(a) != len(b) {
		return math.Inf(1)
	}
	var d, n float64
	for i := range a {
		d += (float64(a[i]) - b[i]) * (float64(a[i]) - b[i])
		n += b[i] * b[i]
	}
	if n < 1e-16 {
		return math.Sqrt(d)
	}
	return math.Sqrt(d / n)
}

// ZeroByTheory says whether a parameter is one whose gradient is zero but for rounding: softmax does not see what a key's
// bias adds to all scores of a query.
func ZeroByTheory(path string) bool { return strings.HasSuffix(path, "attention.self.key.bias") }
