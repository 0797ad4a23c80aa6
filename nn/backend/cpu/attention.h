// Attention of one head of one sequence, by blocks of queries and of keys. Nothing larger than a
// block of scores is kept: the forward sum over blocks of keys is rescaled as the maximum grows
// (Milakov and Gimelshein), the backward one computes probabilities again from the logarithm of
// their denominator.

enum { KEYS = 512, SCORES = 48 * KEYS }; // keys of a block, scores of one

// The right factor of a product is n columns in panels, or the transpose of n rows. All are packed,
// even those that could be read as they are: rows of activations are pages apart.
static void rows(float *to, const float *x, long ld, long n, long k) {
	for (long j = 0; j < n; j += NR) panel(to + j * k, x + j, ld, least(NR, n - j), k);
}

static void transposed(float *to, const float *x, long ld, long n, long k) {
	for (long j = 0; j < n; j += NR) panelT(to + j * k, x + j * ld, ld, least(NR, n - j), k);
}

static inline long upto(long n, long to) { return (n + to - 1) / to * to; }

// product is c (m,n) = or += a b. With pad c has room for whole vectors.
INLINE void product(const int how, long m, long n, long k, const float *a, long s, const float *b, float *c, long ldc, int add, int pad) {
	for (long j = 0; j < n; j += NR)
		for (long i = 0; i < m; i += MR)
			edge(how, least(MR, m - i), pad ? upto(least(NR, n - j), VL) : least(NR, n - j), k, how == ALONG ? a + i * s : a + i, s, b + j * k, NR, c + i * ldc + j, ldc, add, (const char *)a);
}
static __attribute__((noinline)) void productAlong(long m, long n, long k, const float *a, long s, const float *b, float *c, long ldc, int add) {
	product(ALONG, m, n, k, a, s, b, c, ldc, add, 0);
}
static __attribute__((noinline)) void productAcross(long m, long n, long k, const float *a, long s, const float *b, float *c, long ldc, int add) {
	product(ACROSS, m, n, k, a, s, b, c, ldc, add, 0);
}
static __attribute__((noinline)) void scores(long m, long n, long k, const float *a, long s, const float *b, float *c, long ldc) {
	product(ALONG, m, n, k, a, s, b, c, ldc, 0, 1);
}

// lane numbers, and the vector that keeps the first n of v: what is past them is x.
static inline vf firstof(vf v, long n, float x) {
	static const float lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
	return n >= VL ? v : vpick(vlt(vload(lanes), vset(n)), v, vset(x));
}

// maximum of n scores.
static inline float maximum(const float *s, long n) {
	vf top = vset(-INFINITY);
	long j = 0;
	for (; j + VL <= n; j += VL) top = vmax(top, vload(s + j));
	if (j < n) top = vmax(top, firstof(vload(s + j), n - j, -INFINITY));
	return vtop(top);
}

// exponentials turns n scores into 2^(scale s - top) and returns their sum.
static inline float exponentials(float *s, long n, float scale, float top) {
	vf z = vzero(), c = vset(scale), t = vset(-top);
	long j = 0;
	for (; j + VL <= n; j += VL) {
		vf e = vexp2(vfma(vload(s + j), c, t));
		z = vadd(z, e);
		vstore(s + j, e);
	}
	if (j < n) {
		vf e = firstof(vexp2(vfma(vload(s + j), c, t)), n - j, 0);
		z = vadd(z, e);
		vstore(s + j, e);
	}
	return vsum(z);
}

static inline void times(float *y, long n, float f) {
	for (long j = 0; j < n; j += VL) vstoren(y + j, vmul(vloadn(y + j, n - j), vset(f)), n - j);
}

static inline uint32_t pair(long query, long key) { return (uint32_t)query << 16 | (uint32_t)key; }

// dropRow drops n probabilities of a query, from key on.
static inline void dropRow(float *p, const struct drop *d, long query, long key, long n) {
	float keep[DRAW];
	for (long j = 0; j < n; j += DRAW) {
		draw(keep, d, pair(query, key + j));
		for (long v = 0; v < DRAW && j + v < n; v += VL) vstore(p + j + v, vmul(vload(p + j + v), vload(keep + v)));
	}
}

// scoresOf is from row to row of scores: an odd number of cache lines, so that a column of them does not
// fall into a few sets of the cache.
static inline long scoresOf(long keys) { return upto(least(keys, KEYS), 16) | 16; }

// queriesOf is the rows of a block of queries.
static inline long queriesOf(long keys) { return least(SCORES / scoresOf(keys), SCORES / NR) / MR * MR; }

static const float log2e = 1.44269504f, ln2 = 0.693147181f;

// soon fetches row i of the next head of x, which lies beside this one's: rows are pages apart.
static inline void soon(const float *x, long ld, long i, long d) {
	for (long j = 0; j < d; j += 16) __builtin_prefetch(x + i * ld + d + j);
}

static void attend(const struct attn *x, const int more) {
	const long d = x->d, block = queriesOf(x->keys);
	const float scale = x->scale * log2e; // powers of 2: top is in logarithms to that base
	float *const kt = x->scratch, *const vp = kt + KEYS * d, *const s = vp + KEYS * upto(d, NR);
	float *const top = s + SCORES, *const sum = top + block;
	for (long i = 0; i < x->rows; i += block) {
		long m = least(block, x->rows - i);
		for (long j = 0; j < x->keys; j += KEYS) {
			long n = least(KEYS, x->keys - j), ld = scoresOf(n);
			if (x->keys > KEYS || i == 0) {
				transposed(kt, x->k + j * x->ldk, x->ldk, n, d);
				rows(vp, x->v + j * x->ldv, x->ldv, d, n);
			}
			scores(m, n, d, x->q + i * x->ldq, x->ldq, kt, s, ld);
			for (long r = 0; r < m; r++) {
				if (more && j == 0) {
					soon(x->q, x->ldq, i + r, d);
					soon(x->k, x->ldk, i + r, d);
					soon(x->v, x->ldv, i + r, d);
				}
				float t = maximum(s + r * ld, n) * scale;
				if (j > 0) {
					t = top[r] > t ? top[r] : t;
					float f = exp2f(top[r] - t);
					sum[r] *= f;
					if (x->y) times(x->y + (i + r) * x->ldy, d, f);
				}
				float z = exponentials(s + r * ld, n, scale, t);
				sum[r] = j > 0 ? sum[r] + z : z;
				top[r] = t;
				if (x->drop.on) dropRow(s + r * ld, &x->drop, i + r, j, n);
			}
			if (x->y) productAlong(m, d, n, s, ld, vp, x->y + i * x->ldy, x->ldy, j > 0);
		}
		for (long r = 0; r < m; r++) {
			if (x->y) times(x->y + (i + r) * x->ldy, d, 1 / sum[r]);
			if (x->lse) x->lse[(i + r) * x->ldlse] = top[r] * ln2 + logf(sum[r]);
		}
	}
}

void FN(attn)(const struct attn *x) {
	struct attn head = *x;
	for (long h = 1; h <= x->heads; h++) {
		attend(&head, h < x->heads && x->rows == x->keys);
		head.q += x->d, head.k += x->d, head.v += x->d;
		if (x->y) head.y += x->d;
		if (x->lse) head.lse++;
		head.drop.site++;
	}
}

// gradRow turns the scores s and the products g = dy·v of one query into what it multiplies dy by in
// dv, and q and k by in each other's gradients.
INLINE void gradRow(const struct attn_grad *x, const int drops, float *s, float *g, long query, long key, long n) {
	const float *dy = x->dy + query * x->lddy, *y = x->y + query * x->ldy;
	vf delta = vzero(), c = vset(x->scale), c2 = vset(x->scale * log2e), l = vset(-x->lse[query * x->ldlse] * log2e);
	for (long j = 0; j < x->d; j += VL) delta = vfma(vloadn(dy + j, x->d - j), vloadn(y + j, x->d - j), delta);
	delta = vset(vsum(delta));
	float keep[DRAW];
	for (long j = 0; j < n; j += VL) {
		vf p = vexp2(vfma(vload(s + j), c2, l)), t = vload(g + j);
		vf pk = p;
		if (drops) {
			if (j % DRAW == 0) draw(keep, &x->drop, pair(query, key + j));
			vf f = vload(keep + j % DRAW);
			pk = vmul(p, f);
			t = vmul(t, f);
		}
		vstore(s + j, pk);
		vstore(g + j, vmul(vmul(p, c), vsub(t, delta)));
	}
}

static void attendGrad(const struct attn_grad *x, const int more) {
	const long d = x->d, block = queriesOf(x->keys), wide = upto(d, NR);
	float *const kt = x->scratch, *const vt = kt + KEYS * d, *const s = vt + KEYS * d, *const g = s + SCORES;
	float *const kp = g + SCORES, *const qp = kp + KEYS * wide, *const dyp = qp + block * wide;
	for (long i = 0; i < x->rows; i += block) {
		long m = least(block, x->rows - i);
		const float *q = x->q + i * x->ldq, *dy = x->dy + i * x->lddy;
		rows(qp, q, x->ldq, d, m);
		rows(dyp, dy, x->lddy, d, m);
		for (long j = 0; j < x->keys; j += KEYS) {
			long n = least(KEYS, x->keys - j), ld = scoresOf(n);
			if (x->keys > KEYS || i == 0) {
				transposed(kt, x->k + j * x->ldk, x->ldk, n, d);
				transposed(vt, x->v + j * x->ldv, x->ldv, n, d);
				rows(kp, x->k + j * x->ldk, x->ldk, d, n);
			}
			scores(m, n, d, q, x->ldq, kt, s, ld);
			scores(m, n, d, dy, x->lddy, vt, g, ld);
			for (long r = 0; r < m; r++) {
				if (more && j == 0) {
					soon(x->q, x->ldq, i + r, d);
					soon(x->k, x->ldk, i + r, d);
					soon(x->v, x->ldv, i + r, d);
					soon(x->y, x->ldy, i + r, d);
					soon(x->dy, x->lddy, i + r, d);
				}
				if (x->drop.on) gradRow(x, 1, s + r * ld, g + r * ld, i + r, j, n);
				else gradRow(x, 0, s + r * ld, g + r * ld, i + r, j, n);
			}
			if (x->dv) productAcross(n, d, m, s, ld, dyp, x->dv + j * x->lddv, x->lddv, i > 0);
			if (x->dk) productAcross(n, d, m, g, ld, qp, x->dk + j * x->lddk, x->lddk, i > 0);
			if (x->dq) productAlong(m, d, n, g, ld, kp, x->dq + i * x->lddq, x->lddq, j > 0);
		}
	}
}

void FN(attn_grad)(const struct attn_grad *x) {
	struct attn_grad head = *x;
	for (long h = 1; h <= x->heads; h++) {
		attendGrad(&head, h < x->heads && x->rows == x->keys);
		head.q += x->d, head.k += x->d, head.v += x->d, head.y += x->d, head.dy += x->d, head.lse++;
		if (x->dq) head.dq += x->d;
		if (x->dk) head.dk += x->d;
		if (x->dv) head.dv += x->d;
		head.drop.site++;
	}
}
