package train

import (
	"strings"

	"rung/nn/graph"
	"rung/train/report"
)

// ranks counts what is left of weights that updates draw to zero (nn.Param.Shrink): nil where there are none.
func (r *Run) ranks() (*report.Ranks, error) {
	var out *report.Ranks
	for _, g := range r.store.Seg {
		if g.Shrink == 0 {
			continue
		}
		w, err := graph.ReadWeight[float32](r.store, g.Path)
		if err != nil {
			return nil, err
		}
		if out == nil {
			out = &report.Ranks{Modules: map[string]int{}}
		}
		left := 0
		for _, x := range w {
			if x != 0 {
				left++
			}
		}
		out.Left, out.All = out.Left+left, out.All+len(w)
		out.Modules[g.Path[:max(0, strings.LastIndexByte(g.Path, '.'))]] = left
	}
	return out, nil
}
