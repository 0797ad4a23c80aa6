package nntest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"

	"rung/nn/backend"
)

// A layout is how the operands of a call lie in memory.
type layout int

const (
	strided layout = iota // each with another row stride, at an odd offset: columns of something wider
	tight                 // rows end to end, aligned
	padded                // rows of a whole number of vectors, aligned
	layouts
)

// An image is what the memory of a space should hold. Whatever is no value of an operand is a canary:
// a NaN that tells its place, or an index far outside of everything. A kernel that reads one spoils
// its results; one that writes one is found.
type image struct {
	b     []byte
	size  int // of an element
	index bool
	end   int    // elements in use
	mine  []bool // elements that the call is to write
}

func (m *image) grow(n int) {
	if more := n - len(m.mine); more > 0 {
		m.b, m.mine = slices.Grow(m.b, more*m.size), slices.Grow(m.mine, more)
	}
	for i := len(m.b) / m.size; i < n; i++ {
		switch {
		case m.index:
			m.b = binary.NativeEndian.AppendUint32(m.b, 0x5ca1ab1e)
		case m.size == 4:
			m.b = binary.NativeEndian.AppendUint32(m.b, 0x7fc00000|uint32(i)&0x1fffff)
		default:
			m.b = binary.NativeEndian.AppendUint64(m.b, 0x7ff8_0000_5a5a_0000^uint64(i))
		}
		m.mine = append(m.mine, false)
	}
	m.end = max(m.end, n)
}

func (m *image) set(i int, v float64) {
	if m.size == 4 {
		binary.NativeEndian.PutUint32(m.b[4*i:], math.Float32bits(float32(v)))
	} else {
		binary.NativeEndian.PutUint64(m.b[8*i:], math.Float64bits(v))
	}
}

func (m *image) get(i int) float64 {
	if m.size == 4 {
		return float64(math.Float32frombits(binary.NativeEndian.Uint32(m.b[4*i:])))
	}
	return math.Float64frombits(binary.NativeEndian.Uint64(m.b[8*i:]))
}

// A bench is a call laid out in a backend's memory.
type bench struct {
	c      *call
	be     backend.Backend
	l      layout
	bc     backend.Call
	bind   backend.Binding
	img    [backend.NumSpaces]image
	mem    [backend.NumSpaces]backend.Memory
	places []place // of results, then inputs
	lds    map[int]bool
}

// A place is where an operand is: at what element of its space.
type place struct {
	buf backend.Buf
	at  int
}

// lay makes the memory of c and encodes it.
func lay(be backend.Backend, c *call, l layout) (*bench, backend.Exec, error) {
	b := &bench{c: c, be: be, l: l, lds: map[int]bool{}}
	for s := range b.img {
		b.img[s] = image{size: be.Float().Size()}
	}
	b.img[backend.Index] = image{size: 4, index: true}
	if c.units != nil {
		b.placeUnits()
	}
	b.bc = backend.Call{Op: c.op, Node: c.op.String(), I: c.I, F: c.F}
	for k := range c.out {
		b.bc.Out = append(b.bc.Out, b.place(&c.out[k], k))
	}
	b.closeUnits()
	for k := range c.in {
		b.bc.In = append(b.bc.In, b.place(&c.in[k], len(c.out)+k))
	}
	b.fill()
	if err := b.reserve(); err != nil {
		return nil, nil, err
	}
	x, err := be.Encode([]backend.Call{b.bc}, b.bind)
	return b, x, err
}

// free gives the memory back.
func (b *bench) free() {
	for _, m := range b.mem {
		if m != nil {
			_ = m.Free() // a test's memory: nothing depends on it any more
		}
	}
}

// stride is the row stride of operand k with cols columns: no two operands have the same.
func (b *bench) stride(o *operand, k int) int {
	ld := o.cols
	switch {
	case b.l == padded && o.space != backend.Index:
		return (ld/16 + 1) * 16
	case b.l == tight || o.rows <= 1:
		return ld
	}
	for ld += 1 + (5*k+3)%7; b.lds[ld]; ld++ {
	}
	b.lds[ld] = true
	return ld
}

// place finds room for operand k.
func (b *bench) place(o *operand, k int) backend.Buf {
	if o.dead() {
		b.places = append(b.places, place{})
		return backend.Buf{}
	}
	m := &b.img[o.space]
	rows, cols := o.rows, o.cols
	if o.axis != backend.Fixed {
		rows += b.c.spare
	}
	if o.perRow || o.offsets {
		cols += b.c.spare
	}
	buf := backend.Buf{Space: o.space, Axis: o.axis, Acc: o.acc, First: o.acc, Rows: rows, Cols: cols, Ld: b.stride(o, k)}
	at := (m.end + 16 + 15) &^ 15
	if b.l == strided {
		at += 1 + 2*(k%5)
	}
	m.grow(at + max(0, rows-1)*buf.Ld + cols + 16)
	b.bindBlock(o, &buf, at)
	b.places = append(b.places, place{buf, at})
	return buf
}

// bindBlock binds a block for an operand that lies at element at, so that its offset is that of the block
// and one of its own.
func (b *bench) bindBlock(o *operand, buf *backend.Buf, at int) {
	buf.Off = at
	if o.space == backend.Arena {
		return
	}
	blocks := &b.bind.Blocks[o.space]
	buf.Off = 3
	if b.l == tight {
		buf.Off = 0
	}
	buf.ID = len(*blocks)
	block := backend.Block{Off: at - buf.Off}
	if o.space == backend.Weight {
		block.Version = b.c.version
	}
	*blocks = append(*blocks, block)
}

// placeUnits makes the index inputs with the bounds of units, for all axes.
func (b *bench) placeUnits() {
	o := operand{axis: backend.Fixed, space: backend.Index, rows: 1, cols: len(b.c.units), ints: b.c.units, offsets: true}
	for x := range backend.NumAxes {
		b.place(&o, x)
		b.bind.Units[x] = x
		p := &b.places[x]
		blocks := b.bind.Blocks[backend.Index]
		blocks[x].Off, p.buf.Off = p.at, 0 // a Units input has no offset of its own
		for i, v := range b.c.units {
			binary.NativeEndian.PutUint32(b.img[backend.Index].b[4*(p.at+i):], uint32(v))
		}
	}
	b.places = nil
	b.lds = map[int]bool{}
}

// closeUnits makes room for the gradients of all units, now that those of one have their places.
func (b *bench) closeUnits() {
	if b.c.units == nil {
		return
	}
	m := &b.img[backend.Grad]
	b.bind.PerUnit = m.end + 5
	m.grow((len(b.c.units) - 1 + b.c.spare) * b.bind.PerUnit)
}

// each calls f with the place of every value of operand k: where it is, and its number.
func (b *bench) each(o *operand, p place, f func(at, i int)) {
	if o.dead() {
		return
	}
	n := o.rows * o.cols
	units := 1
	if b.c.units != nil && o.space == backend.Grad {
		units = len(b.c.units) - 1
	}
	for u := range units {
		for i := range n {
			f(p.at+u*b.bind.PerUnit+i/o.cols*p.buf.Ld+i%o.cols, u*n+i)
		}
	}
}

// fill writes the values into the images.
func (b *bench) fill() {
	for k := range b.places {
		o := b.operand(k)
		m := &b.img[o.space]
		b.each(o, b.places[k], func(at, i int) {
			m.mine[at] = m.mine[at] || k < len(b.c.out)
			switch {
			case o.space == backend.Index:
				binary.NativeEndian.PutUint32(m.b[4*at:], uint32(o.ints[i]))
			case o.v != nil:
				m.set(at, o.v[i])
			}
		})
	}
}

func (b *bench) operand(k int) *operand {
	if k < len(b.c.out) {
		return &b.c.out[k]
	}
	return &b.c.in[k-len(b.c.out)]
}

// reserve makes the memory and binds it.
func (b *bench) reserve() error {
	for s := range b.img {
		if b.img[s].end == 0 {
			continue
		}
		m, err := b.be.Reserve(int64(len(b.img[s].b)))
		if err != nil {
			return err
		}
		b.mem[s] = m
		for i := range b.bind.Blocks[s] {
			b.bind.Blocks[s][i].Mem = m
		}
	}
	b.bind.Arena = b.mem[backend.Arena]
	return b.restore()
}

// restore writes all memory as it was before the call.
func (b *bench) restore() error {
	for s, m := range b.mem {
		if m == nil {
			continue
		}
		if err := m.WriteAt(b.img[s].b, 0); err != nil {
			return err
		}
	}
	return nil
}

// results reads what the call wrote, and checks that it wrote that and nothing else.
func (b *bench) results() ([][]float64, error) {
	var now [backend.NumSpaces]image
	for s, m := range b.mem {
		if m == nil {
			continue
		}
		was := &b.img[s]
		now[s] = image{b: make([]byte, len(was.b)), size: was.size}
		if err := m.ReadAt(now[s].b, 0); err != nil {
			return nil, err
		}
		for i, mine := range was.mine {
			lo, hi := i*was.size, (i+1)*was.size
			if !mine && !bytes.Equal(was.b[lo:hi], now[s].b[lo:hi]) {
				return nil, fmt.Errorf("element %d of space %d was written: %s", i, s, b.near(backend.Space(s), i))
			}
		}
	}
	out := make([][]float64, len(b.c.out))
	for k := range b.c.out {
		o, m := &b.c.out[k], &now[b.c.out[k].space]
		var err error
		b.each(o, b.places[k], func(at, i int) {
			if lo, hi := at*m.size, (at+1)*m.size; o.v == nil && bytes.Equal(m.b[lo:hi], b.img[o.space].b[lo:hi]) {
				err = fmt.Errorf("result %d: element %d of %dx%d was not written", k, i, o.rows, o.cols)
			}
			out[k] = append(out[k], m.get(at))
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// near says which operand element i of a space is at or after.
func (b *bench) near(s backend.Space, i int) string {
	best, what := -1, "before every operand"
	for k, p := range b.places {
		if o := b.operand(k); o.space == s && p.at <= i && p.at > best {
			name, n := "result", k
			if k >= len(b.c.out) {
				name, n = "input", k-len(b.c.out)
			}
			best, what = p.at, fmt.Sprintf("%d elements from the start of %s %d (%dx%d, stride %d)", i-p.at, name, n, o.rows, o.cols, p.buf.Ld)
		}
	}
	return what
}

// run runs c on be and returns the values of its results.
func (c *call) run(t *testing.T, be backend.Backend, l layout) [][]float64 {
	t.Helper()
	b, x, err := lay(be, c, l)
	if err != nil {
		t.Fatalf("%v: encode: %v", c, err)
	}
	defer b.free()
	if err := launch(x, &c.s); err != nil {
		t.Fatalf("%v: launch: %v", c, err)
	}
	out, err := b.results()
	if err != nil {
		t.Fatalf("%s, layout %d: %v: %v", be.Name(), l, c, err)
	}
	if err := x.Close(); err != nil {
		t.Fatalf("%v: close: %v", c, err)
	}
	return out
}
