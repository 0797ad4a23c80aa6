package train

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
)

// available is the memory that a run may plan with: four fifths of what is free of the machine's, or
// of its cgroup's if that is less. Where neither can be read there is no limit.
func available() int64 {
	limit := min(machine("/proc/meminfo"), left("/sys/fs/cgroup"))
	if limit == math.MaxInt64 {
		return limit
	}
	return limit / 5 * 4
}

// available is the memory that the run may plan with, including what weights and moments have taken
// already: of the device where that has its own, else of the machine.
func (r *Run) available() (int64, error) {
	own, ok := r.be.(interface{ Available() (int64, error) })
	if !ok {
		return available(), nil
	}
	n, err := own.Available()
	if err != nil {
		return 0, fmt.Errorf("train: %w", err)
	}
	return n/5*4 + r.kept(), nil
}

// kept is the bytes of weights, gradients and moments.
func (r *Run) kept() int64 {
	n := r.store.Master.Size() + r.store.Grad.Size()
	for _, m := range r.opt.moments {
		n += m.mem.Size()
	}
	return n
}

// machine is what the kernel's table in a file says is available.
func machine(file string) int64 {
	if kb, ok := field(file, "MemAvailable:"); ok {
		return kb << 10
	}
	return math.MaxInt64
}

// left is what a cgroup (version 2 or 1) may still take. Pages of files that nobody has used lately count
// as used there, but are given up as soon as memory is short.
func left(dir string) int64 {
	for _, v := range [][4]string{
		{"memory.max", "memory.current", "memory.stat", "inactive_file"},
		{"memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"},
	} {
		top, ok := field(filepath.Join(dir, v[0]), "")
		used, ok2 := field(filepath.Join(dir, v[1]), "")
		if ok && ok2 && top < 1<<60 {
			cached, _ := field(filepath.Join(dir, v[2]), v[3])
			return max(0, top-max(0, used-cached))
		}
	}
	return math.MaxInt64
}

// field is the number in a file: after a name at the start of a line, or with "" the first.
func field(file, name string) (int64, bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if name != "" && len(f) > 0 && string(f[0]) == name {
			f = f[1:]
		} else if name != "" {
			continue
		}
		if len(f) == 0 {
			return 0, false
		}
		n, err := strconv.ParseInt(string(f[0]), 10, 64)
		return n, err == nil
	}
	return 0, false
}
