// Package philox is the counter-based generator Philox4x32-10 (Salmon et al., "Parallel random
// numbers: as easy as 1, 2, 3", SC 2011): every random draw of the project is a pure function of a
// key and a counter, so that masks survive re-batching, recomputation and resuming.
package philox

import (
	"hash/fnv"
	"math"
)

const (
	mul0, mul1   = 0xD2511F53, 0xCD9E8D57
	weyl0, weyl1 = 0x9E3779B9, 0xBB67AE85
)

// Block returns the four words at counter c under key k.
func Block(k uint64, c [4]uint32) [4]uint32 {
	k0, k1 := uint32(k), uint32(k>>32)
	for range 10 {
		p0, p1 := uint64(mul0)*uint64(c[0]), uint64(mul1)*uint64(c[2])
		c = [4]uint32{uint32(p1>>32) ^ c[1] ^ k0, uint32(p1), uint32(p0>>32) ^ c[3] ^ k1, uint32(p0)}
		k0, k1 = k0+weyl0, k1+weyl1
	}
	return c
}

// Threshold is the word below which an element is dropped at rate: P(word < Threshold) = rate to 2^-32.
func Threshold(rate float64) uint32 {
	return uint32(math.Min(math.Max(rate, 0)*(1<<32), math.MaxUint32))
}

// Word is the random word that decides about one element of one dropout site of one sequence in one
// step: counter (element/4, site, row key, step), word element%4.
func Word(seed, step uint64, key, site, element uint32) uint32 {
	return Words(seed, step, key, site, element>>2)[element&3]
}

// Words is the words of elements 4i to 4i+3.
func Words(seed, step uint64, key, site, i uint32) [4]uint32 {
	return Block(seed, [4]uint32{i, site, key, uint32(step)})
}

// Uniform is a number in (0,1), of 32 random bits.
func Uniform(w uint32) float64 { return (float64(w) + .5) / (1 << 32) }

// Normal fills dst with independent N(0,1) draws of the stream that name and seed identify
// (Box-Muller on pairs of words).
func Normal(dst []float64, seed uint64, name string) {
	s := stream(name)
	for i := 0; i < len(dst); i += 4 {
		w := Block(seed, [4]uint32{uint32(i >> 2), uint32(i >> 34), uint32(s), uint32(s >> 32)})
		for j := 0; j < 4 && i+j < len(dst); j += 2 {
			r, t := math.Sqrt(-2*math.Log(Uniform(w[j]))), 2*math.Pi*Uniform(w[j+1])
			dst[i+j] = r * math.Cos(t)
			if i+j+1 < len(dst) {
				dst[i+j+1] = r * math.Sin(t)
			}
		}
	}
}

// Uniforms fills dst with independent draws from (0,1) of the stream that name and seed identify.
func Uniforms(dst []float64, seed uint64, name string) {
	s := stream(name)
	for i := range dst {
		w := Block(seed, [4]uint32{uint32(i >> 2), uint32(i >> 34), uint32(s), uint32(s >> 32)})
		dst[i] = Uniform(w[i&3])
	}
}

// Uint64 is draw i of the stream that name and seed identify.
func Uint64(seed uint64, name string, i uint64) uint64 {
	s := stream(name)
	w := Block(seed, [4]uint32{uint32(i), uint32(i >> 32), uint32(s), uint32(s >> 32)})
	return uint64(w[0]) | uint64(w[1])<<32
}

// Perm returns a random order of 0 to n-1 (Fisher-Yates; the bias of a 64-bit modulus is below 2^-32).
func Perm(n int, seed uint64, name string) []int {
	p := make([]int, n)
	for i := range p {
		j := int(Uint64(seed, name, uint64(i)) % uint64(i+1))
		p[i], p[j] = p[j], i
	}
	return p
}

func stream(name string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	return h.Sum64()
}
