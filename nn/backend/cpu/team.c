//go:build (amd64 || arm64) && unix

// Teams of threads that do tasks. They are not goroutines: the Go scheduler takes the processor of one that
// stays in C, and its thread that does so, and those that it wakes, then need the cores of the kernels.
#include "kernels.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

typedef void kernel(const void *);
static kernel *const kernels[][RUNG_ISAS] = {
#define VERSION(name, isa) [RUNG_TASK_##name][RUNG_##isa] = (kernel *)name##_##isa,
#define EVERY(name) VERSIONS(VERSION, name)
#define EVERY_ROUNDED(name) ROUNDED(VERSION, name)
	KERNELS(EVERY)
	PRODUCTS(EVERY_ROUNDED)
};

enum {
	PATIENCE = 200000, // nanoseconds that a thread looks for work before it sleeps: waking takes as long
	OPEN = 1 << 16,    // in state: the job has work; the bits below count the helpers that are at it
};

// Pieces of one worker's share of a segment, or those in no segment, on a cache line of their own.
struct share {
	_Atomic long next;
	long end;
	char pad[48];
};

struct team {
	struct job job;
	struct share *shares; // of the first segment by workers, and so on; then of what is in none
	int helpers, patient;
	char pad[64];
	_Atomic uint64_t state; // number of the job << 32 | OPEN | helpers at it
	_Atomic int sleepers, waits, closed;
	pthread_mutex_t lock;
	pthread_cond_t wake, ended;
	struct helper {
		struct team *team;
		int worker;
		pthread_t thread;
	} helper[];
};

enum { BRIEF = 64 }; // a product of less depth ends before much is fetched

// foresee tells a product which factors the next one has, if they are others: they are fetched while it is computed.
static void foresee(const struct task *t, const uint64_t *end) {
	struct mat *x = (struct mat *)(t + 1);
	const struct task *n = t;
	const struct mat *y;
	do {
		n = (const struct task *)((const uint64_t *)n + n->words);
		y = (const struct mat *)(n + 1);
		if ((const uint64_t *)n >= end || n->kernel != t->kernel) return;
	} while (y->k < BRIEF);
	x->nexta = y->a == x->a ? 0 : y->a;
	x->nextb = y->b == x->b ? 0 : y->b;
}

static void piece(const struct job *j, long p, char *scratch) {
	const uint64_t *all = j->tasks + j->starts[j->pieces];
	for (uint64_t *w = j->tasks + j->starts[p], *end = j->tasks + j->starts[p + 1]; w < end;) {
		struct task *t = (struct task *)w;
		char *arg = (char *)(w + 1);
		if (t->slot) *(char **)(arg + t->slot) = scratch;
		if (t->kernel / RUNG_ISAS == RUNG_TASK_mat) foresee(t, all);
		kernels[t->kernel / RUNG_ISAS][t->kernel % RUNG_ISAS](arg);
		w += t->words;
	}
}

void rung_do_alone(struct job j) {
	for (long p = 0; p < j.pieces; p++) piece(&j, p, j.scratch);
}

// take does pieces of a share until there are none.
static void take(struct team *t, struct share *s, char *scratch) {
	while (atomic_load(&s->next) < s->end) {
		long p = atomic_fetch_add(&s->next, 1);
		if (p < s->end) piece(&t->job, p, scratch);
	}
}

// work does the worker's own shares, always the same part of the rows, which its core's caches may have, and
// then takes of the others': one whose core is taken away holds nobody up. What is in no segment comes last.
static void work(struct team *t, int worker) {
	const int workers = t->helpers + 1;
	const long segments = t->job.segments;
	char *const scratch = t->job.scratch + worker * t->job.stride;
	for (int k = 0; k < workers; k++)
		for (long g = 0; g < segments; g++) take(t, &t->shares[g * workers + (worker + k) % workers], scratch);
	take(t, &t->shares[segments * workers], scratch);
}

static long nanoseconds(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

static int fresh(struct team *t, uint64_t seen) {
	uint64_t s = atomic_load(&t->state);
	return atomic_load(&t->closed) || ((s & OPEN) && s >> 32 != seen);
}

static int idle(struct team *t, uint64_t unused) {
	(void)unused;
	return (atomic_load(&t->state) & (OPEN - 1)) == 0;
}

// soon waits a while for what is true to be.
static int soon(struct team *t, int (*is)(struct team *, uint64_t), uint64_t x) {
	if (!t->patient) return is(t, x);
	for (long until = nanoseconds() + PATIENCE;;) {
		for (int i = 0; i < 16; i++) {
			if (is(t, x)) return 1;
			WAIT();
		}
		if (nanoseconds() > until) return 0;
	}
}

static void *help(void *arg) {
	struct helper *h = arg;
	struct team *t = h->team;
	for (uint64_t seen = 0;;) {
		if (!soon(t, fresh, seen)) {
			pthread_mutex_lock(&t->lock);
			atomic_fetch_add(&t->sleepers, 1);
			while (!fresh(t, seen)) pthread_cond_wait(&t->wake, &t->lock);
			atomic_fetch_sub(&t->sleepers, 1);
			pthread_mutex_unlock(&t->lock);
		}
		if (atomic_load(&t->closed)) return 0;
		// Only who has entered an open job is waited for: one that wakes late finds it closed.
		uint64_t s = atomic_load(&t->state);
		if (!(s & OPEN) || s >> 32 == seen || !atomic_compare_exchange_strong(&t->state, &s, s + 1)) continue;
		seen = s >> 32;
		work(t, h->worker);
		s = atomic_fetch_sub(&t->state, 1) - 1;
		if (!(s & (OPEN | (OPEN - 1))) && atomic_load(&t->waits)) {
			pthread_mutex_lock(&t->lock);
			pthread_cond_signal(&t->ended);
			pthread_mutex_unlock(&t->lock);
		}
	}
}

void rung_team_do(struct team *t, struct job j) {
	t->job = j;
	const int workers = t->helpers + 1;
	struct share *s = t->shares;
	long from = 0;
	for (long g = 0; g < j.segments; g++) {
		const long n = j.ends[g] - from;
		for (int k = 0; k < workers; k++, s++) {
			atomic_store_explicit(&s->next, from + k * n / workers, memory_order_relaxed);
			s->end = from + (k + 1) * n / workers;
		}
		from += n;
	}
	atomic_store_explicit(&s->next, from, memory_order_relaxed);
	s->end = j.pieces;
	atomic_store(&t->state, ((atomic_load(&t->state) >> 32) + 1) << 32 | OPEN);
	if (atomic_load(&t->sleepers)) {
		pthread_mutex_lock(&t->lock);
		pthread_cond_broadcast(&t->wake);
		pthread_mutex_unlock(&t->lock);
	}
	work(t, 0);
	atomic_fetch_and(&t->state, ~(uint64_t)OPEN);
	if (soon(t, idle, 0)) return;
	pthread_mutex_lock(&t->lock);
	atomic_store(&t->waits, 1);
	while (!idle(t, 0)) pthread_cond_wait(&t->ended, &t->lock);
	atomic_store(&t->waits, 0);
	pthread_mutex_unlock(&t->lock);
}

void rung_team_free(struct team *t) {
	pthread_mutex_lock(&t->lock);
	atomic_store(&t->closed, 1);
	pthread_cond_broadcast(&t->wake);
	pthread_mutex_unlock(&t->lock);
	for (int k = 0; k < t->helpers; k++) pthread_join(t->helper[k].thread, 0);
	pthread_cond_destroy(&t->wake);
	pthread_cond_destroy(&t->ended);
	pthread_mutex_destroy(&t->lock);
	free(t->shares);
	free(t);
}

struct team *rung_team_new(int workers, int patient) {
	struct team *t = calloc(1, sizeof *t + (size_t)workers * sizeof t->helper[0]);
	if (!t) return 0;
	t->shares = aligned_alloc(64, ((size_t)workers * RUNG_SEGMENTS + 1) * sizeof *t->shares);
	if (!t->shares) {
		free(t);
		return 0;
	}
	t->patient = patient;
	pthread_mutex_init(&t->lock, 0);
	pthread_cond_init(&t->wake, 0);
	pthread_cond_init(&t->ended, 0);
	// Signals are for the threads of Go, but for that of its profiler and what a thread does itself: a fault of a kernel
	// that is blocked would end the process without a word.
	static const int own[] = {SIGPROF, SIGSEGV, SIGBUS, SIGILL, SIGFPE};
	sigset_t all, old;
	sigfillset(&all);
	for (unsigned i = 0; i < sizeof own / sizeof *own; i++) sigdelset(&all, own[i]);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	while (t->helpers < workers - 1) {
		struct helper *h = &t->helper[t->helpers];
		*h = (struct helper){t, t->helpers + 1, 0};
		if (pthread_create(&h->thread, 0, help, h)) break; // with fewer it is slower, no more
		t->helpers++;
	}
	pthread_sigmask(SIG_SETMASK, &old, 0);
	return t;
}
