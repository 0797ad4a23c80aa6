//go:build gpu

package driver

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A real library, where there is one, takes the descriptors of all kinds of products: it needs no GPU for that, and refuses
// attributes of another size.
func TestDescriptors(t *testing.T) {
	lib, err := FindCublasLt(99000)
	if err != nil {
		t.Skip(err)
	}
	t.Log(lib)
	require.GreaterOrEqual(t, lib.CUDA, 11080)
	for _, c := range []Compute{ComputeFP32, ComputeTF32, ComputeBF16} {
		for _, p := range []Product{
			{M: 384, N: 4096, K: 1536, LdA: 1536, LdB: 1536, LdD: 384, TransA: true, Bias: 4096, Compute: c},
			{M: 384, N: 4096, K: 1536, LdA: 384, LdB: 1536, LdD: 384, Add: true, Compute: c},
			{M: 384, N: 1536, K: 4096, LdA: 384, LdB: 1536, LdD: 384, TransB: true, ByK: true, Add: true, Compute: c},
		} {
			x, err := p.plan()
			require.NoError(t, err)
			unplan(x)
		}
	}
}
