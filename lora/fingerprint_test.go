package lora

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn"
	"rung/nn/arch"
)

// What an adapter computes is part of what its model is, so that a run is not resumed with another.
func TestFingerprint(t *testing.T) {
	with := func(c Config) string {
		m := arch.NewCross(nn.Config{ModelType: "bert", Layers: 1, Hidden: 8, Heads: 2, FF: 16, Vocab: 20, Positions: 10, Types: 2, Embedding: 8, Eps: 1e-12, InitStd: .02}, 1)
		a, err := Apply(m, c, 1)
		require.NoError(t, err)
		f := m.Fingerprint()
		a.Remove()
		require.NotEqual(t, f, m.Fingerprint())
		return f
	}
	c := Config{Rank: 2, Alpha: 4, Targets: []string{"query"}}
	want := with(c)
	require.Equal(t, want, with(c))
	for _, change := range []func(c *Config){
		func(c *Config) { c.Alpha = 8 },
		func(c *Config) { c.Dropout = .1 },
		func(c *Config) { c.UseRSLoRA = true },
		func(c *Config) { c.AlphaPattern = map[string]float64{"query": 2} },
	} {
		other := c
		change(&other)
		require.NotEqual(t, want, with(other))
	}
}
