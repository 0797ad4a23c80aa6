// Grouped products: rows meet their own experts. A row's choices are numbers in at (rows,k); weights are rows of cols floats,
// rank of them for each expert. The rows of a piece are taken in the order of experts, so that an expert's weight stays in the
// first cache while its rows go by. What a row gets is one chain of sums, whoever comes beside it.

// sort_slots lists the rows of each expert, and which of a row's choices it is: those of e are order[start[e]] to
// order[start[e+1]-1], rows ascending.
static void sort_slots(const float *at, long ldat, long rows, long k, long experts, int32_t *start, struct slot *order) {
	for (long e = 0; e <= experts; e++) start[e] = 0;
	for (long i = 0; i < rows; i++)
		for (long j = 0; j < k; j++) start[(long)at[i * ldat + j] + 1]++;
	for (long e = 0; e < experts; e++) start[e + 1] += start[e];
	for (long i = 0; i < rows; i++)
		for (long j = 0; j < k; j++) order[start[(long)at[i * ldat + j]]++] = (struct slot){(int32_t)i, (int32_t)j};
	for (long e = experts; e > 0; e--) start[e] = start[e - 1];
	start[0] = 0;
}

void FN(group_sort)(const struct group_sort *x) {
	sort_slots(x->at, x->ldat, x->rows, x->k, x->experts, x->start, x->order);
}

void FN(transpose)(const struct transpose *x) {
	for (long j = 0; j < x->cols; j++)
		for (long i = 0; i < x->rows; i++) x->y[j * x->rows + i] = x->x[i * x->ldx + j];
}

// Inner products of two rows of x with n ≤ 4 rows of w.
INLINE void inner(const long n, const float *x0, const float *x1, const float *const *w, long cols, float *h0, float *h1) {
	vf a[4], b[4];
	UNROLL(4) for (int q = 0; q < n; q++) a[q] = b[q] = vzero();
	long c = 0;
	for (; c + VL <= cols; c += VL) {
		vf u = vload(x0 + c), v = vload(x1 + c);
		UNROLL(4) for (int q = 0; q < n; q++) {
			vf y = vload(w[q] + c);
			a[q] = vfma(u, y, a[q]), b[q] = vfma(v, y, b[q]);
		}
	}
	if (c < cols) {
		vf u = vloadn(x0 + c, cols - c), v = vloadn(x1 + c, cols - c);
		UNROLL(4) for (int q = 0; q < n; q++) {
			vf y = vloadn(w[q] + c, cols - c);
			a[q] = vfma(u, y, a[q]), b[q] = vfma(v, y, b[q]);
		}
	}
	UNROLL(4) for (int q = 0; q < n; q++) h0[q] = vsum(a[q]), h1[q] = vsum(b[q]);
}

static void group_nt(const struct group *g) {
	int32_t *start = (int32_t *)g->scratch;
	struct slot *order = (struct slot *)(start + g->experts + 1);
	sort_slots(g->at, g->ldat, g->rows, g->k, g->experts, start, order);
	long r = g->rank;
	for (long e = 0; e < g->experts; e++) {
		const float *w = g->w + e * r * g->ldw;
		for (long s = start[e]; s < start[e + 1]; s += 2) {
			struct slot p = order[s], q = order[s + 1 < start[e + 1] ? s + 1 : s]; // an odd one is computed twice
			const float *x0 = g->x + p.row * g->ldx, *x1 = g->x + q.row * g->ldx;
			float *h0 = g->h + p.row * g->ldh + p.choice * r, *h1 = g->h + q.row * g->ldh + q.choice * r;
			for (long i = 0; i < r; i += 4) {
				const float *rows[4];
				for (int l = 0; l < 4; l++) rows[l] = w + least(i + l, r - 1) * g->ldw;
				switch (r - i) {
				case 1: inner(1, x0, x1, rows, g->cols, h0 + i, h1 + i); break;
				case 2: inner(2, x0, x1, rows, g->cols, h0 + i, h1 + i); break;
				case 3: inner(3, x0, x1, rows, g->cols, h0 + i, h1 + i); break;
				default: inner(4, x0, x1, rows, g->cols, h0 + i, h1 + i);
				}
			}
		}
	}
}

// y = from + Σ_q h_q w_q for n vectors of two rows, the last cut to cut floats. from may be null: 0.
INLINE void outer(const int n, float *y0, float *y1, const float *f0, const float *f1, const float *h0, const float *h1, long r, const float *w, long ldw, long cut) {
	vf a[4], b[4];
	UNROLL(4) for (int v = 0; v < n; v++) {
		long m = v == n - 1 ? cut : VL;
		a[v] = f0 ? vloadn(f0 + v * VL, m) : vzero();
		b[v] = f1 ? vloadn(f1 + v * VL, m) : vzero();
	}
	for (long q = 0; q < r; q++, w += ldw) {
		vf s = vset(h0[q]), t = vset(h1[q]);
		UNROLL(4) for (int v = 0; v < n; v++) {
			vf u = vloadn(w + v * VL, v == n - 1 ? cut : VL);
			a[v] = vfma(s, u, a[v]), b[v] = vfma(t, u, b[v]);
		}
	}
	UNROLL(4) for (int v = 0; v < n; v++) {
		long m = v == n - 1 ? cut : VL;
		vstoren(y0 + v * VL, a[v], m);
		vstoren(y1 + v * VL, b[v], m);
	}
}

static void group_nn(const struct group *g) {
	int32_t *start = (int32_t *)g->scratch;
	struct slot *order = (struct slot *)(start + g->experts + 1);
	uint8_t *seen = (uint8_t *)(order + g->rows * g->k); // rows that have been begun
	sort_slots(g->at, g->ldat, g->rows, g->k, g->experts, start, order);
	long r = g->rank, cols = g->cols;
	for (long i = 0; i < g->rows; i++) {
		float *y = g->y + i * g->ldy;
		seen[i] = g->acc;
		for (long c = 0; g->acc && g->plus && c < cols; c += VL)
			vstoren(y + c, vadd(vloadn(y + c, cols - c), vloadn(g->plus + i * g->ldplus + c, cols - c)), cols - c);
	}
	for (long e = 0; e < g->experts; e++) {
		const float *w = g->w + e * r * g->ldw;
		for (long s = start[e]; s < start[e + 1]; s += 2) {
			struct slot p = order[s], q = order[s + 1 < start[e + 1] ? s + 1 : s];
			long i = p.row, j = q.row;
			const float *h0 = g->h + i * g->ldh + p.choice * r, *h1 = g->h + j * g->ldh + q.choice * r;
			float *y0 = g->y + i * g->ldy, *y1 = g->y + j * g->ldy;
			const float *f0 = seen[i] ? y0 : g->plus ? g->plus + i * g->ldplus : 0;
			const float *f1 = seen[j] ? y1 : g->plus ? g->plus + j * g->ldplus : 0;
			seen[i] = seen[j] = 1;
			long c = 0;
			for (; c + 4 * VL <= cols; c += 4 * VL)
				outer(4, y0 + c, y1 + c, f0 ? f0 + c : 0, f1 ? f1 + c : 0, h0, h1, r, w + c, g->ldw, VL);
			for (; c < cols; c += VL)
				outer(1, y0 + c, y1 + c, f0 ? f0 + c : 0, f1 ? f1 + c : 0, h0, h1, r, w + c, g->ldw, least(VL, cols - c));
		}
	}
}

void FN(group)(const struct group *g) {
	if (g->y) group_nn(g);
	else group_nt(g);
}

#ifdef WIDE
enum { GQ = 8, GV = 2 }; // a block of a weight's gradient: rows, vectors
#else
enum { GQ = 4, GV = 2 };
#endif

// A block of m rows and n vectors of a gradient, which begins at sum: what some slots add, h by x.
INLINE void sums(const int m, const int n, const struct group_tn *g, const struct slot *slots, long count, long q, long c, long cut, float *sum, int first) {
	vf acc[GQ][GV];
	UNROLL(8) for (int i = 0; i < m; i++)
		UNROLL(2) for (int v = 0; v < n; v++) acc[i][v] = first ? vzero() : vload(sum + i * GROUP_COLS + v * VL);
	for (long s = 0; s < count; s++) {
		const float *x = g->x + slots[s].row * g->ldx + c, *h = g->h + slots[s].row * g->ldh + slots[s].choice * g->rank + q;
		vf u[GV];
		UNROLL(2) for (int v = 0; v < n; v++) u[v] = vloadn(x + v * VL, v == n - 1 ? cut : VL);
		UNROLL(8) for (int i = 0; i < m; i++) {
			vf t = vset(h[i]);
			UNROLL(2) for (int v = 0; v < n; v++) acc[i][v] = vfma(t, u[v], acc[i][v]);
		}
	}
	UNROLL(8) for (int i = 0; i < m; i++)
		UNROLL(2) for (int v = 0; v < n; v++) vstore(sum + i * GROUP_COLS + v * VL, acc[i][v]);
}

// since is the first of n slots that is of row or a later one.
static long since(const struct slot *slots, long n, long row) {
	long lo = 0;
	while (lo < n) {
		long mid = (lo + n) / 2;
		if (slots[mid].row < row) lo = mid + 1;
		else n = mid;
	}
	return lo;
}

#define SUMS(M, N) sums(M, N, g, slots, count, q, c, cut, g->sums + q * GROUP_COLS + c - g->col, first)

// group_block adds what count slots do to all of g->sums.
static void group_block(const struct group_tn *g, const struct slot *slots, long count, int first) {
	for (long c = g->col; c < g->end;) {
		long wide = g->end - c > VL ? GV : 1, cut = least(VL, g->end - c - (wide - 1) * VL);
		for (long q = 0; q < g->rank;) {
			long m = g->rank - q >= GQ ? GQ : g->rank - q >= 4 ? 4 : 1;
			if (wide == 1) {
				if (m == GQ) SUMS(GQ, 1);
				else if (m == 4) SUMS(4, 1);
				else SUMS(1, 1);
			} else {
				if (m == GQ) SUMS(GQ, GV);
				else if (m == 4) SUMS(4, GV);
				else SUMS(1, GV);
			}
			q += m;
		}
		c += wide * VL;
	}
}

enum { GROUP_SLOTS = 64 }; // whose columns stay in the first cache

// group_piece is GROUP_COLS columns of one expert.
static void group_piece(const struct group_tn *g) {
	const struct slot *slots = g->order + g->start[g->expert];
	long all = g->start[g->expert + 1] - g->start[g->expert], s = since(slots, all, g->from), end = since(slots, all, g->to), n = g->end - g->col;
	if (s == end) group_block(g, slots, 0, 1);
	for (int first = 1; s < end; s += GROUP_SLOTS, first = 0) group_block(g, slots + s, least(GROUP_SLOTS, end - s), first);
	float *dw = g->dw + g->expert * g->rank * g->ldq + g->col * g->ldc;
	for (long q = 0; q < g->rank && g->ldc == 1; q++)
		for (long c = 0; c < n; c += VL) {
			float *y = dw + q * g->ldq + c;
			vf v = vload(g->sums + q * GROUP_COLS + c);
			vstoren(y, g->acc ? vadd(vloadn(y, n - c), v) : v, n - c);
		}
	for (long c = 0; c < n && g->ldc != 1; c++)
		for (long q = 0; q < g->rank; q++) {
			float *y = dw + q * g->ldq + c * g->ldc, v = g->sums[q * GROUP_COLS + c];
			*y = g->acc ? *y + v : v;
		}
}

void FN(group_tn)(const struct group_tn *g) {
	struct group_tn p = *g;
	for (p.expert = g->expert; p.expert < g->experts; p.expert++)
		for (p.col = g->col; p.col < g->end; p.col += GROUP_COLS) {
			p.end = least(p.col + GROUP_COLS, g->end);
			group_piece(&p);
		}
}
