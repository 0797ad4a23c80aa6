package lora

import (
	"fmt"

	"rung/nn"
	"rung/nn/backend"
	"rung/nn/graph"
)

// Merge folds the adapter into the weights of its base, in float64, as its kind says. It returns all parameters of
// the base, under their names, whose Init gives the values of now; what was trained in full, and trained biases, are as
// trained. The stores are those of Run.Bind, the adapter's before the base's; they are only read.
func (a *Adapter) Merge(stores ...*graph.Store) ([]*nn.Param, error) {
	v := valuesOf(stores)
	at, merged := map[*nn.Param]*site{}, map[*nn.Param][]float64{}
	for i := range a.sites {
		at[a.sites[i].base.W] = &a.sites[i] // which comes before the bias
	}
	out := make([]*nn.Param, 0, len(a.before))
	for _, o := range a.before {
		if s := at[o.at]; s != nil {
			if err := s.merge(v, merged); err != nil {
				return nil, fmt.Errorf("lora: merge: %w", err)
			}
		}
		wide, ok := merged[o.at]
		if !ok {
			var err error
			if wide, err = v(o.at); err != nil {
				return nil, fmt.Errorf("lora: merge: %w", err)
			}
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

// merge computes the weight and the bias of a layer with its adapter.
func (s *site) merge(v values, merged map[*nn.Param][]float64) error {
	w, err := v(s.base.W)
	if err != nil {
		return err
	}
	var b []float64
	if s.base.B != nil {
		if b, err = v(s.base.B); err != nil {
			return err
		}
		merged[s.base.B] = b
	}
	merged[s.base.W] = w
	return s.layer.fold(v, w, b)
}

func valuesOf(stores []*graph.Store) values {
	return func(p *nn.Param) ([]float64, error) { return read(stores, p.Path) }
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
		return widen(v), nil
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

func widen(v []float32) []float64 {
	wide := make([]float64, len(v))
	for i, x := range v {
		wide[i] = float64(x)
	}
	return wide
}
