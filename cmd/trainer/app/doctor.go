package app

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/cpu"

	"rung/checkpoints/hub"
	cpubackend "rung/nn/backend/cpu"
	"rung/nn/backend/cpu/peak"
	"rung/nn/device"
)

func versionCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "The version of this binary",
		GroupID: "look",
		Args:    positional(),
		RunE: func(*cobra.Command, []string) error {
			version, revision := "unknown", ""
			if info, ok := debug.ReadBuildInfo(); ok {
				version = info.Main.Version
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						revision = s.Value
					}
				}
			}
			if e.JSON {
				return e.result("version", version, "revision", revision, "go", runtime.Version(), "os", runtime.GOOS, "arch", runtime.GOARCH)
			}
			line := "trainer " + version
			if revision != "" {
				line += " " + revision
			}
			_, err := fmt.Fprintf(e.Stdout, "%s %s %s/%s\n", line, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// A finding is one line of the doctor.
type finding struct {
	name, says string
	bad        error // what has to be mended
}

func doctorCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use:     "doctor",
		Short:   "What this machine can do",
		GroupID: "look",
		Args:    positional(),
		RunE: func(*cobra.Command, []string) error {
			bad := 0
			for _, f := range examine() {
				ok := true
				if f.bad != nil {
					bad, ok = bad+1, false
					f.says = strings.TrimSpace(f.says + " PROBLEM: " + oneLine(f.bad.Error()))
				}
				if e.JSON {
					if err := e.result("name", f.name, "ok", ok, "says", f.says); err != nil {
						return err
					}
				} else if _, err := fmt.Fprintf(e.Stdout, "%-10s %s\n", f.name, f.says); err != nil {
					return err
				}
			}
			if bad > 0 {
				return fmt.Errorf("doctor: %d problems", bad)
			}
			return nil
		},
	}
}

// examine looks at everything that a run depends on.
func examine() []finding {
	return []finding{
		{name: "go", says: runtime.Version()},
		{name: "system", says: runtime.GOOS + "/" + runtime.GOARCH},
		{name: "cpu", says: fmt.Sprintf("%s: %s", processor(), strings.Join(instructionSets(), " "))},
		cores(),
		memory(),
		kernels(),
		halves(),
		fused(),
		{name: "blas", says: "none needed"},
		{name: "cuda", says: cudaStatus()},
		cublasLt(),
		{name: "privacy", says: "train adapters with freeze_a: true (LoRA-FA): half as many numbers get noise, and none is a product of two noisy ones"},
		hubCache(),
		tempDir(),
	}
}

// processor is the name that the kernel gives the CPU.
func processor() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(b)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				return strings.TrimSpace(value)
			}
		}
	}
	return "unknown processor"
}

// instructionSets lists those that kernels use.
func instructionSets() []string {
	var out []string
	for _, s := range []struct {
		name string
		has  bool
	}{
		{"FMA", cpu.X86.HasFMA},
		{"AVX2", cpu.X86.HasAVX2},
		{"AVX-512", cpu.X86.HasAVX512F},
		{"AVX-512-BF16", cpu.X86.HasAVX512BF16},
		{"AMX-BF16", cpu.X86.HasAMXBF16},
		{"NEON", cpu.ARM64.HasASIMD},
	} {
		if s.has {
			out = append(out, s.name)
		}
	}
	if out == nil {
		out = []string{"no vector instructions that are used"}
	}
	return out
}

func cores() finding {
	says := fmt.Sprintf("%d, of which %d are used", runtime.NumCPU(), runtime.GOMAXPROCS(0))
	if b, err := os.ReadFile("/sys/fs/cgroup/cpu.max"); err == nil {
		if f := strings.Fields(string(b)); len(f) == 2 && f[0] != "max" {
			quota, err1 := strconv.ParseFloat(f[0], 64)
			period, err2 := strconv.ParseFloat(f[1], 64)
			if err1 == nil && err2 == nil && period > 0 {
				says += fmt.Sprintf("; the cgroup allows %.2f", quota/period)
			}
		}
	}
	return finding{name: "cores", says: says}
}

func memory() finding {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return finding{name: "memory", says: "not known on this system"}
	}
	kib := map[string]int64{}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 {
			kib[f[0]], _ = strconv.ParseInt(f[1], 10, 64)
		}
	}
	says := fmt.Sprintf("%s, %s available", bytesText(kib["MemTotal:"]<<10), bytesText(kib["MemAvailable:"]<<10))
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if b, err := os.ReadFile(path); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && n < 1<<60 {
				says += "; the cgroup allows " + bytesText(n)
			}
		}
	}
	return finding{name: "memory", says: says}
}

// kernels is the backend that runs use unless they ask for another.
func kernels() finding {
	be, err := device.Open("auto")
	if err != nil {
		return finding{name: "kernels", bad: err}
	}
	return finding{name: "kernels", says: be.Name()}
}

// halves says what multiplies bf16 on the CPU, and whether that is worth asking for: some processors take longer for it
// than for float32.
func halves() finding {
	f := finding{name: "cpu/bf16", says: "not on this machine and build"}
	have := cpubackend.BF16()
	if len(have) == 0 {
		return f
	}
	isas := cpubackend.ISAs()
	own, single := have[len(have)-1], isas[len(isas)-1]
	rounded, exact := peak.GFLOPS(own), peak.GFLOPS(single)
	f.says = fmt.Sprintf("%s, a core %.0f GFLOP/s beside %.0f of %s in float32", own, rounded, exact, single)
	if rounded < exact {
		f.says += ": slower here than cpu"
	}
	return f
}

// cublasLt is what multiplies on GPUs besides our own kernels.
func cublasLt() finding {
	says, err := device.CublasLt()
	return finding{"cublaslt", oneLine(says), err}
}

// fused checks that a fused multiply-add rounds once: emulators and odd hypervisors have got it wrong.
func fused() finding {
	a := 1 + math.Float64frombits(math.Float64bits(1)-52<<52) // 1+2⁻⁵²: its square needs 105 bits
	if got := math.FMA(a, a, -(a * a)); got != math.Ldexp(1, -104) {
		return finding{name: "fma", bad: fmt.Errorf("a fused multiply-add gives %g, not 2^-104", got)}
	}
	return finding{name: "fma", says: "rounds once"}
}

// hubCache is where models of the hub are kept, together with the Python library.
func hubCache() finding {
	c, err := hub.FromEnv()
	if err != nil {
		return finding{name: "hub cache", bad: err}
	}
	says := c.Cache
	switch st, err := os.Stat(c.Cache); {
	case errors.Is(err, os.ErrNotExist):
		says += " (not there yet)"
	case err != nil:
		return finding{"hub cache", says, err}
	case !st.IsDir():
		return finding{"hub cache", says, errors.New("it is not a directory")}
	}
	if c.Offline {
		says += ", offline"
	}
	return finding{name: "hub cache", says: says}
}

func tempDir() finding {
	f, err := os.CreateTemp("", "trainer-doctor-*")
	if err == nil {
		_, err = f.WriteString("writable?")
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return finding{"temp", os.TempDir(), err}
}

// bytesText is a size for people.
func bytesText(n int64) string {
	if n >= 1<<30 {
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
