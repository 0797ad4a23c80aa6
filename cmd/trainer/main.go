// Trainer fine-tunes BERT-style encoders into neural rankers, and evaluates, applies and inspects them.
//
// A program with losses, adapters or architectures of its own is this one with an addition to the registry:
//
//	r := app.Builtin()
//	r.Losses["mine"] = app.Loss{Objective: Mine{Margin: 1}, About: "hinge of every pair"}
//	os.Exit(app.Main(r))
package main

import (
	"os"

	"rung/cmd/trainer/app"
)

func main() { os.Exit(app.Main(app.Builtin())) }
