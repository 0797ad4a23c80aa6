//go:build !race

package token

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Under the race detector sync.Pool drops things on purpose.
func TestNoAllocation(t *testing.T) {
	tok := small(t, func(o *Options) {
		o.Added = []AddedToken{{ID: int32(len(smallVocab())), Content: "[Q] ", Normalized: true}}
	})
	ids, e := make([]int32, 0, 64), &Encoding{WantOffsets: true}
	text := "The quick [q] foxes jumped, unable cafés 漢!"
	n := testing.AllocsPerRun(100, func() {
		ids = tok.AppendIDs(ids[:0], text)
		_ = tok.Pair(e, text, text, 20, LongestFirst)
	})
	require.Less(t, n, 1.0) // the collector may empty the pool in between
}
