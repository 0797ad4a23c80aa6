package train_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"rung/data"
	"rung/lora"
	"rung/nn/arch"
	"rung/nn/loss"
	"rung/nn/nntest/archtest"
	"rung/rank"
	"rung/train"
)

// rivers and roads: a passage answers a question if it is about the same thing.
func examples(yield func(data.Example, error) bool) {
	things := []string{"river", "mountain", "bird", "bread", "moon", "wind", "book", "letter"}
	for i := range 64 {
		q := things[i%len(things)]
		x := data.Example{ID: fmt.Sprint(i), Query: "where is the " + q}
		for k := range 3 {
			x.Candidates = append(x.Candidates, data.Candidate{ID: fmt.Sprint(k), Text: "the old " + things[(i+k*(1+i/8%3))%len(things)]})
		}
		x.Candidates[0].Label = 1
		if !yield(x, nil) {
			return
		}
	}
}

func ExampleStart() {
	dir, err := os.MkdirTemp("", "train")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	if err := run(context.Background(), dir); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 13 modules have an adapter
	// learned: true
	// the same score after saving: true
}

func run(ctx context.Context, dir string) error {
	base := filepath.Join(dir, "base") // in real life: hf:sentence-transformers/all-MiniLM-L6-v2
	if err := archtest.Tiny().Write(base); err != nil {
		return err
	}
	model, err := arch.OpenCross(ctx, base, arch.Options{})
	if err != nil {
		return err
	}
	defer model.Close()
	c := lora.Defaults()
	c.Rank, c.Alpha, c.Targets = 4, 8, []string{"query", "key", "value", "dense"}
	info, err := lora.Apply(model, c, 1)
	if err != nil {
		return err
	}
	fmt.Println(len(info.Summary().Modules), "modules have an adapter")

	cfg := train.Defaults()
	cfg.Out, cfg.Epochs, cfg.Batch, cfg.LR = filepath.Join(dir, "run"), 20, 12, 4e-3
	r, err := train.Start(ctx, model, loss.Listwise{}, train.Data{Train: examples}, cfg)
	if err != nil {
		return err
	}
	defer r.Close()
	var first, last float64
	for step := range r.Steps() { // break would stop after the step and save
		if step.N == 1 {
			first = step.Loss
		}
		last = step.Loss
	}
	if err := r.Err(); err != nil {
		return err
	}
	fmt.Println("learned:", last < first/2)

	saved, err := rank.Open(ctx, r.Best(), rank.Options{})
	if err != nil {
		return err
	}
	defer saved.Close()
	live, err := rank.New(model)
	if err != nil {
		return err
	}
	defer live.Close()
	passages := []string{"the old river", "the old book"}
	a, err := saved.Score(ctx, "where is the book", passages)
	if err != nil {
		return err
	}
	b, err := live.Score(ctx, "where is the book", passages)
	fmt.Println("the same score after saving:", a[0] == b[0] && a[1] == b[1])
	return err
}
