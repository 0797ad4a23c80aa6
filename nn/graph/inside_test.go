package graph

import (
	"fmt"
	"hash/fnv"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/backend"
	"rung/nn/backend/philox"
)

// No two buffers that live at one time overlap; plans are deterministic, and close to the bound.
func TestPlan(t *testing.T) {
	worst := 1.0
	for trial := range 400 {
		next := uint64(0)
		draw := func(n int) int {
			next++
			return int(philox.Uint64(uint64(trial), "plan", next) % uint64(n))
		}
		ts := make([]interval, 1+draw(60))
		for i := range ts {
			from := draw(100)
			ts[i] = interval{size: 16 * (1 + draw(1<<draw(10))), from: from, to: from + draw(1<<draw(7))}
			if draw(10) == 0 {
				ts[i].to = forever
			}
		}
		again := slices.Clone(ts)
		size := plan(ts)
		for i, a := range ts {
			require.GreaterOrEqual(t, a.off, 0)
			require.LessOrEqual(t, a.off+a.size, size)
			for _, b := range ts[:i] {
				apart := a.to < b.from || b.to < a.from || a.off+a.size <= b.off || b.off+b.size <= a.off
				require.True(t, apart, "%+v overlaps %+v", a, b)
			}
		}
		require.GreaterOrEqual(t, size, bound(ts))
		require.Equal(t, size, plan(again))
		require.Equal(t, ts, again)
		worst = max(worst, float64(size)/float64(bound(ts)))
	}
	require.Less(t, worst, 1.5)
	require.Zero(t, plan(nil))
	t.Logf("arena at most %.2f of the bound", worst)
}

// Gorgonia merges nodes whose 32-bit hashes collide: the Builder does not let it.
func TestCollisions(t *testing.T) {
	const first, second = 32829, 961112 // the first two serials for which it happens
	hash := func(i int) uint32 {
		h := fnv.New32a()
		fmt.Fprintf(h, "scale#%d", i)
		return h.Sum32()
	}
	require.Equal(t, hash(first), hash(second))
	b := New(backend.Float64)
	x, y := b.Input("x", Rows(backend.Seq, 2, 3)), b.Input("y", Rows(backend.Seq, 2, 3))
	b.serial = first - 1
	p := b.Scale(x, 2)
	b.serial = second - 1
	q := b.Scale(y, 3)
	require.NoError(t, b.Err())
	require.Equal(t, first, serialOf(t, p))
	require.NotEqual(t, p.n, q.n, "two nodes became one")
	require.Equal(t, scale{3}, q.info().op)
	require.Equal(t, []E{y}, q.info().in)
	require.Greater(t, serialOf(t, q), first)
}

func serialOf(t *testing.T, e E) (n int) {
	_, err := fmt.Sscanf(e.n.Op().String(), "scale#%d", &n)
	require.NoError(t, err)
	return n
}

// Many nodes of one kind on one input stay what they are.
func TestManyNodes(t *testing.T) {
	const n, wide = 12_000, 500 // it takes Gorgonia the square of n
	b := New(backend.Float32)
	x := b.Input("x", Rows(backend.Seq, 2, 3))
	nodes := make([]E, n)
	for i := range nodes {
		nodes[i] = b.Scale(x, float64(i))
		if i%wide == wide-1 {
			x = nodes[i]
		}
	}
	require.NoError(t, b.Err())
	require.Len(t, b.nodes, n+1)
	require.Equal(t, n+1, len(b.g.AllNodes()))
	for i, e := range nodes {
		if e.info().op != Operator(scale{float64(i)}) || e.info().at != i+1 {
			t.Fatalf("node %d is %v at %d", i, e.info().op, e.info().at)
		}
	}
}
