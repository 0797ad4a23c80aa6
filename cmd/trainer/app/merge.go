package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"rung/rank"
)

func mergeCommand(e *Env) *cobra.Command {
	var model, base, out string
	cmd := &cobra.Command{
		Use:     "merge --model ADAPTER --out DIR",
		Short:   "Fold an adapter into its base: a model that opens by itself",
		GroupID: "train",
		Args:    positional(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := isFree(out); err != nil {
				return prefix("merge", err)
			}
			if err := rank.Merge(cmd.Context(), model, out, rank.Options{Base: base}); err != nil {
				return prefix("merge", err)
			}
			if e.JSON {
				return e.result("model", out)
			}
			_, err := fmt.Fprintf(e.Stdout, "wrote %s\nnext: trainer inspect %s\n", out, quoted(out))
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&model, "model", "", "adapter: a `DIR` or hf:org/name@revision")
	f.StringVar(&base, "base", "", "its base, instead of the one that it names")
	f.StringVar(&out, "out", "", "`DIR` of the merged model")
	needed(cmd, "model", "out")
	return cmd
}

// isFree refuses a directory that holds something.
func isFree(dir string) error {
	files, err := os.ReadDir(dir)
	switch {
	case err == nil && len(files) > 0:
		return fmt.Errorf("%s is not empty: choose another directory", dir)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return nil
}
