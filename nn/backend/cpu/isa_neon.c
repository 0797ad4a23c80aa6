//go:build arm64 && unix

// The kernels for NEON.
#include "kernels.h"
#include <math.h>
#include "vec_neon.h"
#include "vmath.h"
#include "micro.h"
#include "matmul.h"
#include "vphilox.h"
#include "attention.h"
#include "rows.h"
#include "group.h"
#include "moe.h"
#include "update.h"
