package nntest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"rung/nn/backend"
)

// must lays c out, strided, or ends the test.
func must(t *testing.T, be backend.Backend, c *call) (*bench, backend.Exec) {
	t.Helper()
	b, x, err := lay(be, c, strided)
	if err != nil {
		t.Fatalf("%v: encode: %v", c, err)
	}
	t.Cleanup(b.free)
	return b, x
}

// again restores the memory, launches, and returns the results.
func (b *bench) again(t *testing.T, x backend.Exec) [][]float64 {
	t.Helper()
	if err := b.restore(); err != nil {
		t.Fatal(err)
	}
	if err := launch(x, &b.c.s); err != nil {
		t.Fatalf("%v: launch: %v", b.c, err)
	}
	out, err := b.results()
	if err != nil {
		t.Fatalf("%v: %v", b.c, err)
	}
	return out
}

// testRelaunch checks that a program keeps nothing of a launch with other counts.
func testRelaunch(t *testing.T, be backend.Backend, size Size) {
	for _, r := range kernels() {
		calls := newGen(r.op, size).all(r)
		for _, c := range []*call{calls[0], calls[len(calls)/2]} {
			b, x := must(t, be, c)
			none := c.s
			none.Count = [backend.NumAxes]int{}
			none.Seed, none.Step = 99, 98
			if err := launch(x, &none); err != nil {
				t.Fatalf("%v: launch of nothing: %v", c, err)
			}
			got := b.again(t, x)
			c.same(t, "after a launch of nothing", c.run(t, be, strided), got)
			if err := x.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// testOverwrite checks that results that are First are, where the backend writes them over what is there, the bits
// of a call that does not add, and that it adds again when told so.
func testOverwrite(t *testing.T, be backend.Backend, size Size) {
	for _, r := range kernels() {
		g := newGen(r.op, size)
		for _, c := range r.calls(g) {
			d := g.variant(c, 0, true, false)
			if d == nil {
				continue
			}
			b, x := must(t, be, d)
			if o, ok := x.(backend.Overwriter); ok {
				added := b.again(t, x)
				o.Overwrite(true)
				d.same(t, "overwritten", c.run(t, be, strided), b.again(t, x))
				o.Overwrite(false)
				d.same(t, "added", added, b.again(t, x))
			}
			if err := x.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// testVersions checks that matrix products see weights change: at once where nothing says when they
// do, else when their version does.
func testVersions(t *testing.T, be backend.Backend, size Size) {
	table := table()
	for _, op := range []backend.Op{backend.MatNT, backend.MatNN} {
		for _, version := range []*uint64{nil, new(uint64)} {
			for _, c := range newGen(op, size).all(table[op]) {
				if c.in[0].dead() && c.in[1].rows == 0 || c.in[0].rows == 0 || c.s.Count[c.axis] > 129 {
					continue
				}
				c.version = version
				b, x := must(t, be, c)
				b.again(t, x)
				for k := range c.in {
					if o := &c.in[k]; o.space == backend.Weight {
						o.v = slices.Clone(o.v)
						slices.Reverse(o.v)
					}
				}
				b.fill()
				if version != nil {
					*version++
				}
				got := b.again(t, x)
				c.same(t, "after the weights changed", c.run(t, be, strided), got)
				if err := x.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// testOrder checks that calls see what those before them wrote: y = 3 x + x after x = 2.
func testOrder(t *testing.T, be backend.Backend) {
	const rows, cols = 301, 17
	c := &call{op: backend.AddTo, axis: backend.Tok}
	c.s.Count[backend.Tok] = rows
	m := operand{axis: backend.Tok, space: backend.Arena, rows: rows, cols: cols}
	c.out, c.in = []operand{m}, []operand{m}
	c.out[0].v, c.in[0].v = make([]float64, rows*cols), make([]float64, rows*cols)
	b, x := must(t, be, c)
	if err := x.Close(); err != nil {
		t.Error(err)
	}
	y, in := b.bc.Out[0], b.bc.In[0]
	x, err := be.Encode([]backend.Call{
		{Op: backend.Fill, Node: "two", Out: []backend.Buf{in}, F: [4]float64{2}},
		{Op: backend.Scale, Node: "three", Out: []backend.Buf{y}, In: []backend.Buf{in}, F: [4]float64{3}},
		{Op: backend.AddTo, Node: "sum", Out: []backend.Buf{y}, In: []backend.Buf{in}},
	}, b.bind)
	if err != nil {
		t.Fatal(err)
	}
	b.each(&c.in[0], b.places[1], func(at, _ int) { b.img[backend.Arena].mine[at] = true })
	for _, v := range b.again(t, x)[0] {
		if v != 8 {
			t.Fatalf("3·2 + 2 is %g", v)
		}
	}
	if err := x.Close(); err != nil {
		t.Error(err)
	}
}

// testCancelled checks that a launch whose context has ended returns its error and computes nothing.
func testCancelled(t *testing.T, be backend.Backend) {
	g := newGen(backend.Fill, Tiny)
	c := fillCalls(g)[0]
	_, x := must(t, be, c)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := x.Launch(ctx, &c.s); !errors.Is(err, context.Canceled) {
		t.Errorf("launch with a cancelled context: %v", err)
	}
	if err := x.Close(); err != nil {
		t.Error(err)
	}
}

// testMemory checks that memory starts as zeros, keeps what is written, and has ends.
func testMemory(t *testing.T, be backend.Backend) {
	const size = 1000
	m, err := be.Reserve(size)
	if err != nil {
		t.Fatal(err)
	}
	if m.Size() != size {
		t.Errorf("size %d of %d bytes", m.Size(), size)
	}
	want, got := make([]byte, size), make([]byte, size)
	expect := func(what string) {
		t.Helper()
		if err := m.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: memory is not what was written", what)
		}
	}
	expect("new")
	for i := range want {
		want[i] = byte(i*7 + 1)
	}
	if err := m.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	expect("written")
	copy(want[300:], []byte{1, 2, 3, 4})
	if err := m.WriteAt(want[300:304], 300); err != nil {
		t.Fatal(err)
	}
	expect("written in part")
	clear(want[40:48])
	if err := m.Clear(40, 8); err != nil {
		t.Fatal(err)
	}
	expect("cleared in part")
	for what, err := range map[string]error{
		"read past the end":     m.ReadAt(got, 1),
		"read before the start": m.ReadAt(got[:1], -1),
		"write past the end":    m.WriteAt(got[:2], size-1),
		"clear past the end":    m.Clear(size-4, 8),
		"clear a negative size": m.Clear(8, -4),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	expect("after refusals")
	if err := m.Free(); err != nil {
		t.Error(err)
	}
}

// testOutside checks that buffers outside of their memory, or of none, are refused before they run.
func testOutside(t *testing.T, be backend.Backend) {
	c := binaryCalls(newGen(backend.Add, Tiny))[1]
	b, x := must(t, be, c)
	if err := x.Close(); err != nil {
		t.Error(err)
	}
	for what, spoil := range map[string]func(o *backend.Buf){
		"rows past the end":   func(o *backend.Buf) { o.Rows = 1 << 30 },
		"an offset before it": func(o *backend.Buf) { o.Off = -1 },
		"no such block":       func(o *backend.Buf) { o.Space, o.ID = backend.Weight, 5 },
		"a negative block":    func(o *backend.Buf) { o.Space, o.ID = backend.Weight, -1 },
	} {
		for _, result := range []bool{true, false} {
			bad := b.bc
			bad.Out, bad.In = slices.Clone(bad.Out), slices.Clone(bad.In)
			if result {
				spoil(&bad.Out[0])
			} else {
				spoil(&bad.In[1])
			}
			if x, err := be.Encode([]backend.Call{bad}, b.bind); err == nil {
				_ = x.Close()
				t.Errorf("%s: no error", what)
			}
		}
	}
}

// testAllocs checks that a launch allocates nothing.
func testAllocs(t *testing.T, be backend.Backend, c *call) {
	_, x := must(t, be, c)
	if n := testing.AllocsPerRun(5, func() {
		if err := launch(x, &c.s); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v: a launch allocates %g times", c, n)
	}
	if err := x.Close(); err != nil {
		t.Error(err)
	}
}
