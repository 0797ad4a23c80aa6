// What has to be rounded before it is multiplied. Weights are, when they are packed; both factors of a weight's gradient
// too. The left factor of a product is rounded here, a tile's rows before its blocks.

// rounded copies m rows of x, of which k floats are there, to n words each, s apart. What is written behind a row, the
// next one overwrites: after the last there must be room for a vector.
static void rounded(float *p, long s, const float *x, long ld, long m, long k, long n) {
	for (; m > 0; m--, x += ld, p += s)
		for (long w = 0; w < n; w += VL) vstore(p + w, valong(x + PER * w, k - PER * w));
}

// panelT copies n ≤ NR rows of w (k columns, rows ld apart) to columns of words.
static void panelT(float *p, const float *w, long ld, long n, long k) {
	const long all = inwords(k);
	for (long j = 0; j < NR; j += VL)
		for (long i = 0; i < all; i += VL) {
			float t[VL * VL];
			for (long r = 0; r < VL; r++) vstore(t + r * VL, j + r < n ? valong(w + (j + r) * ld + PER * i, k - PER * i) : vzero());
			if (i + VL <= all) {
				transpose(p + i * NR + j, NR, t, VL, VL);
				continue;
			}
			for (long c = i; c < all; c++)
				for (long r = 0; r < VL; r++) p[c * NR + j + r] = t[r * VL + c - i];
		}
}
