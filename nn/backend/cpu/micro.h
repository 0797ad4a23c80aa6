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
#define UNROLL_OF(x) _Pragma(#x)
#define UNROLL(n) UNROLL_OF(GCC unroll n)
#endif

// A word is what a lane of a factor holds: a float or, of an instruction set that multiplies bf16, the next two numbers
// along k, rounded. Depths in words are whole multiples of DEEP.
#ifndef ROUNDS
enum { PER = 1, DEEP = 1 };
#define vmac vfma

// vword is row 0 of x: n floats. left rows are there, ld apart, of which a word takes PER.
INLINE vf vword(const float *x, long ld, long n, long left) {
	(void)ld, (void)left;
	return vloadn(x, n);
}
#endif

// inwords is a depth of k numbers in words.
INLINE long inwords(long k) { return (k + PER * DEEP - 1) / (PER * DEEP) * DEEP; }

// How a is read: its rows are contiguous along k and s apart (ALONG), or its columns are (ACROSS), or they are
// packed (PACKED: s is MR).
enum { ALONG, ACROSS, PACKED };

// Beside a product: where its sums go, and what is fetched into the second cache while it runs.
struct beside {
	float *c; // = (sums + from) + bias, or that plus c; from and bias may be null
	const float *from, *bias;
	long ldc, ldfrom;
	int add, room; // room: c is as large as a whole block, whatever m and n are
	const char *ahead; // LINES lines, as many more jump bytes from where these end, and so on
	long jump;
};

enum { LINE = 64, LINES = 24 }; // a row of KC floats is LINES lines

// settle stores the sums of a block.
INLINE void settle(const int m, const int nv, vf acc[MR][NV], const struct beside *o) {
	if (o->from)
		UNROLL(16) for (int i = 0; i < m; i++)
			UNROLL(4) for (int v = 0; v < nv; v++) acc[i][v] = vadd(vload(o->from + i * o->ldfrom + v * VL), acc[i][v]);
	if (o->bias)
		UNROLL(4) for (int v = 0; v < nv; v++) {
			vf y = vload(o->bias + v * VL);
			UNROLL(16) for (int i = 0; i < m; i++) acc[i][v] = vadd(acc[i][v], y);
		}
	float *c = o->c;
	if (o->add)
		UNROLL(16) for (int i = 0; i < m; i++)
			UNROLL(4) for (int v = 0; v < nv; v++) acc[i][v] = vadd(acc[i][v], vload(c + i * o->ldc + v * VL));
	UNROLL(16) for (int i = 0; i < m; i++)
		UNROLL(4) for (int v = 0; v < nv; v++) vstore(c + i * o->ldc + v * VL, acc[i][v]);
}

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
			UNROLL(2) for (int v = 0; v < nv; v++) acc[i][v] = vmac(x, y[v], acc[i][v]); \
		}                                                                                          \
	} while (0)

// block is a (m,k) b (k,nv*VL). In two steps along k, or four of what is packed, one line is fetched ahead: more
// at a time make the products wait.
INLINE void block(const int m, const int nv, const int how, long k, const float *a, long s, const float *b, long bs, const struct beside *o) {
	vf acc[MR][NV];
	const float *r[(MR + 2) / 3]; // every third row: two more are reached by address arithmetic
	const int groups = (m + 2) / 3;
	UNROLL(8) for (int i = 0; i < groups; i++) r[i] = how == ALONG ? a + 3 * i * s : a;
	UNROLL(16) for (int i = 0; i < m; i++)
		UNROLL(2) for (int v = 0; v < nv; v++) acc[i][v] = vzero();
	const char *ahead = o->ahead;
	if (how == ALONG) {
		while (k >= 2) {
			long pairs = least(LINES, k / 2);
			k -= 2 * pairs;
			for (; pairs > 0; pairs--, b += 2 * bs, ahead += LINE) { // four steps at a time make the compiler spill
				__builtin_prefetch(ahead, 0, 2);
				STEP(0);
				STEP(1);
				UNROLL(8) for (int i = 0; i < groups; i++) r[i] += 2;
			}
			ahead += o->jump;
		}
		if (k) STEP(0);
	} else {
		if (how == PACKED)
			for (; k >= 4; k -= 4, a += 4 * s, b += 4 * bs, ahead += LINE) {
				__builtin_prefetch(ahead, 0, 2);
				UNROLL(4) for (int p = 0; p < 4; p++) STEP(p);
			}
		for (; k > 0; k--, a += s, b += bs) STEP(0);
	}
	settle(m, nv, acc, o);
}
#endif

#ifndef BEGIN // before and after the blocks of a kernel
#define BEGIN()
#define END()
#endif

#ifndef BLOCKS // or that has those of all sizes
#define BLOCK(M, V) block(M, V, how, k, a, s, b, bs, o)
#define BLOCK_CASE(M) \
	case M: \
		if (NV > 3 && n > 3 * VL) BLOCK(M, 4); \
		else if (NV > 2 && n > 2 * VL) BLOCK(M, 3); \
		else if (n > VL) BLOCK(M, 2); \
		else BLOCK(M, 1); \
		break;

// blocks calls the block of its size: m ≤ MR rows, n ≤ NR columns (whole vectors are written).
INLINE void blocks(const int how, long m, long n, long k, const float *a, long s, const float *b, long bs, const struct beside *o) {
	switch (m) {
		BLOCK_CASE(1) BLOCK_CASE(2) BLOCK_CASE(3) BLOCK_CASE(4) BLOCK_CASE(5) BLOCK_CASE(6)
#ifdef WIDE
		BLOCK_CASE(7) BLOCK_CASE(8) BLOCK_CASE(9) BLOCK_CASE(10) BLOCK_CASE(11) BLOCK_CASE(12) BLOCK_CASE(13) BLOCK_CASE(14)
#endif
	}
}
#endif
static __attribute__((noinline)) void along(long m, long n, long k, const float *a, long s, const float *b, const struct beside *o) {
	blocks(ALONG, m, n, k, a, s, b, NR, o);
}
static __attribute__((noinline)) void across(long m, long n, long k, const float *a, long s, const float *b, long bs, const struct beside *o) {
	if (s == MR && bs == NR) blocks(PACKED, m, n, k, a, MR, b, NR, o);
	else blocks(ACROSS, m, n, k, a, s, b, bs, o);
}

// edge is a block whose last vector may be cut: nothing is written past its n columns. c = or += the sums. Along, b is
// a panel.
INLINE void edge(const int how, long m, long n, long k, const float *a, long s, const float *b, long bs, float *c, long ldc, int add, const char *ahead) {
	float tile[MR * NR] __attribute__((aligned(64)));
	const int whole = n % VL == 0;
	const struct beside o = {.c = whole ? c : tile, .ldc = whole ? ldc : NR, .add = whole && add, .room = !whole, .ahead = ahead};
	if (how == ALONG) along(m, n, k, a, s, b, &o);
	else across(m, n, k, a, s, b, bs, &o);
	if (whole) return;
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
	for (long w = inwords(k); w > 0; w--, k -= PER, x += PER * ld, p += NR)
		for (int v = 0; v < NV; v++) vstore(p + v * VL, n > v * VL ? vword(x + v * VL, ld, n - v * VL, k) : vzero());
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

// transpose copies n ≤ VL rows of VL words to columns of p, whose rows are s apart; missing rows are 0.
static inline void transpose(float *p, long s, const float *w, long ld, long n) {
	static const float none[VL];
	const float *r[VL];
	UNROLL(16) for (int i = 0; i < VL; i++) r[i] = i < n ? w + i * ld : none;
	UNROLL(4) for (int c = 0; c < VL; c += 4) fours(p + c * s, s, r, c);
}

#ifndef ROUNDS
// panelT copies n ≤ NR rows of w (k columns, rows ld apart) to columns.
static void panelT(float *p, const float *w, long ld, long n, long k) {
	for (long j = 0; j < NR; j += VL) {
		long i = 0;
		for (; i + VL <= k; i += VL) transpose(p + i * NR + j, NR, w + j * ld + i, ld, n - j);
		for (; i < k; i++)
			for (long c = j; c < j + VL; c++) p[i * NR + c] = c < n ? w[c * ld + i] : 0;
	}
}
#endif
