//go:build gpu

package cuda

import (
	"fmt"

	"rung/cuda/driver"
	"rung/nn/backend"
)

// products is cuBLASLt, where the environment asks for it (see Variable).
//
// It is told on the host how many rows a product has, while our kernels read that on the device: rows beyond the real ones
// must be neither written nor summed. Computing all the capacity's rows into memory of its own and copying the
// real ones would move as many bytes again as the product; a graph for each number of rows would be made anew for nearly
// every micro-batch, whose tokens are seldom as many twice. So a launch gives the library the rows that are real, one
// by one without a graph; where two launches in a row count the same, as with sequences of one length, a graph is made and
// serves as long as they do (driver.List.Replay). What the library is not given stays with our kernels, and
// what it cannot compute for the rows at hand, none for example, is computed by them instead.
//
// The algorithm of a shape is chosen once for the life of the backend, and whatever the rows are: a sequence's score does not
// depend on how many others are computed with it, nor on the bucket.
type products struct {
	device     *driver.Device
	library    driver.Library
	workspace  *memory
	algorithms map[productShape]chosen // guarded by Backend.mu
}

// A productShape is what an algorithm is chosen by: all but the rows.
type productShape struct {
	layout        string
	cols, sum     int // of the result, and what is summed; of a tn both are the result's
	lda, ldb, ldd int
	bias          bool
}

type chosen struct {
	driver.Algorithm
	ok bool
}

const (
	// workspaceBytes is what the library's manual recommends for its workspace on Hopper; elsewhere it is less. One serves all
	// programs: what is launched runs in order.
	workspaceBytes = 32 << 20
	// typicalRows are the rows that an algorithm is chosen for: those of the micro-batches that trainer bench measures.
	typicalRows = 4096
	// narrow is the columns of the least tile of our own kernels. Products with less, such as low-rank ones, stay with them.
	narrow = 64
)

// openProducts finds and opens the library.
func (b *Backend) openProducts(d *driver.Device) error {
	lib, err := driver.FindCublasLt(DriverVersion())
	if err != nil {
		return err
	}
	if err := d.UseCublasLt(); err != nil {
		return fmt.Errorf("cuBLASLt: %v: %w", lib, err)
	}
	p := &products{device: d, library: lib, algorithms: map[productShape]chosen{}}
	if p.workspace, err = b.reserve(workspaceBytes); err != nil {
		return fmt.Errorf("cuBLASLt: workspace: %w", err)
	}
	b.products = p
	return nil
}

func (p *products) close() error {
	if p == nil {
		return nil
	}
	return p.workspace.Free()
}

// Products says what multiplies matrices: our own kernels, or cuBLASLt as well, and which.
func Products() (string, error) {
	_, asked, err := settings()
	if err != nil {
		return "", err
	}
	if DriverVersion() == 0 {
		return "not looked for: there is no driver", nil
	}
	lib, err := driver.FindCublasLt(DriverVersion())
	switch {
	case err != nil && asked:
		return "", fmt.Errorf("%s=cublaslt: %w", Variable, err)
	case err != nil:
		return fmt.Sprintf("not used, products run on our own kernels (%v)", err), nil
	case asked:
		return fmt.Sprintf("%v: used, %s asks for it", lib, Variable), nil
	}
	return fmt.Sprintf("%v: not used, products run on our own kernels; %s=cublaslt changes that", lib, Variable), nil
}

// compute is what the library computes products in.
func (p Precision) compute() driver.Compute {
	return [...]driver.Compute{FP32: driver.ComputeFP32, TF32: driver.ComputeTF32, BF16: driver.ComputeBF16}[p]
}

// choose is the algorithm of a product. One whose rows stay apart must fit a single row too, so that there are none that another
// algorithm, or a kernel of ours, would have to compute.
func (e *encoder) choose(layout string, p *driver.Product) (driver.Algorithm, bool, error) {
	s := productShape{layout, p.M, p.K, p.LdA, p.LdB, p.LdD, p.Bias != 0}
	others := []int{1}
	if p.ByK {
		s.sum, others = p.N, nil
	}
	lib := e.be.products
	e.be.mu.Lock()
	defer e.be.mu.Unlock()
	a, known := lib.algorithms[s]
	if !known {
		var err error
		if a.Algorithm, a.ok, err = lib.device.Choose(p, typicalRows, others...); err != nil {
			return a.Algorithm, false, err
		}
		lib.algorithms[s] = a
	}
	return a.Algorithm, a.ok, nil
}

// suits reports that the library may be given matrices: tokens by rows, rows that begin at 16 bytes, and not narrow.
func suits(rows *mat, all ...*mat) bool {
	if rows.axis != int32(backend.Tok) || rows.rows < 2 {
		return false
	}
	for _, m := range append(all, rows) {
		if m.dead() || !m.aligned() || m.cols < narrow || m.rows < 2 || m.axis == int32(backend.Fixed) && m.rows < narrow {
			return false
		}
	}
	return true
}

// A multiplication is a product of the library's, with the part of a call that it computes.
type multiplication struct {
	driver.Product
	layout string
	does   backend.Call
}

// product begins one: y = x wT for nt, dx = dy w for nn, dw = dyT x for tn, row by row. Column by column, as the library has
// it, that is yT = w xT, dxT = wT dyT and dwT = xT dy.
func (e *encoder) product(layout string, y, a, b *mat, add bool, does backend.Call) multiplication {
	p := driver.Product{
		D: driver.Address(y.p), LdD: int(y.ld), M: int(y.cols), N: int(y.rows), Add: add, Axis: int(backend.Tok), Compute: e.be.precision.compute(),
		A: driver.Address(b.p), LdA: int(b.ld), B: driver.Address(a.p), LdB: int(a.ld), K: int(a.cols),
		Workspace: e.be.products.workspace.at, Room: workspaceBytes,
	}
	switch layout {
	case "nt":
		p.TransA = true
	case "tn":
		p.TransB, p.ByK, p.K = true, true, int(a.rows)
	}
	return multiplication{p, layout, does}
}

// twoWays encodes a call for the library, with what our own kernels do to its results, and for our own kernels alone: which of
// both is launched depends on the rows. False: the library has no algorithm for it, and nothing was encoded.
func (e *encoder) twoWays(node string, all []multiplication, after *backend.Call, own func() error) (bool, error) {
	for k := range all {
		a, ok, err := e.choose(all[k].layout, &all[k].Product)
		if err != nil || !ok {
			return false, err
		}
		all[k].Algorithm = a
	}
	e.choices++
	c := e.choices
	defer func() { e.choice = 0 }()
	e.choice = c
	for k := range all {
		m := &all[k]
		e.add(node, launch{
			kernel: fmt.Sprintf("cublaslt_%v_%s_%v", e.be.precision, m.layout, m.Algorithm), grid: [3]int{1, 1, 1}, product: &m.Product,
			does: []backend.Call{m.does},
		})
	}
	if after != nil {
		if err := e.also(after); err != nil {
			return false, err
		}
	}
	e.choice = -c
	return true, own()
}

// also encodes what a kernel of ours does to a result: GELU, or its gradient.
func (e *encoder) also(c *backend.Call) error {
	defer func(now *backend.Call) { e.now = now }(e.now)
	e.now = c
	r, err := e.resolve(c)
	if err != nil {
		return err
	}
	if c.Op == backend.UnaryGrad {
		return elements("unary_grad", 3)(e, r)
	}
	return elements("unary", 1)(e, r)
}

// libraryNT gives the library what is plain of y = f(x wT + b): no low-rank term. GELU is a kernel of ours, because the
// library's is, as far as its manual says, another function: what it is of is the saved pre, or y itself.
func (e *encoder) libraryNT(r *resolved) (bool, error) {
	x, y, to := &r.a.in[0], &r.a.out[0], r.Out[0]
	add, gelu := to.Acc, r.I[1] == backend.ActGELU
	if gelu && !r.a.out[1].dead() {
		y, to, add = &r.a.out[1], r.Out[1], false
	}
	if e.be.products == nil || y.dead() || gelu && add || !suits(x, y) || !gelu && !r.a.out[1].dead() {
		return false, nil
	}
	var all []multiplication
	col := 0
	for k := range r.I[0] {
		var m [4]mat
		for i := range m {
			var err error
			if m[i], err = e.operand(r, 1+4*k+i); err != nil {
				return false, err
			}
		}
		w, bias, low := &m[0], &m[1], &m[2]
		part := *y
		part.p, part.cols = y.p+uint64(col)*elem, w.rows
		if !low.dead() && low.cols > 0 || !suits(x, w, &part) || bias.p%16 != 0 {
			return false, nil
		}
		does := backend.Call{
			Op: backend.MatNT, Node: r.Node, Out: []backend.Buf{to.ColsOf(col, int(w.rows)), {}},
			In: []backend.Buf{r.In[0], r.In[1+4*k], r.In[2+4*k], {}, {}}, I: [4]int{1},
		}
		p := e.product("nt", &part, x, w, add, does)
		p.Bias = driver.Address(bias.p)
		all = append(all, p)
		col += int(w.rows)
	}
	var after *backend.Call
	if gelu && !r.a.out[0].dead() {
		after = &backend.Call{Op: backend.Unary, Node: r.Node, Out: r.Out[:1], In: []backend.Buf{to}, I: [4]int{int(backend.GELU)}}
	}
	return e.twoWays(r.Node, all, after, func() error { return e.ownNT(r) })
}

// libraryNN gives the library dx = Σ dy w, a product a pair; a factor f'(pre) is a kernel of ours.
func (e *encoder) libraryNN(r *resolved) (bool, error) {
	dx, gelu := &r.a.out[0], r.I[1] == backend.ActGELU
	if e.be.products == nil || gelu && r.Out[0].Acc || r.I[0] == 0 {
		return false, nil
	}
	var all []multiplication
	for k := range r.I[0] {
		dy, err := e.operand(r, 1+2*k)
		if err != nil {
			return false, err
		}
		w, err := e.operand(r, 2+2*k)
		if err != nil {
			return false, err
		}
		if !suits(dx, &dy, &w) {
			return false, nil
		}
		to := r.Out[0]
		to.Acc = to.Acc || k > 0
		does := backend.Call{Op: backend.MatNN, Node: r.Node, Out: []backend.Buf{to}, In: []backend.Buf{{}, r.In[1+2*k], r.In[2+2*k]}, I: [4]int{1}}
		all = append(all, e.product("nn", dx, &dy, &w, to.Acc, does))
	}
	var after *backend.Call
	if gelu {
		dx := r.Out[0]
		after = &backend.Call{Op: backend.UnaryGrad, Node: r.Node, Out: []backend.Buf{dx}, In: []backend.Buf{r.In[0], {}, dx}, I: [4]int{int(backend.GELU)}}
	}
	return e.twoWays(r.Node, all, after, func() error { return e.ownNN(r) })
}

// givesTN reports that the library may be given a gradient for all units.
func (e *encoder) givesTN(r *resolved) bool {
	dy, x, dw := &r.a.in[0], &r.a.in[1], &r.a.out[0]
	return e.be.products != nil && (e.bind.PerUnit <= 0 || r.Out[0].Space != backend.Grad) && suits(dy, x, dw)
}

// libraryTN gives the library dw = dyT x.
func (e *encoder) libraryTN(r *resolved) (bool, error) {
	if !e.givesTN(r) {
		return false, nil
	}
	p := e.product("tn", &r.a.out[0], &r.a.in[0], &r.a.in[1], r.Out[0].Acc, *r.Call)
	return e.twoWays(r.Node, []multiplication{p}, nil, func() error { return e.ownTN(r) })
}
