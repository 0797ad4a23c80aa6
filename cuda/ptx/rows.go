package ptx

import (
	"math"
	"math/bits"
)

// A row holds one register of a warp's 32 lanes.
type (
	row32 = [32]uint32
	row64 = [32]uint64
)

const allLanes = ^uint32(0)

func f32(u uint32) float32     { return math.Float32frombits(u) }
func f32bits(f float32) uint32 { return math.Float32bits(f) }
func f64(u uint64) float64     { return math.Float64frombits(u) }
func f64bits(f float64) uint64 { return math.Float64bits(f) }

// blend copies the lanes of a mask.
func blend[T uint32 | uint64](d, s *[32]T, mask uint32) {
	for ; mask != 0; mask &= mask - 1 {
		l := bits.TrailingZeros32(mask) & 31
		d[l] = s[l]
	}
}

// The operators below compute all lanes: an instruction that runs on some blends them in.
type (
	unary32   func(d, a *row32)
	binary32  func(d, a, b *row32)
	ternary32 func(d, a, b, c *row32)
	unary64   func(d, a *row64)
	binary64  func(d, a, b *row64)
	ternary64 func(d, a, b, c *row64)
)

func do1[T uint32 | uint64](f func(d, a *[32]T), d, a *[32]T, mask uint32) {
	if mask == allLanes {
		f(d, a)
		return
	}
	var t [32]T
	f(&t, a)
	blend(d, &t, mask)
}

func do2[T uint32 | uint64](f func(d, a, b *[32]T), d, a, b *[32]T, mask uint32) {
	if mask == allLanes {
		f(d, a, b)
		return
	}
	var t [32]T
	f(&t, a, b)
	blend(d, &t, mask)
}

func do3[T uint32 | uint64](f func(d, a, b, c *[32]T), d, a, b, c *[32]T, mask uint32) {
	if mask == allLanes {
		f(d, a, b, c)
		return
	}
	var t [32]T
	f(&t, a, b, c)
	blend(d, &t, mask)
}

// each1, each2 and each3 make operators of functions of one lane.
func each1[T uint32 | uint64](f func(a T) T) func(d, a *[32]T) {
	return func(d, a *[32]T) {
		for i := range d {
			d[i] = f(a[i])
		}
	}
}

func each2[T uint32 | uint64](f func(a, b T) T) func(d, a, b *[32]T) {
	return func(d, a, b *[32]T) {
		for i := range d {
			d[i] = f(a[i], b[i])
		}
	}
}

func each3[T uint32 | uint64](f func(a, b, c T) T) func(d, a, b, c *[32]T) {
	return func(d, a, b, c *[32]T) {
		for i := range d {
			d[i] = f(a[i], b[i], c[i])
		}
	}
}
