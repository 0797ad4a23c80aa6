// The block of NEON. Products take their factor of a from a lane of a register, so four steps of k of a row
// of a are one load, and b streams past them: 24 sums, six rows of a and two vectors of b are 32 registers.
// GCC 12 spills none and takes 126 instructions for the 96 multiply-adds of four steps, Clang 16 takes 123.

// by is c + y x[p]; p is a constant.
INLINE vf by(vf x, int p, vf y, vf c) {
	switch (p) {
	case 0: return vfmaq_laneq_f32(c, y, x, 0);
	case 1: return vfmaq_laneq_f32(c, y, x, 1);
	case 2: return vfmaq_laneq_f32(c, y, x, 2);
	default: return vfmaq_laneq_f32(c, y, x, 3);
	}
}

INLINE void block(const int m, const int nv, const int how, long k, const float *a, long s, const float *b, long bs, const struct beside *o) {
	vf acc[MR][NV];
	const float *r[(MR + 2) / 3]; // as in micro.h
	const int groups = (m + 2) / 3;
	UNROLL(8) for (int i = 0; i < groups; i++) r[i] = a + 3 * i * s;
	UNROLL(8) for (int i = 0; i < m; i++)
		UNROLL(4) for (int v = 0; v < nv; v++) acc[i][v] = vzero();
	if (how == ALONG) {
		for (; k >= VL; k -= VL) {
			vf x[MR];
			UNROLL(8) for (int i = 0; i < m; i++) x[i] = vload(r[i / 3] + (i % 3) * s);
			UNROLL(8) for (int i = 0; i < groups; i++) r[i] += VL;
			UNROLL(4) for (int p = 0; p < VL; p++, b += bs)
				UNROLL(4) for (int v = 0; v < nv; v++) {
					vf y = vload(b + v * VL);
					UNROLL(8) for (int i = 0; i < m; i++) acc[i][v] = by(x[i], p, y, acc[i][v]);
				}
		}
		for (; k > 0; k--, b += bs) {
			float x[MR];
			UNROLL(8) for (int i = 0; i < m; i++) x[i] = r[i / 3][(i % 3) * s];
			UNROLL(8) for (int i = 0; i < groups; i++) r[i]++;
			UNROLL(4) for (int v = 0; v < nv; v++) {
				vf y = vload(b + v * VL);
				UNROLL(8) for (int i = 0; i < m; i++) acc[i][v] = vfmaq_n_f32(acc[i][v], y, x[i]);
			}
		}
	} else {
		for (; k > 0; k--, a += s, b += bs) {
			vf x[2] = {vloadn(a, m), m > VL ? vloadn(a + VL, m - VL) : vzero()};
			UNROLL(4) for (int v = 0; v < nv; v++) {
				vf y = vload(b + v * VL);
				UNROLL(8) for (int i = 0; i < m; i++) acc[i][v] = by(x[i / VL], i % VL, y, acc[i][v]);
			}
		}
	}
	settle(m, nv, acc, o);
}
