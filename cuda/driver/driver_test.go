//go:build gpu

package driver_test

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"gorgonia.org/cu"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"rung/cuda/driver"
	_ "rung/cuda/driver/internal/drivertest"
)

// The driver is chosen once in a process: each test looks at one in a process of its own, this test binary again.
const probing = "DRIVER_TEST_PROBE"

// report is what a program that links Gorgonia, cu and package driver sees.
type report struct {
	Why     string   // driver.Why()
	Devices []string // their names
	Address int64    // what cu.MemAlloc(4096) returns, or
	Error   string   // its error
	Missing string   // driver.Missing()
	Dot     float64  // of a Gorgonia graph on the CPU
}

func TestMain(m *testing.M) {
	if os.Getenv(probing) == "" {
		os.Exit(m.Run())
	}
	r, err := look()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(r)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func look() (r report, err error) {
	// first calls made from several threads at once
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { _, _ = cu.NumDevices() })
	}
	wg.Wait()

	r.Why = driver.Why()
	n, err := cu.NumDevices()
	if err != nil {
		return r, fmt.Errorf("count devices: %w", err)
	}
	for i := range n {
		d, err := cu.GetDevice(i)
		if err != nil {
			return r, fmt.Errorf("device %d: %w", i, err)
		}
		name, err := d.Name()
		if err != nil {
			return r, fmt.Errorf("name of device %d: %w", i, err)
		}
		r.Devices = append(r.Devices, name)
	}
	address, err := cu.MemAlloc(4096)
	r.Address = int64(address)
	if err != nil {
		r.Error = err.Error()
	}
	r.Missing = driver.Missing()
	r.Dot, err = dot()
	return r, err
}

// dot runs a graph on Gorgonia's own machine: (1,2,3)·(4,5,6).
func dot() (float64, error) {
	g := gorgonia.NewGraph()
	vector := func(name string, v ...float64) *gorgonia.Node {
		return gorgonia.NewVector(g, tensor.Float64, gorgonia.WithName(name), gorgonia.WithShape(len(v)),
			gorgonia.WithValue(tensor.New(tensor.WithBacking(v))))
	}
	product, err := gorgonia.Mul(vector("x", 1, 2, 3), vector("y", 4, 5, 6))
	if err != nil {
		return 0, err
	}
	machine := gorgonia.NewTapeMachine(g)
	defer machine.Close()
	if err := machine.RunAll(); err != nil {
		return 0, err
	}
	return product.Value().Data().(float64), nil
}

// probe runs look in a process with these variables set.
func probe(t *testing.T, env ...string) report {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), append(env, probing+"=1")...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s%s", out, &stderr)
	require.Empty(t, stderr.String())
	var r report
	require.NoError(t, json.Unmarshal(out, &r), "%s", out)
	require.Equal(t, 32.0, r.Dot)
	return r
}

// fake builds testdata/fake.c into a directory as libcuda.so.1 and returns its path.
func fake(t *testing.T, defines ...string) string {
	t.Helper()
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	source := filepath.Join("testdata", "fake.c")
	_, err := os.Stat(source) // tells the cache of go test that the result depends on it
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "libcuda.so.1")
	args := append([]string{"-shared", "-fPIC", "-O1", "-o", path, source}, defines...)
	out, err := exec.Command(cc, args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return path
}

func TestThisMachine(t *testing.T) {
	r := probe(t)
	if r.Why != "" {
		t.Logf("no CUDA driver: %s", r.Why)
		require.Empty(t, r.Devices)
		require.Equal(t, cu.NoDevice.Error(), r.Error)
		return
	}
	t.Logf("CUDA devices: %q", r.Devices)
	// there is a driver, but no context yet
	require.Equal(t, cu.InvalidContext.Error(), r.Error)
}

func TestWithoutDriver(t *testing.T) {
	absent := filepath.Join(t.TempDir(), "libcuda.so.1")
	r := probe(t, "GPU_DRIVER="+absent)
	require.Contains(t, r.Why, absent)
	require.Contains(t, r.Why, "No such file")
	require.Empty(t, r.Devices)
	require.Equal(t, cu.NoDevice.Error(), r.Error)
	require.Empty(t, r.Missing)
}

func TestDriverThatFails(t *testing.T) {
	for _, test := range []struct{ result, why string }{
		{"999", ": cuInit failed: CUDA_ERROR_UNKNOWN (999)"},
		{"803", ": cuInit failed: an unnamed error (803)"},
	} {
		path := fake(t, "-DINIT_RESULT="+test.result)
		r := probe(t, "GPU_DRIVER="+path)
		require.Equal(t, path+test.why, r.Why)
		require.Empty(t, r.Devices)
		require.Equal(t, cu.NoDevice.Error(), r.Error)
	}
}

func TestLibraryThatIsNoDriver(t *testing.T) {
	path := fake(t, "-DcuInit=something_else")
	r := probe(t, "GPU_DRIVER="+path)
	require.Equal(t, path+": not a CUDA driver: it has no cuInit", r.Why)
	require.Empty(t, r.Devices)
}

func TestOneDevice(t *testing.T) {
	r := probe(t, "GPU_DRIVER=", "LD_LIBRARY_PATH="+filepath.Dir(fake(t)))
	require.Equal(t, report{Devices: []string{"fake device 40"}, Address: 16 * 4096, Dot: 32}, r)
}

func TestFunctionThatTheDriverLacks(t *testing.T) {
	r := probe(t, "GPU_DRIVER="+fake(t, "-DcuMemAlloc_v2=something_else"))
	require.Empty(t, r.Why)
	require.Equal(t, cu.SharedObjectSymbolNotFound.Error(), r.Error)
	require.Equal(t, "cuMemAlloc_v2", r.Missing)
}

func TestTableInTheDriversPlace(t *testing.T) {
	r := probe(t, "GPU_DRIVER=table")
	require.Empty(t, r.Why)
	require.Equal(t, []string{"device of a table"}, r.Devices)
	require.Equal(t, cu.SharedObjectSymbolNotFound.Error(), r.Error)
	require.Equal(t, "cuMemAlloc_v2", r.Missing)
}

// A real driver would bind its own calls to functions of ours that are visible. Linked with -rdynamic, as `make test-gpu`
// does, everything is visible that is not hidden.
func TestNoDriverFunctionIsVisible(t *testing.T) {
	header, err := os.ReadFile(filepath.Join("..", "abi", "include", "cuda_fn.h"))
	require.NoError(t, err)
	ours := map[string]bool{"gpu_use": true, "gpu_why": true, "gpu_missing": true}
	for _, m := range regexp.MustCompile(`(?m)^CUDA_FUNCTION\((\w+),`).FindAllStringSubmatch(string(header), -1) {
		ours[m[1]] = true
	}
	require.Greater(t, len(ours), 190)

	self, err := os.Executable()
	require.NoError(t, err)
	f, err := elf.Open(self)
	require.NoError(t, err)
	defer f.Close()
	visible, err := f.DynamicSymbols()
	require.NoError(t, err)
	require.NotEmpty(t, visible) // dlopen, at least
	for _, s := range visible {
		require.False(t, ours[s.Name], "%s is visible", s.Name)
	}
}
