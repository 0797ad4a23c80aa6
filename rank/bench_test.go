package rank_test

import (
	"bufio"
	"context"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/arch"
	"rung/nn/nntest/shared"
	"rung/rank"
)

// BenchmarkScore scores 512 pairs of WikiQA's test questions with MiniLM as a cross-encoder, tokenising included.
func BenchmarkScore(b *testing.B) {
	f, err := os.Open(shared.Path(b, "data", "wikiqa", "WikiQA-test.txt"))
	require.NoError(b, err)
	defer f.Close()
	var all, pairs []rank.Pair
	for s := bufio.NewScanner(f); s.Scan(); {
		if r := strings.Split(s.Text(), "\t"); len(r) == 3 {
			all = append(all, rank.Pair{Query: r[0], Passage: r[1]})
		}
	}
	for i := 0; i < len(all) && len(pairs) < 512; i += len(all) / 512 {
		pairs = append(pairs, all[i])
	}
	m, err := arch.OpenCross(context.Background(), shared.Path(b, "models", "all-MiniLM-L6-v2"), arch.Options{MaxLength: 128, Seed: 1})
	require.NoError(b, err)
	r, err := rank.New(m)
	require.NoError(b, err)
	defer r.Close()
	_, err = r.ScorePairs(context.Background(), pairs) // weights are packed
	require.NoError(b, err)
	b.ResetTimer()
	for range b.N {
		_, err := r.ScorePairs(context.Background(), pairs)
		require.NoError(b, err)
	}
	b.ReportMetric(float64(len(pairs)*b.N)/b.Elapsed().Seconds(), "docs/s")
}
