// Gen pre-trains the quickstart's encoder and writes it into the directory that it is given. The same
// instruction set gives the same bytes; RUNG_CPU chooses one that the machine has.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"rung/cmd/trainer/app/quick/base"
	"rung/nn/device"
	"rung/train"
)

func main() {
	flag.Usage = func() { fmt.Fprintln(os.Stderr, "usage: gen DIR") }
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := generate(ctx, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// generate pre-trains, and writes only when that is done.
func generate(ctx context.Context, dir string) error {
	be, err := device.Open("")
	if err != nil {
		return err
	}
	params, rec, err := base.Pretrain(ctx, be, func(s train.Step) bool {
		if s.N%100 == 0 || s.N == s.Total {
			fmt.Fprintf(os.Stderr, "step %d of %d, loss %.4f\n", s.N, s.Total, s.Loss)
		}
		return true
	})
	if err != nil {
		return err
	}
	files, err := base.Files(params, rec)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o666); err != nil {
			return err
		}
	}
	return nil
}
