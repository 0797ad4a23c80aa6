package app

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"rung/lora"
	"rung/rank"
	"rung/train/privacy"
)

func combineCommand(e *Env) *cobra.Command {
	var models []string
	var base, out, heads string
	c := lora.Combination{Method: lora.Cat, Full: -1}
	cmd := &cobra.Command{
		Use:   "combine --model ADAPTER:WEIGHT --model ADAPTER:WEIGHT … --out DIR",
		Short: "Make one adapter of several of one base, by weights",
		Long: `Makes one adapter of several of one base. Each is a directory or hf:org/name@revision, and after a colon its
weight, 1 where there is none; a negative one takes an adapter away.

  cat      exact: the updates are added, and so are the ranks
  svd      the best update of a given rank (--rank; else the greatest of the adapters')
  linear   factors are added, of equal ranks: products of one's B and another's A remain
  ties     as linear, of the greatest elements (--density) whose signs agree (Yadav et al. 2023)

Modules that are trained in full, such as a classifier, have no sum: they must be equal, or --heads-of says whose
are taken.`,
		Example: "  trainer combine --model runs/a/best:0.7 --model runs/b/best:0.3 --heads-of runs/a/best --out runs/ab",
		GroupID: "train",
		Args:    positional(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			parts := weighted(models)
			if heads != "" {
				c.Full = slices.IndexFunc(parts, func(p rank.Part) bool { return sameRef(p.Ref, heads) })
				if c.Full < 0 {
					return misuse("combine: --heads-of %s is none of the adapters", heads)
				}
			}
			if c.Method == lora.TIES && c.Density == 0 {
				return misuse("combine: --method ties wants --density")
			}
			if err := c.Check(); err != nil {
				return misuse("%v", err)
			}
			if err := isFree(out); err != nil {
				return prefix("combine", err)
			}
			whole := privacy.Claim{}
			claims := func(parts []json.RawMessage) (json.RawMessage, error) {
				raw, err := privacy.CombinedJSON(parts)
				if err == nil && raw != nil {
					err = json.Unmarshal(raw, &whole)
				}
				return raw, err
			}
			if err := rank.Combine(cmd.Context(), parts, c, out, rank.Options{Base: base}, claims); err != nil {
				return prefix("combine", err)
			}
			if whole.Why != "" {
				e.note("warning: no privacy is claimed of %s: %s", out, whole.Why)
			}
			if e.JSON {
				return e.result("adapter", out)
			}
			_, err := fmt.Fprintf(e.Stdout, "wrote %s\nnext: trainer inspect %s\n", out, quoted(out))
			return err
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&models, "model", nil, "an `ADAPTER:WEIGHT` (once for each)")
	f.StringVar(&c.Method, "method", c.Method, "one of "+strings.Join(lora.Methods(), ", "))
	f.IntVar(&c.Rank, "rank", 0, "of svd")
	f.Float64Var(&c.Density, "density", 0, "of ties: the share of elements that are kept, in (0,1]")
	f.StringVar(&heads, "heads-of", "", "the `ADAPTER` whose modules trained in full are taken")
	f.StringVar(&base, "base", "", "their base, instead of the one that they name")
	f.StringVar(&out, "out", "", "`DIR` of the combined adapter")
	needed(cmd, "model", "out")
	return cmd
}

// sameRef reports that two names are of one adapter: directories may be spelled in many ways.
func sameRef(a, b string) bool {
	if a == b {
		return true
	}
	x, errA := os.Stat(a)
	y, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(x, y)
}

// weighted splits what stands after the last colon off, where it is a number.
func weighted(models []string) []rank.Part {
	var parts []rank.Part
	for _, m := range models {
		p := rank.Part{Ref: m, Weight: 1}
		if i := strings.LastIndexByte(m, ':'); i >= 0 {
			if w, err := strconv.ParseFloat(m[i+1:], 64); err == nil {
				p.Ref, p.Weight = m[:i], w
			}
		}
		parts = append(parts, p)
	}
	return parts
}
