//go:build cgo && unix

package cpu_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/backend/cpu"
)

// Every processor of this architecture has NEON: the other tests are of it.
func TestNEON(t *testing.T) {
	require.Equal(t, []string{"ref", "neon"}, cpu.ISAs())
}
