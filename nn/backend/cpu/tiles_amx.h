// Blocks of AMX: 32 rows and 32 columns are four tiles of sums, of sixteen rows of sixteen floats. A step of sixteen words
// of depth loads two tiles of each factor, 1 KiB each, for four products of 16,384 operations.
//
// The instruction TDPBF16PS adds the products of lower numbers and those of upper ones, words in order, and both sums to
// what a tile has.
enum { TILE = 16 };

// All eight tiles are sixteen rows of 64 bytes.
static const struct {
	uint8_t palette, start, zero[14];
	uint16_t bytes[16];
	uint8_t rows[16];
} tiles_shape __attribute__((aligned(64))) = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

// Not by GCC's intrinsics: those of loads do not tell that they read memory.
#define TILES(...) __asm__ volatile(__VA_ARGS__ : "memory")
#define BEGIN() TILES("ldtilecfg %0" : : "m"(tiles_shape))
#define END() TILES("tilerelease" : :) // else every change of threads saves 8 KiB
#define TILE_ZERO(t) TILES("tilezero %%tmm" #t : :)
#define TILE_LOAD(t, p, ld) TILES("tileloadd (%0,%1), %%tmm" #t : : "r"(p), "r"((ld) * (long)sizeof(float)))
#define TILE_STORE(t, p, ld) TILES("tilestored %%tmm" #t ", (%0,%1)" : : "r"(p), "r"((ld) * (long)sizeof(float)))
#define TILE_DOT(c, a, b) TILES("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c : :)

// The tiles: sums 0 to 3 row by row, the left factor in 4 and 5, the right one in 6 and 7.
#define SUMS(DO)                                      \
	do {                                          \
		DO(0, 0, 0);                          \
		if (wide) DO(1, 0, TILE);             \
		if (tall) DO(2, TILE, 0);             \
		if (wide && tall) DO(3, TILE, TILE);  \
	} while (0)

// blocks is a block of m ≤ MR rows and n ≤ NR columns (whole vectors are written). Of a there are rows up to a whole
// tile; k is whole steps. Beside it lines are fetched as in micro.h, but without jumps.
#define BLOCKS
INLINE void blocks(const int how, long m, long n, long k, const float *a, long s, const float *b, long bs, const struct beside *o) {
	(void)how;
	const int wide = n > TILE, tall = m > TILE;
	float sums[MR * NR] __attribute__((aligned(64)));
	// Partial sums are whole blocks.
#define FROM(t, i, j) TILE_LOAD(t, o->from + (i) * o->ldfrom + (j), o->ldfrom)
#define ZERO(t, i, j) TILE_ZERO(t)
	if (o->from) SUMS(FROM);
	else SUMS(ZERO);
	const char *ahead = o->ahead;
	for (; k > 0; k -= TILE, a += TILE, b += TILE * bs, ahead += 4 * LINE) {
		for (int l = 0; l < 4; l++) __builtin_prefetch(ahead + l * LINE, 0, 2);
		TILE_LOAD(6, b, bs);
		TILE_LOAD(4, a, s);
		TILE_DOT(0, 4, 6);
		if (wide) {
			TILE_LOAD(7, b + TILE, bs);
			TILE_DOT(1, 4, 7);
		}
		if (!tall) continue;
		TILE_LOAD(5, a + TILE * s, s);
		TILE_DOT(2, 5, 6);
		if (wide) TILE_DOT(3, 5, 7);
	}
	// Into what has room for whole blocks tiles go as they are.
#define KEEP(t, i, j) TILE_STORE(t, o->c + (i) * o->ldc + (j), o->ldc)
	if (!o->bias && !o->add && (m == MR || o->room)) {
		SUMS(KEEP);
		return;
	}
#define PART(t, i, j) TILE_STORE(t, sums + (i) * NR + (j), NR)
	SUMS(PART);
	for (long i = 0; i < m; i++)
		for (long v = 0; v < n; v += VL) {
			float *c = o->c + i * o->ldc + v;
			vf y = vload(sums + i * NR + v);
			if (o->bias) y = vadd(y, vload(o->bias + v));
			if (o->add) y = vadd(y, vload(c));
			vstore(c, y);
		}
}

#define PACKED_ROWS // tiles are read along their rows
