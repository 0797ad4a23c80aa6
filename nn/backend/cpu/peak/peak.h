// rung_peak runs steps rounds of independent fused multiply-adds of an instruction set and returns their
// number of floating point operations, 0 if this architecture has no such set; it writes the seconds of this
// thread that they took.
double rung_peak(const char *isa, long steps, double *seconds);
