package train

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"rung/data"
	"rung/lora"
	"rung/nn"
	"rung/nn/backend"
	"rung/nn/graph"
	"rung/train/report"
)

// experts adds up what a program reports of routers over the micro-batches of a step.
type experts struct {
	counts  map[string][]float64 // rows that chose each expert, by module
	entropy map[string]float64   // sum over the choices, by module: its rows are tokens here, sequences there
	read    []string             // the modules, in a fixed order
}

func (x *experts) clear() {
	for _, c := range x.counts {
		clear(c)
	}
	clear(x.entropy)
}

// setShares gives the program what part of a batch of sizes all its micro-batch of sizes n is, by axis.
func (r *Run) setShares(n, all data.Sizes) map[backend.Axis]float64 {
	share := map[backend.Axis]float64{backend.Tok: float64(n.T) / float64(max(1, all.T)), backend.Seq: float64(n.N) / float64(max(1, all.N))}
	for a, v := range share {
		if x := graph.Floats[float32](r.run, nn.OnAxis(nn.InShare, a)); x != nil {
			x[0] = float32(v)
		}
	}
	return share
}

// askExtras asks for the penalty of the last micro-batch, to be added to penalty with its share of the batch, and for what
// the program reports.
func (r *Run) askExtras(q *asked, share map[backend.Axis]float64, penalty *float64) error {
	x := &r.experts
	if x.counts == nil {
		x.counts, x.entropy = map[string][]float64{}, map[string]float64{}
		for name := range r.plan.program.Out {
			if path, ok := strings.CutPrefix(name, nn.OutReport+lora.ReportLoad); ok {
				x.read = append(x.read, path)
			}
		}
		slices.Sort(x.read)
	}
	var errs []error
	ask := func(name string, use func(v []float32)) {
		if _, ok := r.plan.program.Out[name]; ok {
			errs = append(errs, q.output(r.run, name, use))
		}
	}
	for _, a := range []backend.Axis{backend.Tok, backend.Seq} {
		ask(nn.OnAxis(nn.OutPenalty, a), func(v []float32) { *penalty += share[a] * float64(v[0]) })
	}
	for _, path := range x.read {
		choices := 0.
		ask(nn.OutReport+lora.ReportLoad+path, func(v []float32) { choices = x.add(path, v) })
		ask(nn.OutReport+lora.ReportEntropy+path, func(v []float32) { x.entropy[path] += choices * float64(v[0]) })
	}
	return errors.Join(errs...)
}

// asked is outputs that a step wants, read together: the first read of a device's memory waits for all that it does.
type asked []func() error

// output asks for an output of one row of the last Do; use gets its values.
func (q *asked) output(run *graph.Run, name string, use func(v []float32)) error {
	later, err := graph.OutputLater[float32](run, name, 1)
	if err != nil {
		return err
	}
	*q = append(*q, func() error {
		v, err := later()
		if err == nil {
			use(v)
		}
		return err
	})
	return nil
}

// read reads all, in the order in which they were asked for. The error is the first.
func (q *asked) read() (err error) {
	for _, read := range *q {
		if e := read(); err == nil {
			err = e
		}
	}
	*q = nil
	return err
}

// add adds counts of a module, and returns their sum.
func (x *experts) add(path string, counts []float32) (sum float64) {
	if x.counts[path] == nil {
		x.counts[path] = make([]float64, len(counts))
	}
	for e, n := range counts {
		x.counts[path][e] += float64(n)
		sum += float64(n)
	}
	return sum
}

// summary is over all layers, nil where there are no routers.
func (x *experts) summary() *report.Experts {
	if len(x.counts) == 0 {
		return nil
	}
	var s report.Experts
	for _, path := range slices.Sorted(maps.Keys(x.counts)) { // sums have an order
		counts, sum := x.counts[path], 0.
		for _, n := range counts {
			sum += n
			if n == 0 {
				s.Dead++
			}
		}
		s.All += len(counts)
		if sum > 0 {
			s.Load += slices.Max(counts) / sum * float64(len(counts)) / float64(len(x.counts))
			s.Entropy += x.entropy[path] / sum / float64(len(x.counts))
		}
	}
	return &s
}

// loads is the share of each expert, by module.
func (x *experts) loads() map[string][]float64 {
	out := map[string][]float64{}
	for path, counts := range x.counts {
		sum := 0.
		for _, n := range counts {
			sum += n
		}
		v := make([]float64, len(counts))
		for e, n := range counts {
			v[e] = n / max(1, sum)
		}
		out[path] = v
	}
	return out
}
