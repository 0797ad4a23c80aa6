package graph_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"

	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/backend/philox"
	"rung/nn/backend/ref"
	"rung/nn/graph"
)

// Errors of building name the operator and the shapes.
func TestBuildErrors(t *testing.T) {
	tok := func(b *graph.Builder, cols int) graph.E {
		return b.Input(fmt.Sprint("t", cols), graph.Rows(backend.Tok, 5, cols))
	}
	seq := func(b *graph.Builder, cols int) graph.E {
		return b.Input(fmt.Sprint("s", cols), graph.Rows(backend.Seq, 5, cols))
	}
	offs := func(b *graph.Builder) graph.E { return b.Index("offsets", graph.Vec(6)) }
	keys := func(b *graph.Builder) graph.E { return b.Index("keys", graph.Each(backend.Seq, 5)) }
	other := graph.New(backend.Float64)
	for want, f := range map[string]func(b *graph.Builder) graph.E{
		"graph: linear[T[5 4] [3 7]]: want x (rows,in) and w (out,in)": func(b *graph.Builder) graph.E { return b.Linear(tok(b, 4), b.Param("w", 3, 7), none()) },
		"graph: linear[T[5 4] [3 4] [4]]: want a bias of 3":            func(b *graph.Builder) graph.E { return b.Linear(tok(b, 4), b.Param("w", 3, 4), b.Param("b", 4)) },
		"graph: linear[[3 4] [3 4]]: want x to be rows of values":      func(b *graph.Builder) graph.E { return b.Linear(b.Param("w", 3, 4), b.Param("w", 3, 4), none()) },
		"graph: add[T[5 4] N[5 4]]: shapes differ":                     func(b *graph.Builder) graph.E { return b.Add(tok(b, 4), seq(b, 4)) },
		"graph: mul[T[5 4] T[5 3]]: shapes differ":                     func(b *graph.Builder) graph.E { return b.Mul(tok(b, 4), tok(b, 3)) },
		"graph: sub: input 1 is missing":                               func(b *graph.Builder) graph.E { return b.Sub(tok(b, 4), none()) },
		"graph: add: input 1 belongs to another graph":                 func(b *graph.Builder) graph.E { return b.Add(tok(b, 4), tok(other, 4)) },
		"graph: gelu[N[5]]: want rows of values":                       func(b *graph.Builder) graph.E { return b.GELU(keys(b)) },
		"graph: unary: no function has the number 99":                  func(b *graph.Builder) graph.E { return b.Unary(99, tok(b, 4)) },
		"graph: layernorm[T[5 4] [4] [3]]: want x (rows,d), weight and bias (d)": func(b *graph.Builder) graph.E {
			return b.LayerNorm(tok(b, 4), b.Param("g", 4), b.Param("h", 3), 1e-5)
		},
		"graph: normalize[[4 4]]: want rows of values":                                     func(b *graph.Builder) graph.E { return b.Normalize(b.Param("w", 4, 4)) },
		"graph: rowsum[[4]]: want rows of values":                                          func(b *graph.Builder) graph.E { return b.RowSum(b.Param("w", 4)) },
		"graph: logsoftmax[T[5 4] T[5 3]]: want rows of values, and a mask of their shape": func(b *graph.Builder) graph.E { return b.LogSoftmax(tok(b, 4), tok(b, 3)) },
		"graph: attention[T[5 4] T[5 4] T[5 4] [6]]: want q, k, v of one width that 3 heads divide": func(b *graph.Builder) graph.E {
			return b.Attention(tok(b, 4), tok(b, 4), tok(b, 4), offs(b), none(), 3, 0, 0)
		},
		"graph: attention: input 4 is missing": func(b *graph.Builder) graph.E {
			return b.Attention(tok(b, 4), tok(b, 4), tok(b, 4), offs(b), none(), 2, .1, 0)
		},
		"graph: attention: dropout rate 1 is not in [0,1)": func(b *graph.Builder) graph.E {
			return b.Attention(tok(b, 4), tok(b, 4), tok(b, 4), offs(b), keys(b), 2, 1, 0)
		},
		"graph: attention[T[5 4] T[5 4] T[5 4] [6] N[4]]: want keys (N) of 5 sequences": func(b *graph.Builder) graph.E {
			return b.Attention(tok(b, 4), tok(b, 4), tok(b, 4), offs(b), b.Index("k", graph.Each(backend.Seq, 4)), 2, .1, 0)
		},
		"graph: attention: want offsets to be an index, have T[5 4] of floats": func(b *graph.Builder) graph.E {
			return b.Attention(tok(b, 4), tok(b, 4), tok(b, 4), tok(b, 4), none(), 2, 0, 0)
		},
		"graph: pool.first[N[5 4] [6]]: want token rows and offsets (N+1)": func(b *graph.Builder) graph.E { return b.First(seq(b, 4), offs(b)) },
		"graph: pool.mean[T[5 4] N[5]]: want token rows and offsets (N+1)": func(b *graph.Builder) graph.E { return b.Mean(tok(b, 4), keys(b)) },
		"graph: pool.max: want offsets to be an index, have [6] of floats": func(b *graph.Builder) graph.E { return b.Max(tok(b, 4), b.Param("w", 6)) },
		"graph: dropout: rate 1.5 is not in [0,1)":                         func(b *graph.Builder) graph.E { return b.Dropout(seq(b, 4), keys(b), none(), none(), 1.5, 0) },
		"graph: dropout[T[5 4] N[5]]: want rows of tokens with seqs and pos, or rows of sequences": func(b *graph.Builder) graph.E {
			return b.Dropout(tok(b, 4), keys(b), none(), none(), .5, 0)
		},
		"graph: gather: want slots to be an index, have N[5 1] of floats": func(b *graph.Builder) graph.E { return b.Gather(seq(b, 1), seq(b, 1)) },
		"graph: gather[N[5 2] B[2 3]]: want x (N,1) and slots (B,K)": func(b *graph.Builder) graph.E {
			return b.Gather(seq(b, 2), b.Index("slots", graph.Rows(backend.Unit, 2, 3)))
		},
		"graph: ce[T[5 4] N[5]]: want logits (R,C) and one class for each row": func(b *graph.Builder) graph.E { return b.CE(tok(b, 4), keys(b)) },
		"graph: weighted[N[5 2] N[5 2]]: want w and l (R,1)":                   func(b *graph.Builder) graph.E { return b.WeightedSum(seq(b, 2), seq(b, 2)) },
		"graph: columns 3 to 5 of T[5 4]":                                      func(b *graph.Builder) graph.E { return b.Cols(tok(b, 4), 3, 2) },
		"graph: columns of no node of this graph":                              func(b *graph.Builder) graph.E { return b.Cols(none(), 0, 1) },
		"graph: result 1 of no node of this graph":                             func(b *graph.Builder) graph.E { return b.Saved(none(), 1) },
		`graph: "x" has shape [0 3]: want one or two dimensions of 1 to 2^28`:  func(b *graph.Builder) graph.E { return b.Param("x", 0, 3) },
		`graph: "x" has shape []: want one or two dimensions of 1 to 2^28`:     func(b *graph.Builder) graph.E { return b.Param("x") },
		`graph: "x" is both [3 4] and [4 3]`:                                   func(b *graph.Builder) graph.E { b.Param("x", 3, 4); return b.Param("x", 4, 3) },
		`graph: "x" is both [3 4] and N[3 4]`:                                  func(b *graph.Builder) graph.E { b.Param("x", 3, 4); return b.Input("x", graph.Rows(backend.Seq, 3, 4)) },
		"graph: stock operator: input 0 is no node of this graph":              func(b *graph.Builder) graph.E { return b.Stock(nil, none()) },
		"graph: pairs[B[1024 1048576]]: a result of B[1024 1099511627776] is too large": func(b *graph.Builder) graph.E {
			return b.Pairs(b.Input("x", graph.Rows(backend.Unit, 1024, 1<<20)))
		},
	} {
		b := graph.New(backend.Float64)
		e := f(b)
		require.EqualError(t, b.Err(), want)
		require.False(t, e.OK())
		e = b.Tanh(b.Add(e, e)) // what follows does not cover the first error
		require.EqualError(t, b.Err(), want)
		_, err := graph.Compile(b, graph.Spec{Outputs: map[string]graph.E{"y": e}})
		require.EqualError(t, err, want)
		b2, outs := graph.Rewrite([]graph.E{e})
		require.Len(t, outs, 1)
		require.EqualError(t, b2.Err(), want)
	}
	b := graph.New(backend.Float64)
	b.Stock(func(...*G.Node) (*G.Node, error) { panic("bad") }, tok(b, 4))
	require.EqualError(t, b.Err(), "graph: stock operator: panic: bad")
	b, _ = graph.Rewrite(nil)
	require.NoError(t, b.Err())
	b, _ = graph.Rewrite([]graph.E{{}})
	require.EqualError(t, b.Err(), "graph: an output to rewrite is no node of the graph")
}

// Errors of compiling.
func TestCompileErrors(t *testing.T) {
	seq := graph.Rows(backend.Seq, 3, 4)
	old := graph.New(backend.Float64)
	for want, f := range map[string]func(b *graph.Builder, y graph.E, s *graph.Spec){
		`graph: output "y" is no node of this graph`:                   func(b *graph.Builder, y graph.E, s *graph.Spec) { s.Outputs = map[string]graph.E{"y": {}} },
		"graph: a gradient is asked of no node of this graph":          func(b *graph.Builder, y graph.E, s *graph.Spec) { s.Wrt = []graph.E{old.Param("w", 4, 4)} },
		`graph: a gradient is asked of "x" N[3 4], which is no weight`: func(b *graph.Builder, y graph.E, s *graph.Spec) { s.Wrt = []graph.E{b.Input("x", seq)} },
		`graph: the gradient of "w" is asked twice`:                    func(b *graph.Builder, y graph.E, s *graph.Spec) { s.Wrt = append(s.Wrt, s.Wrt[0]) },
		"graph: an output or its seed is no node of this graph":        func(b *graph.Builder, y graph.E, s *graph.Spec) { s.Seeds[0].Grad = old.Input("seed", seq) },
		"graph: a seed of N[3 1] for an output of N[3 4]": func(b *graph.Builder, y graph.E, s *graph.Spec) {
			s.Seeds[0].Grad = b.Input("one", graph.Rows(backend.Seq, 3, 1))
		},
		"graph: what recomputation keeps is no node of this graph": func(b *graph.Builder, y graph.E, s *graph.Spec) { s.Keep = []graph.E{{}} },
		`graph: mul cannot give the gradient of "v" per unit`: func(b *graph.Builder, y graph.E, s *graph.Spec) {
			v := b.Param("v", 4, 4)
			y = b.Linear(y, b.Mul(v, b.Param("w", 4, 4)), graph.E{})
			s.Seeds[0].Out, s.Wrt, s.PerUnit = y, []graph.E{v}, true
		},
		"graph: gradient of outer#2: it has none": func(b *graph.Builder, y graph.E, s *graph.Spec) {
			s.Seeds = []graph.Seed{{Out: b.Outer(y), Grad: b.Input("out", graph.Rows(backend.Seq, 3, 16))}}
		},
		`graph: the gradient of "w" is a seed or columns of another node, which no operator makes`: func(b *graph.Builder, y graph.E, s *graph.Spec) {
			s.Seeds = append(s.Seeds, graph.Seed{Out: b.Param("w", 4, 4), Grad: b.Input("sw", graph.Mat(4, 4))})
		},
	} {
		b := graph.New(backend.Float64)
		y := b.Linear(b.Input("x", seq), b.Param("w", 4, 4), graph.E{})
		s := graph.Spec{Seeds: []graph.Seed{{Out: y, Grad: b.Input("seed", seq)}}, Wrt: []graph.E{b.Param("w", 4, 4)}}
		f(b, y, &s)
		_, err := graph.Compile(b, s)
		require.ErrorContains(t, err, want)
	}
}

// Errors of running.
func TestRunErrors(t *testing.T) {
	j := start(t, logits(false), option{})
	_, err := j.p.NewRun(ref.New[float32](), 1)
	require.EqualError(t, err, "graph: the program's elements are not those of backend ref")
	r, err := j.p.NewRun(j.be, 1)
	require.NoError(t, err)
	require.EqualError(t, r.Do(context.Background(), &j.n, false), "graph: a run without weights: Bind comes first")
	require.NoError(t, r.Close())
	require.NoError(t, r.Close())
	j.do(t)
	for want, f := range map[string]func() error{
		`graph: no output "z"`:                            func() error { _, err := graph.Output[float64](j.r, "z", 1, nil); return err },
		`graph: 5 rows of output "y", which has 4`:        func() error { _, err := graph.Output[float64](j.r, "y", 5, nil); return err },
		`graph: -1 rows of output "y", which has 4`:       func() error { _, err := graph.Output[float64](j.r, "y", -1, nil); return err },
		"graph: float32 on backend ref/float64":           func() error { _, err := graph.Output[float32](j.r, "y", 1, nil); return err },
		`graph: weight "head.bias" has 1 elements, not 2`: func() error { return graph.WriteWeight(j.s, "head.bias", []float64{1, 2}) },
		`graph: no weight "z"`:                            func() error { return graph.WriteWeight(j.s, "z", []float64{1}) },
		`graph: no weight "z", or it is not trained`:      func() error { _, err := graph.ReadGradient[float64](j.s, "z"); return err },
		`graph: no gradient of "head.bias" per unit`:      func() error { _, err := graph.UnitGradient[float64](j.r, "head.bias", 0); return err },
		`graph: two weights named "a"`: func() error {
			_, err := graph.NewStore(j.be, []graph.Segment{{Path: "a", Dims: []int{1}}, {Path: "a", Dims: []int{1}}}, false)
			return err
		},
		`graph: weight "a" has shape [0]`: func() error {
			_, err := graph.NewStore(j.be, []graph.Segment{{Path: "a", Dims: []int{0}}}, false)
			return err
		},
	} {
		require.EqualError(t, f(), want)
	}
	require.Nil(t, graph.Floats[float32](j.r, "probe"), "memory of float64 as float32")
	require.Nil(t, graph.Floats[float64](j.r, "nothing"))
	require.Nil(t, j.r.Ints("nothing"))
	require.Empty(t, host.Elements[int32](nil))
}

// Random misuse makes errors, never panics.
func TestMisuse(t *testing.T) {
	errs, be := 0, workers(t, 1)
	store, err := graph.NewStore(be, []graph.Segment{
		{Path: "w", Dims: []int{4, 4}, Trainable: true}, {Path: "b", Dims: []int{4}, Trainable: true}, {Path: "one", Dims: []int{1, 1}, Trainable: true},
	}, true)
	require.NoError(t, err)
	t.Cleanup(func() { _ = store.Close() })
	for trial := range 3000 {
		next := uint64(0)
		draw := func(n int) int {
			next++
			return int(philox.Uint64(uint64(trial), "misuse", next) % uint64(n))
		}
		b, other := graph.New(backend.Float64), graph.New(backend.Float64)
		pool := []graph.E{{}, other.Param("w", 4, 4), b.Param("w", 4, 4), b.Param("b", 4), b.Param("one", 1, 1)}
		for _, a := range []backend.Axis{backend.Tok, backend.Seq, backend.Unit} {
			pool = append(pool, b.Input(fmt.Sprint("in", a), graph.Rows(a, 4, 4)), b.Input(fmt.Sprint("col", a), graph.Rows(a, 4, 1)),
				b.Index(fmt.Sprint("each", a), graph.Each(a, 4)), b.Index(fmt.Sprint("table", a), graph.Rows(a, 4, 3)))
		}
		pool = append(pool, b.Index("offsets", graph.Vec(5)))
		easy := []graph.E{b.Input("inT", graph.Rows(backend.Tok, 4, 4)), b.Linear(b.Input("inT", graph.Rows(backend.Tok, 4, 4)), b.Param("w", 4, 4), none())}
		e := func() graph.E {
			if draw(3) > 0 { // so that some graphs are right
				return easy[draw(len(easy))]
			}
			return pool[draw(len(pool))]
		}
		num := func() int { return draw(7) - 1 }
		ops := []func() graph.E{
			func() graph.E { return b.Linear(e(), e(), e()) }, func() graph.E { return b.Unary(backend.Func(num()*2), e()) },
			func() graph.E { return b.Add(e(), e()) }, func() graph.E { return b.Mul(e(), e()) }, func() graph.E { return b.Scale(e(), 2) },
			func() graph.E { return b.LayerNorm(e(), e(), e(), 0) }, func() graph.E { return b.Normalize(e()) }, func() graph.E { return b.RowSum(e()) },
			func() graph.E { return b.LogSoftmax(e(), e()) }, func() graph.E { return b.Attention(e(), e(), e(), e(), e(), num(), float64(draw(3))/2, 0) },
			func() graph.E { return b.Dropout(e(), e(), e(), e(), float64(draw(4))/3, 0) }, func() graph.E { return b.Embed(e(), e(), e(), e(), e(), e()) },
			func() graph.E { return b.First(e(), e()) }, func() graph.E { return b.Mean(e(), e()) }, func() graph.E { return b.Max(e(), e()) },
			func() graph.E { return b.Gather(e(), e()) }, func() graph.E { return b.PairDot(e(), e(), e()) }, func() graph.E { return b.Pairs(e()) },
			func() graph.E { return b.Outer(e()) }, func() graph.E { return b.BCE(e(), e()) }, func() graph.E { return b.CE(e(), e()) },
			func() graph.E { return b.WeightedSum(e(), e()) }, func() graph.E { return b.Cols(e(), num(), num()) }, func() graph.E { return b.Saved(e(), num()) },
			func() graph.E {
				return b.Stock(func(in ...*G.Node) (*G.Node, error) { return G.HadamardProd(in[0], in[1]) }, e(), e())
			},
			func() graph.E {
				return b.Stock(func(in ...*G.Node) (*G.Node, error) { return G.Mul(in[0], in[1]) }, e(), e())
			},
			func() graph.E { return b.Param("p", num(), num()) }, func() graph.E { return b.Input("i", e().Shape()) },
		}
		good := b
		for range 1 + draw(5) {
			if x := ops[draw(len(ops))](); x.OK() && b.Err() == nil {
				pool, easy = append(pool, x), append(easy, x)
			}
		}
		outs := []graph.E{easy[len(easy)-1], e()}
		b2, y := graph.Rewrite(outs)
		if b2.Err() == nil && len(y) > 0 && y[0].OK() {
			good = b2
		} else {
			y = outs
		}
		s := graph.Spec{Outputs: map[string]graph.E{"y": y[0]}, Wrt: []graph.E{e()}, PerUnit: draw(2) == 0}
		if draw(4) > 0 {
			s.Wrt[0] = good.Param("w", 4, 4)
		}
		s.Seeds = []graph.Seed{{Out: y[0], Grad: good.Input("seed", y[0].Shape())}}
		if draw(3) == 0 {
			s.Keep = []graph.E{e(), y[len(y)-1]}
		}
		p, err := graph.Compile(good, s)
		if err != nil {
			errs++
			require.NotContains(t, err.Error(), "\n")
			continue
		}
		r, err := p.NewRun(be, 4)
		require.NoError(t, err)
		if err := r.Bind(store); err == nil { // indexes are 0: right or an error
			_ = r.Do(context.Background(), &backend.Scalars{Count: [backend.NumAxes]int{0, 4, 4, 4}}, false)
		}
		require.NoError(t, r.Close())
	}
	require.Greater(t, errs, 1000)
	require.Less(t, errs, 2900)
	t.Logf("%d of 3000 refused", errs)
}
