// Updates of weights: one pass over vectors in memory.

INLINE void adamw_range(const struct adamw *x, long from, long to) {
	const vf f = vset(x->f), b1 = vset(x->rest1), b2 = vset(x->beta2), c2 = vset(x->rest2), l2 = vset(x->l2), shrink = vset(x->shrink);
	const vf step = vset(x->step), root = vset(x->root), eps = vset(x->eps);
	for (long j = from; j < to; j += VL) {
		long n = to - j;
		vf w = vloadn(x->w + j, n), m = vloadn(x->m + j, n), v = vloadn(x->v + j, n), d = vmul(vloadn(x->g + j, n), f);
		if (x->l2 != 0) d = vadd(d, vmul(l2, w));
		else w = vmul(w, shrink);
		m = vadd(m, vmul(b1, vsub(d, m)));
		v = vadd(vmul(b2, v), vmul(vmul(c2, d), d));
		vstoren(x->m + j, m, n);
		vstoren(x->v + j, v, n);
		if (x->top) {
			v = vmax(vloadn(x->top + j, n), v);
			vstoren(x->top + j, v, n);
		}
		w = vsub(w, vdiv(vmul(step, m), vadd(vdiv(vsqrt(v), root), eps)));
		vstoren(x->w + j, w, n);
	}
}

// adamw leaves out what only decays: pages where the gradient and the moments are zero, which they stay.
void FN(adamw)(const struct adamw *x) {
	if (!x->g_used) {
		adamw_range(x, 0, x->n);
		return;
	}
	for (long j = 0, end; j < x->n; j = end) {
		const long page = (x->skew + j) >> PAGE_BITS;
		end = least(x->n, ((page + 1) << PAGE_BITS) - x->skew);
		if (x->g_used[page] || x->m_used[page]) {
			x->m_used[page] = 1;
			adamw_range(x, j, end);
		} else if (x->shrink != 1) {
			for (long k = j; k < end; k += VL) vstoren(x->w + k, vmul(vloadn(x->w + k, end - k), vset(x->shrink)), end - k);
		}
	}
}

void FN(sgd)(const struct sgd *x) {
	const vf f = vset(x->f), mu = vset(x->momentum), decay = vset(x->decay), lr = vset(x->lr);
	for (long j = 0; j < x->n; j += VL) {
		long n = x->n - j;
		vf w = vloadn(x->w + j, n), d = vadd(vmul(vloadn(x->g + j, n), f), vmul(decay, w));
		vf m = vadd(vmul(mu, vloadn(x->m + j, n)), d);
		vstoren(x->m + j, m, n);
		vstoren(x->w + j, vsub(w, vmul(lr, x->nesterov ? vadd(d, vmul(mu, m)) : m)), n);
	}
}

// shrink is the proximal step of |w|.
void FN(shrink)(const struct shrink *x) {
	const vf by = vset(x->by), none = vzero();
	for (long j = 0; j < x->n; j += VL) {
		const vf w = vloadn(x->w + j, x->n - j);
		const vf v = vpick(vgt(w, by), vsub(w, by), vpick(vlt(w, vsub(none, by)), vadd(w, by), none));
		vstoren(x->w + j, v, x->n - j);
	}
}

// squares is Σ x² in float64, row by row.
void FN(squares)(const struct squares *x) {
	vd s[4];
	for (int i = 0; i < 4; i++) s[i] = vdzero();
	for (long at = x->from, end = x->from + x->n; at < end;) {
		const float *p = x->x + at / x->cols * x->ld + at % x->cols;
		long n = least(x->cols - at % x->cols, end - at);
		long j = 0;
		for (; j + 4 * VL <= n; j += 4 * VL) {
			if (x->used) { // sums are the same without what is zero
				const long first = x->skew + at + j, page = first >> PAGE_BITS;
				if (!x->used[page] && first + 4 * VL <= (page + 1) << PAGE_BITS) continue;
			}
			UNROLL(4) for (int i = 0; i < 4; i++) s[i] = vdsquares(vload(p + j + i * VL), s[i]);
		}
		for (int i = 0; j < n; i++, j += VL) s[i] = vdsquares(vloadn(p + j, n - j), s[i]);
		at += n;
	}
	*x->sum = (vdsum(s[0]) + vdsum(s[1])) + (vdsum(s[2]) + vdsum(s[3]));
}
