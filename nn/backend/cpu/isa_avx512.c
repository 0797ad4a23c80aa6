//go:build amd64 && unix

// The kernels for AVX-512F.
#include "kernels.h"
#include "vec_avx512.h"
#include "vmath.h"
#include "micro.h"
#include "matmul.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
