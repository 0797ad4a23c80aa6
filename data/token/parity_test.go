package token

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/nntest/shared"
)

// readLines decodes a compressed file of JSON lines.
func readLines[T any](t testing.TB, name string) []T {
	t.Helper()
	f, err := os.Open(shared.Path(t, "data", "tokenizer_parity", name))
	require.NoError(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	var all []T
	for d := json.NewDecoder(bufio.NewReaderSize(z, 1<<16)); d.More(); {
		var v T
		require.NoError(t, d.Decode(&v))
		all = append(all, v)
	}
	return all
}

type parityText struct {
	Class string `json:"c"`
	Bytes []byte `json:"b"`
}

type parityWant struct {
	IDs     []int32    `json:"i"`
	Offsets [][2]int32 `json:"o"`
	Types   []int32    `json:"t"`
	Mask    []int32    `json:"a"`
	Special []int32    `json:"s"`
	Config  int        `json:"c"`
	Err     string     `json:"err"`
}

func openShared(t testing.TB, elem ...string) *Tokenizer {
	t.Helper()
	tok, err := Open(shared.Path(t, elem...))
	require.NoError(t, err)
	return tok
}

// concurrently calls f(i) for every i below n from several goroutines, each with its own Encoding.
func concurrently(n int, f func(e *Encoding, i int)) {
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0) + 1
	for w := range workers {
		wg.Go(func() {
			e := &Encoding{WantOffsets: true}
			for i := w; i < n; i += workers {
				f(e, i)
			}
		})
	}
	wg.Wait()
}

// failures collects a few lines about what differs.
type failures struct {
	mu    sync.Mutex
	count int
}

func (f *failures) add(t *testing.T, format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count++; f.count <= 10 {
		t.Errorf(format, args...)
	}
}

// Every text of the reference data gives the reference's ids, types and offsets.
func TestParityTexts(t *testing.T) {
	texts := readLines[parityText](t, "texts.jsonl.gz")
	require.Len(t, texts, 32808)
	for _, c := range []struct{ name, file string }{
		{"bert-base-uncased", "uncased.jsonl.gz"},
		{"bert-base-cased", "bert-base-cased.jsonl.gz"},
		{"bert-base-chinese", "bert-base-chinese.jsonl.gz"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tok := openShared(t, "data", "tokenizers", c.name)
			want := readLines[parityWant](t, c.file)
			require.Len(t, want, len(texts))
			var bad failures
			concurrently(len(texts), func(e *Encoding, i int) {
				text := string(texts[i].Bytes)
				if err := tok.Single(e, text, 0); err != nil {
					bad.add(t, "text %d: %v", i, err)
					return
				}
				if !slices.Equal(e.IDs, want[i].IDs) || !slices.Equal(e.Offsets, want[i].Offsets) || e.Truncated != 0 {
					bad.add(t, "text %d (%s) %q:\n got %v %v\nwant %v %v", i, texts[i].Class, text, e.IDs, e.Offsets, want[i].IDs, want[i].Offsets)
				}
				if ids := tok.AppendIDs(nil, text); !slices.Equal(ids, e.IDs[1:len(e.IDs)-1]) {
					bad.add(t, "text %d: AppendIDs gives %v, Single %v", i, ids, e.IDs)
				}
			})
			t.Logf("%d of %d texts differ", bad.count, len(texts))
		})
	}
}

// Every pair gives the reference's ids, types and offsets under each of the seven configurations; two
// of them pad, which is the batch's business here. The data come from version 0.23.2, which moves the
// odd token of an odd budget in 44 pairs (see Truncation.fit): there the two lengths change places.
func TestParityPairs(t *testing.T) {
	pairs := readLines[struct {
		Q string `json:"q"`
		P string `json:"p"`
	}](t, "pairs.jsonl.gz")
	want := readLines[parityWant](t, "pairs_expected.jsonl.gz")
	configs := []struct {
		how      Truncation
		max, pad int
		moved    int // pairs in which the reference moves the odd token
	}{
		{LongestFirst, 512, 0, 0},
		{LongestFirst, 64, 0, 44},
		{LongestFirst, 64, 64, 44},
		{OnlySecond, 64, 0, 0},
		{OnlySecond, 128, 128, 0},
		{OnlyFirst, 128, 0, 0},
		{LongestFirst, 33, 0, 0},
	}
	require.Len(t, want, len(pairs)*len(configs))
	tok := openShared(t, "data", "tokenizers", "bert-base-uncased")
	for k, c := range configs {
		t.Run(strconv.Itoa(k)+"_"+c.how.String(), func(t *testing.T) {
			var bad failures
			var moved atomic.Int32
			concurrently(len(pairs), func(e *Encoding, i int) {
				w := want[k*len(pairs)+i]
				err := tok.Pair(e, pairs[i].Q, pairs[i].P, c.max, c.how)
				if w.Err != "" || err != nil {
					if w.Err == "" || !errors.Is(err, ErrTooShort) {
						bad.add(t, "pair %d: got error %v, want %q", i, err, w.Err)
					}
					return
				}
				n := 0 // tokens that are no padding
				for _, a := range w.Mask {
					n += int(a)
				}
				if first, theirs := firstLength(e.Types), firstLength(w.Types[:n]); first != theirs && first+theirs == n+1 {
					moved.Add(1)
					if first-theirs != 1 && theirs-first != 1 {
						bad.add(t, "pair %d: first text of %d tokens, the reference has %d", i, first, theirs)
					}
					return
				}
				if !slices.Equal(e.IDs, w.IDs[:n]) || !slices.Equal(e.Types, w.Types[:n]) || !slices.Equal(e.Offsets, w.Offsets[:n]) {
					bad.add(t, "pair %d:\n got %v\nwant %v", i, e.IDs, w.IDs[:n])
				}
				whole := len(tok.AppendIDs(tok.AppendIDs(nil, pairs[i].Q), pairs[i].P))
				if e.Truncated != whole+3-len(e.IDs) {
					bad.add(t, "pair %d: %d tokens cut, want %d", i, e.Truncated, whole+3-len(e.IDs))
				}
				if c.pad > 0 && len(w.IDs) != c.pad {
					bad.add(t, "pair %d: the reference is padded to %d", i, len(w.IDs))
				}
			})
			require.Zero(t, bad.count)
			require.EqualValues(t, c.moved, moved.Load())
		})
	}
}

// firstLength is the number of tokens of type 0.
func firstLength(types []int32) int {
	n := slices.Index(types, 1)
	if n < 0 {
		return len(types)
	}
	return n
}
