package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"runtime/pprof"

	"github.com/spf13/cobra"

	"rung/cmd/trainer/app/bench"
	"rung/nn"
)

func benchCommand(e *Env) *cobra.Command {
	var only, config, device, out, against, profile string
	var rounds int
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "How fast this machine trains and scores, against its physical limit",
		Long: `Measures steps of a model with drawn weights (by default of MiniLM's shape, 6 layers of 384) on sequences of 128
and 512 tokens and on question-sentence pairs of natural lengths. The share of the peak is that of fused
multiply-adds, measured beside each case; GFLOP/s counts only the matrix products that the step cannot do without.`,
		Example: "  trainer bench --operators --out now.json\n  trainer bench --against now.json",
		GroupID: "look",
		Args:    positional(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o := bench.Options{Config: bench.MiniLM(), Device: device, Rounds: rounds, Progress: func(name string) { e.note("measuring %s", name) }}
			if rounds < 1 {
				return misuse("--rounds %d, want 1 or more", rounds)
			}
			match, err := regexp.Compile(only)
			if err != nil {
				return misuse("--only: %v", err)
			}
			for _, c := range bench.Cases() {
				if match.MatchString(c.Name) {
					o.Cases = append(o.Cases, c)
				}
			}
			if len(o.Cases) == 0 {
				return misuse("--only %s: no case of that name", only)
			}
			if config != "" {
				b, err := os.ReadFile(config)
				if err != nil {
					return err
				}
				if o.Config, err = nn.ParseConfig(b); err != nil {
					return fmt.Errorf("%s: %w", config, err)
				}
			}
			old, err := readReport(against)
			if err != nil {
				return err
			}
			var r *bench.Report
			err = profiled(profile, func() (err error) { r, err = bench.Run(cmd.Context(), o); return err })
			if err != nil {
				return err
			}
			if out != "" {
				b, err := json.MarshalIndent(r, "", " ")
				if err != nil {
					return err
				}
				if err := writeWhole(out, append(b, '\n')); err != nil {
					return err
				}
			}
			operators, _ := cmd.Flags().GetBool("operators")
			if e.JSON {
				if err := e.result("report", r); err != nil {
					return err
				}
			} else if err := r.Write(e.Stdout, operators); err != nil {
				return err
			}
			if old != nil {
				return r.Compare(e.Stdout, old)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&only, "only", "", "cases whose name matches this regular `EXPRESSION`")
	f.StringVar(&config, "config", "", "`FILE` config.json of another encoder")
	f.StringVar(&device, "device", "auto", "auto, cpu, cuda:N, or ref (the reference kernels)")
	f.IntVar(&rounds, "rounds", 5, "how often each case is measured; the median counts")
	f.Bool("operators", false, "each operator by itself, too")
	f.StringVar(&out, "out", "", "write the report to `FILE`, as JSON")
	f.StringVar(&against, "against", "", "compare with an earlier report in `FILE`")
	f.StringVar(&profile, "pprof", "", "write a CPU profile to `FILE`, for go tool pprof")
	return cmd
}

func readReport(path string) (*bench.Report, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := bench.Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// profiled runs f and writes its CPU profile, if path names a file for it.
func profiled(path string, f func() error) error {
	if path == "" {
		return f()
	}
	var b bytes.Buffer
	if err := pprof.StartCPUProfile(&b); err != nil {
		return err
	}
	err := f()
	pprof.StopCPUProfile()
	if err != nil {
		return err
	}
	return writeWhole(path, b.Bytes())
}
