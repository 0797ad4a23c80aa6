// Tiles of matmuls: blocks of registers over panels, with what follows the sum done while it is in
// the first cache.

enum { KT = 256 }; // rows that mat_tn packs at a time

// finish adds the bias, applies the activation or the derivative, and stores a block.
static inline void finish(const struct mat *x, long i, long j, const float *c) {
	long m = least(MR, x->m - i);
	for (long r = 0; r < m; r++)
		for (long v = j; v < least(j + NR, x->n); v += VL) {
			long n = x->n - v;
			vf s = vload(c + r * NR + v - j);
			if (x->bias) s = vadd(s, vloadn(x->bias + v, n));
			if (x->pre) vstoren(x->pre + (i + r) * x->ldpre + v, s, n);
			if (!x->y) continue;
			float *y = x->y + (i + r) * x->ldy + v;
			if (x->gelu) s = vgelu(s);
			if (x->gate) s = vmul(s, vgelud(vloadn(x->gate + (i + r) * x->ldgate + v, n)));
			if (x->acc) s = vadd(s, vloadn(y, n));
			vstoren(y, s, n);
		}
}

void FN(mat)(const struct mat *x) {
	float tile[MR * NR] __attribute__((aligned(64)));
	// Parts of k are of one length, so that the last is no sliver.
	// KC steps of a panel stay in the first cache.
	long parts = (x->k + KC - 1) / KC, kc = ((x->k + parts - 1) / parts + 3) & ~3L, groups = (x->m + MR - 1) / MR;
	for (long k = 0; k < x->k; k += kc) {
		int first = x->first && k == 0, last = x->last && k + kc >= x->k;
		long n = least(kc, x->k - k);
		for (long j = 0; j < x->n; j += NR)
			for (long i = 0; i < x->m; i += MR) {
				float *c = first && last ? tile : x->part + (j / NR * groups + i / MR) * (MR * NR);
				along(least(MR, x->m - i), least(NR, x->n - j), n, x->a + i * x->lda + k, x->lda, x->b + j * x->k + k * NR, NR, c, NR, !first);
				if (last) finish(x, i, j, c);
			}
	}
}

void FN(pack)(const struct pack *x) {
	if (x->transposed) panelT(x->panel, x->w, x->ld, x->n, x->k);
	else panel(x->panel, x->w, x->ld, x->n, x->k);
}

// columns copies m columns of x in groups of MR, k after k: the last store of each group runs over
// into the next, or into VL floats past the end.
static void columns(float *p, const float *x, long ld, long m, long k) {
	for (long i = 0; i < m; i += MR)
		for (long r = 0; r < k; r++, p += MR) vstore(p, vloadn(x + r * ld + i, m - i));
}

void FN(mat_tn)(const struct mat_tn *t) {
	if (t->rows == 0 && !t->acc)
		for (long i = 0; i < t->m; i++)
			for (long j = 0; j < t->n; j += VL) vstoren(t->dw + i * t->lddw + j, vzero(), t->n - j);
	// Packing pays where what is packed is read several times.
	const int packA = t->n > NR, packB = t->m > 3 * MR;
	for (long k0 = 0; k0 < t->rows; k0 += KT) {
		long k = least(KT, t->rows - k0);
		const float *dy = t->dy + k0 * t->lddy, *x = t->x + k0 * t->ldx;
		float *pb = t->packed, *pa = pb + (t->n + NR - 1) / NR * NR * k;
		if (packA) columns(pa, dy, t->lddy, t->m, k);
		for (long j = 0; j < t->n; j += NR) {
			long n = least(NR, t->n - j);
			int packed = packB || n % VL;
			if (packed) panel(pb + j * k, x + j, t->ldx, n, k);
			const float *b = packed ? pb + j * k : x + j;
			for (long i = 0; i < t->m; i += MR)
				edge(ACROSS, least(MR, t->m - i), n, k, packA ? pa + i * k : dy + i, packA ? MR : t->lddy, b, packed ? NR : t->ldx, t->dw + i * t->lddw + j, t->lddw, t->acc || k0);
		}
	}
}

void FN(add_parts)(const struct add_parts *x) {
	for (long j = 0; j < x->n; j += VL) {
		long n = x->n - j;
		vf s = vloadn(x->x + j, n);
		for (long p = 1; p < x->parts; p++) s = vadd(s, vloadn(x->x + p * x->stride + j, n));
		if (x->old) s = vadd(vloadn(x->old + j, n), s);
		vstoren(x->y + j, s, n);
	}
}
