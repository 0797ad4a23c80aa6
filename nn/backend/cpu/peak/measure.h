// The loop that is measured, for the file of an architecture.
#define _POSIX_C_SOURCE 200112L
#include "peak.h"
#include <string.h>
#include <time.h>

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#ifdef __clang__
#define EACH _Pragma("clang loop unroll(full)") for (int i = 0; i < CHAINS; i++)
#else
#define EACH _Pragma("GCC unroll 16") for (int i = 0; i < CHAINS; i++)
#endif

// CHAINS are independent sums, in registers: enough to hide the latency of the units. REG is the constraint of a
// register, flops the operations of a lane.
#define PEAK(name, attribute, vec, lanes, flops, set, fma, store)                 \
	attribute static double name(long steps, double *seconds) {               \
		vec s[CHAINS], x = set(1), y = set(1e-9f);                \
		EACH s[i] = set((float)i);                                        \
		double t = now();                                                 \
		__asm__ volatile("" : "+" REG(x)); /* not before */               \
		for (long k = 0; k < steps; k++) EACH s[i] = fma(s[i], x, y);     \
		EACH __asm__ volatile("" : "+" REG(s[i])); /* not after now */    \
		*seconds = now() - t;                                             \
		volatile float sink[lanes];                                       \
		EACH store((float *)sink, s[i]);                                  \
		return (double)flops * CHAINS * lanes * (double)steps;            \
	}
