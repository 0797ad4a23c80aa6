// Package cpu is the kernels that time goes into in C on SIMD instructions, float32, chosen at run time
// by what the machine has; the others are those of package ref. Where there is no C compiler or
// another processor all are those of ref.
//
// Where they are asked for, products round their factors to bf16: see BF16.
//
// Results are the same bits for any number of workers, and a row's do not depend on the rows beside
// it. Instruction sets differ from each other by rounding. NEON has been run under emulation only: its results
// are tested, its speed is not known.
package cpu

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/backend/ref"
)

// Variable is the environment variable that names the instruction set of New and of NewBF16.
const Variable = "RUNG_CPU"

// ErrNoBF16 reports a machine, or a build, that cannot multiply bf16.
var ErrNoBF16 = errors.New("cpu: this machine and build have no instructions that multiply bf16 (AVX-512-BF16 or AMX); cpu multiplies in float32")

// ISAs lists the instruction sets that this machine and this build can run in float32, the best last: of "ref",
// "avx2" and "avx512", or "neon" on arm64.
func ISAs() []string { return append([]string{"ref"}, native(false)...) }

// BF16 lists those that round the factors of matrix products to bf16, and add up in float32: of "avx512bf16" and
// "amx". All else, attention too, they do as avx512 does.
func BF16() []string { return native(true) }

// New returns the backend on the process's workers, with the best instruction set that multiplies in float32, or the
// one that the environment names.
func New() (backend.Backend, error) { return open(ISAs()) }

// NewBF16 is New with those that multiply bf16. Its error is ErrNoBF16 where there is none.
func NewBF16() (backend.Backend, error) {
	have := BF16()
	if len(have) == 0 {
		return nil, ErrNoBF16
	}
	return open(have)
}

func open(have []string) (backend.Backend, error) {
	isa := os.Getenv(Variable)
	if isa == "" {
		isa = have[len(have)-1]
	} else if !slices.Contains(have, isa) {
		return nil, fmt.Errorf("%w (from %s)", unknown(isa, have), Variable)
	}
	return On(host.SharedPool(), isa)
}

func unknown(isa string, have []string) error {
	return fmt.Errorf("cpu: instruction set %q: this machine and build have %s", isa, strings.Join(have, ", "))
}

// On returns the backend on given workers. An empty name is the best instruction set in float32.
func On(p *host.Pool, isa string) (backend.Backend, error) {
	have := ISAs()
	if isa == "" {
		isa = have[len(have)-1]
	}
	rounds := BF16()
	if all := append(have, rounds...); !slices.Contains(all, isa) {
		return nil, unknown(isa, all)
	}
	table := ref.Kernels[float32]()
	if isa != "ref" {
		if err := install(p, table, isa); err != nil {
			return nil, err
		}
	}
	be := host.New("cpu/"+isa, p, table)
	if slices.Contains(rounds, isa) {
		return inexact{be}, nil
	}
	return be, nil
}

// inexact is a backend that says of itself that it rounds the factors of products.
type inexact struct{ *host.Backend[float32] }

// Exact is false.
func (inexact) Exact() bool { return false }
