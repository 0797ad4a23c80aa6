package graph

import (
	"context"
	"fmt"

	G "gorgonia.org/gorgonia"
	"gorgonia.org/tensor"

	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/backend/ref"
)

// multi is the value of an operator with several results. It is a tensor (the value), so that
// TapeMachine passes it on; views take the rest from it.
type multi struct {
	*tensor.Dense
	saved []*tensor.Dense
}

// Do runs one operator on the reference kernels, for TapeMachine and gradient checks. It allocates;
// programs never call it.
func (a *applied) Do(vs ...G.Value) (G.Value, error) {
	if a.b.dt == tensor.Float64 {
		return do[float64](a, vs)
	}
	return do[float32](a, vs)
}

func do[F host.Float](a *applied, vs []G.Value) (G.Value, error) {
	if a.info.col >= 0 {
		return copyCols[F](a, vs[0])
	}
	if a.info.of.OK() {
		m, ok := vs[0].(*multi)
		if !ok {
			return nil, fmt.Errorf("graph: %s: want several results, have %T", a.name, vs[0])
		}
		return m.saved[a.info.idx], nil
	}
	var bind backend.Binding
	in, out := make([]backend.Buf, len(vs)), make([]backend.Buf, len(a.info.out))
	for i, v := range vs {
		in[i] = a.info.in[i].Shape().buf()
		var raw []byte
		switch d := v.Data().(type) {
		case []F:
			raw = host.Bytes(d)
		case F:
			raw = host.Bytes([]F{d})
		case []int32:
			raw, in[i].Space = host.Bytes(d), backend.Index
		default:
			return nil, fmt.Errorf("graph: %s: input %d is %T", a.name, i, d)
		}
		if in[i].Space == backend.None {
			in[i].Space = backend.Input
		}
		in[i].ID = wrap(&bind, in[i].Space, raw)
	}
	vals := make([]*tensor.Dense, len(out))
	for i, s := range a.info.out {
		data := make([]F, s.Size())
		vals[i] = tensor.New(tensor.WithShape(s.Dims...), tensor.WithBacking(data))
		out[i] = s.buf()
		out[i].Space, out[i].ID = backend.Weight, wrap(&bind, backend.Weight, host.Bytes(data))
	}
	l := &Lowering{node: a.name}
	a.info.op.Lower(l, out, in)
	be := ref.New[F]()
	x, err := be.Encode(l.calls, bind)
	if err != nil {
		return nil, err
	}
	defer x.Close()
	all := &backend.Scalars{}
	for i := range all.Count {
		all.Count[i] = forever
	}
	if err := x.Launch(context.Background(), all); err != nil {
		return nil, err
	}
	if len(vals) == 1 {
		return vals[0], nil
	}
	return &multi{vals[0], vals}, nil
}

func wrap(b *backend.Binding, sp backend.Space, raw []byte) int {
	b.Blocks[sp] = append(b.Blocks[sp], backend.Block{Mem: host.Wrap(raw)})
	return len(b.Blocks[sp]) - 1
}

func copyCols[F host.Float](a *applied, v G.Value) (G.Value, error) {
	src, ok := v.Data().([]F)
	if !ok {
		return nil, fmt.Errorf("graph: %s: columns of %T", a.name, v.Data())
	}
	w, s := v.Shape()[1], a.out
	dst := make([]F, 0, s.Size())
	for i := range s.Dims[0] {
		dst = append(dst, src[i*w+a.info.col:][:s.Cols()]...)
	}
	return tensor.New(tensor.WithShape(s.Dims...), tensor.WithBacking(dst)), nil
}
