package backend

import "time"

// Work is what a call cannot do without.
type Work struct {
	FLOP  float64 // of matrix products: two for each multiply and add
	Elems float64 // read and written, each once: what moves if nothing is in a cache
}

// Add adds the work of another call.
func (w *Work) Add(o Work) { w.FLOP, w.Elems = w.FLOP+o.FLOP, w.Elems+o.Elems }

// A Trace is told how long each call of a program took, by its place in the list that was encoded.
type Trace func(call int, d time.Duration)

// A Tracer is an Exec that can be traced. A device that runs calls by itself may have to be slower for it.
type Tracer interface {
	Exec
	// Trace has later launches report to f; nil ends that.
	Trace(f Trace)
}

// Sizes is how much of a program's capacities is real.
type Sizes struct {
	Count [NumAxes]int // rows, by axis
	// Pairs is Σ L² over the sequences of L tokens: what attention compares.
	Pairs float64
}

// rows is how many rows of b are real.
func (s *Sizes) rows(b Buf) float64 {
	if b.Axis == Fixed {
		return float64(b.Rows)
	}
	return float64(min(b.Rows, s.Count[b.Axis]))
}

// Work is the work of c. Products of rows that are not there, or whose result nobody reads, count
// nothing; functions and sums of elements count no FLOP.
func (c *Call) Work(s *Sizes) Work {
	w := Work{FLOP: 2 * c.products(s)}
	for k, b := range c.Out {
		w.Elems += s.elems(c, b, c.Op == EmbedGrad)
		if c.Out[k].Acc || c.Op == AdamW || c.Op == SGD || c.Op == Adagrad || c.Op == Shrink || c.Op == SignSGD { // read, too
			w.Elems += s.elems(c, b, c.Op == EmbedGrad)
		}
	}
	for k, b := range c.In {
		w.Elems += s.elems(c, b, c.Op == Embed && k >= 3)
	}
	return w
}

// elems is the elements of a matrix that c reads or writes. Of a table those are one row for each token.
func (s *Sizes) elems(c *Call, b Buf, table bool) float64 {
	switch {
	case b.Dead():
		return 0
	case table && c.Op == Embed:
		return s.rows(c.Out[0]) * float64(b.Cols)
	case table:
		return s.rows(c.In[1]) * float64(b.Cols)
	}
	return s.rows(b) * float64(b.Cols)
}

// products is the multiply-adds of matrix products.
func (c *Call) products(s *Sizes) (n float64) {
	area := func(a, b Buf) float64 { return float64(a.Cols) * float64(b.Rows) } // of a bT
	switch c.Op {
	case MatNT:
		for k := range c.I[0] {
			w, h, u := c.In[1+4*k], c.In[3+4*k], c.In[4+4*k]
			n += s.rows(c.In[0]) * area(c.In[0], w)
			if !h.Dead() {
				n += s.rows(h) * area(h, u)
			}
		}
	case MatNN:
		for k := range c.I[0] {
			dy, w := c.In[1+2*k], c.In[2+2*k]
			n += s.rows(dy) * float64(dy.Cols) * float64(w.Cols)
		}
	case MatTN:
		n = s.rows(c.In[0]) * float64(c.In[0].Cols) * float64(c.In[1].Cols)
	case GroupNT:
		n = s.rows(c.In[0]) * float64(c.Out[0].Cols) * float64(c.In[0].Cols)
	case GroupNN:
		n = s.rows(c.In[1]) * float64(c.In[1].Cols) * float64(c.Out[0].Cols)
	case GroupTN:
		n = s.rows(c.In[0]) * float64(c.In[0].Cols) * float64(c.In[1].Cols)
	case Attn: // scores, and sums of values
		n = 2 * s.compared(c) * float64(c.In[0].Cols)
	case AttnGrad: // scores and products of dy and v again; dv, dq, dk
		n = 2 * s.compared(c) * float64(c.In[0].Cols)
		for _, b := range c.Out {
			if !b.Dead() {
				n += s.compared(c) * float64(c.In[0].Cols)
			}
		}
	case PairDot:
		n = s.rows(c.Out[0]) * float64(c.Out[0].Cols) * float64(c.In[0].Cols)
	}
	return n
}

// compared is the pairs of a query and a key of an attention.
func (s *Sizes) compared(c *Call) float64 {
	if c.I[1] == 1 { // one query a sequence
		return float64(s.Count[Tok])
	}
	return s.Pairs
}
