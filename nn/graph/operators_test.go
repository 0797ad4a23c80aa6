package graph_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	G "gorgonia.org/gorgonia"

	"rung/nn/backend"
	"rung/nn/graph"
)

// A row is one use of an operator. Its name begins with the Builder's method.
type row struct {
	name string
	f    func(g *net) graph.E
}

func none() graph.E { return graph.E{} }

// attend is attention of q, k, v of width 4.
func attend(heads int, rate float64) func(g *net) graph.E {
	return func(g *net) graph.E {
		return g.Attention(g.tok("q", 4), g.tok("k", 4), g.tok("v", 4), g.index("offsets"), g.index("keys"), heads, rate, 4096)
	}
}

// drop is dropout of token rows.
func drop(g *net, x graph.E) graph.E {
	return g.Dropout(x, g.index("keys"), g.index("seqs"), g.index("pos"), .4, 8192)
}

func stock1(g *net, f func(*G.Node) (*G.Node, error), x graph.E) graph.E {
	return g.Stock(func(in ...*G.Node) (*G.Node, error) { return f(in[0]) }, x)
}

func stockMul(g *net, x, y graph.E) graph.E {
	return g.Stock(func(in ...*G.Node) (*G.Node, error) { return G.HadamardProd(in[0], in[1]) }, x, y)
}

var linears = []row{
	{"Linear/plain", func(g *net) graph.E { return g.Linear(g.tok("x", 4), g.param("w", 2, 4), none()) }},
	{"Linear/bias", func(g *net) graph.E { return g.Linear(g.tok("x", 4), g.param("w", 2, 4), g.param("b", 2)) }},
	{"Linear/sequences", func(g *net) graph.E { return g.Linear(g.seq("x", 4), g.param("w", 2, 4), g.param("b", 2)) }},
	{"Linear/joined", func(g *net) graph.E {
		x := g.tok("x", 4)
		y, z := g.Linear(x, g.param("w", 3, 4), g.param("b", 3)), g.Linear(x, g.param("v", 3, 4), none())
		return g.Mul(g.Tanh(y), g.Add(z, g.Linear(x, g.param("u", 3, 4), g.param("c", 3))))
	}},
	{"Linear/one gradient to two views", func(g *net) graph.E {
		x := g.tok("x", 4)
		return g.Tanh(g.Add(g.Linear(x, g.param("w", 3, 4), none()), g.Linear(x, g.param("v", 3, 4), none())))
	}},
	{"Linear/a joined one that nobody reads", func(g *net) graph.E {
		x := g.tok("x", 4)
		g.Linear(x, g.param("dead", 3, 4), none())
		return g.Linear(x, g.param("w", 3, 4), g.param("b", 3))
	}},
	{"Linear/low rank", func(g *net) graph.E {
		x := g.tok("x", 4)
		h := g.Linear(x, g.param("a", 2, 4), none())
		return g.Add(g.Linear(x, g.param("w", 3, 4), g.param("b", 3)), g.Linear(h, g.param("u", 3, 2), none()))
	}},
	{"Linear/low rank, scaled, GELU", func(g *net) graph.E {
		x := g.tok("x", 4)
		h := g.Scale(g.Linear(x, g.param("a", 2, 4), none()), 1.5)
		return g.GELU(g.Add(g.Linear(h, g.param("u", 3, 2), none()), g.Linear(x, g.param("w", 3, 4), g.param("b", 3))))
	}},
	{"Linear/low rank, joined", func(g *net) graph.E {
		x := g.tok("x", 4)
		one := func(n string) graph.E {
			h := g.Linear(x, g.param(n+"a", 2, 4), none())
			return g.Add(g.Linear(x, g.param(n+"w", 3, 4), g.param(n+"b", 3)), g.Linear(h, g.param(n+"u", 3, 2), none()))
		}
		return g.Mul(g.Tanh(one("q")), g.Sub(one("k"), g.Linear(x, g.param("v", 3, 4), none())))
	}},
	{"Linear/low rank on dropout", func(g *net) graph.E {
		x := g.tok("x", 4)
		h := g.Linear(drop(g, x), g.param("a", 2, 4), none())
		return g.Add(g.Linear(x, g.param("w", 3, 4), none()), g.Linear(h, g.param("u", 3, 2), none()))
	}},
	{"Linear/GELU, read twice", func(g *net) graph.E {
		y := g.GELU(g.Linear(g.tok("x", 4), g.param("w", 4, 4), g.param("b", 4)))
		return g.Add(y, g.GELU(g.Linear(y, g.param("v", 4, 4), none())))
	}},
	{"Linear/two layers with GELU", func(g *net) graph.E {
		y := g.GELU(g.Linear(g.tok("x", 4), g.param("w", 6, 4), g.param("b", 6)))
		return g.Linear(y, g.param("v", 2, 6), g.param("c", 2))
	}},
	{"Linear/one weight twice", func(g *net) graph.E {
		w := g.param("w", 4, 4)
		return g.Linear(g.Tanh(g.Linear(g.tok("x", 4), w, g.param("b", 4))), w, g.param("b", 4))
	}},
	{"Linear/columns of a weight", func(g *net) graph.E {
		w, x := g.param("w", 3, 6), g.tok("x", 3)
		return g.Mul(g.Linear(x, g.Cols(w, 0, 3), none()), g.Linear(g.Tanh(x), g.Cols(w, 3, 3), none()))
	}},
}

var rowwise = []row{
	{"GELU", func(g *net) graph.E { return g.GELU(g.tok("x", 4)) }},
	{"Tanh", func(g *net) graph.E { return g.Tanh(g.seq("x", 4)) }},
	{"Softplus", func(g *net) graph.E { return g.Softplus(g.unit("x", 4)) }},
	{"Add", func(g *net) graph.E { return g.Add(g.tok("x", 4), g.tok("y", 4)) }},
	{"Add/itself", func(g *net) graph.E { x := g.tok("x", 4); return g.Add(g.Add(x, x), x) }},
	{"Sub", func(g *net) graph.E { return g.Sub(g.tok("x", 4), g.tok("y", 4)) }},
	{"Mul", func(g *net) graph.E { return g.Mul(g.tok("x", 4), g.tok("y", 4)) }},
	{"Mul/itself", func(g *net) graph.E { x := g.tok("x", 4); return g.Mul(x, x) }},
	{"Mul/weights", func(g *net) graph.E {
		w := g.Mul(g.param("w", 3, 4), g.param("v", 3, 4))
		x := g.tok("x", 4)
		return g.Mul(g.Linear(x, w, none()), g.Linear(g.Tanh(x), w, g.Scale(g.Unary(backend.Exp, g.param("b", 3)), .1)))
	}},
	{"MulCols", func(g *net) graph.E { return g.MulCols(g.tok("x", 4), g.param("g", 4), none(), none()) }},
	{"MulCols/column", func(g *net) graph.E { return g.MulCols(g.seq("x", 4), g.param("g", 4, 1), none(), none()) }},
	{"MulCols/constant and bias", func(g *net) graph.E {
		c := g.Constant(g.param("b", 4), 1.7)
		return g.Tanh(g.MulCols(g.tok("x", 4), g.param("g", 1, 4), c, g.param("b", 4)))
	}},
	{"MulCols/pushed", func(g *net) graph.E {
		y := g.MulCols(g.tok("x", 4), g.param("g", 4), none(), g.param("b", 4))
		return g.First(g.Tanh(y), g.index("offsets"))
	}},
	{"Product", func(g *net) graph.E { // of inputs: what has no gradient is no weight here
		u, a := g.Input("u", graph.Mat(3, 2)), g.Input("a", graph.Mat(2, 4))
		return g.Linear(g.tok("x", 4), g.Add(g.Product(u, a), g.param("w", 3, 4)), none())
	}},
	{"InvNorm", func(g *net) graph.E {
		return g.MulCols(g.tok("x", 4), g.param("m", 4), g.InvNorm(g.Input("w", graph.Mat(4, 3))), none())
	}},
	{"Constant", func(g *net) graph.E {
		return g.MulCols(g.tok("x", 4), g.param("g", 4), g.Constant(g.param("b", 4), -.3), g.param("b", 4))
	}},
	{"LinearScaled", func(g *net) graph.E { // the rows of u a are zero: every factor is eta
		a := g.Input("zero", graph.Mat(2, 4))
		return g.LinearScaled(g.tok("x", 4), g.param("w", 3, 4), a, g.Input("u", graph.Mat(3, 2)), g.param("b", 3), 2)
	}},
	{"LinearScaled/pushed", func(g *net) graph.E {
		return g.First(g.LinearScaled(g.tok("x", 4), g.param("w", 3, 4), g.Input("a", graph.Mat(2, 4)), g.Input("u", graph.Mat(3, 2)), none(), 1), g.index("offsets"))
	}},
	{"Scale", func(g *net) graph.E { return g.Scale(g.tok("x", 4), -1.7) }},
	{"LayerNorm", func(g *net) graph.E { return g.LayerNorm(g.tok("x", 4), g.param("g", 4), g.param("b", 4), 1e-3) }},
	{"LayerNorm/residual", func(g *net) graph.E {
		return g.LayerNorm(g.Add(g.tok("x", 4), g.tok("y", 4)), g.param("g", 4), g.param("b", 4), 1e-3)
	}},
	{"LayerNorm/residual, read in backward", func(g *net) graph.E {
		x := g.LayerNorm(g.Add(g.tok("x", 4), g.tok("y", 4)), g.param("g", 4), g.param("b", 4), 1e-3)
		return g.LayerNorm(g.Add(g.Linear(x, g.param("w", 4, 4), none()), x), g.param("g", 4), g.param("b", 4), 1e-3)
	}},
	{"Normalize", func(g *net) graph.E { return g.Normalize(g.seq("x", 4)) }},
	{"RowSum", func(g *net) graph.E { return g.RowSum(g.tok("x", 4)) }},
	{"LogSoftmax", func(g *net) graph.E { return g.LogSoftmax(g.unit("x", 4), none()) }},
	{"LogSoftmax/masked", func(g *net) graph.E { return g.LogSoftmax(g.unit("x", 3), g.table("mask")) }},
	{"Cols", func(g *net) graph.E {
		x := g.tok("x", 7) // one column that nobody reads, views of several widths, one of them twice
		return g.Add(g.Mul(g.Cols(x, 1, 2), g.Cols(x, 3, 2)), g.Tanh(g.Add(g.Cols(x, 1, 2), g.Cols(x, 5, 2))))
	}},
	{"Cols/and the whole", func(g *net) graph.E {
		x := g.tok("x", 4)
		return g.Mul(g.Linear(x, g.param("w", 2, 4), none()), g.Cols(x, 2, 2))
	}},
	{"Cols/of columns", func(g *net) graph.E {
		x := g.Cols(g.tok("x", 6), 1, 4)
		return g.Mul(g.Cols(x, 0, 2), g.Tanh(g.Cols(x, 2, 2)))
	}},
	{"Dropout", func(g *net) graph.E { return drop(g, g.tok("x", 4)) }},
	{"Dropout/sequences", func(g *net) graph.E { return g.Dropout(g.seq("x", 4), g.index("keys"), none(), none(), .4, 4096) }},
}

var sequences = []row{
	{"Attention", attend(1, 0)},
	{"Attention/heads", attend(2, 0)},
	{"Attention/dropout", attend(2, .3)},
	{"Attention/one tensor", func(g *net) graph.E {
		x := g.tok("x", 4)
		return g.Attention(x, x, x, g.index("offsets"), none(), 2, 0, 0)
	}},
	{"Attention/first rows", func(g *net) graph.E {
		q := g.Linear(g.tok("x", 4), g.param("w", 4, 4), g.param("b", 4))
		return g.First(g.Attention(q, g.tok("k", 4), g.tok("v", 4), g.index("offsets"), none(), 2, 0, 0), g.index("offsets"))
	}},
	{"Attention/first rows, dropout", func(g *net) graph.E { return g.First(attend(2, .3)(g), g.index("offsets")) }},
	{"First", func(g *net) graph.E { return g.First(g.tok("x", 4), g.index("offsets")) }},
	{"First/pushed", func(g *net) graph.E {
		x := g.tok("x", 4)
		y := drop(g, g.GELU(g.Linear(x, g.param("w", 4, 4), g.param("b", 4))))
		return g.First(g.LayerNorm(g.Add(y, x), g.param("g", 4), g.param("h", 4), 1e-3), g.index("offsets"))
	}},
	{"Mean", func(g *net) graph.E { return g.Mean(g.tok("x", 4), g.index("offsets")) }},
	{"Max", func(g *net) graph.E { return g.Max(g.tok("x", 4), g.index("offsets")) }},
	{"Embed", func(g *net) graph.E {
		return g.Embed(g.index("ids"), g.index("pos"), g.index("types"), g.param("word", 5, 4), g.param("place", 3, 4), g.param("type", 2, 4))
	}},
	{"Embed/no types", func(g *net) graph.E {
		return g.Embed(g.index("ids"), g.index("pos"), g.index("types"), g.param("word", 5, 4), g.param("place", 3, 4), none())
	}},
	{"Embed/twice", func(g *net) graph.E {
		one := func() graph.E {
			return g.Embed(g.index("ids"), g.index("pos"), g.index("types"), g.param("word", 5, 4), g.param("place", 3, 4), none())
		}
		return g.Mul(one(), one())
	}},
}

var scores = []row{
	{"Gather", func(g *net) graph.E { return g.Gather(g.seq("x", 1), g.index("slots")) }},
	{"PairDot", func(g *net) graph.E { return g.PairDot(g.seq("x", 4), g.index("queries"), g.index("slots")) }},
	{"Pairs", func(g *net) graph.E { return g.Pairs(g.unit("x", 3)) }},
	{"Outer", func(g *net) graph.E { return g.Mul(g.Outer(g.table("mask")), g.Pairs(g.unit("x", 3))) }},
	{"BCE", func(g *net) graph.E { return g.BCE(g.unit("x", 3), g.table("labels")) }},
	{"BCE/soft labels", func(g *net) graph.E { return g.BCE(g.unit("x", 3), g.Unary(backend.Sigmoid, g.unit("y", 3))) }},
	{"CE", func(g *net) graph.E { return g.CE(g.seq("x", 3), g.index("class")) }},
	{"WeightedSum", func(g *net) graph.E {
		return g.WeightedSum(g.Input("weights", graph.Rows(backend.Unit, g.d.B, 1)), g.unit("x", 1))
	}},
	{"WeightedSum/weights", func(g *net) graph.E { return g.WeightedSum(g.unit("y", 1), g.unit("x", 1)) }},
	{"Stock/Tanh", func(g *net) graph.E { return stock1(g, G.Tanh, g.Mean(g.tok("x", 4), g.index("offsets"))) }},
	{"Stock/HadamardProd", func(g *net) graph.E { return g.Tanh(stockMul(g, g.unit("x", 3), g.unit("y", 3))) }},
	{"Stock/itself", func(g *net) graph.E { x := g.Tanh(g.unit("x", 3)); return stockMul(g, x, x) }},
	{"Stock/a weight, read twice", func(g *net) graph.E {
		w, x := stock1(g, G.Tanh, g.param("w", 3, 4)), g.unit("x", 4)
		return g.Mul(g.Linear(x, w, none()), g.Linear(g.Tanh(x), w, none()))
	}},
	{"Stock/columns", func(g *net) graph.E {
		x := g.seq("x", 4)
		return stockMul(g, g.Cols(x, 0, 2), stock1(g, G.Tanh, g.Cols(x, 2, 2)))
	}},
	{"Stock/gradient to two views", func(g *net) graph.E {
		x := g.seq("x", 4)
		return stock1(g, G.Tanh, g.Add(g.Linear(x, g.param("w", 3, 4), none()), g.Linear(x, g.param("v", 3, 4), none())))
	}},
	{"Stock/constant", func(g *net) graph.E {
		return g.Stock(func(in ...*G.Node) (*G.Node, error) {
			y, err := G.HadamardProd(in[0], in[0])
			if err != nil {
				return nil, err
			}
			return G.Add(y, G.NewConstant(1.5))
		}, g.unit("x", 3))
	}},
}

// table is every operator: a new one needs a row.
func table() []row {
	rows := slices.Concat(linears, rowwise, sequences, scores, experts)
	for f := range backend.NumFuncs {
		rows = append(rows, row{"Unary/" + []string{"gelu", "tanh", "relu", "sigmoid", "softplus", "exp", "square", "positive", "invsqrt"}[f], func(g *net) graph.E {
			x := g.tok("x", 4)
			if f == backend.InvSqrt { // of what is safely above 0
				x = g.Unary(backend.Exp, x)
			}
			return g.Unary(f, x)
		}})
	}
	return rows
}

// Every operator: gradients are central differences; plain and rewritten agree; spare capacity, stale
// memory and recomputation change no bit.
func TestOperators(t *testing.T) {
	for _, r := range table() {
		t.Run(r.name, func(t *testing.T) {
			f := func(g *net) []graph.E { return []graph.E{r.f(g)} }
			plain := start(t, f, option{})
			plain.differences(t)
			plain.do(t)
			wide := start(t, f, option{spareT: 3, spareN: 2, spareB: 2, workers: 2})
			wide.do(t)
			same(t, plain, wide)
			zeroed := start(t, f, option{spareT: 3, spareN: 2, spareB: 2, stale: 0x40})
			zeroed.do(t)
			same(t, plain, zeroed)
			again := start(t, func(g *net) []graph.E {
				x := r.f(g)
				return []graph.E{x, g.param(g.params[0], g.dims[g.params[0]]...)} // keeps nothing but a weight
			}, option{keep: true})
			again.do(t)
			same(t, plain, again)
			rewritten := start(t, f, option{rewrite: true, spareT: 1, spareN: 1, quiet: true})
			rewritten.differences(t)
			rewritten.do(t)
			plain = start(t, f, option{quiet: true})
			plain.do(t)
			near(t, rewritten, plain)
		})
	}
}

// The table has each of the Builder's methods that make an operator.
func TestTableIsComplete(t *testing.T) {
	have := map[string]bool{"Param": true, "Input": true, "Index": true, "Fail": true, "Apply": true, "Saved": true}
	for _, r := range table() {
		name, _, _ := strings.Cut(r.name, "/")
		have[name] = true
	}
	files, err := os.ReadDir(".")
	require.NoError(t, err)
	methods := 0
	for _, e := range files {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), e.Name(), nil, 0)
		require.NoError(t, err)
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv == nil || !fn.Name.IsExported() || fn.Type.Results == nil {
				continue
			}
			star, ok := fn.Recv.List[0].Type.(*ast.StarExpr)
			if !ok || star.X.(*ast.Ident).Name != "Builder" {
				continue
			}
			if id, ok := fn.Type.Results.List[0].Type.(*ast.Ident); ok && id.Name == "E" {
				methods++
				require.True(t, have[fn.Name.Name], "%s: Builder.%s has no row in the table of operators", e.Name(), fn.Name.Name)
			}
		}
	}
	require.Greater(t, methods, 25)
}

// Views of different columns may not overlap where a gradient is wanted.
func TestOverlappingViews(t *testing.T) {
	_, _, _, err := compile(func(g *net) []graph.E {
		x := g.tok("x", 4)
		return []graph.E{g.Mul(g.Cols(x, 0, 3), g.Cols(x, 1, 3))}
	}, option{})
	require.EqualError(t, err, "graph: views that overlap at column 1 have no gradient")
}

// Of a scaled Linear, the gradients of the low-rank weights are those of dy times the factors; x's is not.
func TestLinearScaled(t *testing.T) {
	const eta = 1.5
	a, u := draw("a", 8), draw("u", 6)
	factors := make([]float64, 3)
	for i := range factors {
		square := 0.
		for k := range 4 {
			v := u[2*i]*a[k] + u[2*i+1]*a[4+k]
			square += v * v
		}
		factors[i] = 1 / math.Sqrt(math.Sqrt(square)+1/(eta*eta))
	}
	grads := func(f func(g *net, x graph.E) graph.E) map[string][]float64 {
		j := start(t, func(g *net) []graph.E { return []graph.E{f(g, g.tok("x", 4))} }, option{})
		if w := graph.Floats[float64](j.r, "factors"); w != nil {
			copy(w, factors)
		}
		j.do(t)
		return j.gradients(t)
	}
	plain := func(g *net, x graph.E) graph.E {
		return g.Add(g.Linear(x, g.param("w", 3, 4), g.param("b", 3)), g.Linear(g.Linear(x, g.param("a", 2, 4), none()), g.param("u", 3, 2), none()))
	}
	got := grads(func(g *net, x graph.E) graph.E {
		return g.LinearScaled(x, g.param("w", 3, 4), g.param("a", 2, 4), g.param("u", 3, 2), g.param("b", 3), eta)
	})
	same, scaled := grads(plain), grads(func(g *net, x graph.E) graph.E {
		return g.MulCols(plain(g, x), g.Input("factors", graph.Vec(3)), none(), none())
	})
	for _, name := range []string{"x", "w", "b"} {
		require.InDeltaSlice(t, same[name], got[name], 1e-12, name)
	}
	for _, name := range []string{"a", "u"} {
		require.InDeltaSlice(t, scaled[name], got[name], 1e-12, name)
	}
	require.NotEqual(t, same["x"], scaled["x"])
}
