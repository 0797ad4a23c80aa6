//go:build amd64 && unix

// The products for AVX-512-BF16.
#include "kernels.h"
#ifdef RUNG_ROUNDED
#include <math.h>
#define FN(name) name##_bf16
#define TARGETS "avx512f,avx512bw,avx512bf16,avx2,fma"
#define WIDE
enum { MR = 14, KC = 384, KT = 128, TC = 384, DEEP = 1 };
#include "vec_avx512.h"
#include "words_bf16.h"
#include "vmath.h"
#include "micro.h"
#include "rounded.h"
#include "matmul.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
#else
const struct sizes sizes_bf16;
#endif
