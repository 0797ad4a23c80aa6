// Element by element, and by rows. Everything a loop takes is a vector of a row, the last one cut.

enum { UNARY_GELU, UNARY_TANH, UNARY_RELU, UNARY_SIGMOID, UNARY_SOFTPLUS, UNARY_EXP, UNARY_SQUARE, UNARY_POSITIVE, UNARY_INVSQRT };

static inline vf unaryOf(int f, vf x) {
	switch (f) {
	case UNARY_GELU: return vgelu(x);
	case UNARY_TANH: return vtanh(x);
	case UNARY_RELU: return vmax(vzero(), x);
	case UNARY_SIGMOID: return vsigmoid(x);
	case UNARY_SOFTPLUS: return vsoftplus(x);
	case UNARY_EXP: return vexp(x);
	case UNARY_SQUARE: return vmul(x, x);
	case UNARY_INVSQRT: return vpick(vgt(x, vzero()), vdiv(vset(1), vsqrt(x)), vzero());
	default: return vpick(vgt(x, vzero()), vset(1), vzero());
	}
}

// derivative at x, where the function is y; each reads one of them.
static inline vf derivative(int f, vf x, vf y) {
	switch (f) {
	case UNARY_GELU: return vgelud(x);
	case UNARY_TANH: return vfnma(y, y, vset(1));
	case UNARY_RELU: return vpick(vgt(x, vzero()), vset(1), vzero());
	case UNARY_SIGMOID: return vmul(y, vsub(vset(1), y));
	case UNARY_SOFTPLUS: return vsigmoid(x);
	case UNARY_EXP: return y;
	case UNARY_SQUARE: return vadd(x, x);
	case UNARY_INVSQRT: return vmul(vset(-.5f), vmul(y, vmul(y, y)));
	default: return vzero();
	}
}

static inline vf elementOf(const struct elements *x, const float *a, const float *b, const float *c, long n) {
	switch (x->how) {
	case RUNG_ADD: return vadd(vloadn(a, n), vloadn(b, n));
	case RUNG_SUB: return vsub(vloadn(a, n), vloadn(b, n));
	case RUNG_MUL: return vmul(vloadn(a, n), vloadn(b, n));
	case RUNG_SCALE: return vmul(vloadn(a, n), vset(x->f));
	case RUNG_FILL: return vset(x->f);
	case RUNG_UNARY: return unaryOf(x->func, vloadn(a, n));
	default: return vmul(vloadn(c, n), derivative(x->func, a ? vloadn(a, n) : vzero(), b ? vloadn(b, n) : vzero()));
	}
}

static inline const float *row(const float *p, long i, long ld) { return p ? p + i * ld : 0; }

void FN(elements)(const struct elements *x) {
	for (long i = 0; i < x->rows; i++) {
		float *y = x->y + i * x->ldy;
		const float *a = row(x->a, i, x->lda), *b = row(x->b, i, x->ldb), *c = row(x->c, i, x->ldc);
		for (long j = 0; j < x->cols; j += VL) {
			long n = x->cols - j;
			vf v = elementOf(x, row(a, j, 1), row(b, j, 1), row(c, j, 1), n);
			if (x->acc) v = vadd(v, vloadn(y + j, n));
			vstoren(y + j, v, n);
		}
	}
}

// drop_row is one row: element j of it is number first+j of its sequence.
static void drop_row(float *to, const float *from, long cols, uint32_t first, const struct drop *d, int acc) {
	float keep[DRAW + VL];
	long skip = first & 3; // a draw begins at a multiple of 4
	for (long j = 0; j < cols;) {
		draw(keep, d, first + (uint32_t)j - (uint32_t)skip);
		long n = least(DRAW - skip, cols - j);
		for (long v = 0; v < n; v += VL) {
			vf y = vmul(vloadn(from + j + v, n - v), vload(keep + skip + v));
			if (acc) y = vadd(y, vloadn(to + j + v, n - v));
			vstoren(to + j + v, y, n - v);
		}
		j += n;
		skip = 0;
	}
}

void FN(dropout)(const struct dropout *x) {
	for (long i = 0; i < x->rows; i++) {
		struct drop d = x->drop;
		d.key = (uint32_t)x->keys[x->seqs ? x->seqs[i] : x->row + i];
		uint32_t first = x->seqs ? (uint32_t)x->pos[i] * (uint32_t)x->cols : 0;
		drop_row(x->y + i * x->ldy, x->x + i * x->ldx, x->cols, first, &d, x->acc);
	}
}

// Loops over a row take four vectors at a time, each with a sum of its own: one sum would wait for itself.
enum { SUMS = 4 };
#define ALONG_ROW(cols, body)                                                                               \
	do {                                                                                                \
		long j = 0;                                                                                 \
		for (; j + SUMS * VL <= (cols); j += SUMS * VL)                                             \
			UNROLL(4) for (int u = 0; u < SUMS; u++) body(j + u * VL, VL, u);     \
		for (; j < (cols); j += VL) body(j, (cols) - j, 0);                                         \
	} while (0)

static inline float total(const vf t[SUMS]) { return vsum(vadd(vadd(t[0], t[1]), vadd(t[2], t[3]))); }
static inline void clear(vf t[SUMS]) {
	for (int u = 0; u < SUMS; u++) t[u] = vzero();
}

// norm is y = (s - mean) rstd g + b with s = x + res, in three passes over a row in the first cache.
void FN(norm)(const struct norm *x) {
	const long cols = x->cols;
	for (long i = 0; i < x->rows; i++) {
		float *y = x->y ? x->y + i * x->ldy : x->row, *sum = x->sum ? x->sum + i * x->ldsum : 0;
		const float *in = x->x + i * x->ldx, *res = row(x->res, i, x->ldres);
		vf t[SUMS];
		clear(t);
#define BODY(j, n, u)                                            \
	do {                                                     \
		vf v = vloadn(in + (j), n);                      \
		if (res) v = vadd(v, vloadn(res + (j), n));      \
		t[u] = vadd(t[u], v);                            \
		vstoren(y + (j), v, n);                          \
		if (sum) vstoren(sum + (j), v, n);               \
	} while (0)
		ALONG_ROW(cols, BODY);
#undef BODY
		const float mean = total(t) / (float)cols;
		const vf u0 = vset(mean);
		clear(t);
#define BODY(j, n, u)                                                        \
	do {                                                                 \
		vf v = firstof(vsub(vloadn(y + (j), n), u0), n, 0);          \
		t[u] = vfma(v, v, t[u]);                                     \
	} while (0)
		ALONG_ROW(cols, BODY);
#undef BODY
		const float rstd = (float)(1 / sqrt((double)total(t) / (double)cols + x->eps));
		const vf r0 = vset(rstd);
#define BODY(j, n, u) vstoren(y + (j), vfma(vmul(vsub(vloadn(y + (j), n), u0), r0), vloadn(x->g + (j), n), vloadn(x->b + (j), n)), n)
		if (x->y) ALONG_ROW(cols, BODY);
#undef BODY
		if (x->mean) x->mean[i * x->ldmean] = mean;
		if (x->rstd) x->rstd[i * x->ldrstd] = rstd;
	}
}

// norm_dx is rstd (dy g - mean(dy g) - h mean(dy g h)), with h = (s - mean) rstd.
void FN(norm_dx)(const struct norm_dx *x) {
	const long cols = x->cols;
	for (long i = 0; i < x->rows; i++) {
		float *dx = x->dx + i * x->lddx;
		const float *s = x->s + i * x->lds, *dy = x->dy + i * x->lddy;
		const vf m = vset(x->mean[i * x->ldmean]), r = vset(x->rstd[i * x->ldrstd]);
		vf ps[SUMS], qs[SUMS];
		clear(ps), clear(qs);
#define BODY(j, n, u)                                                            \
	do { /* past the row t is 0 */                                           \
		vf t = vmul(vloadn(dy + (j), n), vloadn(x->g + (j), n));         \
		ps[u] = vadd(ps[u], t);                                          \
		qs[u] = vfma(t, vmul(vsub(vloadn(s + (j), n), m), r), qs[u]);    \
	} while (0)
		ALONG_ROW(cols, BODY);
#undef BODY
		const vf p = vset(total(ps) / (float)cols), q = vset(total(qs) / (float)cols);
#define BODY(j, n, u)                                                                    \
	do {                                                                             \
		vf t = vsub(vmul(vloadn(dy + (j), n), vloadn(x->g + (j), n)), p);        \
		t = vmul(r, vfnma(vmul(vsub(vloadn(s + (j), n), m), r), q, t));          \
		if (x->acc) t = vadd(t, vloadn(dx + (j), n));                            \
		vstoren(dx + (j), t, n);                                                 \
	} while (0)
		ALONG_ROW(cols, BODY);
#undef BODY
	}
}

// sums_at adds rows r to end of cols ≤ SUMS·VL columns from j on.
INLINE void sums_at(const struct column_sums *x, const int vectors, long r, long end, long j, long cols, const int add_db, const int add_dg) {
	vf db[SUMS], dg[SUMS];
	UNROLL(4) for (int u = 0; u < vectors; u++) {
		db[u] = x->db && add_db ? vloadn(x->db + j + u * VL, cols - u * VL) : vzero();
		dg[u] = x->dg && add_dg ? vloadn(x->dg + j + u * VL, cols - u * VL) : vzero();
	}
	for (long i = r; i < end; i++) {
		const vf m = x->dg ? vset(x->mean[i * x->ldmean]) : vzero(), rs = x->dg ? vset(x->rstd[i * x->ldrstd]) : vzero();
		UNROLL(4) for (int u = 0; u < vectors; u++) {
			vf t = vloadn(x->dy + i * x->lddy + j + u * VL, cols - u * VL);
			db[u] = vadd(db[u], t);
			if (x->dg) dg[u] = vfma(t, vmul(vsub(vloadn(x->s + i * x->lds + j + u * VL, cols - u * VL), m), rs), dg[u]);
		}
	}
	UNROLL(4) for (int u = 0; u < vectors; u++) {
		if (x->db) vstoren(x->db + j + u * VL, db[u], cols - u * VL);
		if (x->dg) vstoren(x->dg + j + u * VL, dg[u], cols - u * VL);
	}
}

// column_sums are db = Σ dy and dg = Σ dy h, h as above; either may be null. Rows go by in order, a few
// at a time, so that memory is read along them while the sums stay in the first cache.
void FN(column_sums)(const struct column_sums *x) {
	for (long r = 0; r == 0 || r < x->rows; r += STRIP) {
		const int add_db = r > 0 || x->acc_db, add_dg = r > 0 || x->acc_dg;
		const long end = least(r + STRIP, x->rows);
		long j = 0;
		for (; j + SUMS * VL <= x->cols; j += SUMS * VL) sums_at(x, SUMS, r, end, j, SUMS * VL, add_db, add_dg);
		for (; j < x->cols; j += VL) sums_at(x, 1, r, end, j, x->cols - j, add_db, add_dg);
	}
}

// mul_cols is y = x g c + b; c and b may be null.
void FN(mul_cols)(const struct mul_cols *x) {
	for (long j = 0; j < x->cols; j += VL) {
		const long n = x->cols - j;
		const vf g = vloadn(x->g + j, n), c = x->c ? vloadn(x->c + j, n) : vset(1), b = x->b ? vloadn(x->b + j, n) : vzero();
		for (long i = 0; i < x->rows; i++) {
			vf v = vadd(vmul(vmul(vloadn(x->x + i * x->ldx + j, n), g), c), b);
			if (x->acc) v = vadd(v, vloadn(x->y + i * x->ldy + j, n));
			vstoren(x->y + i * x->ldy + j, v, n);
		}
	}
}

// mul_sums_at is vectors of columns from j on, n columns in all.
INLINE void mul_sums_at(const struct mul_sums *x, const int vectors, long j, long n) {
	vf s[SUMS];
	clear(s);
	for (long i = 0; i < x->rows; i++)
		UNROLL(4) for (int u = 0; u < vectors; u++)
			s[u] = vfma(vloadn(x->x + i * x->ldx + j + u * VL, n - u * VL), vloadn(x->dy + i * x->lddy + j + u * VL, n - u * VL), s[u]);
	UNROLL(4) for (int u = 0; u < vectors; u++) {
		const long k = j + u * VL, m = n - u * VL;
		if (x->c) s[u] = vmul(s[u], vloadn(x->c + k, m));
		if (x->acc) s[u] = vadd(vloadn(x->dg + k, m), s[u]);
		vstoren(x->dg + k, s[u], m);
	}
}

void FN(mul_sums)(const struct mul_sums *x) {
	long j = 0;
	for (; j + SUMS * VL <= x->cols; j += SUMS * VL) mul_sums_at(x, SUMS, j, SUMS * VL);
	for (; j < x->cols; j += VL) mul_sums_at(x, 1, j, x->cols - j);
}

// embed adds rows of three tables; the third may be null.
void FN(embed)(const struct embed *x) {
	for (long i = 0; i < x->rows; i++) {
		const float *w = x->word + x->ids[i] * x->ldword, *p = x->position + x->pos[i] * x->ldposition;
		const float *t = x->type ? x->type + x->types[i] * x->ldtype : 0;
		float *y = x->y + i * x->ldy;
		for (long j = 0; j < x->cols; j += VL) {
			long n = x->cols - j;
			vf v = vadd(vloadn(w + j, n), vloadn(p + j, n));
			if (t) v = vadd(v, vloadn(t + j, n));
			vstoren(y + j, v, n);
		}
	}
}

// embed_grad adds rows of dy to the rows of the table that ids name, in order.
void FN(embed_grad)(const struct embed_grad *x) {
	for (long i = 0; i < x->rows; i++) {
		float *t = x->table + x->ids[i] * x->ldtable;
		const float *dy = x->dy + i * x->lddy;
		for (long j = 0; j < x->cols; j += VL) vstoren(t + j, vadd(vloadn(t + j, x->cols - j), vloadn(dy + j, x->cols - j)), x->cols - j);
	}
}

// sum_rows is y = f Σ x over rows.
void FN(sum_rows)(const struct sum_rows *x) {
	for (long j = 0; j < x->cols; j += VL) {
		vf s = vzero(), k = vset(x->f);
		for (long i = 0; i < x->rows; i++) s = vfma(k, vloadn(x->x + i * x->ldx + j, x->cols - j), s);
		vstoren(x->y + j, s, x->cols - j);
	}
}

// max_rows is the greatest of each column and the first row that has it. rows > 0.
void FN(max_rows)(const struct max_rows *x) {
	for (long j = 0; j < x->cols; j += VL) {
		long n = x->cols - j;
		vf top = vloadn(x->x + j, n), at = vzero();
		for (long i = 1; i < x->rows; i++) {
			vf v = vloadn(x->x + i * x->ldx + j, n);
			vm more = vgt(v, top);
			top = vpick(more, v, top);
			at = vpick(more, vset((float)i), at);
		}
		if (x->y) vstoren(x->y + j, top, n);
		if (x->at) vstoren(x->at + j, at, n);
	}
}

// max_grad gives dy to the row that max_rows took.
void FN(max_grad)(const struct max_grad *x) {
	for (long i = 0; i < x->rows; i++)
		for (long j = 0; j < x->cols; j += VL) {
			long n = x->cols - j;
			vf off = vabs(vsub(vloadn(x->at + j, n), vset((float)i)));
			vstoren(x->dx + i * x->lddx + j, vpick(vlt(off, vset(.5f)), vloadn(x->dy + j, n), vzero()), n);
		}
}
