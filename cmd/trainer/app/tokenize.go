package app

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"rung/checkpoints/hub"
	"rung/data/token"
)

func tokenizeCommand(e *Env) *cobra.Command {
	var model string
	var pairs, words bool
	var length int
	cmd := &cobra.Command{
		Use:     "tokenize --model DIR",
		Short:   "Texts as token ids: a text a line in, {\"ids\":[],\"types\":[]} a line out",
		Example: "  printf 'who wrote dracula\\tBram Stoker did.\\n' | trainer tokenize --model DIR --pair",
		GroupID: "look",
		Args:    positional(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if length < 0 {
				return misuse("--max-length %d is negative", length)
			}
			return e.tokenize(cmd.Context(), model, pairs, words, length)
		},
	}
	f := cmd.Flags()
	f.StringVar(&model, "model", "", "model: a `DIR` or hf:org/name@revision")
	f.BoolVar(&pairs, "pair", false, "lines are text<TAB>text, encoded as a pair")
	f.BoolVar(&words, "tokens", false, "the tokens' texts too")
	f.IntVar(&length, "max-length", 0, "cut to so many tokens, the longer text first; 0: never")
	needed(cmd, "model")
	return cmd
}

func (e *Env) tokenize(ctx context.Context, model string, pairs, words bool, length int) error {
	dir, _, err := hub.Resolve(ctx, model)
	if err != nil {
		return err
	}
	t, err := token.Open(dir)
	if err != nil {
		return err
	}
	var enc token.Encoding
	encode := func(line string) error {
		if !pairs {
			return t.Single(&enc, line, length)
		}
		a, b, err := pair(line)
		if err != nil {
			return err
		}
		return t.Pair(&enc, a, b, length, token.LongestFirst)
	}
	out := bufio.NewWriter(e.Stdout)
	err = batches(ctx, e.Stdin, 256, func(first int, lines []string) error {
		for i, line := range lines {
			if err := encode(line); err != nil {
				_ = out.Flush()
				return fmt.Errorf("line %d: %w", first+i, err)
			}
			row := struct {
				IDs    []int32  `json:"ids"`
				Types  []int32  `json:"types"`
				Tokens []string `json:"tokens,omitempty"`
			}{IDs: enc.IDs, Types: enc.Types}
			if words {
				for _, id := range enc.IDs {
					row.Tokens = append(row.Tokens, t.Token(id))
				}
			}
			b, err := json.Marshal(row)
			if err != nil {
				return err
			}
			if _, err := out.Write(append(b, '\n')); err != nil {
				return err
			}
		}
		return out.Flush()
	})
	return prefix("tokenize", err)
}
