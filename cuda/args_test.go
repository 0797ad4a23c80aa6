//go:build gpu

package cuda

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"rung/cuda/kern"
)

// The structures that the host packs are as large as those that the kernels take.
func TestArgumentSizes(t *testing.T) {
	entry := regexp.MustCompile(`\.visible \.entry (\w+)\(\s*\.param \.align 8 \.b8 \w+\[(\d+)\]\s*\)`)
	seen := 0
	for _, f := range kernelFiles {
		text, err := kern.PTX(f.file)
		require.NoError(t, err)
		require.Equal(t, len(f.kernels), strings.Count(text, ".entry"), f.file)
		want := unsafe.Sizeof(args{})
		if strings.HasPrefix(f.file, "gemm_") {
			want = unsafe.Sizeof(gemm{})
		}
		for _, m := range entry.FindAllStringSubmatch(text, -1) {
			n, err := strconv.Atoi(m[2])
			require.NoError(t, err)
			require.EqualValues(t, want, n, m[1])
			require.Contains(t, f.kernels, m[1])
			seen++
		}
	}
	all := 0
	for _, f := range kernelFiles {
		all += len(f.kernels)
	}
	require.Equal(t, all, seen)
	require.Len(t, kern.Names(), len(kernelFiles), fmt.Sprint(kern.Names()))
	require.EqualValues(t, 104, unsafe.Sizeof(scalars{}))
	require.EqualValues(t, 24, unsafe.Sizeof(piece{}))
	require.EqualValues(t, 88, unsafe.Sizeof(weights{}))
}
