package train

import (
	"bytes"
	"math"
	"os"
	"strconv"
)

// available is the memory that a run may plan with: four fifths of what is free of the machine's, or
// of its cgroup's if that is less. Where neither can be read there is no limit.
func available() int64 {
	limit := int64(math.MaxInt64)
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		for line := range bytes.Lines(b) {
			if f := bytes.Fields(line); len(f) > 1 && string(f[0]) == "MemAvailable:" {
				if kb, err := strconv.ParseInt(string(f[1]), 10, 64); err == nil {
					limit = kb << 10
				}
			}
		}
	}
	read := func(path string) (int64, bool) {
		b, err := os.ReadFile(path)
		if err != nil {
			return 0, false
		}
		n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
		return n, err == nil
	}
	for _, g := range [][2]string{
		{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
		{"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"},
	} {
		top, ok := read(g[0])
		used, ok2 := read(g[1])
		if ok && ok2 && top < 1<<60 {
			limit = min(limit, top-used)
		}
	}
	if limit == math.MaxInt64 {
		return limit
	}
	return limit / 5 * 4
}
