//go:build unix

#include "measure.h"
#include <arm_neon.h>

#define CHAINS 16 // four cycles on up to four units
#define REG "w"
PEAK(neon, , float32x4_t, 4, 2, vdupq_n_f32, vfmaq_f32, vst1q_f32)

double rung_peak(const char *isa, long steps, double *seconds) {
	return strcmp(isa, "neon") ? 0 : neon(steps, seconds);
}
