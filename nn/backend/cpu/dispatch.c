//go:build amd64 && unix

// rung_NAME calls the kernel for an instruction set that the machine has.
#include "kernels.h"

#define DISPATCH(name)                                      \
	void rung_##name(int isa, struct name x) {           \
		if (isa == RUNG_AVX512) name##_avx512(&x);    \
		else name##_avx2(&x);                         \
	}
KERNELS(DISPATCH)
