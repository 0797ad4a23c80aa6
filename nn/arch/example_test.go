package arch_test

import (
	"context"
	"fmt"
	"os"

	"rung/nn"
	"rung/nn/arch"
	"rung/nn/device"
	"rung/nn/nntest/archtest"
)

// An encoder opens as a cross-encoder: what its head lacks is created.
func ExampleOpenCross() {
	dir, err := os.MkdirTemp("", "arch")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	if err := archtest.Tiny().Write(dir); err != nil { // in place of a model of the hub
		fmt.Println(err)
		return
	}
	m, err := arch.OpenCross(context.Background(), dir, arch.Options{Labels: 1, Seed: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close()
	for _, p := range m.Params() {
		if p.Created {
			fmt.Println(p.Path, p.Dims)
		}
	}
	// Output:
	// classifier.weight [1 16]
	// classifier.bias [1]
}

// A model is scored with, or saved, through a store of its values.
func ExampleOpenBi() {
	dir, err := os.MkdirTemp("", "arch")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	if err := archtest.Tiny().Write(dir); err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	m, err := arch.OpenBi(ctx, dir, arch.Options{Pooling: nn.Mean, MaxLength: 32})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close()
	be, err := device.Open("cpu")
	if err != nil {
		fmt.Println(err)
		return
	}
	store, err := nn.NewStore(be, m.Params(), false)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	s := arch.NewScorer(be, m, 0, store)
	defer s.Close()
	v, err := m.Embed(ctx, s, []string{"the moon", "the sun"}, arch.Passage)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(v), "vectors of", len(v[0]))
	// Output: 2 vectors of 16
}
