package checkpoints

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestStateComesBackBitForBit(t *testing.T) {
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "state")
	nan := math.Float32frombits(0x7fa00001) // a signalling NaN with a payload
	m, err := NewTensor("encoder.layer.0.m", []int{2, 2}, []float32{nan, float32(math.Copysign(0, -1)), 1e-45, 3})
	require.NoError(t, err)
	key, err := NewTensor("rng", []int{4}, []int64{1, -2, math.MaxInt64, math.MinInt64})
	require.NoError(t, err)
	meta := `{"step": 12, "losses": [0.1, 1e-300],  "note": "spaces stay"}`
	require.NoError(t, SaveState(ctx, dir, State{Meta: []byte(meta), Tensors: []Tensor{key, m}}))

	s, err := OpenState(dir)
	require.NoError(t, err)
	require.Equal(t, meta, string(s.Meta))
	require.Len(t, s.Tensors, 2)
	for _, want := range []Tensor{m, key} {
		got, err := s.Tensor(want.Name)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	got, err := s.Tensor(m.Name)
	require.NoError(t, err)
	v, err := Float32s(got)
	require.NoError(t, err)
	require.Equal(t, uint32(0x7fa00001), math.Float32bits(v[0]))
	_, err = s.Tensor("v")
	require.ErrorContains(t, err, `holds no tensor "v"`)
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())

	b, err := os.ReadFile(filepath.Join(dir, StateFile))
	require.NoError(t, err)
	b[len(b)-1] ^= 1
	require.NoError(t, os.WriteFile(filepath.Join(dir, StateFile), b, 0o644))
	_, err = OpenState(dir)
	require.ErrorContains(t, err, "state.safetensors has SHA-256")
	require.NoError(t, os.Truncate(filepath.Join(dir, StateFile), 100))
	_, err = OpenState(dir)
	require.ErrorContains(t, err, "state.safetensors has 100 bytes, expected")
	require.NoError(t, os.Remove(filepath.Join(dir, ManifestFile)))
	_, err = OpenState(dir)
	require.ErrorContains(t, err, "has no MANIFEST.json")

	require.ErrorContains(t, SaveState(ctx, dir+"2", State{Meta: []byte("{")}), "not valid JSON")
	require.NoError(t, Save(ctx, dir+"3", writeVersion("x")))
	_, err = OpenState(dir + "3")
	require.ErrorContains(t, err, "does not list state.safetensors")
}
