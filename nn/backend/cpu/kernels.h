// The kernels of one call on one piece, for all instruction sets. Matrices are rows of floats, ld
// floats apart; a null pointer is a result that nobody reads or an input that is not there.
#include "arch.h"
#include <stdint.h>

// A tile of a matmul: y = f(Σ a b + bias) with one term a (m,k) b (k,n) of the sum. Terms of a tile
// come one after another; partial sums are kept in part. first and last say where in the sum this is.
struct mat {
	const float *a, *b; // b in panels
	const float *bias;  // (n)
	const float *gate;  // (m,n): y is multiplied by GELU'(gate)
	float *y, *pre;     // (m,n): the result, and what it was before the activation
	float *part;        // m times n, in whole blocks
	const float *nexta, *nextb; // where the factors of the next tile are, to be fetched; may be null
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

// Heads of one sequence, side by side: of each q (rows,d), k and v (keys,d), keys > 0. Its dropout is a site of
// its own, the first head's that of drop.
struct attn {
	const float *q, *k, *v;
	float *y, *lse, *scratch; // y (rows,d), lse (rows,heads); either may be null
	long heads, rows, keys, d, ldq, ldk, ldv, ldy, ldlse;
	float scale;
	struct drop drop;
};

// Their gradients, each of which may be null.
struct attn_grad {
	const float *q, *k, *v, *y, *lse, *dy;
	float *dq, *dk, *dv, *scratch;
	long heads, rows, keys, d, ldq, ldk, ldv, ldy, ldlse, lddy, lddq, lddk, lddv;
	float scale;
	struct drop drop;
};

// y = f(a, b, c) element by element. Of a derivative a is x, b is y and c is dy.
enum { RUNG_ADD, RUNG_SUB, RUNG_MUL, RUNG_SCALE, RUNG_FILL, RUNG_UNARY, RUNG_DERIVATIVE };
struct elements {
	float *y;
	const float *a, *b, *c;
	long rows, cols, ldy, lda, ldb, ldc;
	int how, func, acc; // func as in package backend
	float f;
};

// Rows of dropout, the first of which is row number row. Row i is position pos[i] of sequence seqs[i], or,
// with neither, position 0 of sequence row + i. The key of a sequence is in keys.
struct dropout {
	float *y;
	const float *x;
	const int32_t *keys, *seqs, *pos;
	long rows, cols, ldy, ldx, row;
	int acc;
	struct drop drop;
};

struct norm {
	float *y, *mean, *rstd, *sum; // each may be null
	float *row;                   // (cols): instead of y, where that is null
	const float *x, *res, *g, *b; // res may be null
	long rows, cols, ldy, ldmean, ldrstd, ldsum, ldx, ldres;
	double eps;
};

struct norm_dx {
	float *dx;
	const float *s, *mean, *rstd, *g, *dy;
	long rows, cols, lddx, lds, ldmean, ldrstd, lddy;
	int acc;
};

// Sums of rows: db of dy, dg of dy times the normalised s. Either may be null.
struct column_sums {
	float *db, *dg;
	const float *dy, *s, *mean, *rstd;
	long rows, cols, lddy, lds, ldmean, ldrstd;
	int acc_db, acc_dg;
};

// y = x g c + b, with vectors (cols) that are the same in every row; c and b may be null.
struct mul_cols {
	float *y;
	const float *x, *g, *c, *b;
	long rows, cols, ldy, ldx;
	int acc;
};

// dg (cols) = c Σ x dy over rows; c may be null.
struct mul_sums {
	float *dg;
	const float *x, *dy, *c;
	long rows, cols, ldx, lddy;
	int acc;
};

// Rows by the weights of the experts that they choose: see group.h. h (rows,k·rank), w (experts·rank,cols).
struct group {
	const float *x, *w, *at, *plus; // plus may be null
	float *h, *y;                   // y null: h is the result, of x; else y is, of h
	void *scratch;
	long rows, cols, k, rank, experts, ldx, ldw, ldat, ldplus, ldh, ldy;
	int acc;
};

// A row, and which of its choices.
struct slot {
	int32_t row, choice;
};

struct group_sort {
	const float *at;
	int32_t *start;     // (experts+1)
	struct slot *order; // (rows·k)
	long rows, k, experts, ldat;
};

enum { GROUP_COLS = 64 }; // of a piece of such a gradient

// Columns col to end of what slots of rows from up to to add to the gradients of the weights of experts from expert up to
// experts; rows are ldq and columns ldc floats apart.
struct group_tn {
	const float *h, *x;
	const int32_t *start;
	const struct slot *order;
	float *dw, *sums; // sums (rank,GROUP_COLS) is scratch
	long expert, experts, rank, from, to, col, end, ldh, ldx, ldq, ldc;
	int acc;
};

// y (cols,rows) is the transpose of x (rows,cols).
struct transpose {
	float *y;
	const float *x;
	long rows, cols, ldx;
};

struct embed {
	float *y;
	const float *word, *position, *type; // type may be null
	const int32_t *ids, *pos, *types;
	long rows, cols, ldy, ldword, ldposition, ldtype;
};

struct embed_grad {
	float *table;
	const float *dy;
	const int32_t *ids;
	long rows, cols, ldtable, lddy;
};

// y (cols) = f times the sum of rows.
struct sum_rows {
	float *y;
	const float *x;
	long rows, cols, ldx;
	float f;
};

struct max_rows {
	float *y, *at; // (cols), either may be null
	const float *x;
	long rows, cols, ldx;
};

struct max_grad {
	float *dx;
	const float *dy, *at; // (cols)
	long rows, cols, lddx;
};

// AdamW: rest1 is 1-β1, rest2 is 1-β2, l2 the decay that is added to the gradient, shrink what weights are
// multiplied by, step and root the corrections of bias. top is AMSGrad's, or null.
struct adamw {
	float *w, *m, *v, *top;
	const float *g;
	long n;
	float f, rest1, beta2, rest2, eps, l2, shrink, step, root;
	const uint8_t *g_used; // by page: where it is 0 in both, g, m, v and top are zero; null: not known
	uint8_t *m_used;
	long skew; // elements from the start of the first page to the vectors
};

struct sgd {
	float *w, *m;
	const float *g;
	long n;
	float f, momentum, decay, lr;
	int nesterov;
};

// w = sign(w) max(|w| - by, 0)
struct shrink {
	float *w;
	long n;
	float by;
};

// Squares of n elements from number from on of a matrix.
struct squares {
	const float *x;
	double *sum;
	long from, n, cols, ld;
	const uint8_t *used; // by page: where it is 0, x is; null: not known. As above; of a matrix of one row
	long skew;
};

// Routing as package backend has it: E = cols·each experts. y and at may be null, and bias.
struct route {
	float *y, *at, *lanes; // (rows,E+cols), (rows,k); lanes: 2cols + 4E vectors
	const float *z, *bias; // (rows,cols), (E)
	long rows, cols, ldy, ldat, ldz;
	int k, each, sigmoid;
};

struct route_grad {
	float *dz;
	const float *y, *at, *bias, *dy;
	long rows, cols, lddz, ldy, ldat, lddy;
	int k, each, sigmoid;
};

// y = by g h, by groups of rank columns. With shared the groups of h are one.
struct gate_mul {
	float *y;
	const float *h, *g; // g (rows,experts)
	long rows, experts, rank, ldy, ldh, ldg;
	float by;
	int shared;
};

struct gate_mul_grad {
	float *dh, *dg; // either may be null
	const float *h, *g, *dy;
	long rows, experts, rank, lddh, lddg, ldh, ldg, lddy;
	float by;
	int shared;
};

// What rows sum up to: how many chose each expert, the columns of x, and the entropies of its rows; each may be null.
struct tally {
	double *chosen, *sums, *entropy; // (experts), (cols), (1)
	const float *at, *x;             // (rows,k), (rows,cols)
	float *lanes;                    // cols vectors
	long rows, k, experts, cols, ldat, ldx;
};

// With l = log Σ exp z of each row: sum is Σ l², dz is f l exp(z - l). Either may be null.
struct z_loss {
	double *sum;
	float *dz, *lanes; // lanes: cols vectors
	const float *z;
	long rows, cols, lddz, ldz;
	float f;
};

enum { PAGE_BITS = 10 }; // elements of a page of account

// Products have also versions that round their factors to bf16.
#define PRODUCTS(F) F(mat) F(mat_tn) F(pack)

// Every kernel has a version for each instruction set.
#define KERNELS(F) \
	PRODUCTS(F) F(add_parts) F(attn) F(attn_grad)                  \
	F(elements) F(dropout) F(norm) F(norm_dx) F(column_sums)       \
	F(embed) F(embed_grad) F(sum_rows) F(max_rows) F(max_grad) F(adamw) F(sgd) F(squares) \
	F(mul_cols) F(mul_sums) F(shrink)                              \
	F(group) F(group_sort) F(group_tn) F(transpose)                \
	F(route) F(route_grad) F(gate_mul) F(gate_mul_grad) F(tally) F(z_loss)

#define VERSION(name, isa) void name##_##isa(const struct name *);
#define DECLARE(name) VERSIONS(VERSION, name)
#define DECLARE_ROUNDED(name) ROUNDED(VERSION, name)
KERNELS(DECLARE)
PRODUCTS(DECLARE_ROUNDED)
#undef DECLARE
#undef DECLARE_ROUNDED
#undef VERSION

// The block of an instruction set's registers, rows by columns; the words of depth that mat and mat_tn take at a time;
// the columns of mat's tile: their panels stay in the second cache, of which an AVX2 machine may have 512 KiB and one
// with AVX-512 has 1 MiB or more; the numbers of a word, and what depths in words are rounded up to. All 0: the compiler
// does not know the instructions.
struct sizes {
	int mr, nr, kc, kt, tc, per, deep;
};
#define SIZES(name, isa) extern const struct sizes name##_##isa;
VERSIONS(SIZES, sizes)
#undef SIZES

// RUNG_TASK_name is a kernel; in a list of tasks it is that times RUNG_ISAS and the number of its version.
enum {
#define TASK(name) RUNG_TASK_##name,
	KERNELS(TASK)
#undef TASK
};

// Tasks follow each other: this, then the argument of the kernel.
struct task {
	uint16_t kernel, slot; // slot, if not 0: where in the argument the address of the worker's scratch goes
	uint32_t words;        // to the next task, 8 bytes each
};

// A job is pieces of tasks: piece p starts at word starts[p] of tasks and ends where the next one starts. Segments have
// pieces up to their ends; those after the last are in none. A worker's scratch is stride bytes from the next worker's.
enum { RUNG_SEGMENTS = 8 }; // at most
struct job {
	uint64_t *tasks;
	const uint32_t *starts;
	const int64_t *ends;
	char *scratch;
	long segments, pieces, stride;
};

// A team is threads that do jobs together with the one that calls.
struct team;
struct team *rung_team_new(int workers, int patient); // the caller is one of them; null: no threads or no memory
void rung_team_free(struct team *);
void rung_team_do(struct team *, struct job);
void rung_do_alone(struct job);
