package ptx

// Tensor-core instructions: a warp multiplies two small matrices whose elements are spread over its lanes' registers.

// opLdmatrix loads one, two or four 8x8 matrices of 16-bit elements: lane i gives the address of row i%8 of matrix i/8.
func opLdmatrix(b *builder, s *statement, in *instruction) {
	b.allow(s, "sync", "aligned", "m8n8", "x1", "x2", "x4", "trans", "shared", "shared::cta")
	if !b.want(s, 2, 2) || s.typ() != "b16" || !s.has("m8n8") {
		b.fail("unknown shape")
		return
	}
	count := 1
	switch {
	case s.has("x2"):
		count = 2
	case s.has("x4"):
		count = 4
	}
	space := b.space(s)
	b.touches(space, 16)
	outs, a, trans := b.outs(s.args[0], count), b.addressOf(s.args[1]), s.has("trans")
	if b.err != nil {
		return
	}
	in.kind = kindCollective
	in.run = func(w *warp, m uint32) {
		w.need(m)
		var at row64
		var rows [32][]byte
		a.addresses(w, &at)
		for l := range 8 * count {
			rows[l] = w.bytes(space, l, at[l], 16, reads)
		}
		element := func(i, r, c int) uint64 { return load(rows[8*i+r][2*c : 2*c+2]) }
		for l := range 32 {
			r, c := l/4, l%4*2
			for i, o := range outs {
				if trans {
					o.set(w, l, element(i, c, r)|element(i, c+1, r)<<16)
				} else {
					o.set(w, l, element(i, r, c)|element(i, r, c+1)<<16)
				}
			}
		}
		w.unlock()
	}
}

// need fails where a lane of the warp takes no part.
func (w *warp) need(m uint32) {
	if m != allLanes {
		w.fault(lowest(m), Collective, "only lanes %#x of the warp take part", m)
	}
}

// A fragment says where a lane's i-th element of a matrix is: lane group g (0 to 7) and place q in it (0 to 3).
type fragment func(g, q, i int) (row, column int)

// A shape is an mma instruction's: depth k, and how A's and B's elements lie in registers.
type shape struct {
	k       int
	a, b    fragment
	packed  int // elements of a register
	element func(u uint32, i int) float64
}

// mmaShape is the shape of a statement, for the element types of A and B.
func mmaShape(s *statement) (shape, bool) {
	half := func(name string) func(u uint32, i int) float64 {
		get, _, _ := halves(name)
		return get
	}
	tf32 := func(u uint32, _ int) float64 { return float64(f32(u &^ (1<<13 - 1))) }
	typ := s.types[1]
	switch {
	case s.has("m16n8k16") && (typ == "bf16" || typ == "f16"):
		return shape{
			k: 16, packed: 2, element: half(typ + "x2"),
			a: func(g, q, i int) (int, int) { return g + 8*(i>>1&1), 2*q + i&1 + 8*(i>>2) },
			b: func(g, q, i int) (int, int) { return 2*q + i&1 + 8*(i>>1), g },
		}, true
	case s.has("m16n8k8") && (typ == "bf16" || typ == "f16"):
		return shape{
			k: 8, packed: 2, element: half(typ + "x2"),
			a: func(g, q, i int) (int, int) { return g + 8*(i>>1), 2*q + i&1 },
			b: func(g, q, i int) (int, int) { return 2*q + i&1, g },
		}, true
	case s.has("m16n8k8") && typ == "tf32":
		return shape{
			k: 8, packed: 1, element: tf32,
			a: func(g, q, i int) (int, int) { return g + 8*(i&1), q + 4*(i>>1) },
			b: func(g, q, i int) (int, int) { return q + 4*i, g },
		}, true
	case s.has("m16n8k4") && typ == "tf32":
		return shape{
			k: 4, packed: 1, element: tf32,
			a: func(g, q, i int) (int, int) { return g + 8*i, q },
			b: func(g, q, _ int) (int, int) { return q, g },
		}, true
	}
	return shape{}, false
}

// opMMA is mma.sync: D = A B + C with D and C in single precision. Products and sums are made in double and rounded once;
// a device leaves their order open.
func opMMA(b *builder, s *statement, in *instruction) {
	b.allow(s, "sync", "aligned", "m16n8k4", "m16n8k8", "m16n8k16", "row", "col")
	if !b.want(s, 4, 4) {
		return
	}
	// split the types: those of registers are written .f32.bf16.bf16.f32
	if len(s.types) != 4 || s.types[0] != "f32" || s.types[3] != "f32" || s.types[1] != s.types[2] {
		b.fail("unknown types")
		return
	}
	sh, ok := mmaShape(s)
	if !ok {
		b.fail("unknown shape")
		return
	}
	d, x := b.outs(s.args[0], 4), b.ins(s.args[1], 16*sh.k/32/sh.packed, "b32")
	y, c := b.ins(s.args[2], 8*sh.k/32/sh.packed, "b32"), b.ins(s.args[3], 4, "f32")
	if b.err != nil {
		return
	}
	in.kind = kindCollective
	in.run = func(w *warp, m uint32) {
		w.need(m)
		var ma [16][16]float64 // (row, k)
		var mb [8][16]float64  // (column, k)
		for l := range 32 {
			g, q := l/4, l%4
			for i := range len(x) * sh.packed {
				r, k := sh.a(g, q, i)
				ma[r&15][k&15] = sh.element(w.r32[x[i/sh.packed].row][l], i%sh.packed)
			}
			for i := range len(y) * sh.packed {
				k, n := sh.b(g, q, i)
				mb[n&7][k&15] = sh.element(w.r32[y[i/sh.packed].row][l], i%sh.packed)
			}
		}
		for l := range 32 {
			var sums [4]float64
			for i := range sums {
				p, q := &ma[l/4+8*(i>>1)], &mb[l%4*2+i&1]
				v := float64(f32(w.r32[c[i].row][l]))
				for k := range sh.k {
					v += p[k&15] * q[k&15]
				}
				sums[i] = v
			}
			for i, v := range sums {
				w.r32[d[i].row][l] = f32bits(float32(v))
			}
		}
	}
}
