package train

import (
	"errors"
	"fmt"

	"rung/data"
	"rung/nn"
	"rung/nn/backend"
	"rung/nn/graph"
)

// plan is the program of a run: one, whose capacities hold every micro-batch of every epoch.
type plan struct {
	program *graph.Program
	dims    graph.Dims
	budget  int // tokens of a micro-batch
	least   int // the smallest that it can be
	total   int // updates
	bytes   int64
	needs   Plan // bytes of memory
}

// makePlan looks at the batches of all epochs, and halves the token budget until the program fits into
// memory. fixed is the budget of a run that is resumed. A loss that compares units of a batch takes
// whole batches.
func (r *Run) makePlan(batches [][]int, fixed int) (*plan, error) {
	p := &plan{total: len(batches)}
	var whole, unit data.Sizes
	for _, b := range batches {
		whole = whole.Max(r.train.Sizes(b))
		for _, u := range b {
			unit = unit.Max(r.train.Sizes([]int{u}))
		}
	}
	p.budget = whole.T
	if r.cfg.MicroTokens > 0 {
		p.budget = r.cfg.MicroTokens
	}
	if fixed > 0 {
		p.budget = fixed
	}
	least, what := unit.T, "unit"
	if r.obj.Scope() == nn.Batch {
		least, what = whole.T, "batch"
		if p.budget < least {
			return nil, fmt.Errorf("train: the loss %s takes whole batches, of up to %d tokens: micro_tokens is %d", r.obj.Name(), least, p.budget)
		}
	}
	p.least = least
	limit := r.cfg.Memory
	if limit == 0 {
		var err error
		if limit, err = r.available(); err != nil {
			return nil, err
		}
	}
	for {
		if err := r.fit(p, batches); err != nil {
			return nil, err
		}
		if fixed > 0 || p.bytes <= limit {
			return p, nil
		}
		if p.budget <= least {
			return nil, fmt.Errorf("train: one %s of %d tokens needs %d MiB of memory, of which there are %d: use shorter texts, fewer candidates or an adapter", what, least, p.bytes>>20, limit>>20)
		}
		p.budget = max(least, p.budget/2)
	}
}

// reserve plans, and takes the memory of the run. Where that is not there although it was, because it lies in pieces or
// somebody else took it, micro-batches become smaller: after the first step they could not without other bits.
func (r *Run) reserve(batches [][]int, fixed int) error {
	p, err := r.makePlan(batches, fixed)
	if err != nil {
		return err
	}
	for {
		run, err := p.program.NewRun(r.be, p.owners())
		if err == nil {
			if err = run.Bind(r.store); err == nil {
				err = r.startClipping(p, run)
			}
			if err == nil {
				r.plan, r.total, r.run = p, p.total, run
				p.needs = r.needs()
				return nil
			}
			_ = run.Close()
		}
		if !errors.Is(err, backend.ErrMemory) || fixed > 0 || p.budget <= p.least {
			return err
		}
		p.budget = max(p.least, p.budget/2)
		if err := r.fit(p, batches); err != nil {
			return err
		}
	}
}

// needs is the memory of a run, what its kernels need included, which is known once it is bound.
func (r *Run) needs() Plan {
	p := Plan{Weights: r.store.Master.Size(), Gradients: r.store.Grad.Size(), Arena: int64(r.plan.program.Arena) * int64(r.be.Float().Size())}
	p.Moments = r.kept() - p.Weights - p.Gradients
	p.Other = r.run.Bytes() - p.Arena + r.opt.bytes()
	if r.private != nil { // the gradients of units, their sum, noise
		p.Gradients += int64(r.plan.owners()+2) * r.unitBytes()
		p.Other += r.private.clip.bytes() - 2*r.unitBytes() - int64(r.plan.owners())*r.unitBytes()
	}
	p.Bytes = p.Weights + p.Gradients + p.Moments + p.Arena + p.Other
	return p
}

// mostUpdates bounds a run: its batches are drawn before it starts.
const mostUpdates = 1 << 26

// allBatches draws every batch of the run.
func (r *Run) allBatches() ([][]int, error) {
	var all [][]int
	for e := 0; (r.cfg.Epochs == 0 || e < r.cfg.Epochs) && (r.cfg.Steps == 0 || len(all) < r.cfg.Steps); e++ {
		b := r.sample.Epoch(r.train, r.cfg.Seed, e)
		if len(b) == 0 {
			return nil, fmt.Errorf("train: the sampler %s draws nothing", r.sample.Name())
		}
		updates := float64(r.cfg.Epochs) * float64(len(b)) // 0: steps alone end the run
		if s := float64(r.cfg.Steps); s > 0 && (updates == 0 || s < updates) {
			updates = s
		}
		if updates > mostUpdates {
			return nil, fmt.Errorf("train: %.4g updates, at most %d: fewer epochs or steps", updates, mostUpdates)
		}
		if err := r.ctx.Err(); err != nil {
			return nil, err
		}
		all = append(all, b...)
	}
	if r.cfg.Steps > 0 && len(all) > r.cfg.Steps {
		all = all[:r.cfg.Steps]
	}
	terms := 0
	for _, b := range all {
		for _, u := range b {
			if u < 0 || u >= len(r.train.Units) {
				return nil, fmt.Errorf("train: the sampler %s draws unit %d of %d", r.sample.Name(), u, len(r.train.Units))
			}
		}
		terms += r.terms(b)
	}
	if terms == 0 {
		return nil, fmt.Errorf("train: no unit has a term of the loss %s: are there positives and negatives, and unit: query where it compares candidates?", r.obj.Name())
	}
	return all, nil
}

// fit compiles for the micro-batches that the budget gives.
func (r *Run) fit(p *plan, batches [][]int) error {
	var most data.Sizes
	for _, b := range batches {
		for _, micro := range r.train.Split(b, p.budget) {
			most = most.Max(r.train.Sizes(micro))
		}
	}
	p.dims = graph.Dims(most)
	var err error
	p.program, err = nn.Compile(r.model, nn.Plan{Dims: p.dims, Float: r.be.Float(), Objective: r.obj, Dropout: r.cfg.Dropout, PerUnit: r.private != nil})
	if err != nil {
		return fmt.Errorf("train: %w", err)
	}
	size := int64(r.be.Float().Size())
	p.bytes = p.program.Bytes() + int64(p.owners()+3)*r.unitBytes() + r.store.Master.Size() + r.store.Grad.Size() + int64(r.store.Trainable())*size*int64(len(r.opt.moments))
	return nil
}

// Plan describes what a run will use.
type Plan struct {
	Steps       int
	MicroTokens int
	Dims        graph.Dims
	Calls       int
	Bytes       int64 // weights, gradients, moments, activations and what kernels need: the five that follow
	Weights     int64
	Gradients   int64
	Moments     int64
	Arena       int64 // activations
	Other       int64 // inputs, tables and scratch
	Trainable   int
	Parameters  int
}

// Plan is what the run will use.
func (r *Run) Plan() Plan {
	p := r.plan.needs
	p.Steps, p.MicroTokens, p.Dims, p.Calls = r.total, r.plan.budget, r.plan.dims, len(r.plan.program.Calls)
	for _, q := range r.model.Params() {
		p.Parameters += q.Size()
		if q.Trainable {
			p.Trainable += q.Size()
		}
	}
	return p
}
