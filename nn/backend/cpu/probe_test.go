package cpu_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/backend"
	"rung/nn/backend/cpu"
	"rung/nn/backend/host"
	"rung/nn/backend/philox"
	"rung/nn/backend/ref"
)

// An operand is one buffer of a probe: a matrix with room between its rows, or an index. What lies
// between rows and beyond the real ones is NaN in inputs, so that reading it shows, and a number in
// results that must be there afterwards.
type operand struct {
	dead       bool
	space      backend.Space
	axis       backend.Axis
	rows, cols int
	pad        int
	acc        bool
	drawn      bool    // a result that is also read
	scale      float64 // of normal draws; 0: 1
	values     []float64
	ints       []int32
	version    *uint64
	stride     int // of a gradient kept by unit: elements from unit to unit
}

// A probe is one call on operands.
type probe struct {
	op        backend.Op
	outs, ins []operand
	i         [4]int
	f         [4]float64
	s         backend.Scalars
	floor     float64 // of the magnitude that errors are compared with
	units     []int32 // first rows of units, for gradients by unit
	brief     bool    // bf16 holds what inputs are: products that round to it multiply exactly
}

const untouched = 12345

func mat(axis backend.Axis, rows, cols, pad int) operand {
	return operand{space: backend.Arena, axis: axis, rows: rows, cols: cols, pad: pad}
}

func weight(rows, cols, pad int) operand { return mat(backend.Fixed, rows, cols, pad) }

func index(axis backend.Axis, v ...int32) operand {
	return operand{space: backend.Index, axis: axis, rows: 1, cols: len(v), ints: v}
}

var dead = operand{dead: true}

// size is the elements that an operand takes.
func (o operand) size(units int) int {
	if o.stride > 0 {
		return o.stride * units
	}
	return o.rows * (o.cols + o.pad)
}

func (p probe) real(o operand) int {
	if o.axis == backend.Fixed {
		return o.rows
	}
	return min(o.rows, p.s.Count[o.axis])
}

// A session is a probe encoded on a backend.
type session[F host.Float] struct {
	p    probe
	x    backend.Exec
	mem  backend.Memory
	offs []int // of results
	ins  []int // of inputs
}

func (s *session[F]) close(t testing.TB) {
	require.NoError(t, s.x.Close())
	require.NoError(t, s.mem.Free())
}

// encode lays the operands out and encodes the call.
func encode[F host.Float](t testing.TB, be backend.Backend, p probe) *session[F] {
	t.Helper()
	units := max(1, len(p.units)-1)
	total, ints := 16, 16
	all := append(append([]operand{}, p.outs...), p.ins...)
	for _, o := range all {
		total += o.size(units) + 16
		ints += len(o.ints) + 1
	}
	ints += len(p.units)
	mem, err := be.Reserve(int64(total * be.Float().Size()))
	require.NoError(t, err)
	imem, err := be.Reserve(int64(ints * 4))
	require.NoError(t, err)
	t.Cleanup(func() { _ = imem.Free() })
	floats, indexes := host.Elements[F](mem.Host()), host.Elements[int32](imem.Host())
	s := &session[F]{p: p, mem: mem}
	bind := backend.Binding{Arena: mem}
	off, ioff := 0, 0
	if p.units != nil {
		copy(indexes, p.units)
		bind.Blocks[backend.Index] = []backend.Block{{Mem: imem}}
		ioff = len(p.units)
	}
	call := backend.Call{Op: p.op, Node: "probe", I: p.i, F: p.f}
	for k, o := range all {
		var b backend.Buf
		switch {
		case o.dead:
		case o.space == backend.Index:
			copy(indexes[ioff:], o.ints)
			b = backend.Buf{Space: o.space, Axis: o.axis, ID: len(bind.Blocks[o.space]), Rows: 1, Cols: o.cols, Ld: o.cols}
			bind.Blocks[o.space] = append(bind.Blocks[o.space], backend.Block{Mem: imem, Off: ioff})
			ioff += len(o.ints)
		default:
			b = backend.Buf{Space: o.space, Axis: o.axis, Acc: o.acc, Rows: o.rows, Cols: o.cols, Ld: o.cols + o.pad}
			if o.space == backend.Arena {
				b.Off = off
			} else {
				b.ID = len(bind.Blocks[o.space])
				bind.Blocks[o.space] = append(bind.Blocks[o.space], backend.Block{Mem: mem, Off: off, Version: o.version})
			}
			if o.stride > 0 {
				bind.PerUnit = o.stride
			}
			fillOperand(p, o, k, k < len(p.outs), units, floats[off:])
		}
		if k < len(p.outs) {
			call.Out = append(call.Out, b)
			s.offs = append(s.offs, off)
		} else {
			call.In = append(call.In, b)
			s.ins = append(s.ins, off)
		}
		if !o.dead && o.space != backend.Index {
			off += o.size(units)
		}
	}
	s.x, err = be.Encode([]backend.Call{call}, bind)
	require.NoError(t, err)
	return s
}

// fillOperand draws the elements of an operand.
func fillOperand[F host.Float](p probe, o operand, k int, result bool, units int, dst []F) {
	dst = dst[:o.size(units)]
	for j := range dst {
		dst[j] = F(math.NaN())
		if result {
			dst[j] = untouched
		}
	}
	draws := make([]float64, len(dst))
	philox.Normal(draws, 7, fmt.Sprint(p.op, k))
	if o.values != nil {
		copy(draws, o.values)
	}
	scale := o.scale
	if scale == 0 || o.values != nil {
		scale = 1
	}
	for u := range units {
		for i := range p.real(o) {
			for j := range o.cols {
				at := u*o.stride + i*(o.cols+o.pad) + j
				n := at
				if o.values != nil {
					n = i*o.cols + j
				}
				if !result || o.acc || o.drawn {
					v := float32(draws[n] * scale) // the same numbers in both precisions
					if p.brief {
						v = math.Float32frombits(math.Float32bits(v) &^ 0xffff)
					}
					dst[at] = F(v)
				}
			}
		}
		if o.stride == 0 {
			break
		}
	}
}

func floats[F host.Float](s *session[F]) []F { return host.Elements[F](s.mem.Host()) }

// run launches once and returns the results, every element of them.
func (s *session[F]) run(t testing.TB) [][]F {
	t.Helper()
	require.NoError(t, s.x.Launch(t.Context(), &s.p.s))
	units := max(1, len(s.p.units)-1)
	all := floats(s)
	var out [][]F
	for k, o := range s.p.outs {
		if o.dead {
			out = append(out, nil)
			continue
		}
		out = append(out, append([]F{}, all[s.offs[k]:s.offs[k]+o.size(units)]...))
	}
	return out
}

func once[F host.Float](t testing.TB, be backend.Backend, p probe) [][]F {
	t.Helper()
	s := encode[F](t, be, p)
	defer s.close(t)
	return s.run(t)
}

// backends are those of this package: one for each instruction set but ref.
func backends(t testing.TB, workers int) map[string]backend.Backend {
	return on(t, workers, cpu.ISAs()[1:])
}

// rounding are those whose products round their factors to bf16, if the machine has any.
func rounding(t testing.TB, workers int) map[string]backend.Backend {
	return on(t, workers, cpu.BF16())
}

func on(t testing.TB, workers int, isas []string) map[string]backend.Backend {
	pool := host.NewPool(workers)
	t.Cleanup(pool.Close)
	m := map[string]backend.Backend{}
	for _, isa := range isas {
		be, err := cpu.On(pool, isa)
		require.NoError(t, err)
		m[isa] = be
	}
	return m
}

// check compares a probe with the reference in float64, to tol of each element and of the greatest,
// and demands the same bits of any number of workers. Products that round their factors get such as they leave alone.
func check(t *testing.T, name string, p probe, tol float64) {
	t.Helper()
	checkOn(t, name, p, tol, backends)
	if slices.Contains([]backend.Op{backend.MatNT, backend.MatNN, backend.MatTN}, p.op) {
		p.brief = true
		checkOn(t, name, p, tol, rounding)
	}
}

func checkOn(t *testing.T, name string, p probe, tol float64, backends func(testing.TB, int) map[string]backend.Backend) {
	t.Helper()
	if p.s.Count == [backend.NumAxes]int{} {
		t.Fatal("no counts")
	}
	want := once[float64](t, ref.New[float64](), p)
	var first map[string][][]float32
	for _, workers := range []int{1, 2, 3, 7} {
		got := map[string][][]float32{}
		for isa, be := range backends(t, workers) {
			got[isa] = once[float32](t, be, p)
			if workers == 1 {
				compare(t, name+" on "+isa, p, got[isa], want, tol)
				continue
			}
			for k, out := range first[isa] {
				for j := range out {
					if math.Float32bits(out[j]) != math.Float32bits(got[isa][k][j]) {
						t.Fatalf("%s on %s: result %d at %d is %v with 1 worker, %v with %d", name, isa, k, j, out[j], got[isa][k][j], workers)
					}
				}
			}
		}
		if workers == 1 {
			first = got
		}
	}
}

func compare(t *testing.T, name string, p probe, got [][]float32, want [][]float64, tol float64) {
	t.Helper()
	for k := range want {
		top := p.floor
		for _, v := range want[k] {
			if v != untouched && !math.IsInf(v, 0) {
				top = math.Max(top, math.Abs(v))
			}
		}
		for j, w := range want[k] {
			g := float64(got[k][j])
			if w == untouched && g != untouched || !(math.Abs(g-w) <= tol*(math.Abs(w)+top)) && g != w {
				ld := p.outs[k].cols + p.outs[k].pad
				t.Fatalf("%s: result %d, row %d, column %d is %v, want %v", name, k, j/ld, j%ld, g, w)
			}
		}
	}
}

// counts are scalars of T tokens, N sequences and B units.
func counts(t, n, b int) backend.Scalars {
	return backend.Scalars{Count: [backend.NumAxes]int{0, t, n, b}, Seed: 0x1234567890abcdef, Step: 3}
}
