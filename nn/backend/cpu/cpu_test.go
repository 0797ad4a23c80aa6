package cpu_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/backend"
	"rung/nn/backend/cpu"
)

func TestNew(t *testing.T) {
	isas := cpu.ISAs()
	require.Equal(t, "ref", isas[0])
	for _, isa := range isas {
		t.Setenv(cpu.Variable, isa)
		be, err := cpu.New()
		require.NoError(t, err)
		require.Equal(t, "cpu/"+isa, be.Name())
		require.Equal(t, backend.Float32, be.Float())
	}
	t.Setenv(cpu.Variable, "")
	be, err := cpu.New()
	require.NoError(t, err)
	require.Equal(t, "cpu/"+isas[len(isas)-1], be.Name())

	t.Setenv(cpu.Variable, "mmx")
	_, err = cpu.New()
	require.ErrorContains(t, err, `cpu: instruction set "mmx": this machine and build have ref`)
	require.ErrorContains(t, err, "(from RUNG_CPU)")
}
