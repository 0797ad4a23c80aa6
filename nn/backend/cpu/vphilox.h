// Philox4x32-10 (see package philox): VL blocks of four words at a time.

// words writes 4·VL words from block on; the vectors of a counter are its four words.
static inline void words(uint32_t *to, const struct drop *d, uint32_t block) {
	static const int32_t lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
	vi c[4] = {viadd(viset((int32_t)block), viload(lanes)), viset((int32_t)d->site), viset((int32_t)d->key), viset((int32_t)d->step)};
	uint32_t k0 = (uint32_t)d->seed, k1 = (uint32_t)(d->seed >> 32);
	const vi m0 = viset((int32_t)0xD2511F53), m1 = viset((int32_t)0xCD9E8D57);
	for (int i = 0; i < 10; i++, k0 += 0x9E3779B9, k1 += 0xBB67AE85) {
		vi h0, l0, h1, l1;
		vmulwide(c[0], m0, &h0, &l0);
		vmulwide(c[2], m1, &h1, &l1);
		c[0] = vixor(vixor(h1, c[1]), viset((int32_t)k0));
		c[1] = l1;
		c[2] = vixor(vixor(h0, c[3]), viset((int32_t)k1));
		c[3] = l0;
	}
	vinterleave(to, c);
}

enum { DRAW = 4 * VL }; // elements of a draw

// draw writes what DRAW elements from e on (a multiple of 4) are multiplied by: 0, or keep.
static inline void draw(float *to, const struct drop *d, uint32_t e) {
	uint32_t w[DRAW];
	words(w, d, e >> 2);
	for (int i = 0; i < DRAW; i += VL)
		vstore(to + i, vzeroif(vult(viload(w + i), viset((int32_t)d->cut)), vset(d->keep)));
}
