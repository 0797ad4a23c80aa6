package ref

import (
	"unsafe"

	"rung/nn/backend/host"
)

// blockRows is how many rows of a product are computed at a time: more sums do not fit the registers.
const blockRows = 3

// A block is a few rows of scratch.
type block[F host.Float] [blockRows][]F

// blockBytes is the scratch of a block of n columns for each worker.
func blockBytes[F host.Float](a *args[F], n int) int {
	return a.Workers * blockRows * n * int(unsafe.Sizeof(F(0)))
}

// blockOf is columns lo to hi of a worker's scratch, which has n: all 0.
func blockOf[F host.Float](a *args[F], worker, n, lo, hi int) (b block[F]) {
	s := host.Elements[F](a.Scratch)[worker*blockRows*n:]
	for r := range b {
		b[r] = s[r*n+lo : r*n+hi]
		clear(b[r])
	}
	return b
}

// addProducts adds to sums the products of rows i and following of x with all rows of w. Two of these
// are taken at a time, so that six sums share what is loaded; each runs front to back by itself, and
// does not depend on the others. Where x or w has no more rows its last is taken again, for nothing.
func addProducts[F host.Float](sums block[F], x mat[F], i int, w mat[F]) {
	last, n := x.Rows-1, x.Cols
	x0, x1, x2 := x.Row(i)[:n], x.Row(min(i+1, last))[:n], x.Row(min(i+2, last))[:n]
	for j := 0; j < w.Rows; j += 2 {
		next := min(j+1, w.Rows-1)
		v, w := w.Row(j)[:n], w.Row(next)[:n]
		var v0, v1, v2, w0, w1, w2 F
		for k, a := range x0 {
			b, c, d, e := x1[k], x2[k], v[k], w[k]
			v0 += a * d
			v1 += b * d
			v2 += c * d
			w0 += a * e
			w1 += b * e
			w2 += c * e
		}
		sums[0][j] += v0
		sums[1][j] += v1
		sums[2][j] += v2
		if next > j {
			sums[0][next] += w0
			sums[1][next] += w1
			sums[2][next] += w2
		}
	}
}

// addRows adds to y the rows of x, times p.
func addRows[F host.Float](y, p []F, x mat[F]) {
	for i := 0; i < len(p); i += blockRows {
		if i+blockRows <= len(p) {
			axpy3(p[i], p[i+1], p[i+2], x.Row(i), x.Row(i+1), x.Row(i+2), y)
			continue
		}
		for ; i < len(p); i++ {
			axpy(p[i], x.Row(i), y)
		}
	}
}

// addOuter adds to each row j of out rows i to i+n of x, times p[·][j].
func addOuter[F host.Float](out mat[F], p block[F], x mat[F], i, n int) {
	if n < blockRows {
		for r := range n {
			for j, s := range p[r] {
				axpy(s, x.Row(i+r), out.Row(j))
			}
		}
		return
	}
	x0, x1, x2 := x.Row(i), x.Row(i+1), x.Row(i+2)
	for j := range out.Rows {
		axpy3(p[0][j], p[1][j], p[2][j], x0, x1, x2, out.Row(j))
	}
}

func dotp[F host.Float](x, y []F) (s F) {
	y = y[:len(x)]
	for i, v := range x {
		s += v * y[i]
	}
	return s
}

func axpy[F host.Float](s F, x, y []F) {
	x = x[:len(y)]
	for i, v := range y {
		y[i] = v + s*x[i]
	}
}

// axpy3 is axpy three times: y is loaded and stored once.
func axpy3[F host.Float](s0, s1, s2 F, x0, x1, x2, y []F) {
	x0, x1, x2 = x0[:len(y)], x1[:len(y)], x2[:len(y)]
	for i, v := range y {
		y[i] = v + s0*x0[i] + s1*x1[i] + s2*x2[i]
	}
}
