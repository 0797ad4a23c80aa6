package privacy

import (
	"encoding/json"
	"math"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/nntest/shared"
)

// A point is what other accountants say of a mechanism.
type point struct {
	Q      float64  `json:"q"`
	Sigma  float64  `json:"sigma"`
	Steps  int64    `json:"steps"`
	Delta  float64  `json:"delta"`
	PLD    float64  `json:"pld_pessimistic"`
	Fine   *float64 `json:"pld_pessimistic_fine"`
	Lower  float64  `json:"prv_lower"`
	Opacus float64  `json:"rdp_opacus"`
	Google float64  `json:"rdp_dp_accounting"`
	Gauss  *float64 `json:"analytic_gaussian"`
}

func (p point) phases() []Phase { return []Phase{{p.Q, p.Sigma, p.Steps}} }

type points struct {
	Points       []point   `json:"points"`
	OrdersOpacus []float64 `json:"orders_opacus"`
	OrdersGoogle []float64 `json:"orders_dp_accounting"`
}

func golden(t *testing.T, name string, to any) {
	b, err := os.ReadFile(shared.Path(t, "golden", "dp", name))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, to))
}

// What is reported lies above the lower bound of another accountant, and as good as on the finest
// pessimistic value.
func TestGoldenEpsilon(t *testing.T) {
	var g points
	golden(t, "accountant_epsilon.json", &g)
	require.Greater(t, len(g.Points), 40)
	for _, p := range g.Points {
		ref := p.PLD
		if p.Fine != nil {
			ref = *p.Fine
		}
		e, err := Epsilon(p.phases(), p.Delta)
		require.NoError(t, err)
		require.GreaterOrEqual(t, e, p.Lower, "%+v", p)
		require.LessOrEqual(t, e, max(1.01*ref, ref+.001), "%+v", p)
		require.LessOrEqual(t, e, 1.001*ref+1e-4, "%+v: not as tight as it was", p)
		if p.Gauss != nil {
			require.GreaterOrEqual(t, e, *p.Gauss-1e-9, "%+v", p)
		}
		r, order, err := EpsilonRDP(p.phases(), p.Delta)
		require.NoError(t, err)
		require.Equal(t, convert(renyi(p.phases(), order), order, p.Delta), r, "%+v", p)
		require.LessOrEqual(t, r, p.Opacus*1.001, "%+v", p)
		require.GreaterOrEqual(t, r, e, "%+v", p)
		d, err := Delta(p.phases(), e)
		require.NoError(t, err)
		require.LessOrEqual(t, d, 1.02*p.Delta, "%+v: δ of ε of δ", p)
		require.GreaterOrEqual(t, d, .95*p.Delta, "%+v: δ of ε of δ", p)
	}
}

func TestGoldenRDP(t *testing.T) {
	var g points
	golden(t, "accountant_epsilon.json", &g)
	for _, p := range g.Points {
		best := math.Inf(1)
		for _, a := range g.OrdersOpacus {
			best = min(best, convert(renyi(p.phases(), a), a, p.Delta))
		}
		require.InDelta(t, p.Opacus, best, 1e-8*max(1, p.Opacus), "%+v", p)
		best = math.Inf(1)
		for _, a := range g.OrdersGoogle {
			best = min(best, convert(renyi(p.phases(), a), a, p.Delta))
		}
		// dp-accounting bounds fractional orders from above; Opacus and this package compute them.
		require.LessOrEqual(t, best, p.Google*(1+1e-7), "%+v", p)
		require.GreaterOrEqual(t, best, p.Google*.995, "%+v", p)
	}
}

func TestGoldenSigma(t *testing.T) {
	var all []struct {
		Target float64 `json:"target_epsilon"`
		Delta  float64 `json:"delta"`
		Q      float64 `json:"q"`
		Steps  int64   `json:"steps"`
		PLD    float64 `json:"sigma_pld_pessimistic"`
	}
	golden(t, "accountant_sigma.json", &all)
	require.NotEmpty(t, all)
	for _, p := range all {
		sigma, err := Sigma(p.Q, p.Steps, p.Delta, p.Target)
		require.NoError(t, err)
		require.LessOrEqual(t, sigma, 1.001*p.PLD, "%+v", p)
		require.GreaterOrEqual(t, sigma, .97*p.PLD, "%+v", p)
		e, err := Epsilon([]Phase{{p.Q, sigma, p.Steps}}, p.Delta)
		require.NoError(t, err)
		require.LessOrEqual(t, e, p.Target, "%+v", p)
		e, err = Epsilon([]Phase{{p.Q, sigma * .998, p.Steps}}, p.Delta)
		require.NoError(t, err)
		require.Greater(t, e, p.Target, "%+v: a smaller σ would do", p)
	}
}
