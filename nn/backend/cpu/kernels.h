// The kernels of one call on one piece, for all instruction sets. Matrices are rows of floats, ld
// floats apart; a null pointer is a result that nobody reads or an input that is not there.
#include <stdint.h>

enum { RUNG_AVX2 = 1, RUNG_AVX512 = 2 };

// A tile of a matmul: y = f(Σ a b + bias) with one term a (m,k) b (k,n) of the sum. Terms of a tile
// come one after another; partial sums are kept in part. first and last say where in the sum this is.
struct mat {
	const float *a, *b; // b in panels
	const float *bias;  // (n)
	const float *gate;  // (m,n): y is multiplied by GELU'(gate)
	float *y, *pre;     // (m,n): the result, and what it was before the activation
	float *part;        // m times n, in whole blocks
	long m, n, k, lda, ldy, ldpre, ldgate;
	int first, last, gelu, acc;
};

// A tile of dw (m,n) = or += dyT x, over rows rows.
struct mat_tn {
	const float *dy, *x;
	float *dw, *packed;
	long m, n, rows, lddy, ldx, lddw;
	int acc;
};

// One panel of n columns and k rows of w, or of its transpose.
struct pack {
	float *panel;
	const float *w;
	long ld, n, k;
	int transposed;
};

// y (n) = old + x_0 + x_1 + ..., parts vectors stride apart. old may be y, or null.
struct add_parts {
	float *y;
	const float *old, *x;
	long n, parts, stride;
};

// Dropout: Philox counters of one sequence (see package philox). A word below cut drops an element;
// others are multiplied by keep.
struct drop {
	uint64_t seed;
	uint32_t step, key, site, cut;
	float keep;
	int on;
};

// One head of one sequence: q (rows,d), k and v (keys,d), keys > 0, d the width of a head.
struct attn {
	const float *q, *k, *v;
	float *y, *lse, *scratch; // y (rows,d), lse (rows) or null
	long rows, keys, d, ldq, ldk, ldv, ldy, ldlse;
	float scale;
	struct drop drop;
};

// Its gradients, each of which may be null.
struct attn_grad {
	const float *q, *k, *v, *y, *lse, *dy;
	float *dq, *dk, *dv, *scratch;
	long rows, keys, d, ldq, ldk, ldv, ldy, ldlse, lddy, lddq, lddk, lddv;
	float scale;
	struct drop drop;
};

// Every kernel has a version for each instruction set, and rung_NAME, which calls that of isa.
#define KERNELS(F) F(mat) F(mat_tn) F(pack) F(add_parts) F(attn) F(attn_grad)

#define DECLARE(name)                           \
	void name##_avx2(const struct name *);   \
	void name##_avx512(const struct name *); \
	void rung_##name(int isa, struct name x);
KERNELS(DECLARE)
#undef DECLARE
