//go:build gpu && gpuemu

package cuda_test

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rung/cuda/emu"
	"rung/cuda/kern"
	"rung/cuda/ptx"
)

// What TestMutants tells a process of its own: which mutant to run its test on. Its value is file:kernel:seed:path, where
// path names the list of instructions that the kernel's test runs.
const mutantVariable = "RUNG_MUTANT"

// mutants are kernels, with the part of the suite that tests them.
var mutants = []struct{ file, kernel, test string }{
	{"rows", "softmax", "softmax"},
	{"rows", "softmax_grad", "softmax.grad"},
	{"rows", "ce", "ce"},
	{"rows", "embed", "embed"},
	{"rows", "normalize", "normalize"},
	{"rows", "pairdot", "pairdot"},
	{"element", "unary1", "unary"},
	{"element", "unary_grad1", "unary.grad"},
	{"element", "dropout1", "dropout"},
	{"element", "bce_grad1", "bce.grad"},
	{"pool", "max_pool", "max"},
	{"pool", "mean", "mean"},
	{"pool", "first_grad", "first.grad"},
	{"reduce", "colsum", "colsum"},
	{"reduce", "embed_grad", "embed.grad"},
	{"moe", "route", "route"},
	{"moe", "route_grad", "route.grad"},
	{"moe", "gatemul_grad", "gatemul.grad"},
	{"moe", "load", "load"},
	{"moe", "balance", "balance"},
	{"group", "group_nt", "groupnt"},
	{"group", "group_nn", "groupnn"},
	{"group", "group_tn", "grouptn"},
	{"group", "take_grad", "take.grad"},
	{"reduce", "mulcols_dg", "mulcols.dg"},
	{"update", "row_norm", "rownorm"},
	{"update", "clip_rows", "cliprows"},
	{"update", "sum_rows", "sumrows"},
	{"update", "adamw", "adamw"},
	{"update", "sumsq", "sumsq"},
	{"update", "sumsq_pieces", "sumsq"},
	{"update", "sgd", "sgd"},
	{"update", "adagrad", "adagrad"},
	{"norm", "norm4", "norm"},
	{"norm", "norm_dx4", "norm.dx"},
	{"element", "unary4", "unary"},
	{"attn", "attn_32", "attn"},
	{"attn_grad", "attn_dkv_32", "attn.grad"},
	{"gemm_fp32", "fp32_nt_64", "matnt"},
	{"gemm_fp32", "fp32_tn_64", "mattn"},
}

// TestMutants changes one instruction of a kernel at a time and expects its tests to notice most.
func TestMutants(t *testing.T) {
	if os.Getenv("RUNG_LONG") == "" {
		t.Skip("RUNG_LONG is not set")
	}
	each := 10
	if n, err := strconv.Atoi(os.Getenv("RUNG_MUTANTS")); err == nil {
		each = n
	}
	self, err := os.Executable()
	require.NoError(t, err)
	run := func(test string, env ...string) (string, error) {
		cmd := exec.Command(self, "-test.short", "-test.timeout=60s", "-test.run=^Test(Conformance|WideRows|Direct|Optimizers)$/^"+strings.ReplaceAll(test, ".", `\.`)+"$")
		cmd.Env = append(os.Environ(), env...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	caught, all := 0, 0
	for _, m := range mutants {
		t.Run(m.kernel, func(t *testing.T) {
			ran := t.TempDir() + "/ran"
			began := time.Now()
			out, err := run(m.test, "RUNG_RAN="+ran)
			require.NoError(t, err, out)
			t.Logf("its test takes %.1f s", time.Since(began).Seconds())
			for seed := range each {
				out, err := run(m.test, fmt.Sprintf("%s=%s:%s:%d:%s", mutantVariable, m.file, m.kernel, seed+1, ran))
				what, _, _ := strings.Cut(out, "\n")
				require.True(t, strings.HasPrefix(what, "mutant "), "%s", out)
				all++
				if err != nil {
					caught++
				} else {
					t.Logf("survived: %s", what)
				}
			}
		})
	}
	t.Logf("%d of %d mutants caught", caught, all)
	require.GreaterOrEqual(t, caught*10, all*8)
}

// mutate overrides a kernel by the mutant that the variable names.
func mutate(value string) error {
	part := strings.SplitN(value, ":", 4)
	if len(part) != 4 {
		return fmt.Errorf("%s=%s", mutantVariable, value)
	}
	seed, err := strconv.ParseUint(part[2], 10, 64)
	if err != nil {
		return err
	}
	text, err := kern.PTX(part[0])
	if err != nil {
		return err
	}
	m, err := ptx.Parse(text)
	if err != nil {
		return err
	}
	k, err := m.Kernel(part[1])
	if err != nil {
		return err
	}
	ran, err := ranLines(k, part[3])
	if err != nil {
		return err
	}
	made, err := k.Mutate(ran, 1, seed, func(k *ptx.Kernel) error {
		emu.Override(k.Name, k)
		return nil
	})
	if err != nil {
		return err
	}
	changed := made[0].Changed
	if changed == "" {
		changed = "nothing"
	}
	fmt.Printf("mutant %s:%d: %q became %q\n", k.Name, made[0].Line.Number, made[0].Line.Text, changed)
	return nil
}

// ranLines are the kernel's instructions that the list names.
func ranLines(k *ptx.Kernel, path string) ([]ptx.Line, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	listed := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		listed[strings.TrimSuffix(line, "\n")] = true
	}
	var ran []ptx.Line
	for _, l := range new(ptx.Coverage).Unrun(k) { // all of them
		if listed[lineText(l)] {
			ran = append(ran, l)
		}
	}
	return ran, nil
}
