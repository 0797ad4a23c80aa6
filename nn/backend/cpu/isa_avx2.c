//go:build amd64 && unix

// The kernels for AVX2 and FMA.
#include "kernels.h"
#include <math.h>
#include "vec_avx2.h"
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
