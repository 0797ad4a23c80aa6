//go:build gpu

package cuda

import (
	"bufio"
	flags "flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flags.Bool("update", false, "write kern/occupancy.txt")

// A chip is the limits of a multiprocessor, from the table of technical specifications in NVIDIA's CUDA C++ Programming
// Guide. Both have 65536 registers, given to warps in 256s, and run 64 warps and 32 blocks at most.
type chip struct {
	name   string
	shared int // bytes
	block  int // the most of them that a block may have
}

var chips = [2]chip{{"sm_80", 164 << 10, 163 << 10}, {"sm_90", 228 << 10, 227 << 10}}

// blocks is how many blocks of a kernel a multiprocessor runs at once.
func (c chip) blocks(registers, static, threads, dynamic int) int {
	warps := ceil(threads, 32)
	perWarp := ceil(32*registers, 256) * 256
	// a kilobyte of each block's shared memory is the system's
	return min(32, 64/warps, 65536/perWarp/warps, c.shared/(ceil(static+dynamic+1024, 128)*128))
}

// The kernels that need dynamic shared memory: how many bytes as they are launched, and how many blocks then run on a
// multiprocessor. A change of a kernel or of its launch that costs occupancy fails here.
func TestOccupancy(t *testing.T) {
	f, err := os.Open("kern/registers.txt")
	require.NoError(t, err)
	defer f.Close()
	type use struct{ registers, static [2]int }
	uses := map[string]use{}
	for s := bufio.NewScanner(f); s.Scan(); {
		var name string
		var u use
		if strings.HasPrefix(s.Text(), "#") {
			continue
		}
		_, err := fmt.Sscan(s.Text(), &name, &u.registers[0], &u.registers[1], &u.static[0])
		require.NoError(t, err, s.Text())
		u.static[1] = u.static[0]
		uses[name] = u
	}
	var launches []launch
	for _, p := range []Precision{FP32, TF32, BF16} {
		e := &encoder{be: newBackend(Info{}, p)}
		for _, layout := range []string{"nt", "nn", "tn"} {
			for _, cols := range []int{128, 96, 64} {
				if cols != 96 || p == FP32 && layout != "tn" {
					launches = append(launches, e.launchOf(layout, e.tile(cols), &gemm{}))
				}
			}
		}
		suffix, block := "", 256
		switch p {
		case TF32:
			suffix, block = "_tf32", 128
		case BF16: // has tf32's
			continue
		}
		for _, size := range []int{32, 64} {
			for k, kernel := range []string{"attn", "attn_dq", "attn_dkv"} {
				launches = append(launches, launch{kernel: fmt.Sprintf("%s%s_%d", kernel, suffix, size), block: block, shared: p.attnShared(size, k > 0)})
			}
		}
	}
	var b strings.Builder
	fmt.Fprintln(&b, "# kernel, threads and bytes of dynamic shared memory of a block, blocks on a multiprocessor of sm_80 and sm_90, and")
	fmt.Fprintln(&b, "# the share of its warps that they are: computed from registers.txt by TestOccupancy, which -update has write this")
	for _, l := range launches {
		u, ok := uses[l.kernel]
		require.True(t, ok, l.kernel)
		fmt.Fprintf(&b, "%s %d %d", l.kernel, l.block, l.shared)
		for i, c := range chips {
			require.LessOrEqual(t, l.shared+u.static[i], c.block, "%s on %s", l.kernel, c.name)
			n := c.blocks(u.registers[i], u.static[i], l.block, l.shared)
			require.Positive(t, n, "%s does not run on %s", l.kernel, c.name)
			fmt.Fprintf(&b, " %d %d%%", n, 100*n*ceil(l.block, 32)/64)
		}
		fmt.Fprintln(&b)
	}
	const path = "kern/occupancy.txt"
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(b.String()), 0o666))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), b.String())
}
