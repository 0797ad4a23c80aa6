package lora

import (
	"maps"
	"math"
	"slices"

	"rung/nn"
)

// A tensor is a value of an adapter's file.
type tensor struct {
	name string
	dims []int
	v    []float64
}

// saved is the adapter as PEFT knows it: kinds that PEFT has not become plain LoRA with the same outputs.
func (a *Adapter) saved(v values) (Config, []tensor, error) {
	cfg := a.cfg
	plain := map[*nn.Param]tensor{} // what takes a parameter's place; without a name nothing does
	var sizes []size
	for _, s := range a.sites {
		if s.low == nil {
			continue
		}
		rank, A, B, err := s.plain(v, plain)
		if err != nil {
			return cfg, nil, err
		}
		sizes = append(sizes, size{s.slot.Path, rank, s.low.Scale})
		if A != nil {
			plain[s.low.A] = tensor{dims: []int{rank, s.base.In()}, v: A}
			plain[s.low.B] = tensor{dims: []int{s.base.Out(), rank}, v: B}
		}
	}
	if cfg.Kind == ALLoRA || cfg.Kind == Dynamic || cfg.Init == InitPiSSA {
		cfg = cfg.plain(sizes)
	}
	var all []tensor
	names := a.names()
	for _, p := range a.params {
		t, ok := plain[p]
		if !ok {
			x, err := v(p)
			if err != nil {
				return cfg, nil, err
			}
			t = tensor{dims: p.Dims, v: x}
		}
		if t.v == nil { // a part of another
			continue
		}
		t.name = names[p]
		all = append(all, t)
	}
	return cfg, all, nil
}

// plain is the rank of the plain adapter that a site is, and its A and B where they are not the parameters.
func (s *site) plain(v values, drop map[*nn.Param]tensor) (rank int, a, b []float64, err error) {
	if s.pissa != nil {
		a, b, rank, err = s.pissa.converted(v)
		return rank, a, b, err
	}
	if d, ok := s.layer.(*dynamicLinear); ok {
		drop[d.W] = tensor{}
		a, b, rank, err = d.kept(v)
		return rank, a, b, err
	}
	return s.low.Rank(), nil, nil, nil
}

// size is what a plain adapter of a module has.
type size struct {
	path  string
	rank  int
	scale float64
}

// plain is the configuration of a plain adapter of given sizes: those of most modules stand as rank and alpha, the
// others in patterns.
func (c Config) plain(sizes []size) Config {
	c.Kind, c.Init, c.UseRSLoRA, c.Eta, c.Shrink, c.LoRAPlus, c.FreezeA = Plain, InitUniform, false, 0, 0, 0, false
	c.RankPattern, c.AlphaPattern = nil, nil
	type key struct {
		rank  int
		alpha float64
	}
	of := func(s size) key {
		alpha := s.scale * float64(s.rank)
		if near := math.Round(alpha); math.Abs(alpha-near) <= 1e-12*math.Abs(near) { // 8/3·6 is meant to be 16
			alpha = near
		}
		return key{s.rank, alpha}
	}
	count := map[key]int{}
	for _, s := range sizes {
		count[of(s)]++
	}
	most := slices.MaxFunc(slices.Collect(maps.Keys(count)), func(x, y key) int {
		switch {
		case count[x] != count[y]:
			return count[x] - count[y]
		case x.rank != y.rank:
			return x.rank - y.rank
		case x.alpha < y.alpha:
			return -1
		}
		return 1
	})
	c.Rank, c.Alpha = most.rank, most.alpha
	for _, s := range sizes {
		k := of(s)
		if k.rank != c.Rank {
			c.RankPattern = put(c.RankPattern, s.path, k.rank)
		}
		if k.alpha != c.Alpha {
			c.AlphaPattern = put(c.AlphaPattern, s.path, k.alpha)
		}
	}
	return c
}

func put[V any](m map[string]V, key string, v V) map[string]V {
	if m == nil {
		m = map[string]V{}
	}
	m[key] = v
	return m
}
