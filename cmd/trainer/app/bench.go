package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"strings"

	"github.com/spf13/cobra"

	"rung/cmd/trainer/app/bench"
	"rung/nn"
)

func benchCommand(e *Env) *cobra.Command {
	var only, config, model, device, out, against, profile string
	var rounds, sequences, length int
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "How fast this machine trains and scores, against its physical limit",
		Long: `Measures steps of a model with drawn weights (by default of MiniLM's shape, 6 layers of 384) on sequences of 128
and 512 tokens and on question-sentence pairs of natural lengths. The share of the peak is that of fused
multiply-adds, or of products of bf16, measured beside each case; GFLOP/s counts only the matrix products that the
step cannot do without.

With --model and a CUDA device it lists the kernels of a training step: launches, FLOP, bytes, the least time that
they can take on A100, H100 and H200 (estimated), and the device memory of the plan. That needs neither driver nor
GPU; where there is one, measured times stand beside. Nothing but the model's shape is read.`,
		Example: "  trainer bench --operators --out now.json\n  trainer bench --against now.json\n  trainer bench --device cuda:0/bf16 --model bert-base",
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
			switch {
			case model != "" && config != "":
				return misuse("--model and --config: give one of them")
			case model != "":
				if o.Config, err = shapeOf(model); err != nil {
					return err
				}
			case config != "":
				if o.Config, err = readShape(config); err != nil {
					return err
				}
			}
			if model != "" && strings.HasPrefix(device, "cuda") {
				for _, unfit := range []string{"against", "operators", "rounds", "pprof"} {
					if cmd.Flags().Changed(unfit) {
						return misuse("--%s: not with --model on a CUDA device, which lists kernels", unfit)
					}
				}
				return e.kernels(cmd.Context(), match, out, bench.KernelOptions{Config: o.Config, Device: device, Sequences: sequences, Length: length})
			}
			for _, c := range bench.Cases() {
				if match.MatchString(c.Name) {
					o.Cases = append(o.Cases, c)
				}
			}
			if len(o.Cases) == 0 {
				return misuse("--only %s: no case of that name", only)
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
			if err := writeReport(out, r); err != nil {
				return err
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
	f.StringVar(&model, "model", "", "the shape of minilm, bert-base or a model's `DIR`")
	f.IntVar(&sequences, "sequences", 32, "with --model on a CUDA device: sequences of the step")
	f.IntVar(&length, "length", 128, "and tokens of each")
	f.StringVar(&device, "device", "auto", "auto, cpu, cpu/bf16, cuda:N, or ref (the reference kernels)")
	f.IntVar(&rounds, "rounds", 5, "how often each case is measured; the median counts")
	f.Bool("operators", false, "each operator by itself, too")
	f.StringVar(&out, "out", "", "write the report to `FILE`, as JSON")
	f.StringVar(&against, "against", "", "compare with an earlier report in `FILE`")
	f.StringVar(&profile, "pprof", "", "write a CPU profile to `FILE`, for go tool pprof")
	return cmd
}

// shapeOf is the shape that --model names.
func shapeOf(model string) (nn.Config, error) {
	switch model {
	case "minilm":
		return bench.MiniLM(), nil
	case "bert-base":
		return bench.BERTBase(), nil
	}
	c, err := readShape(filepath.Join(model, "config.json"))
	if err != nil {
		return c, fmt.Errorf("--model %s is neither minilm nor bert-base, nor a model's directory: %w", model, err)
	}
	return c, nil
}

func readShape(path string) (nn.Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nn.Config{}, err
	}
	c, err := nn.ParseConfig(b)
	if err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// kernels lists the kernels of steps whose kind matches: of full training, if nothing else is asked for.
func (e *Env) kernels(ctx context.Context, only *regexp.Regexp, out string, o bench.KernelOptions) error {
	if o.Sequences < 1 || o.Length < 1 || o.Length > o.Config.Positions {
		return misuse("--sequences %d --length %d: want at least one token, and a model of %d positions takes no more", o.Sequences, o.Length, o.Config.Positions)
	}
	var all []*bench.KernelReport
	for _, kind := range []string{"full", "lora"} {
		if only.String() == "" && kind != "full" || !only.MatchString(kind) {
			continue
		}
		o.Kind = kind
		r, err := bench.Kernels(ctx, o)
		if err != nil {
			return err
		}
		all = append(all, r)
	}
	if len(all) == 0 {
		return misuse("--only %s: no case of that name", only)
	}
	if err := writeReport(out, all); err != nil {
		return err
	}
	for _, r := range all {
		if e.JSON {
			if err := e.result("kernels", r); err != nil {
				return err
			}
		} else if err := r.Write(e.Stdout); err != nil {
			return err
		}
	}
	return nil
}

// writeReport writes a report as JSON, if path names a file for it.
func writeReport(path string, r any) error {
	if path == "" {
		return nil
	}
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return writeWhole(path, append(b, '\n'))
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
