package rank_test

import (
	"context"
	"fmt"
	"os"

	"rung/nn/nntest/archtest"
	"rung/rank"
)

// model writes a small model with random weights, in place of one that was trained.
func model(set func(*archtest.Spec)) (dir string, remove func()) {
	dir, err := os.MkdirTemp("", "rank")
	if err == nil {
		s := archtest.Tiny()
		set(&s)
		err = s.Write(dir)
	}
	if err != nil {
		fmt.Println(err)
	}
	return dir, func() { os.RemoveAll(dir) }
}

func ExampleRanker_Rerank() {
	dir, remove := model(func(s *archtest.Spec) { s.Labels = 1 })
	defer remove()
	ctx := context.Background()
	r, err := rank.Open(ctx, dir, rank.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer r.Close()
	hits, err := r.Rerank(ctx, "who wrote the book", []string{"a long night", "the book of the sea", "rain"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(hits), "passages, the best first:", hits[0].Score >= hits[1].Score && hits[1].Score >= hits[2].Score)
	// Output: 3 passages, the best first: true
}

func ExampleRanker_Embed() {
	dir, remove := model(func(s *archtest.Spec) { s.Pooling, s.Normalize = "mean", true })
	defer remove()
	ctx := context.Background()
	r, err := rank.Open(ctx, dir, rank.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer r.Close()
	vectors, err := r.Embed(ctx, []string{"the moon", "the sun"}, rank.Passage)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(vectors), "vectors of", r.Dim())
	// Output: 2 vectors of 16
}
