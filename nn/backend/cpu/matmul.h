// Tiles of matmuls: blocks of registers over panels, with what follows the sum done while it is in
// the first cache.

const struct sizes FN(sizes) = {MR, NR, KC, KT, TC, PER, DEEP};

// What follows the sum: an activation, or the derivative of one.
enum { PLAIN, GELU, GATE };

// store finishes one vector of row i, whose first of n columns is j.
INLINE void store(const struct mat *x, const int how, long i, long j, long n, vf s) {
	if (x->bias) s = vadd(s, vloadn(x->bias + j, n));
	if (x->pre) vstoren(x->pre + i * x->ldpre + j, s, n);
	if (!x->y) return;
	float *y = x->y + i * x->ldy + j;
	if (how == GELU) s = vgelu(s);
	if (how == GATE) s = vmul(s, vgelud(vloadn(x->gate + i * x->ldgate + j, n)));
	if (x->acc) s = vadd(s, vloadn(y, n));
	vstoren(y, s, n);
}

// finish adds the bias, applies the activation or the derivative, and stores a block.
INLINE void finish(const struct mat *x, const int how, long i, long j, const float *c) {
	long m = least(MR, x->m - i);
	if (x->n - j >= NR) { // nearly always: several vectors in flight hide the latency of polynomials
		for (long r = 0; r < m; r++)
			UNROLL(4) for (int v = 0; v < NV; v++) store(x, how, i + r, j + v * VL, VL, vload(c + r * NR + v * VL));
		return;
	}
	for (long r = 0; r < m; r++)
		for (long v = 0; j + v < x->n; v += VL) store(x, how, i + r, j + v, x->n - j - v, vload(c + r * NR + v));
}
static __attribute__((noinline)) void finishPlain(const struct mat *x, long i, long j, const float *c) { finish(x, PLAIN, i, j, c); }
static __attribute__((noinline)) void finishGELU(const struct mat *x, long i, long j, const float *c) { finish(x, GELU, i, j, c); }
static __attribute__((noinline)) void finishGate(const struct mat *x, long i, long j, const float *c) { finish(x, GATE, i, j, c); }

// ask fetches the lines of a block that finish reads or writes: they come while the sum is computed.
INLINE void ask(const float *p, long ld, long m, long n, const int write) {
	for (long r = 0; r < m; r++)
		for (long j = 0; j < n; j += 16)
			if (write) __builtin_prefetch(p + r * ld + j, 1); // Clang takes constants only
			else __builtin_prefetch(p + r * ld + j, 0);
}

// A part of k, in words: n of all from k on, of kc each but for the last.
struct depth {
	const float *a; // the rows of the left factor, from k on
	long lda, k, n, kc, all, groups; // groups of MR rows of the tile
	int first, last, direct;
	float *tile;
};

// next finds what is to be fetched during block (i,j): rows of a for the next one, and panels of the next part of k or
// of the next tile.
INLINE void next(const struct mat *x, const struct depth *d, long i, long j, struct beside *o) {
	const long each = d->kc / (2 * LINES) > 0 ? d->kc / (2 * LINES) : 1; // rows of a that are fetched during one block
	const long of_a = PER > 1 ? 0 : (MR + each - 1) / each, bytes = d->kc * NR * (long)sizeof *x->b;
	const int more = d->k + d->kc < d->all;
	const float *b = more ? x->b + (d->k + d->kc) * NR : x->nextb, *a = more ? d->a + d->kc : x->nexta;
	o->ahead = (const char *)(d->a + i * d->lda);
	const long line = (j / NR - of_a) * (d->kc / 2), panel = i / MR;
	if (j / NR < of_a) {
		if (i + MR < x->m) a = d->a + (i + MR) * d->lda;
		if (!a) return;
		o->ahead = (const char *)(a + j / NR * each * x->lda);
		o->jump = x->lda * (long)sizeof *a - LINE * LINES;
		return;
	}
	if (!b || panel * NR >= x->n || line * LINE >= bytes) return;
	o->ahead = (const char *)(b + panel * NR * d->all) + line * LINE;
}

// one is block (i,j) of a part of k.
INLINE void one(const struct mat *x, const struct depth *d, long i, long j, void (*const end)(const struct mat *, long, long, const float *)) {
	const long m = least(MR, x->m - i), cols = least(NR, x->n - j);
	if (d->last && x->y) ask(x->y + i * x->ldy + j, x->ldy, m, cols, 1);
	if (d->last && x->pre) ask(x->pre + i * x->ldpre + j, x->ldpre, m, cols, 1);
	if (d->last && x->gate) ask(x->gate + i * x->ldgate + j, x->ldgate, m, cols, 0);
	float *part = x->part + (j / NR * d->groups + i / MR) * (MR * NR);
	struct beside o = {.c = d->first && d->last ? d->tile : part, .from = d->first ? 0 : part, .ldc = NR, .ldfrom = NR};
	const int straight = d->direct && cols % VL == 0;
	o.room = !straight;
	if (straight) {
		o.c = x->y + i * x->ldy + j;
		o.ldc = x->ldy;
		o.bias = x->bias ? x->bias + j : 0;
		o.add = x->acc;
	}
	next(x, d, i, j, &o);
	along(m, cols, d->n, d->a + i * d->lda, d->lda, x->b + j * d->all + d->k * NR, &o);
	if (d->last && !straight) end(x, i, j, o.c);
}

void FN(mat)(const struct mat *x) {
	float tile[MR * NR] __attribute__((aligned(64)));
	void (*const end)(const struct mat *, long, long, const float *) = x->gelu ? finishGELU : x->gate ? finishGate : finishPlain;
	enum { TO = DEEP > 4 ? DEEP : 4 };
	// Parts of k are of one length, so that the last is no sliver.
	const long all = inwords(x->k), parts = (all + KC - 1) / KC, kc = ((all + parts - 1) / parts + TO - 1) / TO * TO;
	const long groups = (x->m + MR - 1) / MR;
	BEGIN();
	for (long k = 0; k < all; k += kc) {
		struct depth d = {x->a + k, x->lda, k, least(kc, all - k), kc, all, groups, x->first && k == 0, x->last && k + kc >= all, 0, tile};
#ifdef ROUNDS
		float *rows = x->part + groups * MR * ((x->n + NR - 1) / NR * NR);
		rounded(rows, kc, x->a + k * PER, x->lda, x->m, x->k - k * PER, d.n);
		d.a = rows;
		d.lda = kc;
#endif
		d.direct = d.last && end == finishPlain && !x->pre && x->y;
		// A block of rows stays in the first cache while the panels go by from the second; results are written
		// along their rows.
		for (long i = 0; i < x->m; i += MR)
			for (long j = 0; j < x->n; j += NR) one(x, &d, i, j, end);
	}
	END();
}

void FN(pack)(const struct pack *x) {
	if (x->transposed) panelT(x->panel, x->w, x->ld, x->n, x->k);
	else panel(x->panel, x->w, x->ld, x->n, x->k);
}

// Words of depth that are copied together: memory is read along a few rows at a time.
enum { STRIP = DEEP > 8 ? DEEP : 8 };

#ifdef PACKED_ROWS
#define TN ALONG // how a weight's gradient reads its left factor

// columns copies m columns of x (k rows) to rows of words, one after another.
static void columns(float *p, const float *x, long ld, long m, long k) {
	const long all = inwords(k);
	for (long w = 0; w < all; w += VL)
		for (long i = 0; i < m; i += VL) {
			float t[VL * VL];
			for (long r = 0; r < VL; r++) vstore(t + r * VL, vword(x + (w + r) * PER * ld + i, ld, m - i, k - (w + r) * PER));
			transpose(p + i * all + w, all, t, VL, VL);
		}
}
#else
#define TN ACROSS

// columns copies m columns of x (k rows) in groups of MR, word after word. Where whole vectors can be read and written
// they are: what a row has too much the next one overwrites, but for the last of a strip.
static void columns(float *p, const float *x, long ld, long m, long k) {
	enum { WIDTH = (MR + VL - 1) / VL * VL };
	const long all = inwords(k);
	for (long w = 0; w < all; w += STRIP)
		for (long i = 0; i < m; i += MR) {
			const float *from = x + w * PER * ld + i;
			float *to = p + i * all + w * MR;
			long n = least(STRIP, all - w), left = k - w * PER;
			if (i + WIDTH <= m)
				for (; n > 1; n--, left -= PER, from += PER * ld, to += MR)
					UNROLL(2) for (int c = 0; c < WIDTH; c += VL) vstore(to + c, vword(from + c, ld, VL, left));
			for (; n > 0; n--, left -= PER, from += PER * ld, to += MR)
				UNROLL(2) for (int c = 0; c < WIDTH; c += VL)
					if (c < m - i) vstoren(to + c, vword(from + c, ld, m - i - c, left), MR - c);
		}
}
#endif

// panels copies n columns of x (k rows) in panels of NR.
static void panels(float *p, const float *x, long ld, long n, long k) {
	const long all = inwords(k);
	for (long w = 0; w < all; w += STRIP)
		for (long j = 0; j < n; j += NR)
			panel(p + j * all + w * NR, x + w * PER * ld + j, ld, least(NR, n - j), least(STRIP * PER, k - w * PER));
}

void FN(mat_tn)(const struct mat_tn *t) {
	if (t->rows == 0 && !t->acc)
		for (long i = 0; i < t->m; i++)
			for (long j = 0; j < t->n; j += VL) vstoren(t->dw + i * t->lddw + j, vzero(), t->n - j);
	// Packing pays where what is packed is read several times.
	const int packA = PER > 1 || t->n > NR, packB = PER > 1 || t->m > 3 * MR;
	const long whole = t->n / NR * NR; // columns that are whole panels
	BEGIN();
	for (long k0 = 0; k0 < t->rows; k0 += KT * PER) {
		const long rows = least(KT * PER, t->rows - k0), k = inwords(rows);
		const float *dy = t->dy + k0 * t->lddy, *x = t->x + k0 * t->ldx;
		float *pb = t->packed, *pa = pb + (t->n + NR - 1) / NR * NR * k;
		const long s = TN == ALONG ? k : packA ? MR : t->lddy;
		if (packA) columns(pa, dy, t->lddy, t->m, rows);
		if (packB) panels(pb, x, t->ldx, t->n, rows);
		else if (whole < t->n) panel(pb + whole * k, x + whole, t->ldx, t->n - whole, k);
		long row = 0, left = least(KT * PER, t->rows - k0 - rows); // of the next ones: during each block one is fetched, those of x first
		// Rows of the result one after another: those of a wide one are pages apart.
		for (long i = 0; i < t->m; i += MR)
			for (long j = 0; j < t->n; j += NR, row++) {
				const long n = least(NR, t->n - j);
				const int packed = packB || j == whole;
				const float *b = packed ? pb + j * k : x + j, *ahead = b;
				if (row < left) ahead = x + (rows + row) * t->ldx;
				else if (row < 2 * left) ahead = dy + (rows + row - left) * t->lddy;
				edge(TN, least(MR, t->m - i), n, k, packA ? pa + i * k : dy + i, s, b, packed ? NR : t->ldx, t->dw + i * t->lddw + j, t->lddw, t->acc || k0, (const char *)ahead);
			}
	}
	END();
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
