package nntest

import (
	"fmt"
	"testing"

	"rung/nn/backend/host"
)

// PoolSizes is the numbers of workers that must give the same bits.
var PoolSizes = [...]int{1, 2, 3, 7}

// EachPool runs f as a subtest on a pool of each size.
func EachPool(t *testing.T, f func(t *testing.T, p *host.Pool)) {
	t.Helper()
	for _, n := range PoolSizes {
		t.Run(fmt.Sprintf("%d workers", n), func(t *testing.T) {
			p := host.NewPool(n)
			defer p.Close()
			f(t, p)
		})
	}
}
