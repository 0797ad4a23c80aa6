package privacy

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func terms() Terms {
	return Terms{Unit: "a query with all its candidates", Units: 800, Delta: 1e-4, Clip: .5, Clipping: FlatClip, Public: []string{"the dev set"}}
}

func TestClaim(t *testing.T) {
	phases := []Phase{{.04, 1, 100}, {.04, 1, 50}, {.02, 1.2, 10}}
	c, err := NewClaim(terms(), phases)
	require.NoError(t, err)
	e, err := Epsilon(phases, 1e-4)
	require.NoError(t, err)
	require.Equal(t, e, *c.Epsilon)
	require.Greater(t, *c.RDP, *c.Epsilon)
	require.EqualValues(t, 160, c.Steps)
	require.Equal(t, []Phase{{.04, 1, 150}, {.02, 1.2, 10}}, c.Phases)
	b, err := json.Marshal(c)
	require.NoError(t, err)
	var back Claim
	require.NoError(t, json.Unmarshal(b, &back))
	require.Equal(t, c, back)
	for _, text := range []string{c.String(), string(b)} {
		for _, want := range []string{"a query with all its candidates", "add or remove one unit", "Poisson", "the dev set", "number of units", "hyperparameters", "privacy loss distribution", "Rényi", "800", "0.02", "1.2", "0.5"} {
			require.Contains(t, text, want)
		}
	}
	require.NotContains(t, c.String(), "\n")
	require.Contains(t, c.String(), "ε = "+Up(e))
}

func TestClaimOfNothing(t *testing.T) {
	on := terms()
	on.Insecure = true
	c, err := NewClaim(on, []Phase{{.04, 1, 100}})
	require.NoError(t, err)
	require.Nil(t, c.Epsilon)
	require.Nil(t, c.RDP)
	require.True(t, strings.HasPrefix(c.String(), "No privacy is claimed: the run was seeded"))
	require.NotContains(t, c.String(), "ε")
	b, err := json.Marshal(c)
	require.NoError(t, err)
	require.Contains(t, string(b), `"epsilon":null`)
	// one that claims all the same
	require.ErrorContains(t, json.Unmarshal([]byte(strings.Replace(string(b), `"epsilon":null`, `"epsilon":1`, 1)), &c), "though none is claimed")

	c, err = NewClaim(terms(), []Phase{{.04, .005, 100}})
	require.NoError(t, err)
	require.Nil(t, c.Epsilon)
	require.Contains(t, c.String(), "too small for any finite ε")
}

func TestClaimThatIsNone(t *testing.T) {
	ok := []Phase{{.04, 1, 100}}
	for want, c := range map[string]struct {
		change func(*Terms)
		phases []Phase
	}{
		"want less than 1/800": {func(x *Terms) { x.Delta = 1. / 800 }, ok},
		"δ NaN":                {func(x *Terms) { x.Delta = math.NaN() }, ok},
		"δ 0":                  {func(x *Terms) { x.Delta = 0 }, ok},
		"0 units":              {func(x *Terms) { x.Units = 0 }, ok},
		"no unit":              {func(x *Terms) { x.Unit = "" }, ok},
		"clipping norm +Inf":   {func(x *Terms) { x.Clip = math.Inf(1) }, ok},
		"clipping norm -1":     {func(x *Terms) { x.Clip = -1 }, ok},
		"no clipping mode":     {func(x *Terms) { x.Clipping = "" }, ok},
		"σ is 0":               {func(*Terms) {}, []Phase{{.04, 0, 1}}},
		"σ -1":                 {func(*Terms) {}, []Phase{{.04, -1, 1}}},
		"σ NaN":                {func(*Terms) {}, []Phase{{.04, math.NaN(), 1}}},
		"q 1.5":                {func(*Terms) {}, []Phase{{1.5, 1, 1}}},
	} {
		on := terms()
		c.change(&on)
		_, err := NewClaim(on, c.phases)
		require.ErrorContains(t, err, want)
	}
	var c Claim
	require.Error(t, json.Unmarshal([]byte(`{"epsilon":-1}`), &c))
	require.Error(t, json.Unmarshal([]byte(`[]`), &c))
}

func TestUp(t *testing.T) {
	for e, want := range map[float64]string{
		0: "0", 1: "1.000", 1.0001: "1.001", 1.8282999: "1.829", .0123401: "0.0124", .0123: "0.0123", 1e-7: "1e-07", 2.001e-7: "2.01e-07", 12345.6781: "12345.679",
		math.Inf(1): "∞", .3: "0.300", .0999: "0.0999", .09991: "0.1",
	} {
		require.Equal(t, want, Up(e), "%g", e)
	}
}
