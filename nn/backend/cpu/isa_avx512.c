//go:build amd64 && unix

// The kernels for AVX-512F.
#include "kernels.h"
#include <math.h>
#include "vec_avx512.h"
#include "vmath.h"
#include "micro.h"
#include "matmul.h"
#include "vphilox.h"
#include "attention.h"
#include "rows.h"
#include "group.h"
#include "moe.h"
#include "update.h"
#ifdef __clang__
#pragma clang attribute pop
#endif
