// The innermost product: a block of m ≤ MR rows and NR columns lives in registers while k runs.
//
// An element is the fused chain Σ a b from k = 0 on, whatever the block it falls in: neither its row
// nor the rows beside it change a bit.

static inline long least(long a, long b) { return a < b ? a : b; }

#define INLINE static inline __attribute__((always_inline))

// UNROLL(n) unrolls a loop of at most n rounds wholly. Clang takes the pragma of GCC for a wish, too late for
// arrays to become registers.
#ifdef __clang__
#define UNROLL(n) _Pragma("clang loop unroll(full)")
#else
#define PRAGMA(x) _Pragma(#x)
#define UNROLL(n) PRAGMA(GCC unroll n)
#endif

// How a is read: its rows are contiguous along k and s apart (ALONG), or its columns are (ACROSS).
enum { ALONG, ACROSS };

#ifdef BLOCK_HEADER // of an instruction set that has a block of its own
#include BLOCK_HEADER
#else
INLINE vf element(const int how, const float *const *r, const float *a, long s, int i, int p) {
	return vset(how == ALONG ? r[i / 3][(i % 3) * s + p] : a[p * s + i]);
}

// One step of k, p steps from where the pointers are. b has rows of NR floats, bs apart.
#define STEP(p)                                                                                            \
	do {                                                                                               \
		vf y[NV];                                                                                  \
		UNROLL(2) for (int v = 0; v < nv; v++) y[v] = vload(b + (p) * bs + v * VL);  \
		UNROLL(16) for (int i = 0; i < m; i++) {                                     \
			vf x = element(how, r, a, s, i, p);                                                \
			UNROLL(2) for (int v = 0; v < nv; v++) acc[i][v] = vfma(x, y[v], acc[i][v]); \
		}                                                                                          \
	} while (0)

// c (m,nv*VL), rows ldc apart, = or += a (m,k) b (k,nv*VL).
INLINE void block(const int m, const int nv, const int how, long k, const float *a, long s, const float *b, long bs, float *c, long ldc, int add) {
	vf acc[MR][NV];
	const float *r[(MR + 2) / 3]; // every third row: two more are reached by address arithmetic
	const int groups = (m + 2) / 3;
	UNROLL(8) for (int i = 0; i < groups; i++) r[i] = how == ALONG ? a + 3 * i * s : a;
	UNROLL(16) for (int i = 0; i < m; i++)
		UNROLL(2) for (int v = 0; v < nv; v++) acc[i][v] = vzero();
	if (how == ALONG) { // two steps at a time: four make the compiler spill
		for (; k >= 2; k -= 2, b += 2 * bs) {
			STEP(0);
			STEP(1);
			UNROLL(8) for (int i = 0; i < groups; i++) r[i] += 2;
		}
		if (k) STEP(0);
	} else {
		for (; k > 0; k--, a += s, b += bs) STEP(0);
	}
	UNROLL(16) for (int i = 0; i < m; i++)
		UNROLL(2) for (int v = 0; v < nv; v++) {
			float *q = c + i * ldc + v * VL;
			vstore(q, add ? vadd(vload(q), acc[i][v]) : acc[i][v]);
		}
}
#endif

#define BLOCK(M, V) block(M, V, how, k, a, s, b, bs, c, ldc, add)
#define BLOCK_CASE(M) \
	case M: \
		if (NV > 3 && n > 3 * VL) BLOCK(M, 4); \
		else if (NV > 2 && n > 2 * VL) BLOCK(M, 3); \
		else if (n > VL) BLOCK(M, 2); \
		else BLOCK(M, 1); \
		break;

// blocks calls the block of its size: m ≤ MR rows, n ≤ NR columns (whole vectors are written).
INLINE void blocks(const int how, long m, long n, long k, const float *a, long s, const float *b, long bs, float *c, long ldc, int add) {
	switch (m) {
		BLOCK_CASE(1) BLOCK_CASE(2) BLOCK_CASE(3) BLOCK_CASE(4) BLOCK_CASE(5) BLOCK_CASE(6)
#ifdef WIDE
		BLOCK_CASE(7) BLOCK_CASE(8) BLOCK_CASE(9) BLOCK_CASE(10) BLOCK_CASE(11) BLOCK_CASE(12) BLOCK_CASE(13) BLOCK_CASE(14)
#endif
	}
}
static __attribute__((noinline)) void along(long m, long n, long k, const float *a, long s, const float *b, long bs, float *c, long ldc, int add) {
	blocks(ALONG, m, n, k, a, s, b, bs, c, ldc, add);
}
static __attribute__((noinline)) void across(long m, long n, long k, const float *a, long s, const float *b, long bs, float *c, long ldc, int add) {
	blocks(ACROSS, m, n, k, a, s, b, bs, c, ldc, add);
}

// edge is a block whose last vector may be cut: nothing is written past its n columns.
INLINE void edge(const int how, long m, long n, long k, const float *a, long s, const float *b, long bs, float *c, long ldc, int add) {
	void (*const multiply)(long, long, long, const float *, long, const float *, long, float *, long, int) = how == ALONG ? along : across;
	if (n % VL == 0) {
		multiply(m, n, k, a, s, b, bs, c, ldc, add);
		return;
	}
	float tile[MR * NR] __attribute__((aligned(64)));
	multiply(m, n, k, a, s, b, bs, tile, NR, 0);
	for (long i = 0; i < m; i++)
		for (long v = 0; v < n; v += VL) {
			float *q = c + i * ldc + v;
			vf y = vload(tile + i * NR + v);
			vstoren(q, add ? vadd(vloadn(q, n - v), y) : y, n - v);
		}
}

// Panels: NR columns of b side by side, k after k. Missing columns are 0.

// panel copies n ≤ NR columns of x (k rows, ld apart).
static void panel(float *p, const float *x, long ld, long n, long k) {
	for (; k > 0; k--, x += ld, p += NR)
		for (int v = 0; v < NV; v++) vstore(p + v * VL, n > v * VL ? vloadn(x + v * VL, n - v * VL) : vzero());
}

// fours transposes columns c to c + 3 of VL rows: each is VL floats, s from the one before. Rows four apart lie in
// one vector, so that pairs and then pairs of pairs need only change places within 128 bits.
INLINE void fours(float *p, long s, const float *const *r, long c) {
	vf t0 = vquads(r, c), t1 = vquads(r + 1, c), t2 = vquads(r + 2, c), t3 = vquads(r + 3, c);
	vf a = vpairlo(t0, t1), b = vpairlo(t2, t3), d = vpairhi(t0, t1), e = vpairhi(t2, t3);
	vstore(p, vfourlo(a, b));
	vstore(p + s, vfourhi(a, b));
	vstore(p + 2 * s, vfourlo(d, e));
	vstore(p + 3 * s, vfourhi(d, e));
}

// transpose copies n ≤ VL rows of VL floats to columns of a panel; missing rows are 0.
static inline void transpose(float *p, const float *w, long ld, long n) {
	static const float none[VL];
	const float *r[VL];
	UNROLL(16) for (int i = 0; i < VL; i++) r[i] = i < n ? w + i * ld : none;
	UNROLL(4) for (int c = 0; c < VL; c += 4) fours(p + c * NR, NR, r, c);
}

// panelT copies n ≤ NR rows of w (k columns, rows ld apart) to columns.
static void panelT(float *p, const float *w, long ld, long n, long k) {
	for (long j = 0; j < NR; j += VL) {
		long i = 0;
		for (; i + VL <= k; i += VL) transpose(p + i * NR + j, w + j * ld + i, ld, n - j);
		for (; i < k; i++)
			for (long c = j; c < j + VL; c++) p[i * NR + c] = c < n ? w[c * ld + i] : 0;
	}
}
