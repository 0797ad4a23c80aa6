//go:build amd64 && linux && amxemu

// AMX for processors that have none, for tests: instructions on tiles raise SIGILL, whose handler does what they would.
// So the code that is tested is that which ships. Encodings and sums are to be those of Intel's manual; what would fault
// there, or whose result depends on tiles that were released, ends the process.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

enum { TILES = 8, ROWS = 16, BYTES = 64 };

static _Thread_local struct {
	int configured, rows[TILES], bytes[TILES];
	uint8_t data[TILES][ROWS][BYTES];
} state;

static void (*before)(int, siginfo_t *, void *);

static void fail(const char *why) {
	fprintf(stderr, "amx: %s\n", why);
	abort();
}

static void configure(const uint8_t *at) {
	memset(&state, 0, sizeof state);
	if (at[0] != 1) fail("palette is not 1");
	for (int i = 1; i < 16; i++)
		if (at[i]) fail("configuration's reserved bytes, or a row to start from");
	for (int t = 0; t < 16; t++) {
		uint16_t bytes;
		memcpy(&bytes, at + 16 + 2 * t, sizeof bytes);
		const int rows = at[48 + t];
		if (bytes > BYTES || rows > ROWS || (t >= TILES && (bytes || rows)) || !bytes != !rows) fail("configuration of tiles");
		if (t < TILES) state.bytes[t] = bytes, state.rows[t] = rows;
	}
	state.configured = 1;
}

static int tile(int t) {
	if (!state.configured || t >= TILES || !state.rows[t]) fail("a tile that is not configured");
	return t;
}

static float number(const uint8_t *bf16) {
	uint32_t u = (uint32_t)bf16[1] << 24 | (uint32_t)bf16[0] << 16;
	if (!(u & 0x7f800000)) u &= 0x80000000; // denormals are zeros
	float f;
	memcpy(&f, &u, sizeof f);
	return f;
}

static void dot(int c, int a, int b) {
	const int rows = state.rows[c], cols = state.bytes[c] / 4, depth = state.bytes[a] / 4;
	if (state.rows[a] != rows || state.bytes[b] != state.bytes[c] || state.rows[b] != depth) fail("tiles of shapes that do not multiply");
	if (c == a || c == b || a == b) fail("one tile twice in a product");
	for (int m = 0; m < rows; m++)
		for (int n = 0; n < cols; n++) {
			float low = 0, high = 0, sum;
			for (int k = 0; k < depth; k++) {
				const uint8_t *x = state.data[a][m] + 4 * k, *y = state.data[b][k] + 4 * n;
				low = __builtin_fmaf(number(x), number(y), low);
				high = __builtin_fmaf(number(x + 2), number(y + 2), high);
			}
			memcpy(&sum, state.data[c][m] + 4 * n, sizeof sum);
			sum += low + high;
			memcpy(state.data[c][m] + 4 * n, &sum, sizeof sum);
		}
}

// A decoded instruction: VEX with three bytes, no other prefix.
struct instruction {
	int map, pp, vvvv, op, mod, reg, rm;
	const uint8_t *next;
	uint64_t base, step; // of a memory operand: base and displacement, and the scaled index
};

static uint64_t general(const ucontext_t *u, int r) {
	static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI, REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
	return (uint64_t)u->uc_mcontext.gregs[order[r]];
}

static int decode(const ucontext_t *u, struct instruction *x) {
	const uint8_t *p = (const uint8_t *)u->uc_mcontext.gregs[REG_RIP];
	if (p[0] != 0xc4 || (p[2] & 0x84)) return 0; // not 128 bits, W0
	const int high_index = !(p[1] & 0x40), high_base = !(p[1] & 0x20);
	*x = (struct instruction){.map = p[1] & 31, .pp = p[2] & 3, .vvvv = ~p[2] >> 3 & 15, .op = p[3], .mod = p[4] >> 6, .reg = p[4] >> 3 & 7, .rm = p[4] & 7};
	p += 5;
	if (x->mod != 3) {
		int disp = x->mod == 1 ? 1 : x->mod == 2 ? 4 : 0, base = x->rm, relative = 0;
		if (x->rm == 4) {
			const int sib = *p++, index = (sib >> 3 & 7) | high_index << 3;
			base = sib & 7;
			if (index != 4) x->step = general(u, index) << (sib >> 6);
			if (base == 5 && x->mod == 0) base = -1, disp = 4;
		} else if (x->rm == 5 && x->mod == 0)
			relative = 1, base = -1, disp = 4;
		if (base >= 0) x->base = general(u, base | high_base << 3);
		int32_t d = 0;
		if (disp == 1) d = (int8_t)*p;
		if (disp == 4) memcpy(&d, p, sizeof d);
		p += disp;
		x->base += (uint64_t)(int64_t)d + (relative ? (uint64_t)p : 0);
	}
	x->next = p;
	return 1;
}

enum { NP, P66, PF3, PF2 };

// execute does an instruction on tiles, and returns 0 of any other.
static int execute(const struct instruction *x) {
	const int memory = x->mod != 3;
	if (x->map != 2) return 0;
	if (x->op == 0x49 && x->pp == NP && memory && x->reg == 0) { // LDTILECFG
		configure((const uint8_t *)(x->base + x->step));
	} else if (x->op == 0x49 && x->pp == NP && !memory && x->reg == 0 && x->rm == 0) { // TILERELEASE
		memset(&state, 0, sizeof state);
	} else if (x->op == 0x49 && x->pp == PF2 && !memory && x->rm == 0) { // TILEZERO
		memset(state.data[tile(x->reg)], 0, sizeof state.data[0]);
	} else if (x->op == 0x4b && (x->pp == PF2 || x->pp == PF3) && memory && x->rm == 4) { // TILELOADD, TILESTORED
		const int t = tile(x->reg);
		for (int r = 0; r < state.rows[t]; r++) {
			uint8_t *at = (uint8_t *)(x->base + (uint64_t)r * x->step), *row = state.data[t][r];
			if (x->pp == PF2) memcpy(row, at, (size_t)state.bytes[t]);
			else memcpy(at, row, (size_t)state.bytes[t]);
		}
	} else if (x->op == 0x5c && x->pp == PF3 && !memory) { // TDPBF16PS
		dot(tile(x->reg), tile(x->rm), tile(x->vvvv));
	} else
		return 0;
	return 1;
}

static void illegal(int n, siginfo_t *info, void *context) {
	ucontext_t *u = context;
	struct instruction x;
	if (decode(u, &x) && execute(&x)) u->uc_mcontext.gregs[REG_RIP] = (greg_t)x.next;
	else before(n, info, context);
}

int rung_amx_emulate(void) {
	struct sigaction a = {.sa_sigaction = illegal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART}, old;
	sigfillset(&a.sa_mask);
	if (before) return 1;
	if (sigaction(SIGILL, 0, &old)) return 0;
	before = old.sa_sigaction;
	return before && sigaction(SIGILL, &a, 0) == 0;
}
