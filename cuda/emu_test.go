//go:build gpu && gpuemu

package cuda_test

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"

	"rung/cuda/emu"
	"rung/cuda/ptx"
)

// The tests run on the emulator, which is chosen when a process starts: this one starts itself again. What a kernel does
// wrong fails them even where the results are right. RUNG_UNRUN names a file for the instructions that nothing has run.
func TestMain(m *testing.M) {
	if os.Getenv("GPU_DRIVER") != "emu" {
		self, err := os.Executable()
		if err != nil {
			panic(err)
		}
		again := exec.Command(self, os.Args[1:]...)
		again.Env = append(os.Environ(), "GPU_DRIVER=emu")
		again.Stdout, again.Stderr = os.Stdout, os.Stderr
		if again.Run() != nil {
			os.Exit(1)
		}
		return
	}
	if mutant := os.Getenv(mutantVariable); mutant != "" {
		if err := mutate(mutant); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	code := m.Run()
	if n := len(emu.Faults()); n > 0 {
		fmt.Fprintf(os.Stderr, "%d faults\n", n)
		code = 1
	}
	if path := os.Getenv("RUNG_UNRUN"); path != "" {
		if err := writeUnrun(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func writeUnrun(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	lines := emu.Unrun()
	slices.SortStableFunc(lines, func(a, b ptx.Line) int { return cmp.Or(cmp.Compare(a.Kernel, b.Kernel), a.Number-b.Number) })
	for _, l := range lines {
		if _, err := fmt.Fprintln(f, unrunLine(l)); err != nil {
			return err
		}
	}
	return f.Close()
}

func unrunLine(l ptx.Line) string { return fmt.Sprintf("%s:%d: %s", l.Kernel, l.Number, l.Text) }
