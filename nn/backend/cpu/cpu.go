// Package cpu is the kernels that time goes into in C on SIMD instructions, float32, chosen at run time
// by what the machine has; the others are those of package ref. Where there is no C compiler or
// another processor all are those of ref.
//
// Results are the same bits for any number of workers, and a row's do not depend on the rows beside
// it. Instruction sets differ from each other by rounding. NEON has been run under emulation only: its results
// are tested, its speed is not known.
package cpu

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/backend/ref"
)

// Variable is the environment variable that names the instruction set of New.
const Variable = "RUNG_CPU"

// ISAs lists the instruction sets that this machine and this build can run, the best last: of "ref",
// "avx2" and "avx512", or "neon" on arm64.
func ISAs() []string { return append([]string{"ref"}, native()...) }

// New returns the backend on the process's workers, with the best instruction set or the one that the
// environment names.
func New() (backend.Backend, error) {
	isa := os.Getenv(Variable)
	b, err := On(host.SharedPool(), isa)
	if err != nil && isa != "" {
		return nil, fmt.Errorf("%w (from %s)", err, Variable)
	}
	return b, err
}

// On returns the backend on given workers. An empty name is the best instruction set.
func On(p *host.Pool, isa string) (backend.Backend, error) {
	have := ISAs()
	if isa == "" {
		isa = have[len(have)-1]
	}
	if !slices.Contains(have, isa) {
		return nil, fmt.Errorf("cpu: instruction set %q: this machine and build have %s", isa, strings.Join(have, ", "))
	}
	table := ref.Kernels[float32]()
	if isa != "ref" {
		if err := install(p, table, isa); err != nil {
			return nil, err
		}
	}
	return host.New("cpu/"+isa, p, table), nil
}
