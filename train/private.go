package train

import (
	"errors"
	"fmt"

	"rung/data"
	"rung/nn/arch"
	"rung/nn/backend"
	"rung/nn/graph"
	"rung/train/privacy"
)

// private is what a run with privacy has besides.
type private struct {
	cfg   *Privacy
	units int     // that are protected
	q     float64 // a unit's chance to be in a step's batch
	sigma float64
	mean  float64 // what sums are divided by: the batch size that is expected

	account
	clip *clipper
}

// openPrivate checks what privacy asks of model, loss and data, and chooses noise and draws.
func (r *Run) openPrivate() error {
	p := r.cfg.Privacy
	if p == nil {
		return nil
	}
	if err := p.refuse(r.obj, r.model, r.dev != nil); err != nil {
		return err
	}
	var err error
	if r.train, err = p.owned(r.train); err != nil {
		return err
	}
	v := &private{cfg: p, units: len(r.train.Units), mean: float64(r.cfg.Batch)}
	if r.train.Owners > 0 {
		v.units = r.train.Owners
	}
	if r.cfg.Batch > v.units {
		return fmt.Errorf("train: privacy: batch is %d, but there are %d units (%s)", r.cfg.Batch, v.units, p.unit())
	}
	if p.Delta*float64(v.units) >= 1 {
		return fmt.Errorf("train: privacy.delta: %g for %d units: want less than 1 over their number, or losing one of them whole would do", p.Delta, v.units)
	}
	v.q = v.mean / float64(v.units)
	if r.cfg.Steps == 0 { // epochs are of as many draws as there are units
		r.cfg.Steps = int(privacy.StepsOf(float64(r.cfg.Epochs), v.q))
	}
	r.private, r.sample = v, poisson{v}
	if err := v.noise(&r.cfg); err != nil {
		return err
	}
	return r.openAccount()
}

// poisson draws the units of each step by themselves: a Sampler whose epochs are as many steps as draw each unit once
// on average.
type poisson struct{ *private }

// Name is "poisson".
func (poisson) Name() string { return "poisson" }

// Epoch draws the batches of an epoch, some of which may be empty. Neither seed nor order matters.
func (s poisson) Epoch(e *data.Encoded, _ uint64, epoch int) [][]int {
	per := int(privacy.StepsOf(1, s.q))
	first := firstUnits(e)
	batches := make([][]int, per)
	for i := range batches {
		d, err := s.draw(epoch*per + i)
		if err != nil { // none of the first step's charge: see openAccount
			return nil
		}
		for _, o := range d.Sample(s.units) {
			for u := first[o]; u < first[o+1]; u++ {
				batches[i] = append(batches[i], u)
			}
		}
	}
	return batches
}

// firstUnits is the first unit of each owner, and the end.
func firstUnits(e *data.Encoded) []int {
	var first []int
	for i := range e.Units {
		if i == 0 || e.Owners == 0 || e.Units[i].Owner != e.Units[i-1].Owner {
			first = append(first, i)
		}
	}
	return append(first, len(e.Units))
}

// privateStep is one update with privacy. Nothing of it is to be seen before the ledger has it.
func (r *Run) privateStep(units []int) (Step, error) {
	v := r.private
	s := Step{N: r.pos.Step + 1, Total: r.total, Epoch: r.pos.Epoch, Withheld: true}
	fail := func(err error) (Step, error) { return s, fmt.Errorf("train: step %d: %w", s.N, err) }
	var scalars backend.Scalars
	scalars.Seed, scalars.Step = r.cfg.Seed, uint64(r.pos.Step)
	scalars.LR = r.cfg.rates(r.rates, r.pos.Step, r.total)
	s.LR = scalars.LR[0]
	if err := v.clip.begin(); err != nil {
		return fail(err)
	}
	for _, micro := range r.train.Split(units, r.plan.budget) {
		if len(micro) == 0 { // chance has drawn nobody: the step is noise alone
			continue
		}
		if _, err := arch.Feed(r.run, r.plan.dims, r.train, micro, &scalars); err != nil {
			return fail(err)
		}
		owners := r.train.Owned(micro)
		r.weighOwners(owners)
		if r.traced {
			r.sizes = backend.Sizes{Count: scalars.Count, Pairs: r.train.Pairs(micro)}
		}
		if err := r.run.Do(r.ctx, &scalars, false); err != nil {
			return fail(err)
		}
		if err := v.clip.micro(r.ctx, &scalars, len(owners)); err != nil {
			return fail(err)
		}
	}
	if err := r.ctx.Err(); err != nil {
		return fail(err)
	}
	d, err := v.spend(r.pos.Step)
	if err != nil {
		return fail(err)
	}
	if err := v.clip.end(r.ctx, &scalars, d.AddTo); err != nil {
		return fail(err)
	}
	if _, err := r.opt.step(&scalars); err != nil {
		r.torn = !errors.Is(err, ErrNotFinite)
		return fail(err)
	}
	return s, nil
}

// owners is how many gradients of units are kept apart.
func (p *plan) owners() int {
	if !p.program.PerUnit {
		return 0
	}
	return p.dims.B
}

// unitBytes is the memory of the gradients of one unit, 0 without privacy.
func (r *Run) unitBytes() int64 {
	if r.private == nil {
		return 0
	}
	return int64(r.store.Trainable()) * int64(r.be.Float().Size())
}

// startClipping makes what clips the gradients of a run's units.
func (r *Run) startClipping(p *plan, run *graph.Run) error {
	v := r.private
	if v == nil {
		return nil
	}
	if v.clip != nil {
		if err := v.clip.close(); err != nil {
			return err
		}
	}
	var err error
	for _, g := range r.store.Seg {
		if off, ok := run.UnitOffset(g.Path); g.Trainable && (!ok || off != g.Off) {
			return fmt.Errorf("train: privacy: the gradients of units lack %s, or have it at another place", g.Path)
		}
	}
	gradients, stride := run.UnitGradients()
	v.clip, err = newClipper(v.cfg, r.store, gradients, stride, p.owners(), v.mean)
	return err
}
