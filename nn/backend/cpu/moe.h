// Mixtures of experts. Where all columns of a row take part in each, rows lie side by side in the lanes of vectors:
// what a row gets is a chain over its columns, front to back, whatever lies beside it.
#include <float.h>

// to_lanes copies n ≤ VL rows of x to columns of VL lanes; those past n have the last row.
static void to_lanes(float *to, const float *x, long ld, long n, long cols) {
	const float *r[VL];
	for (int i = 0; i < VL; i++) r[i] = x + least(i, n - 1) * ld;
	long j = 0;
	for (; j + 4 <= cols; j += 4) fours(to + j * VL, VL, r, j);
	for (; j < cols; j++)
		for (int i = 0; i < VL; i++) to[j * VL + i] = r[i][j];
}

// from_lanes copies them back to n rows of y.
static void from_lanes(float *y, long ld, const float *from, long n, long cols) {
	const float *r[VL];
	float four[4 * VL];
	for (long j = 0; j < cols; j += VL) {
		for (int i = 0; i < VL; i++) r[i] = from + least(j + i, cols - 1) * VL;
		for (long i = 0; i < n; i++) {
			if (i % 4 == 0) fours(four, VL, r, i);
			vstoren(y + i * ld + j, vload(four + i % 4 * VL), cols - j);
		}
	}
}

// lane_exps is to = exp(z - top) of columns, with the greatest of each lane for top. It returns their sum. A lane of
// nothing but -inf gets zeros, for a top of 0 and a sum of 1, one with NaN or +inf gets NaN.
static vf lane_exps(float *to, const float *z, long cols, vf *top) {
	vf most = vset(-INFINITY), sum = vzero();
	for (long j = 0; j < cols; j++) most = vmax(vload(z + j * VL), most);
	most = vpick(vlt(most, vset(-FLT_MAX)), vzero(), most);
	for (long j = 0; j < cols; j++) {
		const vf e = vexp(vsub(vload(z + j * VL), most));
		vstore(to + j * VL, e);
		sum = vadd(sum, e);
	}
	*top = most;
	return vpick(vlt(sum, vset(1)), vset(1), sum);
}

// choose puts the numbers of the k greatest keys of each lane to chosen, of equals the first. It is NaN that is chosen
// where that is the first of those left, as no key is greater. Keys are lost.
static void choose(float *chosen, float *keys, float *left, long experts, int k) {
	int first[VL] = {0}; // of those left
	for (long e = 0; e < experts; e++) vstore(left + e * VL, vset(1));
	for (int j = 0; j < k; j++, chosen += VL) {
		float start[VL];
		for (int l = 0; l < VL; l++) chosen[l] = (float)first[l], start[l] = keys[first[l] * VL + l];
		vf at = vload(chosen), best = vload(start), e = vzero();
		for (const float *p = keys; p < keys + experts * VL; p += VL, e = vadd(e, vset(1))) {
			const vf key = vload(p);
			at = vpick(vgt(key, best), e, at);
			best = vmax(key, best); // which stays where either is NaN
		}
		vstore(chosen, at);
		for (int l = 0; l < VL; l++) {
			const int taken = (int)chosen[l];
			keys[taken * VL + l] = -INFINITY; // greater than none
			left[taken * VL + l] = 0;
			while (first[l] < experts - 1 && left[first[l] * VL + l] == 0) first[l]++;
		}
	}
}

// few says where sums of scores are at most 1e-12: gates of a sigmoid are 1 there. NaN is no such sum.
static inline vm few(vf sum) { return vlt(sum, vset(nextafterf(1e-12f, 1))); }

// shares turns logits of k chosen into their softmax, or scores into k times their shares of the sum.
static void shares(float *w, int k, int sigmoid) {
	vf sum = vzero(), top = vset(-INFINITY);
	if (!sigmoid) {
		for (int j = 0; j < k; j++) top = vmax(vload(w + j * VL), top);
		for (int j = 0; j < k; j++) vstore(w + j * VL, vexp(vsub(vload(w + j * VL), top)));
	}
	for (int j = 0; j < k; j++) sum = vadd(sum, vload(w + j * VL));
	for (int j = 0; j < k; j++) {
		const vf v = vload(w + j * VL);
		vstore(w + j * VL, sigmoid ? vpick(few(sum), vset(1), vdiv(vmul(vset((float)k), v), sum)) : vdiv(v, sum));
	}
}

// probabilities is the softmax of columns z, to 4 ulp and as many as |z - max z| rounds away, or their sigmoids.
static void probabilities(float *p, const float *z, long cols, int sigmoid) {
	if (sigmoid) {
		for (long j = 0; j < cols; j++) vstore(p + j * VL, vsigmoid(vload(z + j * VL)));
		return;
	}
	vf top, sum = lane_exps(p, z, cols, &top);
	for (long j = 0; j < cols; j++) vstore(p + j * VL, vdiv(vload(p + j * VL), sum));
}

void FN(route)(const struct route *x) {
	const long cols = x->cols, experts = cols * x->each;
	float *z = x->lanes, *p = z + cols * VL, *keys = p + cols * VL, *left = keys + experts * VL;
	float *chosen = left + experts * VL, *w = chosen + x->k * VL;
	for (long i = 0; i < x->rows; i += VL) {
		const long n = least(VL, x->rows - i);
		to_lanes(z, x->z + i * x->ldz, x->ldz, n, cols);
		probabilities(p, z, cols, x->sigmoid);
		for (long e = 0, c = 0; c < cols; c++)
			for (int r = 0; r < x->each; r++, e++)
				vstore(keys + e * VL, x->bias ? vadd(vload(p + c * VL), vset(x->bias[e])) : vload(z + c * VL));
		choose(chosen, keys, left, experts, x->k);
		for (int j = 0; j < x->k * VL; j++) {
			const int e = (int)chosen[j], c = e / x->each * VL + j % VL;
			w[j] = x->sigmoid ? p[c] + (x->bias ? x->bias[e] : 0) : z[c];
		}
		if (x->at) from_lanes(x->at + i * x->ldat, x->ldat, chosen, n, x->k);
		if (!x->y) continue;
		shares(w, x->k, x->sigmoid);
		float *y = x->y + i * x->ldy;
		for (long l = 0; l < n; l++) {
			for (long e = 0; e < experts; e += VL) vstoren(y + l * x->ldy + e, vzero(), experts - e);
			for (int j = 0; j < x->k; j++) y[l * x->ldy + (long)chosen[j * VL + l]] = w[j * VL + l];
		}
		from_lanes(y + experts, x->ldy, p, n, cols);
	}
}

// softmax_grad is dz = p (dp - Σ p dp).
static void softmax_grad(float *dz, const float *p, const float *dp, long cols) {
	vf t[SUMS];
	clear(t);
#define BODY(j, n, u) t[u] = vfma(vloadn(p + (j), n), vloadn(dp + (j), n), t[u])
	ALONG_ROW(cols, BODY);
#undef BODY
	const vf sum = vset(total(t));
#define BODY(j, n, u) vstoren(dz + (j), vmul(vloadn(p + (j), n), vsub(vloadn(dp + (j), n), sum)), n)
	ALONG_ROW(cols, BODY);
#undef BODY
}

// sigmoid_grad is dz = p (1 - p) (dp + what the gates of the chosen give), which mean is Σ g dg of.
static void sigmoid_grad(const struct route_grad *x, float *dz, const float *at, const float *p, const float *dp, const float *dg, float mean) {
	float sum = 0;
	for (long j = 0; j < x->cols; j += VL) vstoren(dz + j, vloadn(dp + j, x->cols - j), x->cols - j);
	for (int j = 0; j < x->k; j++) {
		const int e = (int)at[j];
		sum += p[e / x->each];
		if (x->bias) sum += x->bias[e];
	}
	for (int j = 0; j < x->k && !(sum <= 1e-12f); j++) {
		const int e = (int)at[j];
		dz[e / x->each] += ((float)x->k * dg[e] - mean) / sum;
	}
	for (long j = 0; j < x->cols; j += VL) {
		const vf q = vloadn(p + j, x->cols - j), d = vloadn(dz + j, x->cols - j);
		vstoren(dz + j, vmul(vmul(d, q), vsub(vset(1), q)), x->cols - j);
	}
}

void FN(route_grad)(const struct route_grad *x) {
	const long experts = x->cols * x->each;
	for (long i = 0; i < x->rows; i++) {
		float *dz = x->dz + i * x->lddz, mean = 0;
		const float *g = x->y + i * x->ldy, *dg = x->dy + i * x->lddy, *at = x->at + i * x->ldat;
		for (int j = 0; j < x->k; j++) mean += g[(int)at[j]] * dg[(int)at[j]];
		if (x->sigmoid) {
			sigmoid_grad(x, dz, at, g + experts, dg + experts, dg, mean);
			continue;
		}
		softmax_grad(dz, g + experts, dg + experts, x->cols);
		for (int j = 0; j < x->k; j++) dz[(int)at[j] / x->each] += g[(int)at[j]] * (dg[(int)at[j]] - mean);
	}
}

// gated is v x, and 0 where v is 0, whatever x.
static inline vf gated(vf v, vf x) { return vzeroif(vlt(vabs(v), vset(FLT_TRUE_MIN)), vmul(v, x)); }

// gate_mul goes along a row: by groups, or by vectors of gates where a group is one column.
void FN(gate_mul)(const struct gate_mul *x) {
	const vf by = vset(x->by);
	for (long i = 0; i < x->rows; i++) {
		float *y = x->y + i * x->ldy;
		const float *h = x->h + i * x->ldh, *g = x->g + i * x->ldg;
		if (x->rank == 1 && !x->shared) {
			for (long e = 0; e < x->experts; e += VL) {
				const long n = x->experts - e;
				const vf v = vloadn(g + e, n);
				vstoren(y + e, vpick(vlt(vabs(v), vset(FLT_TRUE_MIN)), vzero(), vmul(vmul(v, by), vloadn(h + e, n))), n);
			}
			continue;
		}
		for (long e = 0; e < x->experts; e++, y += x->rank, h += x->shared ? 0 : x->rank) {
			const vf v = vset(g[e] * x->by);
			for (long j = 0; j < x->rank; j += VL) vstoren(y + j, g[e] == 0 ? vzero() : vmul(v, vloadn(h + j, x->rank - j)), x->rank - j);
		}
	}
}

// gate_of is the gradient of a gate without the factor: Σ h dy of its group.
static inline float gate_of(const float *h, const float *dy, long rank) {
	vf t[SUMS];
	clear(t);
#define BODY(j, n, u) t[u] = vfma(vloadn(h + (j), n), vloadn(dy + (j), n), t[u])
	ALONG_ROW(rank, BODY);
#undef BODY
	return total(t);
}

// gate_mul_one is a row of gate_mul_grad with a column for each expert.
static void gate_mul_one(const struct gate_mul_grad *x, float *dh, float *dg, const float *h, const float *g, const float *dy) {
	const vf by = vset(x->by);
	for (long e = 0; e < x->experts; e += VL) {
		const long n = x->experts - e;
		const vf d = vloadn(dy + e, n);
		if (dg) vstoren(dg + e, vmul(by, vmul(vloadn(h + e, n), d)), n);
		if (dh) vstoren(dh + e, gated(vmul(vloadn(g + e, n), by), d), n);
	}
}

void FN(gate_mul_grad)(const struct gate_mul_grad *x) {
	const long rank = x->rank, step = x->shared ? 0 : rank;
	for (long i = 0; i < x->rows; i++) {
		float *dh = x->dh ? x->dh + i * x->lddh : 0, *dg = x->dg ? x->dg + i * x->lddg : 0;
		const float *h = x->h + i * x->ldh, *g = x->g + i * x->ldg, *dy = x->dy + i * x->lddy;
		if (rank == 1 && !x->shared) {
			gate_mul_one(x, dh, dg, h, g, dy);
			continue;
		}
		for (long e = 0; dg && e < x->experts; e++) dg[e] = x->by * gate_of(h + e * step, dy + e * rank, rank);
		for (long j = 0; dh && x->shared && j < rank; j += VL) {
			vf s = vzero();
			for (long e = 0; e < x->experts; e++) s = vfma(vset(g[e] * x->by), vloadn(dy + e * rank + j, rank - j), s);
			vstoren(dh + j, s, rank - j);
		}
		for (long e = 0; dh && !x->shared && e < x->experts; e++) {
			const vf v = vset(g[e] * x->by);
			for (long j = e * rank; j < (e + 1) * rank; j += VL) vstoren(dh + j, gated(v, vloadn(dy + j, (e + 1) * rank - j)), (e + 1) * rank - j);
		}
	}
}

// entropies is -Σ q log q of each lane, in nats, with q = x / Σ x. What is not positive counts nothing.
static vf entropies(const float *x, long cols) {
	vf sum = vzero(), h = vzero();
	for (long j = 0; j < cols; j++) sum = vadd(sum, vload(x + j * VL));
	for (long j = 0; j < cols; j++) {
		const vf q = vdiv(vload(x + j * VL), sum);
		h = vsub(h, vpick(vgt(q, vset(FLT_MIN)), vmul(q, vlog(q)), vzero()));
	}
	return h;
}

// tally sums in float64.
void FN(tally)(const struct tally *x) {
	if (x->chosen) {
		for (long e = 0; e < x->experts; e++) x->chosen[e] = 0;
		for (long i = 0; i < x->rows; i++)
			for (long j = 0; j < x->k; j++) x->chosen[(long)x->at[i * x->ldat + j]]++;
	}
	if (x->sums) {
		for (long j = 0; j < x->cols; j++) x->sums[j] = 0;
		for (long i = 0; i < x->rows; i++)
			for (long j = 0; j < x->cols; j++) x->sums[j] += (double)x->x[i * x->ldx + j];
	}
	if (!x->entropy) return;
	double sum = 0;
	for (long i = 0; i < x->rows; i += VL) {
		const long n = least(VL, x->rows - i);
		float h[VL];
		to_lanes(x->lanes, x->x + i * x->ldx, x->ldx, n, x->cols);
		vstore(h, entropies(x->lanes, x->cols));
		for (long l = 0; l < n; l++) sum += (double)h[l];
	}
	*x->entropy = sum;
}

void FN(z_loss)(const struct z_loss *x) {
	double squares = 0;
	for (long i = 0; i < x->rows; i += VL) {
		const long n = least(VL, x->rows - i);
		float logs[VL];
		to_lanes(x->lanes, x->z + i * x->ldz, x->ldz, n, x->cols);
		vf top, sum = lane_exps(x->lanes, x->lanes, x->cols, &top);
		const vf l = vadd(top, vlog(sum)), f = vdiv(vmul(vset(x->f), l), sum);
		vstore(logs, l);
		for (long k = 0; k < n; k++) squares += (double)logs[k] * (double)logs[k];
		if (!x->dz) continue;
		for (long j = 0; j < x->cols; j++) vstore(x->lanes + j * VL, vmul(f, vload(x->lanes + j * VL)));
		from_lanes(x->dz + i * x->lddz, x->lddz, x->lanes, n, x->cols);
	}
	if (x->sum) *x->sum = squares;
}
