package privacy

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// The noise. Element j of a step has four standard normals of its own, added up and halved: the sum of
// several is what makes it hopeless to undo the rounding of float64 and find which of the few
// representable values of noise can have been drawn (Mironov, "On significance of the least significant
// bits for differential privacy", CCS 2012; the remedy is Holohan, Braghin, "Secure random sampling in
// differential privacy", ESORICS 2021, as in Opacus's secure mode).
//
// AddTo does more: the sum of gradient and noise is formed in float64 and rounded to a multiple of a
// power of two between 2^-21 and 2^-20 of the noise's standard deviation, so that the low bits, by which
// the attack tells neighbours apart, are not released at all. Each released value stands for some 2^30
// values of the noise near the middle. This is a strong defence, not a proof: a proof would draw discrete
// Gaussian noise and add in integers. The time it takes to draw is not hidden either.
//
// Normals come from Box and Muller's method: 128 bits of AES-CTR a pair, 75 of them for the radius, so
// that tails are whole to 10.2 σ (beyond is 2^-75 of the mass), 53 for the angle. Logarithm, sine and
// cosine are this file's own, of additions and multiplications that round one by one: every machine draws
// the same bits.

// pairBytes are what two elements draw: four blocks, of which each gives a normal to both.
const pairBytes = 4 * 16

// Fill sets dst to the standard normals of elements first, first+1, … of the step. Pieces can be filled in
// any order, by any number of goroutines.
func (d *Draws) Fill(dst []float64, first uint64) {
	d.each(len(dst), first, func(i int, z []float64) { copy(dst[i:], z) })
}

// AddTo adds the noise that was charged, of standard deviation σC, to dst, which holds elements first,
// first+1, … of the sum of clipped gradients, and rounds as is said above. What is not finite stays so.
func (d *Draws) AddTo(dst []float32, first uint64) {
	if d.scale == 0 {
		return
	}
	_, e := math.Frexp(d.scale) // below 2^e
	up, down := math.Ldexp(1, 21-e), math.Ldexp(1, e-21)
	d.each(len(dst), first, func(i int, z []float64) {
		for j, v := range z {
			dst[i+j] = float32(math.RoundToEven((float64(dst[i+j])+float64(d.scale*v))*up) * down)
		}
	})
}

// chunk is how many elements are made at once.
const chunk = 256

// each calls f with the normals of n elements from first on, piece by piece: z are those of i, i+1, ….
func (d *Draws) each(n int, first uint64, f func(i int, z []float64)) {
	var b [chunk / 2 * pairBytes]byte
	var z [chunk]float64
	i := -int(first & 1) // pairs begin at even elements
	for pair := first / 2; i < n; pair += chunk / 2 {
		m := (min(chunk, n-i) + 1) / 2
		stream(d.normals, 4*pair, b[:m*pairBytes])
		pairs(z[:2*m], b[:m*pairBytes])
		f(max(i, 0), z[max(-i, 0):min(chunk, n-i)])
		i += chunk
	}
}

// pairs makes two normals of each 64 bytes.
func pairs(z []float64, b []byte) {
	for k := 0; k+1 < len(z); k += 2 {
		var x, y float64
		for at := range 4 {
			w := b[(2*k+at)*16:][:16]
			hi, lo := binary.BigEndian.Uint64(w), binary.BigEndian.Uint64(w[8:])
			r := math.Sqrt(-2 * logUniform(hi, lo&(1<<11-1)))
			s, c := sinCos(lo >> 11)
			x += float64(r * c)
			y += float64(r * s)
		}
		z[k], z[k+1] = x/2, y/2
	}
}

// logUniform is log((hi + (lo+½)·2^-11)·2^-64), lo of 11 bits: of a uniform number that is never 0.
//
// The method is FreeBSD's e_log.c, as in Go's math.Log: x = 2^k·(1+f), √½ < 1+f < √2, s = f/(2+f), and a
// polynomial in s².
func logUniform(hi, lo uint64) float64 {
	const (
		ln2Hi = 6.93147180369123816490e-01
		ln2Lo = 1.90821492927058770002e-10
		l1    = 6.666666666666735130e-01
		l2    = 3.999999999940941908e-01
		l3    = 2.857142874366239149e-01
		l4    = 2.222219843214978396e-01
		l5    = 1.818357216161805012e-01
		l6    = 1.531383769920937332e-01
		l7    = 1.479819860511658591e-01
	)
	// the 53 bits from the first that is set, as a number in [1,2), and its exponent
	n := bits.LeadingZeros64(hi)
	m := hi<<n | (lo<<1|1)<<52>>(64-n)
	if hi == 0 {
		z := bits.LeadingZeros64((lo<<1 | 1) << 52)
		n, m = 64+z, (lo<<1|1)<<52<<z
	}
	x := math.Float64frombits(0x3ff<<52 | m<<1>>12)
	k := float64(-1 - n)
	if x > math.Sqrt2 {
		x, k = x/2, k+1
	}
	f := x - 1
	s := f / (2 + f)
	s2 := float64(s * s)
	s4 := float64(s2 * s2)
	t1 := float64(s2 * (l1 + float64(s4*(l3+float64(s4*(l5+float64(s4*l7)))))))
	t2 := float64(s4 * (l2 + float64(s4*(l4+float64(s4*l6)))))
	h := float64(float64(.5*f) * f)
	return float64(k*ln2Hi) - ((h - (float64(s*(h+(t1+t2))) + float64(k*ln2Lo))) - f)
}

// sinCos is sine and cosine of 2π·n/2^53: the octant is exact, the rest the polynomials of Cephes, as in
// Go's math.Sincos.
func sinCos(n uint64) (sin, cos float64) {
	const (
		s0, s1, s2 = 1.58962301576546568060e-10, -2.50507477628578072866e-8, 2.75573136213857245213e-6
		s3, s4, s5 = -1.98412698295895385996e-4, 8.33333333332211858878e-3, -1.66666666666666307295e-1
		c0, c1, c2 = -1.13585365213876817300e-11, 2.08757008419747316778e-9, -2.75573141792967388112e-7
		c3, c4, c5 = 2.48015872888517045348e-5, -1.38888888888730564116e-3, 4.16666666666665929218e-2
	)
	octant, rest := n>>50, n&(1<<50-1)
	if octant&1 == 1 {
		rest = 1<<50 - rest
	}
	x := float64(float64(rest) * (math.Pi / 4 / (1 << 50)))
	z := float64(x * x)
	p := float64(s0*z) + s1
	p = float64(p*z) + s2
	p = float64(p*z) + s3
	p = float64(p*z) + s4
	p = float64(p*z) + s5
	sin = x + float64(float64(x*z)*p)
	p = float64(c0*z) + c1
	p = float64(p*z) + c2
	p = float64(p*z) + c3
	p = float64(p*z) + c4
	p = float64(p*z) + c5
	cos = 1 - float64(.5*z) + float64(float64(z*z)*p)
	// octants 0 to 7 of sine and cosine
	if (octant+1)&2 != 0 {
		sin, cos = cos, sin
	}
	if octant&4 != 0 {
		sin = -sin
	}
	if (octant+2)&4 != 0 {
		cos = -cos
	}
	return sin, cos
}
