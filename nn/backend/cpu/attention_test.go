package cpu_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/backend"
	"rung/nn/backend/ref"
)

// attention is a forward probe over sequences of given lengths. One more sequence is not used, and
// its offset is the capacity.
func attention(lengths []int, heads, width int, one bool, rate, scale float64) probe {
	offs, keys, total := []int32{0}, []int32{}, 0
	for i, l := range lengths {
		total += l
		offs, keys = append(offs, int32(total)), append(keys, int32(100+i*i))
	}
	n, d := len(lengths), heads*width
	offs, keys = append(offs, int32(total)), append(keys, 0)
	axis, rows, sel := backend.Tok, total+2, 0
	if one {
		axis, rows, sel = backend.Seq, n+1, 1
	}
	q := mat(axis, rows, d, 3*d)
	q.scale = scale
	return probe{
		op: backend.Attn, i: [4]int{heads, sel, 17}, f: [4]float64{rate}, s: counts(total, n, n), floor: 1,
		outs: []operand{mat(axis, rows, d, 1), mat(axis, rows, heads, 2)},
		ins:  []operand{q, mat(backend.Tok, rows+total, d, 2*d), mat(backend.Tok, rows+total, d, 5), index(backend.Seq, offs...), index(backend.Seq, keys...)},
	}
}

// backward is the probe of the gradients of a forward one.
func backward(t testing.TB, f probe) probe {
	out := once[float64](t, ref.New[float64](), f)
	given := func(k int) operand {
		o := f.outs[k]
		for i := range f.real(o) {
			o.values = append(o.values, out[k][i*(o.cols+o.pad):i*(o.cols+o.pad)+o.cols]...)
		}
		return o
	}
	dy := f.outs[0]
	dy.pad = 4
	q, k, v := f.ins[0], f.ins[1], f.ins[2]
	p := f
	p.op = backend.AttnGrad
	p.outs = []operand{q, k, v}
	p.ins = append(append([]operand{}, f.ins...), given(0), given(1), dy)
	// The inputs are those of the forward probe: drawn anew they would not fit lse.
	s := encode[float64](t, ref.New[float64](), f)
	defer s.close(t)
	for i := range 3 {
		o := p.ins[i]
		for r := range f.real(o) {
			at := s.ins[i] + r*(o.cols+o.pad)
			p.ins[i].values = append(p.ins[i].values, floats(s)[at:at+o.cols]...)
		}
	}
	return p
}

func TestAttn(t *testing.T) {
	lengths := [][]int{{1}, {0, 7, 0, 17, 1}, {39, 64, 5}, {129}, {530}}
	for _, l := range lengths {
		for _, width := range []int{5, 16, 32} {
			if l[0] > 500 && width != 32 {
				continue
			}
			for _, rate := range []float64{0, .1} {
				name := fmt.Sprint(l, width, rate)
				f := attention(l, 2, width, false, rate, 1)
				check(t, name, f, 2e-6)
				check(t, name+" gradients", backward(t, f), 4e-6)
			}
		}
	}
}

// Many sequences have several heads in a piece: of five all with one worker, with more workers four, two and one.
func TestAttnHeads(t *testing.T) {
	for _, one := range []bool{false, true} {
		for _, rate := range []float64{0, .1} {
			f := attention([]int{4, 0, 9, 1, 20, 3, 5, 2, 0, 33, 7, 6, 11, 8}, 5, 8, one, rate, 1)
			check(t, fmt.Sprint("one query ", one, ", rate ", rate), f, 2e-6)
			check(t, fmt.Sprint("one query ", one, ", rate ", rate, ", gradients"), backward(t, f), 4e-6)
		}
	}
}

func TestAttnOneQuery(t *testing.T) {
	f := attention([]int{5, 0, 40, 1}, 3, 8, true, .2, 1)
	check(t, "one query", f, 2e-6)
	check(t, "one query, gradients", backward(t, f), 4e-6)
}

func TestAttnGreatScores(t *testing.T) {
	f := attention([]int{60, 520}, 1, 16, false, 0, 60) // scores of ±200
	check(t, "great scores", f, 1e-4)
	check(t, "great scores, gradients", backward(t, f), 1e-4)
}

func TestAttnDead(t *testing.T) {
	f := attention([]int{9, 33}, 2, 8, false, .1, 1)
	f.outs[1] = dead
	check(t, "no lse", f, 2e-6)
	f.outs[0], f.outs[1] = dead, mat(backend.Tok, f.ins[1].rows, 2, 2)
	check(t, "only lse", f, 2e-6)
	f = attention([]int{9, 33}, 2, 8, false, .1, 1)
	for k := range 3 {
		p := backward(t, f)
		p.outs[k] = dead
		check(t, fmt.Sprint("gradient ", k, " dead"), p, 4e-6)
	}
}

// TestSequencesAlone shows that a sequence's bits are the same by itself as among others.
func TestSequencesAlone(t *testing.T) {
	for isa, be := range backends(t, 2) {
		some := attention([]int{30, 70}, 2, 32, false, .1, 1)
		many := attention([]int{30, 70, 128, 520}, 2, 32, false, .1, 1)
		many.ins[0].values, many.ins[1].values, many.ins[2].values = drawn(t, some, many, 0), drawn(t, some, many, 1), drawn(t, some, many, 2)
		a, b := once[float32](t, be, some)[0], once[float32](t, be, many)[0]
		require.Equal(t, a[:100*65], b[:100*65], isa)
	}
}

// drawn is input k of a probe with more rows, the first as those of another.
func drawn(t testing.TB, some, many probe, k int) (values []float64) {
	s, m := encode[float64](t, ref.New[float64](), some), encode[float64](t, ref.New[float64](), many)
	defer s.close(t)
	defer m.close(t)
	o := some.ins[k]
	for i := range many.s.Count[backend.Tok] {
		from, at := floats(m), m.ins[k]
		if i < some.s.Count[backend.Tok] {
			from, at = floats(s), s.ins[k]
		}
		at += i * (o.cols + o.pad)
		values = append(values, from[at:at+o.cols]...)
	}
	return values
}
