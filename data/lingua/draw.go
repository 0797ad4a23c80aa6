package lingua

import "rung/nn/backend/philox"

// draw is a stream of random numbers that its seed and name identify.
type draw struct {
	seed uint64
	name string
	n    uint64 // numbers taken
}

// below is a number from 0 to n-1; the bias of a 64-bit modulus is below 2^-48 for any n here.
func (d *draw) below(n int) int {
	d.n++
	return int(philox.Uint64(d.seed, d.name, d.n-1) % uint64(n))
}

// chance is true with probability p.
func (d *draw) chance(p float64) bool { return float64(d.below(1<<32)) < p*(1<<32) }

// shuffle orders s at random (Fisher-Yates).
func shuffle[T any](d *draw, s []T) {
	for i := len(s) - 1; i > 0; i-- {
		j := d.below(i + 1)
		s[i], s[j] = s[j], s[i]
	}
}

// one is an element of s.
func one[T any](d *draw, s []T) T { return s[d.below(len(s))] }

// some is k different elements of s.
func some[T any](d *draw, s []T, k int) []T {
	c := append([]T(nil), s...)
	shuffle(d, c)
	return c[:k]
}
