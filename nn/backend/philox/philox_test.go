package philox

import (
	"math"
	"slices"
	"testing"
)

// The known answers that Random123 publishes for philox4x32-10.
func TestKnownAnswers(t *testing.T) {
	for _, c := range []struct {
		key  uint64
		ctr  [4]uint32
		want [4]uint32
	}{
		{0, [4]uint32{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{^uint64(0), [4]uint32{^uint32(0), ^uint32(0), ^uint32(0), ^uint32(0)}, [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{0x299f31d0a4093822, [4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, [4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		if got := Block(c.key, c.ctr); got != c.want {
			t.Errorf("Block(%x, %x) = %x, want %x", c.key, c.ctr, got, c.want)
		}
	}
}

func TestMoments(t *testing.T) {
	const n = 200_000
	v := make([]float64, n)
	Normal(v, 7, "moments")
	var s, q float64
	for _, x := range v {
		s, q = s+x, q+x*x
	}
	// Five standard errors: a false alarm once in two million seeds, and the seed is fixed.
	if m := s / n; math.Abs(m) > 5/math.Sqrt(n) {
		t.Errorf("mean %g", m)
	}
	if d := q/n - 1; math.Abs(d) > 5*math.Sqrt(2./n) {
		t.Errorf("variance off by %g", d)
	}
	other := make([]float64, n)
	Normal(other, 7, "another")
	if slices.Equal(v, other) {
		t.Error("two names, one stream")
	}
}

func TestPermIsAPermutation(t *testing.T) {
	for _, n := range []int{0, 1, 2, 1000} {
		p := Perm(n, 3, "order")
		slices.Sort(p)
		for i, v := range p {
			if v != i {
				t.Fatalf("n = %d: %d at %d", n, v, i)
			}
		}
	}
}

func TestThreshold(t *testing.T) {
	for _, c := range []struct {
		rate float64
		want uint32
	}{{0, 0}, {-1, 0}, {.5, 1 << 31}, {1, math.MaxUint32}, {2, math.MaxUint32}} {
		if got := Threshold(c.rate); got != c.want {
			t.Errorf("Threshold(%v) = %d, want %d", c.rate, got, c.want)
		}
	}
}
