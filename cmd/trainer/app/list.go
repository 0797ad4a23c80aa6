package app

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"rung/data/read"
	"rung/nn"
	"rung/train/metric"
)

// A listing is a table of what is built in; the first column is the name.
type listing struct {
	columns []string
	rows    func(e *Env) [][]string
}

var listings = map[string]listing{
	"adapters": {[]string{"name", "about"}, func(e *Env) (rows [][]string) {
		for _, n := range sortedKeys(e.Registry.Adapters) {
			rows = append(rows, []string{n, e.Registry.Adapters[n].About})
		}
		return rows
	}},
	"architectures": {[]string{"name", "loss", "about"}, func(e *Env) (rows [][]string) {
		for _, n := range sortedKeys(e.Registry.Architectures) {
			a := e.Registry.Architectures[n]
			rows = append(rows, []string{n, a.Loss, a.About})
		}
		return rows
	}},
	"commands": {[]string{"name", "about"}, func(e *Env) (rows [][]string) {
		for _, n := range sortedKeys(e.Registry.Commands) {
			rows = append(rows, []string{n, e.Registry.Commands[n](e).Short})
		}
		return rows
	}},
	"data": {[]string{"name", "spec", "needs", "about"}, func(*Env) (rows [][]string) {
		kinds := read.Kinds()
		for _, n := range sortedKeys(kinds) {
			rows = append(rows, []string{n, kinds[n].Syntax, kinds[n].Needs, kinds[n].About})
		}
		return rows
	}},
	"losses": {[]string{"name", "scope", "privacy", "parameters", "needs", "about"}, func(e *Env) (rows [][]string) {
		for _, n := range sortedKeys(e.Registry.Losses) {
			l := e.Registry.Losses[n]
			rows = append(rows, []string{n, l.Objective.Scope().String(), private(l.Objective), orDash(strings.Join(l.parameters(), ", ")), orDash(l.Needs), l.About})
		}
		return rows
	}},
	"metrics": {[]string{"name", "syntax", "also", "about"}, func(*Env) (rows [][]string) {
		for _, m := range metric.List() {
			rows = append(rows, []string{m.Name, m.Syntax, orDash(strings.Join(m.Aliases, ", ")), m.About})
		}
		return rows
	}},
	"samplers": {[]string{"name", "about"}, func(e *Env) (rows [][]string) {
		for _, n := range sortedKeys(e.Registry.Samplers) {
			rows = append(rows, []string{n, e.Registry.Samplers[n].About})
		}
		return rows
	}},
}

// private says whether privacy allows a loss: one that compares units with each other has no gradient of
// a unit that could be clipped.
func private(o nn.Objective) string {
	if o.Scope() == nn.Unit {
		return "yes"
	}
	return "no"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func listCommand(e *Env) *cobra.Command {
	topics := sortedKeys(listings)
	return &cobra.Command{
		Use:       "list [" + strings.Join(topics, "|") + "]",
		Short:     "What is built in",
		GroupID:   "look",
		ValidArgs: topics,
		Args:      cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				if _, ok := listings[args[0]]; !ok {
					return misuse("list %s%s", args[0], suggest(args[0], topics))
				}
				topics = args
			}
			for i, topic := range topics {
				if err := e.list(topic, len(topics) > 1, i > 0); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (e *Env) list(topic string, title, gap bool) error {
	l := listings[topic]
	if e.JSON {
		for _, row := range l.rows(e) {
			pairs := []any{"kind", topic}
			for i, c := range l.columns {
				pairs = append(pairs, c, row[i])
			}
			if err := e.result(pairs...); err != nil {
				return err
			}
		}
		return nil
	}
	if gap {
		fmt.Fprintln(e.Stdout)
	}
	if title {
		fmt.Fprintln(e.Stdout, topic+":")
	}
	w := tabwriter.NewWriter(e.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(l.columns, "\t"))
	for _, row := range l.rows(e) {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}
