package lora

import "gonum.org/v1/gonum/mat"

// singular are the singular values of w (out,in), by gonum's own decomposition.
func singular(w []float64, out, in int) []float64 {
	var svd mat.SVD
	if !svd.Factorize(mat.NewDense(out, in, w), mat.SVDNone) {
		return nil
	}
	return svd.Values(nil)
}
