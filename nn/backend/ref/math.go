package ref

import (
	"math"

	"rung/nn/backend/host"
)

// A series is the Taylor series of the distribution function of N(0,1) about a point. Eight terms are
// good to the last bit of 1 over the distance to the next point, and take a quarter of the time of
// math.Erf.
type series struct {
	at float64
	c  [8]float64
}

// normals is the series of points 1/normalSteps apart, from -normalEnd to normalEnd. Beyond, the function
// is 0 or 1 to the last bit of 1.
var normals = func() (t [2*normalEnd*normalSteps + 1]series) {
	for i := range t {
		x := float64(i)/normalSteps - normalEnd
		c := &t[i].c
		c[0], c[1] = math.Erfc(-x/math.Sqrt2)/2, math.Exp(-x*x/2)/math.Sqrt(2*math.Pi)
		c[2] = -x * c[1] / 2
		for n := 3; n < len(c); n++ { // the density's derivatives: f⁽ᵏ⁾ = -x f⁽ᵏ⁻¹⁾ - (k-1) f⁽ᵏ⁻²⁾
			k := float64(n - 1)
			c[n] = -(x*c[n-1] + (k-1)/k*c[n-2]) / (k + 1)
		}
		t[i].at = x
	}
	return t
}()

const normalSteps, normalEnd = 32, 9

// normal is the distribution function of N(0,1) and its derivative, the density. It converts what it is
// given itself: the conversion before a call would wait for the result of the call before.
func normal[F host.Float](v F) (cdf, density float64) {
	x := float64(v)
	if !(x > -normalEnd && x < normalEnd) {
		return math.Erfc(-x/math.Sqrt2) / 2, math.Exp(-x*x/2) / math.Sqrt(2*math.Pi)
	}
	s := &normals[int((x+normalEnd)*normalSteps+.5)]
	t, c := x-s.at, &s.c
	cdf = c[0] + t*(c[1]+t*(c[2]+t*(c[3]+t*(c[4]+t*(c[5]+t*(c[6]+t*c[7]))))))
	density = c[1] + t*(2*c[2]+t*(3*c[3]+t*(4*c[4]+t*(5*c[5]+t*(6*c[6]+t*7*c[7])))))
	return cdf, density
}

func gelu[F host.Float](x F) F {
	cdf, _ := normal(x)
	return F(float64(x) * cdf)
}

func geluD[F host.Float](x F) F {
	cdf, density := normal(x)
	return F(cdf + float64(x)*density)
}

func sigmoid(x float64) float64 {
	if x >= 0 {
		return 1 / (1 + math.Exp(-x))
	}
	e := math.Exp(x)
	return e / (1 + e)
}

func softplus(x float64) float64 { return math.Max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }
