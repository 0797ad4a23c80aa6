package token

import (
	"bufio"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/nntest/shared"
)

// wikiQA returns the answer sentences of the training split.
func wikiQA(b *testing.B) []string {
	f, err := os.Open(shared.Path(b, "data", "wikiqa", "WikiQA-train.txt"))
	require.NoError(b, err)
	defer f.Close()
	var all []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if field := strings.Split(s.Text(), "\t"); len(field) > 1 {
			all = append(all, field[1])
		}
	}
	return all
}

func BenchmarkAppendIDs(b *testing.B) {
	tok, texts := openShared(b, "data", "tokenizers", "bert-base-uncased"), wikiQA(b)
	ids := make([]int32, 0, 4096)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		ids = tok.AppendIDs(ids[:0], texts[i%len(texts)])
		i++
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sentences/s")
}

func BenchmarkPairWithOffsets(b *testing.B) {
	tok, texts := openShared(b, "data", "tokenizers", "bert-base-uncased"), wikiQA(b)
	e := &Encoding{WantOffsets: true}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if err := tok.Pair(e, texts[i%len(texts)], texts[(i+1)%len(texts)], 256, LongestFirst); err != nil {
			b.Fatal(err)
		}
		i++
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pairs/s")
}

func BenchmarkOpen(b *testing.B) {
	dir := shared.Path(b, "models", "all-MiniLM-L6-v2")
	for b.Loop() {
		if _, err := Open(dir); err != nil {
			b.Fatal(err)
		}
	}
}
