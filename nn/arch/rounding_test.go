package arch

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn"
	"rung/nn/backend"
	"rung/nn/device"
	"rung/nn/nntest/archtest"
)

// rounding stands for a backend whose products are rounded: it must not be asked for golden scores.
type rounding struct{ backend.Backend }

func (rounding) Exact() bool { return false }

func (rounding) Encode([]backend.Call, backend.Binding) (backend.Exec, error) {
	return nil, errors.New("golden scores of a backend that rounds")
}

// Trained with rounded products, a model is saved with the scores that it has without: those of any
// backend are compared with them, closely or not so.
func TestGoldenScoresAreExact(t *testing.T) {
	s := archtest.Tiny()
	s.Labels = 1
	m := open(t, archtest.Write(t, t.TempDir(), s), Options{})
	cpu, err := device.Open("cpu")
	require.NoError(t, err)
	var cards [2][]byte
	for i, be := range []backend.Backend{cpu, rounding{cpu}} {
		st, err := nn.NewStore(be, m.Params(), false)
		require.NoError(t, err)
		dir := filepath.Join(t.TempDir(), "saved")
		require.NoError(t, m.Save(dir, st))
		require.NoError(t, st.Close())
		cards[i], err = os.ReadFile(filepath.Join(dir, CardFile))
		require.NoError(t, err)
	}
	require.Equal(t, string(cards[0]), string(cards[1]))
	require.Equal(t, Tolerance, tolerance(cpu))
	require.Equal(t, ToleranceRounded, tolerance(rounding{cpu}))
}
