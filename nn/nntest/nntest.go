// Package nntest is what the tests of backends, operators and losses have in common: the conformance
// suite of backends (TestBackend, TestWorkers), gradient checks by differences (Gradient) and error
// measures (Rel). It is imported by tests only.
//
// The suite has one row for every operation: valid calls at many sizes, a formula of its own for their
// results, and a bound on the rounding error. The formulas are written straight from the comments of
// backend.Op, in float64 and without regard to speed. Each call runs on the backend under test, which
// is reached through Reserve, Encode and Launch alone, and on the reference in float64; the reference
// is held to the formula, the backend to the reference.
package nntest

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"rung/nn/backend"
	"rung/nn/backend/ref"
)

// Size is the greatest dimension of the calls that a suite makes: rows, columns, tokens of a sequence.
type Size int

// The sizes. Tiny is for emulators, Small for quick runs; Full reaches 512 tokens and 384 columns, and
// goes past every usual tile.
const (
	Tiny  Size = 9
	Small Size = 65
	Full  Size = 512
)

// Auto is Full, or Small in a short run.
func Auto() Size {
	if testing.Short() {
		return Small
	}
	return Full
}

// A row of the table is one operation.
type row struct {
	op backend.Op
	// tol bounds the rounding error of an element, in unit roundoffs of the magnitude that truth gives.
	tol   float64
	calls func(g *gen) []*call
	// truth gives the results of a call, without what an accumulating result adds to.
	truth func(c *call) []grid
	// alone says what must not depend on its neighbours.
	alone kind
}

type kind uint8

const (
	apart kind = iota // nothing is claimed
	byRow
	bySeq
)

// table is the rows by operation. Host, which is no kernel, has none.
func table() (t [backend.NumOps]row) {
	for _, rows := range [][]row{linearRows(), elementRows(), normRows(), reduceRows(), attnRows(), poolRows(), candidateRows(), moeRows(), groupRows(), lossRows(), updateRows(), clipRows()} {
		for _, r := range rows {
			t[r.op] = r
		}
	}
	return t
}

// kernels is the rows that the table has.
func kernels() (all []row) {
	for _, r := range table() {
		if r.calls != nil {
			all = append(all, r)
		}
	}
	return all
}

// TestBackend runs the suite on be.
func TestBackend(t *testing.T, be backend.Backend, size Size) {
	for op, r := range table() {
		if op := backend.Op(op); op != backend.Host && r.calls == nil {
			t.Fatalf("the suite has no row for %v", op)
		}
	}
	TestOps(t, be, size)
	t.Run("alone", func(t *testing.T) { testAlone(t, be, size) })
	t.Run("dropout statistics", func(t *testing.T) { testDropout(t, be) })
	t.Run("relaunched", func(t *testing.T) { testRelaunch(t, be, size) })
	t.Run("overwritten", func(t *testing.T) { testOverwrite(t, be, size) })
	t.Run("order", func(t *testing.T) { testOrder(t, be) })
	t.Run("versions", func(t *testing.T) { testVersions(t, be, size) })
	t.Run("cancelled", func(t *testing.T) { testCancelled(t, be) })
	t.Run("memory", func(t *testing.T) { testMemory(t, be) })
	t.Run("outside", func(t *testing.T) { testOutside(t, be) })
}

// TestOps runs the suite's rows of some operations: of all, if none is named.
func TestOps(t *testing.T, be backend.Backend, size Size, ops ...backend.Op) {
	testOps(t, be, size, true, ops)
}

// TestAligned is TestOps for a backend that computes by another library what it may be given: that wants rows which begin at
// 16 bytes, and rounds otherwise than the backend's own kernels do elsewhere. So all lies that way, and results in
// other layouts are not compared.
func TestAligned(t *testing.T, be backend.Backend, size Size, ops ...backend.Op) {
	testOps(t, be, size, false, ops)
}

func testOps(t *testing.T, be backend.Backend, size Size, every bool, ops []backend.Op) {
	truth := ref.New[float64]()
	for _, r := range kernels() {
		if len(ops) > 0 && !slices.Contains(ops, r.op) {
			continue
		}
		t.Run(r.op.String(), func(t *testing.T) {
			for i, c := range newGen(r.op, size).on(be).all(r) {
				l := layout(i % 3)
				if !every {
					l = padded
				}
				formula := c.truthOf(r)
				want := c.run(t, truth, l)
				c.check(t, "the reference against the formula", want, formula, 1e-11)
				for k := range want {
					formula[k].v = want[k]
				}
				got := c.run(t, be, l)
				c.check(t, be.Name()+" against the reference", got, formula, r.tol*roundoff(be))
				if i%4 == 0 {
					c.same(t, "run again", got, c.run(t, be, l))
					if r.alone != apart && every {
						c.same(t, "in another layout", got, c.run(t, be, (l+1)%layouts))
					}
				}
			}
		})
	}
}

// TestWorkers checks a host backend, which newBackend gives for a number of workers: the same bits
// whatever that number, and nothing allocated by a launch.
func TestWorkers(t *testing.T, newBackend func(workers int) backend.Backend, size Size) {
	var bes []backend.Backend
	for _, n := range PoolSizes {
		bes = append(bes, newBackend(n))
	}
	for _, r := range kernels() {
		t.Run(r.op.String(), func(t *testing.T) {
			calls := newGen(r.op, size).all(r)
			for i, c := range calls {
				if i%3 != 0 { // the layout that suits many calls best and hides least
					continue
				}
				want := c.run(t, bes[0], strided)
				for k, be := range bes[1:] {
					c.same(t, fmt.Sprintf("%d workers", PoolSizes[k+1]), want, c.run(t, be, strided))
				}
			}
			testAllocs(t, bes[1], calls[len(calls)/2])
		})
	}
}

// TestGradients checks that every gradient operation of be, whose elements must be float64, is the
// derivative of its forward operation, by central differences.
func TestGradients(t *testing.T, be backend.Backend) {
	if be.Float() != backend.Float64 {
		t.Fatalf("differences need float64, which %s has not", be.Name())
	}
	for _, r := range kernels() {
		op := r.op
		g := newGen(op, Tiny)
		g.exact = true
		var calls []*call
		for _, c := range r.calls(g) {
			if c.loss != nil {
				calls = append(calls, c)
			}
		}
		if len(calls) == 0 {
			if isGrad(op) {
				t.Errorf("%v has no forward call to differentiate", op)
			}
			continue
		}
		t.Run(op.String(), func(t *testing.T) {
			for _, c := range calls {
				c.differences(t, be)
			}
		})
	}
}

// differences compares each result of a gradient's call with differences of its loss.
func (c *call) differences(t *testing.T, be backend.Backend) {
	t.Helper()
	got := c.run(t, be, strided)
	for k, x := range c.wrt {
		if x == nil || c.out[k].dead() || len(x) > 300 {
			continue
		}
		t.Run(fmt.Sprintf("%v/%d", c, k), func(t *testing.T) {
			loss := func() float64 { return c.loss(func(f *call) [][]float64 { return f.run(t, be, strided) }) }
			Gradient(t, loss, x, got[k], 1e-8)
		})
	}
}

// launch runs x once.
func launch(x backend.Exec, s *backend.Scalars) error { return x.Launch(context.Background(), s) }
