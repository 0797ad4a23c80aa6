// What the headers of vectors of x86-64 share.
enum { SQUARE = 8 };

// transpose copies a square of w to columns of a panel.
static inline void transpose(float *p, const float *w, long ld) {
	__m256 r[8], t[8];
	for (int i = 0; i < 8; i++) r[i] = _mm256_loadu_ps(w + i * ld);
	for (int i = 0; i < 8; i += 2) {
		t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
		t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
	}
	for (int i = 0; i < 8; i += 4)
		for (int j = 0; j < 2; j++) {
			r[i + 2 * j] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0x44);
			r[i + 2 * j + 1] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0xEE);
		}
	for (int i = 0; i < 4; i++) {
		_mm256_storeu_ps(p + i * NR, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
		_mm256_storeu_ps(p + (i + 4) * NR, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
	}
}
