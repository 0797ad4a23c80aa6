package train

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/graph"
)

// ErrNotFinite reports a loss or gradient that is NaN or infinite: the weights are as they were before.
var ErrNotFinite = errors.New("not finite")

// optimizer updates the trainable weights of a store on its backend: the norm of every gradient, the
// clipping factor of all, then one pass over weights and moments.
type optimizer struct {
	store   *graph.Store
	calls   []backend.Call
	exec    backend.Exec
	scratch backend.Memory // norm of each gradient, then factor and norm of all
	moments []moment
	names   []string
}

// A moment lies as the trainable weights do.
type moment struct {
	name string // in saved states
	mem  backend.Memory
}

// kinds gives each optimizer its kernel and the moments it keeps.
var kinds = map[string]struct {
	op      backend.Op
	moments []string
}{
	"adamw":   {backend.AdamW, []string{"exp_avg", "exp_avg_sq"}},
	"adam":    {backend.AdamW, []string{"exp_avg", "exp_avg_sq"}},
	"amsgrad": {backend.AdamW, []string{"exp_avg", "exp_avg_sq", "max_exp_avg_sq"}},
	"sgd":     {backend.SGD, []string{"momentum"}},
	"adagrad": {backend.Adagrad, []string{"sum"}},
}

func newOptimizer(c *Config, s *graph.Store) (*optimizer, error) {
	o := &optimizer{store: s}
	if err := o.encode(c); err != nil {
		_ = o.close()
		return nil, fmt.Errorf("train: optimizer: %w", err)
	}
	return o, nil
}

func (o *optimizer) encode(c *Config) error {
	s, be, kind := o.store, o.store.Backend(), kinds[c.Optimizer]
	size := int64(be.Float().Size())
	var bind backend.Binding
	for _, name := range kind.moments {
		m, err := be.Reserve(int64(s.Trainable()) * size)
		if err != nil {
			return err
		}
		if m, ok := m.(backend.Sparse); ok {
			m.Track()
		}
		o.moments = append(o.moments, moment{name, m})
	}
	var grads []backend.Buf
	var spans []span
	var signs []graph.Segment
	for _, g := range s.Seg {
		if !g.Trainable {
			continue
		}
		if g.Sign != 0 { // its gradient is no gradient: it is in no norm
			signs = append(signs, g)
			spans = append(spans, span{from: g.Off, to: g.Off, group: -1}) // ends the one before, and none begins with it
			continue
		}
		o.names = append(o.names, g.Path)
		b := backend.Buf{Space: backend.Grad, ID: len(grads), Rows: 1, Cols: g.Size(), Ld: g.Size()}
		grads = append(grads, b)
		bind.Blocks[backend.Grad] = append(bind.Blocks[backend.Grad], s.GradientBlock(g))
		spans = extend(spans, span{g.Off, g.Off + g.Size(), int(g.Group), c.decays(g.Path) && g.Shrink == 0, g.Shrink})
	}
	n := len(grads)
	var err error
	if o.scratch, err = be.Reserve(int64(n+2) * size); err != nil {
		return err
	}
	bind.Arena = o.scratch
	norms := backend.Buf{Space: backend.Arena, Rows: 1, Cols: n, Ld: n}
	factor := backend.Buf{Space: backend.Arena, Off: n, Rows: 1, Cols: 2, Ld: 2}
	calls := []backend.Call{
		{Op: backend.SumSq, Node: "gradient norms", Out: []backend.Buf{norms}, In: grads},
		{Op: backend.Clip, Node: "clip", Out: []backend.Buf{factor}, In: []backend.Buf{norms}},
	}
	spans = slices.DeleteFunc(spans, func(sp span) bool { return sp.from == sp.to })
	for i, sp := range spans {
		bind.Blocks[backend.Weight] = append(bind.Blocks[backend.Weight], backend.Block{Mem: s.Master, Off: sp.from})
		bind.Blocks[backend.Grad] = append(bind.Blocks[backend.Grad], backend.Block{Mem: s.Grad, Off: sp.from})
		vec := func(space backend.Space, id int) backend.Buf {
			return backend.Buf{Space: space, ID: id, Rows: 1, Cols: sp.to - sp.from, Ld: sp.to - sp.from}
		}
		out := []backend.Buf{vec(backend.Weight, i)}
		for _, m := range o.moments {
			out = append(out, vec(backend.Moment1, len(bind.Blocks[backend.Moment1])))
			bind.Blocks[backend.Moment1] = append(bind.Blocks[backend.Moment1], backend.Block{Mem: m.mem, Off: sp.from})
		}
		call := backend.Call{Op: kind.op, Node: c.Optimizer, Out: out, In: []backend.Buf{vec(backend.Grad, n+i), factor}, F: [4]float64{c.Beta1, c.Beta2, c.Eps, 0}}
		call.I[0] = sp.group
		if sp.decays {
			call.F[3] = c.WeightDecay
		}
		switch c.Optimizer {
		case "adam":
			call.I[1] = 1
		case "sgd":
			call.F[0] = c.Momentum
			if c.Nesterov {
				call.I[1] = 1
			}
		}
		calls = append(calls, call)
		if sp.shrink > 0 {
			calls = append(calls, backend.Call{
				Op: backend.Shrink, Node: "shrink", Out: out[:1], In: []backend.Buf{{}, factor}, I: [4]int{sp.group}, F: [4]float64{sp.shrink},
			})
		}
	}
	for _, g := range signs {
		vec := func(space backend.Space, m backend.Memory) backend.Buf {
			bind.Blocks[space] = append(bind.Blocks[space], backend.Block{Mem: m, Off: g.Off})
			return backend.Buf{Space: space, ID: len(bind.Blocks[space]) - 1, Rows: 1, Cols: g.Size(), Ld: g.Size()}
		}
		calls = append(calls, backend.Call{
			Op: backend.SignSGD, Node: g.Path, Out: []backend.Buf{vec(backend.Weight, s.Master)},
			In: []backend.Buf{vec(backend.Grad, s.Grad), factor}, F: [4]float64{g.Sign},
		})
	}
	o.calls = calls
	o.exec, err = be.Encode(calls, bind)
	return err
}

// span is neighbouring weights that are updated alike.
type span struct {
	from, to, group int
	decays          bool
	shrink          float64 // λ of the proximal step after the update; 0: none
}

// extend adds a weight to the last span if they are alike; the gap between them stays zero.
func extend(s []span, g span) []span {
	if n := len(s); n > 0 && s[n-1].group == g.group && s[n-1].decays == g.decays && s[n-1].shrink == g.shrink && s[n-1].to <= g.from {
		s[n-1].to = g.to
		return s
	}
	return append(s, g)
}

// step updates the weights by their gradients and returns the norm of all before clipping. If a
// gradient is not finite nothing changes and the error names it.
func (o *optimizer) step(s *backend.Scalars) (norm float64, err error) {
	if err := o.exec.Launch(context.Background(), s); err != nil {
		return 0, err
	}
	o.store.Changed(true)
	norms := make([]float32, len(o.names)+2)
	if err := o.scratch.ReadAt(host.Bytes(norms), 0); err != nil {
		return 0, err
	}
	for i, v := range norms[:len(o.names)] {
		if !finite(v) {
			return float64(v), fmt.Errorf("gradient of %s is %w", o.names[i], ErrNotFinite)
		}
	}
	all := norms[len(norms)-1]
	if !finite(all) {
		return float64(all), fmt.Errorf("the norm of all gradients is %w", ErrNotFinite)
	}
	return float64(all), nil
}

// finite tells whether v is a number that is not infinite.
func finite(v float32) bool { return v-v == 0 }

// bytes is what it reserved beside moments.
func (o *optimizer) bytes() int64 { return o.scratch.Size() + o.exec.Bytes() }

func (o *optimizer) close() error {
	var err error
	if o.exec != nil {
		err = o.exec.Close()
	}
	mems := []backend.Memory{o.scratch}
	for _, m := range o.moments {
		mems = append(mems, m.mem)
	}
	for _, m := range mems {
		if m != nil {
			if e := m.Free(); err == nil {
				err = e
			}
		}
	}
	return err
}

// A rate is the learning rate of parameters that learn alike: that of a group of the configuration, 0 for none of them,
// times what the parameters ask for.
type rate struct {
	group int8
	times float64
}

// rates are the learning rates of an update.
func (c *Config) rates(of []rate, n, total int) (lr [8]float64) {
	f := c.lr(n, total)
	for i, r := range of {
		lr[i] = c.LR
		if r.group > 0 {
			lr[i] = c.Groups[r.group-1].LR
		}
		lr[i] *= r.times * f
	}
	return lr
}

// groupOf is the parameter group of a path: the first that matches.
func (c *Config) groupOf(path string) int8 {
	for i, g := range c.Groups {
		if regexp.MustCompile(g.Match).MatchString(path) { // checked before
			return int8(i + 1)
		}
	}
	return 0
}
