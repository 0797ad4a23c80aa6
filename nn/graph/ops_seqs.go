package graph

import (
	"fmt"

	"rung/nn/backend"
)

// embed is the sum of two or three table rows for each token. Inputs: ids, pos, types, word, position
// [, type].
type embed struct{}

// Embed is word[ids] + position[pos] + types[typ]: ids, pos, typ (T) along one axis; word (V,D),
// position (P,D), types (Y,D) or the zero E. The result is (T,D).
func (b *Builder) Embed(ids, pos, typ, word, position, types E) E {
	in := []E{b.index("embed", "ids", ids), b.index("embed", "pos", pos), b.index("embed", "typ", typ), word, position}
	if types.b != nil {
		in = append(in, types)
	}
	return b.Apply(embed{}, in...)
}

func (embed) Name() string { return "embed" }

func (embed) Infer(in []Shape) ([]Shape, error) {
	for _, s := range in[:3] {
		if s.Axis == backend.Fixed || !s.Equal(in[0]) || len(s.Dims) != 1 {
			return nil, fmt.Errorf("want three indexes of one length")
		}
	}
	d := in[3].Cols()
	for _, s := range in[3:] {
		if s.Axis != backend.Fixed || len(s.Dims) != 2 || s.Cols() != d {
			return nil, fmt.Errorf("want tables of one width")
		}
	}
	return []Shape{Rows(in[0].Axis, in[0].Dims[0], d)}, nil
}

func (embed) Lower(l *Lowering, out, in []backend.Buf) {
	args := make([]backend.Buf, 6)
	copy(args, in)
	l.Call(backend.Embed, out, args, [4]int{}, [4]float64{})
}

func (embed) Diff(b *Builder, _ E, in []E, dy E) []E {
	gs := make([]E, len(in))
	for i := range gs[3:] {
		gs[3+i] = b.Apply(embedGrad{in[3+i].Shape()}, in[i], dy)
	}
	return gs
}

type embedGrad struct{ table Shape }

func (o embedGrad) Name() string                   { return "embed.grad" }
func (o embedGrad) Accumulates(int) bool           { return true }
func (o embedGrad) Infer([]Shape) ([]Shape, error) { return []Shape{o.table}, nil }

func (o embedGrad) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(backend.EmbedGrad, out, in, [4]int{}, [4]float64{})
}

// dropout zeroes elements and scales the others. Inputs: x, keys, seqs, pos; or x, keys where rows are
// sequences at position 0.
type dropout struct {
	rate float64
	site uint32
	one  bool
}

// Dropout keeps each element of x (R,D) with probability 1-rate, times 1/(1-rate). The draw is a
// function of the run's seed, the step, the sequence's key, the site and the element's place in its
// sequence: keys (N), seqs and pos (T) say which sequence, and which position of it, a row is. Where
// the rows of x are sequences, seqs and pos are the zero E and the position is 0.
func (b *Builder) Dropout(x, keys, seqs, pos E, rate float64, site uint32) E {
	if b.err != nil {
		return E{b: b}
	}
	if rate == 0 {
		return x
	}
	if !(rate > 0 && rate < 1) {
		return b.fail("graph: dropout: rate %v is not in [0,1)", rate)
	}
	keys = b.index("dropout", "keys", keys)
	if seqs.b == nil {
		return b.Apply(dropout{rate, site, true}, x, keys)
	}
	return b.Apply(dropout{rate, site, false}, x, keys, b.index("dropout", "seqs", seqs), b.index("dropout", "pos", pos))
}

func (o dropout) Name() string { return "dropout" }

func (o dropout) Infer(in []Shape) ([]Shape, error) {
	x := in[0]
	if !x.rows(-1) || o.one != (x.Axis == backend.Seq) {
		return nil, fmt.Errorf("want rows of tokens with seqs and pos, or rows of sequences")
	}
	for _, s := range in[2:] {
		if !s.Equal(Each(x.Axis, x.Dims[0])) {
			return nil, fmt.Errorf("want one sequence and position for each row")
		}
	}
	if k := in[1]; len(k.Dims) != 1 || k.Axis != backend.Seq || o.one && k.Dims[0] != x.Dims[0] {
		return nil, fmt.Errorf("want one key for each sequence")
	}
	return in[:1:1], nil
}

func (o dropout) Lower(l *Lowering, out, in []backend.Buf) {
	args := []backend.Buf{in[0], in[1], {}, {}}
	copy(args, in)
	l.Call(backend.Dropout, out, args, [4]int{int(o.site)}, [4]float64{o.rate})
}

func (o dropout) Diff(b *Builder, _ E, in []E, dy E) []E {
	gs := make([]E, len(in))
	gs[0] = b.Apply(o, append([]E{dy}, in[1:]...)...)
	return gs
}

// attention is softmax(q kT / √d) v inside each sequence of a packed batch. With one, q has one row a
// sequence. Inputs: q, k, v, offsets [, keys]. Saved: the logarithm of each row's denominator (R,H).
type attention struct {
	heads int
	one   bool
	rate  float64
	site  uint32
}

// Attention: q, k, v (T,D), offsets (N+1). Probabilities are dropped at rate, for which keys (N) name
// the sequences; with rate 0 keys may be the zero E. Heads h uses dropout site site+h.
func (b *Builder) Attention(q, k, v, offsets, keys E, heads int, rate float64, site uint32) E {
	if !(rate >= 0 && rate < 1) {
		return b.fail("graph: attention: dropout rate %v is not in [0,1)", rate)
	}
	offsets = b.index("attention", "offsets", offsets)
	if rate == 0 {
		return b.Apply(attention{heads: heads}, q, k, v, offsets)
	}
	return b.Apply(attention{heads: heads, rate: rate, site: site}, q, k, v, offsets, b.index("attention", "keys", keys))
}

func (o attention) Name() string { return "attention" }

func (o attention) Infer(in []Shape) ([]Shape, error) {
	q, k, v := in[0], in[1], in[2]
	want := backend.Tok
	if o.one {
		want = backend.Seq
	}
	if !q.rows(-1) || q.Axis != want || k.Axis != backend.Tok || !k.Equal(v) || k.Cols() != q.Cols() || o.heads < 1 || q.Cols()%o.heads != 0 {
		return nil, fmt.Errorf("want q, k, v of one width that %d heads divide", o.heads)
	}
	n, err := sequences(in[3])
	if err != nil || o.one && q.Dims[0] != n || !o.one && q.Dims[0] != k.Dims[0] {
		return nil, fmt.Errorf("want offsets (N+1) of the rows of q, k, v")
	}
	if len(in) > 4 && !in[4].Equal(Each(backend.Seq, n)) {
		return nil, fmt.Errorf("want keys (N) of %d sequences", n)
	}
	return []Shape{q, q.withCols(o.heads)}, nil
}

// numbers are those of backend.Attn, and its inputs with or without keys.
func (o attention) numbers() (i [4]int, f [4]float64) {
	i = [4]int{o.heads, 0, int(o.site)}
	if o.one {
		i[1] = 1
	}
	return i, [4]float64{o.rate}
}

func (o attention) Lower(l *Lowering, out, in []backend.Buf) {
	args := make([]backend.Buf, 5)
	copy(args, in)
	i, f := o.numbers()
	l.Call(backend.Attn, out, args, i, f)
}

func (o attention) Diff(b *Builder, n E, in []E, dy E) []E {
	d := b.Apply(attentionGrad{o}, append([]E{in[0], in[1], in[2], in[3], n, b.Saved(n, 1), dy}, in[4:]...)...)
	gs := make([]E, len(in))
	for i := range 3 {
		gs[i] = b.Saved(d, i)
	}
	return gs
}

// attentionGrad has three results: dq, dk, dv. Any of them may be dead.
type attentionGrad struct{ of attention }

func (o attentionGrad) Name() string                      { return "attention.grad" }
func (o attentionGrad) Infer(in []Shape) ([]Shape, error) { return in[:3:3], nil }

func (o attentionGrad) Lower(l *Lowering, out, in []backend.Buf) {
	var keys backend.Buf
	if len(in) > 7 {
		keys = in[7]
	}
	i, f := o.of.numbers()
	l.Call(backend.AttnGrad, out, []backend.Buf{in[0], in[1], in[2], in[3], keys, in[4], in[5], in[6]}, i, f)
}

// sequences is how many sequences offsets (N+1) of shape s describe.
func sequences(s Shape) (int, error) {
	if len(s.Dims) != 1 || s.Axis != backend.Fixed || s.Dims[0] < 2 {
		return 0, fmt.Errorf("want offsets (N+1)")
	}
	return s.Dims[0] - 1, nil
}

// pool turns token rows into one row a sequence.
type pool struct{ how, grad backend.Op }

var (
	poolFirst = pool{backend.First, backend.FirstGrad}
	poolMean  = pool{backend.Mean, backend.MeanGrad}
	poolMax   = pool{backend.Max, backend.MaxGrad}
)

func (b *Builder) pool(o pool, x, offsets E) E {
	return b.Apply(o, x, b.index(o.Name(), "offsets", offsets))
}

// First selects the first token of every sequence (CLS): x (T,D), offsets (N+1); the result is (N,D).
// An empty sequence has a row of 0, or where Rewrite pushes the selection down what later operators
// make of 0: it is not to be read, and its gradient has to be 0.
func (b *Builder) First(x, offsets E) E { return b.pool(poolFirst, x, offsets) }

// Mean is the mean of the tokens of every sequence.
func (b *Builder) Mean(x, offsets E) E { return b.pool(poolMean, x, offsets) }

// Max is the greatest value of each column over the tokens of every sequence.
func (b *Builder) Max(x, offsets E) E { return b.pool(poolMax, x, offsets) }

func (o pool) Name() string { return "pool." + o.how.String() }

func (o pool) Infer(in []Shape) ([]Shape, error) {
	n, err := sequences(in[1])
	if err != nil || !in[0].rows(-1) || in[0].Axis != backend.Tok {
		return nil, fmt.Errorf("want token rows and offsets (N+1)")
	}
	y := Rows(backend.Seq, n, in[0].Cols())
	if o == poolMax {
		return []Shape{y, y}, nil
	}
	return []Shape{y}, nil
}

func (o pool) Lower(l *Lowering, out, in []backend.Buf) {
	l.Call(o.how, out, in, [4]int{}, [4]float64{})
}

func (o pool) Diff(b *Builder, n E, in []E, dy E) []E {
	args := []E{dy, in[1]}
	if o == poolMax {
		args = []E{dy, b.Saved(n, 1), in[1]}
	}
	return []E{b.Apply(plain{name: o.Name() + ".dx", call: o.grad, shape: of(in[0].Shape())}, args...), {}}
}
