package train

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a cgroup leaves: file pages that can be dropped are not in the way.
func TestAvailable(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o666))
	}
	require.EqualValues(t, math.MaxInt64, left(dir))
	put("memory/memory.limit_in_bytes", "5000\n")
	put("memory/memory.usage_in_bytes", "1000\n")
	require.EqualValues(t, 4000, left(dir))
	put("memory.max", "max\n")
	put("memory.current", "900\n")
	require.EqualValues(t, 4000, left(dir))
	put("memory.max", "1000\n")
	require.EqualValues(t, 100, left(dir))
	put("memory.stat", "anon 200\ninactive_file 700\nactive_file 0\n")
	require.EqualValues(t, 800, left(dir))
	put("memory.current", "1900\n")
	put("memory.stat", "anon\ninactive_file\n")
	require.EqualValues(t, 0, left(dir))

	put("meminfo", "MemTotal:  100 kB\n\nMemAvailable:   40 kB\n")
	require.EqualValues(t, 40<<10, machine(filepath.Join(dir, "meminfo")))
	require.EqualValues(t, math.MaxInt64, machine(filepath.Join(dir, "none")))
	require.Positive(t, available())
}
