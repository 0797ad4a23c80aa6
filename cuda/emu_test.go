//go:build gpu && gpuemu

package cuda_test

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"rung/cuda/emu"
	"rung/cuda/ptx"
)

// The tests run on the emulator, which is chosen when a process starts: this one starts itself again. What a kernel does
// wrong fails them even where the results are right. RUNG_RAN and RUNG_UNRUN name files for the
// instructions that have run, and have not.
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
	for variable, lines := range map[string]func() []ptx.Line{"RUNG_RAN": ran, "RUNG_UNRUN": emu.Unrun} {
		if path := os.Getenv(variable); path != "" {
			if err := writeLines(path, lines()); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = 1
			}
		}
	}
	os.Exit(code)
}

// ran is the instructions that threads have executed.
func ran() (all []ptx.Line) {
	for _, lines := range emu.Coverage() {
		all = append(all, lines...)
	}
	return all
}

func writeLines(path string, lines []ptx.Line) error {
	slices.SortStableFunc(lines, func(a, b ptx.Line) int { return cmp.Or(cmp.Compare(a.Kernel, b.Kernel), a.Number-b.Number) })
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintln(&b, lineText(l))
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

func lineText(l ptx.Line) string { return fmt.Sprintf("%s:%d: %s", l.Kernel, l.Number, l.Text) }
