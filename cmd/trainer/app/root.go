package app

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/spf13/cobra"
)

// Groups of commands, in the order of the help.
var groups = []*cobra.Group{
	{ID: "train", Title: "Train:"},
	{ID: "use", Title: "Use a model:"},
	{ID: "measure", Title: "Measure:"},
	{ID: "look", Title: "Look:"},
}

// root is the whole command. started is the command that itself has begun: errors before that are about
// flags and arguments.
func (e *Env) root() (root *cobra.Command, started *atomic.Pointer[cobra.Command]) {
	started = new(atomic.Pointer[cobra.Command])
	root = &cobra.Command{
		Use:               "trainer",
		Short:             "Fine-tunes BERT-style encoders into neural rankers",
		Long:              "trainer fine-tunes BERT-style encoders into neural rankers, and evaluates, applies and inspects them.",
		Args:              cobra.ArbitraryArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return misuse("unknown command %s%s", args[0], suggest(args[0], sortedKeys(e.Registry.Commands)))
		},
	}
	root.PersistentFlags().BoolVar(&e.JSON, "json", false, "results and progress as JSON, one object a line")
	root.AddGroup(groups...)
	root.SetHelpCommand(helpCommand())
	for _, name := range sortedKeys(e.Registry.Commands) {
		root.AddCommand(e.Registry.Commands[name](e))
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return misuse("%w%s", err, nearFlag(cmd, err)) })
	markStart(root, started)
	return root, started
}

// helpCommand is help COMMAND. Cobra's own takes an unknown one for no fault.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Help about any command",
		GroupID: "look",
		RunE: func(cmd *cobra.Command, args []string) error {
			of, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				var known []string
				for _, c := range cmd.Root().Commands() {
					known = append(known, c.Name())
				}
				return misuse("help: unknown command %s%s", args[0], suggest(args[0], known))
			}
			return of.Help()
		},
	}
}

// markStart notes when a command itself begins.
func markStart(cmd *cobra.Command, started *atomic.Pointer[cobra.Command]) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			started.Store(cmd)
			return run(cmd, args)
		}
	}
	for _, c := range cmd.Commands() {
		markStart(c, started)
	}
}

// nearFlag is the end of an error about an unknown flag.
func nearFlag(cmd *cobra.Command, err error) string {
	name, unknown := strings.CutPrefix(err.Error(), "unknown flag: --")
	if !unknown {
		return ""
	}
	var known []string
	for _, set := range []interface{ FlagUsages() string }{cmd.LocalFlags(), cmd.InheritedFlags()} {
		for f := range strings.FieldsSeq(set.FlagUsages()) {
			if flag, ok := strings.CutPrefix(f, "--"); ok {
				known = append(known, flag)
			}
		}
	}
	if s := suggest(name, known); strings.HasPrefix(s, ": did you mean ") {
		return strings.Replace(s, "mean ", "mean --", 1)
	}
	return ""
}

// positional refuses any other number of arguments than these, naming them.
func positional(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return misuse("%s: no %s", cmd.Name(), strings.Join(names[len(args):], " "))
		case len(args) > len(names):
			return misuse("%s: %q is one argument too many", cmd.Name(), args[len(names)])
		}
		return nil
	}
}

// needed marks flags that must be given.
func needed(cmd *cobra.Command, flags ...string) {
	for _, f := range flags {
		_ = cmd.MarkFlagRequired(f)
	}
}

// event writes one line of progress for machines: an object with the event's name and pairs of key and
// value.
func (e *Env) event(name string, pairs ...any) {
	fmt.Fprintln(e.Stderr, object(append([]any{"event", name}, pairs...)))
}

// result writes one line of results for machines.
func (e *Env) result(pairs ...any) error {
	_, err := fmt.Fprintln(e.Stdout, object(pairs))
	return err
}

// object is a JSON object whose keys keep their order.
func object(pairs []any) string {
	var b strings.Builder
	b.WriteByte('{')
	for i := 0; i+1 < len(pairs); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}
		v, err := json.Marshal(pairs[i+1])
		if err != nil { // a value that is no number
			v, _ = json.Marshal(fmt.Sprint(pairs[i+1]))
		}
		fmt.Fprintf(&b, "%q:%s", pairs[i], v)
	}
	b.WriteByte('}')
	return b.String()
}
