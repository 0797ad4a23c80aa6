package app

import (
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/spf13/cobra"

	"rung/train/privacy"
)

// budget is the flags of a plan for private training; a flag that was not given is not there to be read.
type budget struct {
	q, sigma, delta, target, epochs float64
	units, batch, steps             int64
	given                           func(flag string) bool
}

func privacyCommand(e *Env) *cobra.Command {
	var b budget
	cmd := &cobra.Command{
		Use:   "privacy (--q Q | --units N --batch B) (--steps T | --epochs E) (--sigma S | --target-epsilon E)",
		Short: "What private training would spend: ε of a plan, or σ or steps for a target",
		Long: `Accounts for differentially private training before it is done: Poisson sampling, each unit clipped, Gaussian
noise, neighbours by adding or removing one unit. With --sigma it tells ε of the plan, with --target-epsilon the
least σ, with both and no number of steps the most steps. ε is an upper bound from the privacy loss distribution;
the bound of Rényi differential privacy stands beside it.`,
		Example: `  trainer privacy --q 0.01 --sigma 1 --steps 1000 --delta 1e-5
  trainer privacy --units 873 --batch 32 --epochs 10 --target-epsilon 8`,
		GroupID: "look",
		Args:    positional(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b.given = cmd.Flags().Changed
			return e.privacy(&b)
		},
	}
	f := cmd.Flags()
	f.Float64Var(&b.q, "q", 0, "chance of a unit to be in a step's batch")
	f.Int64Var(&b.units, "units", 0, "how many units there are: with --batch instead of --q, and δ is units^-1.1 unless --delta says")
	f.Int64Var(&b.batch, "batch", 0, "units a step on average")
	f.Float64Var(&b.sigma, "sigma", 0, "noise multiplier: the noise's standard deviation over the clipping norm")
	f.Float64Var(&b.target, "target-epsilon", 0, "the ε to reach")
	f.Int64Var(&b.steps, "steps", 0, "steps")
	f.Float64Var(&b.epochs, "epochs", 0, "instead of --steps: how often each unit is seen on average")
	f.Float64Var(&b.delta, "delta", 0, "δ: well below one over the number of units")
	return cmd
}

// check refuses what is no plan, and fills in what follows from the rest.
func (b *budget) check() error {
	has := b.given
	switch {
	case has("q") == has("batch"):
		return misuse("privacy: want --q, or --units and --batch")
	case has("batch") && !has("units"):
		return misuse("privacy: --batch needs --units")
	case has("steps") && has("epochs"):
		return misuse("privacy: want --steps or --epochs, not both")
	case !has("sigma") && !has("target-epsilon"):
		return misuse("privacy: want --sigma, or --target-epsilon")
	case !has("steps") && !has("epochs") && !(has("sigma") && has("target-epsilon")):
		return misuse("privacy: want --steps or --epochs")
	case has("sigma") && has("target-epsilon") && (has("steps") || has("epochs")):
		return misuse("privacy: --sigma, --target-epsilon and a number of steps: one of them follows from the others")
	case !has("delta") && !has("units"):
		return misuse("privacy: want --delta, or --units")
	case has("units") && b.units < 2:
		return misuse("privacy: --units %d, want 2 or more", b.units)
	case has("batch") && (b.batch < 1 || b.batch > b.units):
		return misuse("privacy: --batch %d, want 1 to --units %d", b.batch, b.units)
	}
	if has("batch") {
		b.q = float64(b.batch) / float64(b.units)
	}
	if !has("delta") {
		b.delta = math.Pow(float64(b.units), -1.1)
	}
	return b.values()
}

// values refuses numbers that are none.
func (b *budget) values() error {
	has := b.given
	switch {
	case !(b.q > 0 && b.q <= 1):
		return misuse("privacy: --q %g, want more than 0 and at most 1", b.q)
	case !(b.delta > 0 && b.delta < 1):
		return misuse("privacy: --delta %g, want a number between 0 and 1", b.delta)
	case has("units") && b.delta >= 1/float64(b.units):
		return misuse("privacy: --delta %g, want less than 1/%d: at one over the number of units, a unit may be published", b.delta, b.units)
	case has("sigma") && !(b.sigma > 0 && b.sigma <= 1e9):
		return misuse("privacy: --sigma %g, want more than 0 and at most 1e9", b.sigma)
	case has("target-epsilon") && !(b.target > 0 && b.target <= 1e9):
		return misuse("privacy: --target-epsilon %g, want more than 0 and at most 1e9", b.target)
	case has("steps") && (b.steps < 1 || b.steps > 1e12):
		return misuse("privacy: --steps %d, want 1 to 1e12", b.steps)
	case has("epochs") && !(b.epochs > 0 && b.epochs/b.q <= 1e12):
		return misuse("privacy: --epochs %g, want more than 0 and at most 1e12 steps", b.epochs)
	}
	if has("epochs") {
		b.steps = privacy.StepsOf(b.epochs, b.q)
	}
	return nil
}

func (e *Env) privacy(b *budget) error {
	if err := b.check(); err != nil {
		return err
	}
	found := ""
	var err error
	switch {
	case !b.given("sigma"):
		found = "sigma"
		b.sigma, err = privacy.Sigma(b.q, b.steps, b.delta, b.target)
	case b.given("target-epsilon"):
		found = "steps"
		b.steps, err = privacy.Steps(b.q, b.sigma, b.delta, b.target)
	}
	if err != nil {
		return err
	}
	if found == "steps" && b.steps == 0 {
		return fmt.Errorf("privacy: the first step spends more than ε %g at σ %g", b.target, b.sigma)
	}
	return b.report(e, found)
}

// report writes the plan, what it spends, and what the way there spends.
func (b *budget) report(e *Env, found string) error {
	of := func(steps int64) (float64, error) {
		return privacy.Epsilon([]privacy.Phase{{Q: b.q, Sigma: b.sigma, Steps: steps}}, b.delta)
	}
	spent, err := of(b.steps)
	if err != nil {
		return err
	}
	rdp, order, err := privacy.EpsilonRDP([]privacy.Phase{{Q: b.q, Sigma: b.sigma, Steps: b.steps}}, b.delta)
	if err != nil {
		return err
	}
	switch {
	case b.sigma == 0:
		e.note("warning: without noise nothing is private: the plan passes only since δ allows to publish a unit with the chance that it is drawn")
	case math.IsInf(spent, 1):
		e.note("warning: nothing is private: σ %g is too small for any finite ε", b.sigma)
	}
	var out strings.Builder
	if e.JSON {
		fmt.Fprintln(&out, object([]any{
			"q", b.q, "sigma", b.sigma, "steps", b.steps, "delta", b.delta, "epsilon", spent, "accountant", privacy.Accountant, "rdp_epsilon", rdp, "rdp_order", order,
			"adjacency", privacy.AddRemove, "sampler", privacy.Poisson, "found", found,
		}))
	} else {
		fmt.Fprintf(&out, "q\t%.6g\nsigma\t%s\nsteps\t%d\ndelta\t%.6g\nepsilon\t%s\nrdp epsilon\t%s (order %g)\n", b.q, upSigma(b.sigma), b.steps, b.delta, privacy.Up(spent), privacy.Up(rdp), order)
	}
	last := int64(0)
	for _, part := range []int64{10, 4, 2, 1} {
		steps := (b.steps + part - 1) / part
		if steps == last {
			continue
		}
		last = steps
		v := spent
		if steps < b.steps {
			if v, err = of(steps); err != nil {
				return err
			}
		}
		if e.JSON {
			fmt.Fprintln(&out, object([]any{"steps", steps, "epsilon", v}))
		} else {
			fmt.Fprintf(&out, "after %d steps\t%s\n", steps, privacy.Up(v))
		}
	}
	_, err = io.WriteString(e.Stdout, out.String())
	return err
}

// upSigma writes a σ with five digits, rounded up: more noise spends less.
func upSigma(sigma float64) string {
	if sigma == 0 {
		return "0"
	}
	unit := math.Pow(10, math.Floor(math.Log10(sigma))-4)
	return fmt.Sprintf("%.5g", math.Ceil(sigma/unit*(1-1e-12))*unit)
}
