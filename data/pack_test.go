package data

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// pairs is two units over sequences of 2, 1 and 3 tokens.
func pairs(query int32) *Encoded {
	e := &Encoded{}
	a, b, c := e.Add("q", 0, []int32{7, 8}, 1), e.Add("q", 1, []int32{9}, 1), e.Add("r", 0, []int32{4, 5, 6}, 3)
	e.Units = []Unit{
		{ID: "q", Query: query, Seqs: []int32{a, b}, IDs: []string{"x", "y"}, Labels: []float32{1, 0}},
		{ID: "r", Query: query, Seqs: []int32{c}, IDs: []string{"x"}, Labels: []float32{2}},
	}
	return e
}

func TestPack(t *testing.T) {
	e := pairs(None)
	b := Batch{
		IDs: make([]int32, 8), Pos: make([]int32, 8), Types: make([]int32, 8), Seqs: make([]int32, 8),
		Offsets: make([]int32, 6), Keys: make([]int32, 5), Class: make([]int32, 5), Slots: make([]int32, 9), Labels: make([]float32, 9), Mask: make([]float32, 9), K: 3,
	}
	n, err := e.Pack([]int{0, 1}, &b)
	require.NoError(t, err)
	require.Equal(t, Sizes{T: 6, N: 3, B: 2, K: 2}, n)
	require.Equal(t, []int32{7, 8, 9, 4, 5, 6}, b.IDs[:6])
	require.Equal(t, []int32{0, 1, 0, 0, 1, 2}, b.Pos[:6])
	require.Equal(t, []int32{0, 1, 0, 0, 0, 0}, b.Types[:6])
	require.Equal(t, []int32{0, 0, 1, 2, 2, 2}, b.Seqs[:6])
	require.Equal(t, []int32{0, 2, 3, 6, 6, 6}, b.Offsets)
	require.Equal(t, []int32{1, 0, 2}, b.Class[:3])
	require.Equal(t, []int32{0, 1, -1, 2, -1, -1, -1, -1, -1}, b.Slots)
	require.Equal(t, []float32{1, 0, 0, 2, 0, 0}, b.Labels[:6])
	require.Equal(t, []float32{1, 1, 0, 1, 0, 0}, b.Mask[:6])

	// What a program does not read is not filled.
	_, err = e.Pack([]int{0, 1}, &Batch{IDs: make([]int32, 6), K: 2})
	require.NoError(t, err)
	// What does not fit, or is not there, is an error.
	_, err = e.Pack([]int{0, 1}, &Batch{IDs: make([]int32, 5), K: 2})
	require.ErrorContains(t, err, "does not fit")
	_, err = e.Pack([]int{1}, &Batch{Queries: make([]int32, 1), K: 1})
	require.ErrorContains(t, err, `unit "r" has no query sequence`)
	_, err = pairs(0).Pack([]int{0, 1}, &Batch{Queries: make([]int32, 1), K: 2})
	require.ErrorContains(t, err, "does not fit")
}

// A cut leaves units whole, and loses none.
func TestSplit(t *testing.T) {
	e := pairs(None)
	require.Equal(t, [][]int{{0}, {1}}, e.Split([]int{0, 1}, 5))
	require.Equal(t, [][]int{{0, 1}}, e.Split([]int{0, 1}, 6))
	require.Equal(t, [][]int{{1}, {0}}, e.Split([]int{1, 0}, 1))
}

// Every unit is drawn once an epoch, in an order of seed and epoch, with any setting.
func TestShuffled(t *testing.T) {
	e := &Encoded{}
	for i := range 57 {
		u := Unit{Query: None}
		for range i % 4 {
			u.Seqs = append(u.Seqs, e.Add("q", 0, make([]int32, 1+i%9), 1))
		}
		e.Units = append(e.Units, u)
	}
	for _, s := range []Shuffled{{Batch: 8, Window: 4}, {Batch: 8}, {Batch: 1, Window: 1}, {Batch: 1000, Window: 3}, {}} {
		seen := make([]int, len(e.Units))
		batches := s.Epoch(e, 5, 2)
		for _, b := range batches {
			require.NotEmpty(t, b)
			for _, u := range b {
				seen[u]++
			}
		}
		for _, n := range seen {
			require.Equal(t, 1, n)
		}
		require.Equal(t, batches, s.Epoch(e, 5, 2))
		require.NotEqual(t, batches, s.Epoch(e, 5, 3))
		require.NotEqual(t, batches, s.Epoch(e, 6, 2))
	}
	require.Empty(t, Shuffled{Batch: 4, Window: 2}.Epoch(&Encoded{}, 1, 0))
}

func TestInOrder(t *testing.T) {
	e := &Encoded{Units: make([]Unit, 5)}
	require.Equal(t, [][]int{{0, 1}, {2, 3}, {4}}, InOrder{2}.Epoch(e, 1, 7))
	require.Equal(t, [][]int{{0}, {1}, {2}, {3}, {4}}, InOrder{}.Epoch(e, 1, 0))
}
