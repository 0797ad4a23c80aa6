package app

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"rung/cmd/trainer/app/quick"
	"rung/train"
)

func quickstartCommand(e *Env) *cobra.Command {
	var o quick.Options
	cmd := &cobra.Command{
		Use:   "quickstart",
		Short: "The whole story in under a minute, on built-in data",
		Long: `Trains a LoRA adapter on a made-up language in which word overlap fails, compares it with BM25 and with
the model before training, saves it, reopens it and compares the scores. Nothing is downloaded.`,
		GroupID: "train",
		Args:    positional(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("out") {
				o.Out = vacant(o.Out)
			}
			began := time.Now()
			var shown time.Time
			o.Progress = func(s train.Step) {
				if e.JSON {
					e.event("step", "step", s.N, "total", s.Total, "loss", s.Loss)
					return
				}
				if now := time.Now(); s.N == s.Total || now.Sub(shown) >= linePause {
					shown = now
					e.note("step %d/%d  loss %.3f  %.0f s", s.N, s.Total, s.Loss, now.Sub(began).Seconds())
				}
			}
			e.note("training a LoRA adapter on a made-up language, into %s", o.Out)
			r, err := quick.Run(cmd.Context(), o)
			if err != nil {
				return err
			}
			if e.JSON {
				return e.result("out", r.Out, "model", r.Model, "queries", r.Queries, "bm25", r.BM25, "before", r.Before, "after", r.After,
					"p_over_bm25", r.OverBM25.P, "p_over_before", r.OverBefore.P, "steps", r.Steps, "training_seconds", r.Training.Seconds(),
					"scores", r.Scores, "identical", r.Identical)
			}
			return quick.Report(e.Stdout, r)
		},
	}
	cmd.Flags().StringVar(&o.Out, "out", "quickstart", "`DIR` to write to")
	cmd.Flags().Uint64Var(&o.Seed, "seed", 1, "of the adapter and of the order of the examples")
	return cmd
}

// vacant is dir, or the first of dir-2, dir-3 … that is not there.
func vacant(dir string) string {
	name := dir
	for i := 2; ; i++ {
		if _, err := os.Lstat(name); err != nil {
			return name
		}
		name = fmt.Sprintf("%s-%d", dir, i)
	}
}
