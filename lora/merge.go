package lora

import (
	"fmt"

	"rung/nn"
	"rung/nn/backend"
	"rung/nn/graph"
)

// Merge folds the adapter into the weights of its base: W + Scale B A, summed in float64. It returns
// all parameters of the base, under their names, whose Init gives the values of now; what was trained
// in full, and trained biases, are as trained. The stores are those of Run.Bind, the adapter's before
// the base's; they are only read.
func (a *Adapter) Merge(stores ...*graph.Store) ([]*nn.Param, error) {
	at := map[*nn.Param]adapted{}
	for _, s := range a.sites {
		at[s.base.W] = s.lora
	}
	out := make([]*nn.Param, 0, len(a.before))
	for _, o := range a.before {
		wide, err := read(stores, o.at.Path)
		if err == nil && at[o.at] != nil {
			err = at[o.at].addTo(wide, stores)
		}
		if err != nil {
			return nil, fmt.Errorf("lora: merge: %w", err)
		}
		p, v := o.was, narrow(wide)
		p.Init = func(dst []float32) error {
			if len(dst) != len(v) {
				return fmt.Errorf("lora: merged %q has %d elements, not %d", p.Path, len(v), len(dst))
			}
			copy(dst, v)
			return nil
		}
		out = append(out, &p)
	}
	return out, nil
}

// addTo adds Scale B A to w (out,in).
func (l *Linear) addTo(w []float64, stores []*graph.Store) error {
	a, err := read(stores, l.A.Path)
	if err != nil {
		return err
	}
	b, err := read(stores, l.B.Path)
	if err != nil {
		return err
	}
	rank, in := l.A.Dims[0], l.A.Dims[1]
	sum := make([]float64, in)
	for o := range l.B.Dims[0] {
		clear(sum)
		for r, s := range b[o*rank : (o+1)*rank] {
			for i, x := range a[r*in : (r+1)*in] {
				sum[i] += s * x
			}
		}
		for i, x := range sum {
			w[o*in+i] += l.Scale * x
		}
	}
	return nil
}

// read is a weight from the first store that has it.
func read(stores []*graph.Store, path string) ([]float64, error) {
	for _, s := range stores {
		if _, ok := s.Find(path); !ok {
			continue
		}
		if s.Backend().Float() == backend.Float64 {
			return graph.ReadWeight[float64](s, path)
		}
		v, err := graph.ReadWeight[float32](s, path)
		if err != nil {
			return nil, err
		}
		wide := make([]float64, len(v))
		for i, x := range v {
			wide[i] = float64(x)
		}
		return wide, nil
	}
	return nil, fmt.Errorf("no store has the weight %q", path)
}

func narrow(wide []float64) []float32 {
	v := make([]float32, len(wide))
	for i, x := range wide {
		v[i] = float32(x)
	}
	return v
}
