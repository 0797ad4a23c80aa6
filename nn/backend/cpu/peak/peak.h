// rung_peak_NAME runs steps rounds of independent fused multiply-adds and returns their number of
// floating point operations; it writes the seconds of this thread that they took.
double rung_peak_avx2(long steps, double *seconds);
double rung_peak_avx512(long steps, double *seconds);
