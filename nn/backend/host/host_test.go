package host_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/backend/ref"
	"rung/nn/nntest"
)

// bound is memory of n floats as arena, first gradient and first index.
func bound(t *testing.T, be backend.Backend, n int64) backend.Binding {
	t.Helper()
	m, err := be.Reserve(4 * n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Free(); err != nil {
			t.Error(err)
		}
	})
	b := backend.Binding{Arena: m}
	b.Blocks[backend.Grad] = []backend.Block{{Mem: m}}
	b.Blocks[backend.Index] = []backend.Block{{Mem: m}}
	return b
}

func TestEncodeRefuses(t *testing.T) {
	be := ref.New[float32]()
	b := bound(t, be, 64)
	y, x := backend.Buf{Space: backend.Arena, Rows: 2, Cols: 4, Ld: 4}, backend.Buf{Space: backend.Arena, Off: 8, Rows: 2, Cols: 4, Ld: 4}
	acc, narrow, unbound := y, y, b
	acc.Acc, narrow.Ld = true, 3
	unbound.PerUnit, unbound.Units[backend.Tok] = 8, 1
	for _, c := range []struct {
		want string
		call backend.Call
		bind backend.Binding
	}{
		{"needs a kernel", backend.Call{Op: backend.NumOps + 1}, b},
		{"cannot add", backend.Call{Op: backend.AddTo, Out: []backend.Buf{acc}, In: []backend.Buf{x}}, b},
		{"not a matrix", backend.Call{Op: backend.AddTo, Out: []backend.Buf{narrow}, In: []backend.Buf{x}}, b},
		{"nothing is bound", backend.Call{Op: backend.AddTo, Out: []backend.Buf{y}, In: []backend.Buf{x}}, unbound},
	} {
		c.call.Node = "sum of two"
		_, err := be.Encode([]backend.Call{c.call}, c.bind)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "sum of two") {
			t.Errorf("%v: error %v, want one on the node that says %q", c.call.Op, err, c.want)
		}
	}
}

// Gradients kept apart need room for every unit: what does not fit is an error, not a write elsewhere.
func TestUnitsNeedRoom(t *testing.T) {
	be := ref.New[float32]()
	b := bound(t, be, 16)
	b.PerUnit = 8
	dy := backend.Buf{Space: backend.Arena, Axis: backend.Unit, Rows: 4, Cols: 2, Ld: 2}
	db := backend.Buf{Space: backend.Grad, Rows: 1, Cols: 2, Ld: 2}
	x, err := be.Encode([]backend.Call{{Op: backend.ColSum, Node: "bias", Out: []backend.Buf{db}, In: []backend.Buf{dy}}}, b)
	if err != nil {
		t.Fatal(err)
	}
	for units, fits := range map[int]bool{2: true, 3: false} {
		err := x.Launch(context.Background(), &backend.Scalars{Count: [backend.NumAxes]int{backend.Unit: units}})
		if (err == nil) != fits {
			t.Errorf("%d units of 8 elements in 16: %v", units, err)
		}
	}
	if err := x.Close(); err != nil {
		t.Error(err)
	}
}

func TestPoolRunsEachPieceOnce(t *testing.T) {
	nntest.EachPool(t, func(t *testing.T, p *host.Pool) {
		for _, n := range []int{0, 1, 6, 7, 1000} {
			for _, grain := range []int{0, 1, 3, 2000} {
				times := make([]atomic.Int32, n)
				err := p.Do(n, grain, func(_, lo, hi int) {
					if hi-lo > max(1, grain) {
						t.Errorf("a piece of %d, the grain being %d", hi-lo, grain)
					}
					for i := lo; i < hi; i++ {
						times[i].Add(1)
					}
				})
				if err != nil {
					t.Fatal(err)
				}
				for i := range times {
					if times[i].Load() != 1 {
						t.Fatalf("n = %d, grain %d: %d ran %d times", n, grain, i, times[i].Load())
					}
				}
			}
		}
	})
}

func TestPoolTurnsPanicsIntoErrors(t *testing.T) {
	nntest.EachPool(t, func(t *testing.T, p *host.Pool) {
		err := p.Do(100, 1, func(_, lo, _ int) {
			if lo == 50 {
				panic("kernel 50")
			}
		})
		if err == nil || !strings.Contains(err.Error(), "kernel 50") {
			t.Errorf("error %v", err)
		}
		if err := p.Do(100, 1, func(int, int, int) {}); err != nil {
			t.Errorf("after a panic: %v", err)
		}
	})
}
