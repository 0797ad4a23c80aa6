// Package train runs the optimisation loop: batches, micro-batches, schedule, clipping, evaluation,
// early stop, checkpoints and exact resuming.
//
// A run is a pure function of model, data and Config: killed at any moment and resumed, it ends with
// the same bits as if it had not been, whatever the number of threads.
package train

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"path/filepath"
	"time"

	"rung/checkpoints"
	"rung/data"
	"rung/nn"
	"rung/nn/arch"
	"rung/nn/backend"
	"rung/nn/device"
	"rung/nn/graph"
	"rung/train/report"
)

// A Model can be trained: it computes, turns examples into token sequences, and saves itself.
type Model interface {
	nn.Model
	// Encode appends the sequences of an example, and its unit.
	Encode(e *data.Encoded, x data.Example) error
	// Save writes a directory that opens again, with the values of s.
	Save(dir string, s *graph.Store) error
	// Fingerprint says what the model is: a run is resumed only with the same.
	Fingerprint() string
}

// Data is what a run learns from and is evaluated on. Dev may be nil.
type Data struct {
	Train, Dev iter.Seq2[data.Example, error]
}

// A Step is what one update did.
type Step struct {
	N, Total   int             // updates so far, and in all
	Epoch      int             // counted from 0
	Loss       float64         // mean over the terms of the batch, before the update
	Penalty    float64         // what is minimised beside it: routers' balance, for one
	Experts    *report.Experts // how routers use experts, nil where there are none
	GradNorm   float64         // before clipping
	LR         float64         // of group 0
	Seqs       int
	Tokens     int
	Seconds    float64
	Withheld   bool          // privacy: loss, norm, sizes and time would tell of the batch, and are 0
	Evaluation *Evaluation   // after this step, if there was one
	Ranks      *report.Ranks // after this step, when an evaluation was due, of an adapter that drops ranks
}

// An Evaluation is the metrics of the dev set.
type Evaluation struct {
	Values map[string]float64
	Best   bool // better than all before, by Config.KeepBest
}

// A Run is a training run. Range over Steps, then look at Err.
type Run struct {
	ctx     context.Context
	model   Model
	obj     nn.Objective
	cfg     Config
	be      backend.Backend
	store   *graph.Store
	opt     *optimizer
	train   *data.Encoded
	dev     *data.Encoded
	sample  data.Sampler
	rates   []rate
	plan    *plan
	run     *graph.Run
	private *private // nil without privacy
	scorer  *arch.Scorer
	lock    *checkpoints.DirLock
	log     *report.Log

	experts  experts   // of the last step
	saved    time.Time // when the state was, or when the run began
	total    int
	pos      position
	digests  digests
	err      error
	torn     bool // an update failed half way: there is nothing to save
	warnings []string

	traced bool
	sizes  backend.Sizes // of the micro-batch at hand, for a trace
}

// position is where a run is; it is saved with the weights.
type position struct {
	Step  int `json:"step"`  // updates done
	Epoch int `json:"epoch"` // of the next batch
	Batch int `json:"batch"` // the next in its epoch

	Best     float64 `json:"best"`
	BestStep int     `json:"best_step"` // 0: none yet
	Worse    int     `json:"worse"`     // evaluations since

	// Pending is the last step while its evaluation is due: cut off, it is made up for on resuming. Loads are of its experts.
	Pending *Step                `json:"pending,omitempty"`
	Loads   map[string][]float64 `json:"loads,omitempty"`
}

// Start prepares a run: it reads and encodes the data, compiles, and takes Config.Out for itself. Errors
// of the setup are here. With resume, it goes on from the last state saved in Config.Out, or starts if
// there is none.
func Start(ctx context.Context, m Model, o nn.Objective, d Data, c Config) (*Run, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	c.Metrics = c.measures()
	r := &Run{ctx: ctx, saved: time.Now(), model: m, obj: o, cfg: c, be: c.Backend, sample: c.Sampler}
	if r.sample == nil {
		r.sample = data.Shuffled{Batch: c.Batch, Window: c.Window}
	}
	if err := r.prepare(d); err != nil {
		_ = r.Close() // a device that fails cannot free its memory either: no news
		return nil, err
	}
	return r, nil
}

func (r *Run) prepare(d Data) (err error) {
	if r.be == nil {
		if r.be, err = device.Open(r.cfg.Device); err != nil {
			return err
		}
	}
	if r.be.Float() != backend.Float32 {
		return fmt.Errorf("train: backend %s does not compute in float32", r.be.Name())
	}
	if err := r.takeOut(); err != nil {
		return err
	}
	if d.Train == nil {
		return errors.New("train: no training data")
	}
	scores, classes, err := nn.Computes(r.model)
	if err != nil {
		return fmt.Errorf("train: %w", err)
	}
	if r.train, err = r.encode("train", d.Train); err != nil {
		return err
	}
	if err := checkLabels(r.obj, r.train, classes); err != nil {
		return err
	}
	if d.Dev != nil {
		if r.dev, err = r.encode("dev", d.Dev); err != nil {
			return err
		}
		if err := r.checkDev(scores); err != nil {
			return err
		}
	} else if r.cfg.KeepBest != "" {
		return fmt.Errorf("train: keep_best %s needs dev data", r.cfg.KeepBest)
	}
	if r.cfg.Unit == unitRow || r.cfg.Privacy != nil && r.cfg.Privacy.drawn() == unitRow {
		r.train = r.train.Rows()
	}
	if err := r.setGroups(); err != nil {
		return err
	}
	if err := r.openPrivate(); err != nil {
		return err
	}
	batches, err := r.allBatches()
	if err != nil {
		return err
	}
	r.digests = r.digest(batches)
	if r.store, err = nn.NewStore(r.be, r.model.Params(), true); err != nil {
		return err
	}
	if r.opt, err = newOptimizer(&r.cfg, r.store); err != nil {
		return err
	}
	saved, err := r.openState()
	if err != nil {
		return err
	}
	if err := r.settle(saved.Version > 0, saved.Ledger, len(batches)); err != nil {
		return err
	}
	if err := r.reserve(batches, saved.MicroTokens); err != nil {
		return err
	}
	if err := r.openLog(); err != nil || r.private == nil {
		return err
	}
	if err := r.claims(); err != nil {
		return err
	}
	return r.begin(saved.Version > 0)
}

// encode turns examples into token sequences.
func (r *Run) encode(name string, examples iter.Seq2[data.Example, error]) (*data.Encoded, error) {
	e := &data.Encoded{}
	for x, err := range examples {
		if err != nil {
			return nil, fmt.Errorf("train: %s data: %w", name, err)
		}
		if err := r.ctx.Err(); err != nil {
			return nil, err
		}
		if p := r.cfg.Privacy; p != nil && p.unit() == unitQuery && x.Unnamed && name == "train" {
			return nil, fmt.Errorf("train: privacy.unit: query: %s has no id: two lines of one query would count as two units: want ids (query_id), or another unit", x.ID)
		}
		if err := r.model.Encode(e, x); err != nil {
			return nil, fmt.Errorf("train: %s data: query %q: %w", name, x.ID, err)
		}
	}
	if len(e.Units) == 0 {
		return nil, fmt.Errorf("train: %s data: no examples", name)
	}
	return e, nil
}

// Steps runs the updates that are left, one by one. Breaking out stops after the step and saves; so
// does the end of the context, within the step.
func (r *Run) Steps() iter.Seq[Step] {
	return func(yield func(Step) bool) {
		if r.store == nil {
			r.err = errors.Join(r.err, errors.New("train: the run is closed"))
			return
		}
		defer r.finish()
		var batches [][]int
		for epoch := -1; r.err == nil && !r.done(); {
			if r.pos.Pending == nil {
				if epoch != r.pos.Epoch {
					epoch = r.pos.Epoch
					batches = r.sample.Epoch(r.train, r.cfg.Seed, epoch)
				}
				if r.err = r.advance(batches); r.err != nil {
					return
				}
			}
			s, err := r.conclude()
			if err != nil {
				r.err = err
				return
			}
			if r.pos.Step < r.total && (due(r.pos.Step, r.cfg.SaveEvery, r.pos.Batch == 0) || time.Since(r.saved) > saveAfter) {
				r.err = r.saveState()
			}
			if !yield(s) {
				return
			}
		}
	}
}

// done tells whether no step is left: all are done, or the last evaluations brought nothing better.
func (r *Run) done() bool {
	return r.pos.Pending == nil && (r.pos.Step >= r.total || r.cfg.Patience > 0 && r.pos.Worse >= r.cfg.Patience)
}

// step is one update: forward and backward of each micro-batch, then the optimiser. Until that the
// weights are as they were, and cancelling discards the step.
func (r *Run) step(units []int) (Step, error) {
	if r.private != nil {
		return r.privateStep(units)
	}
	began := time.Now()
	s := Step{N: r.pos.Step + 1, Total: r.total, Epoch: r.pos.Epoch}
	var reads asked // of each micro-batch: read when all are under way
	fail := func(err error) (Step, error) {
		_ = reads.read() // what has been asked for has memory until it is read
		return s, fmt.Errorf("train: step %d: %w", s.N, err)
	}
	terms := r.terms(units)
	var scalars backend.Scalars
	scalars.Seed, scalars.Step, scalars.Clip = r.cfg.Seed, uint64(r.pos.Step), r.cfg.Clip
	scalars.LR = r.cfg.rates(r.rates, r.pos.Step, r.total)
	s.LR = scalars.LR[0]
	r.experts.clear()
	micros := r.train.Split(units, r.plan.budget)
	all := r.train.Sizes(units)
	for i, micro := range micros {
		n, err := arch.Feed(r.run, r.plan.dims, r.train, micro, &scalars)
		if err != nil {
			return fail(err)
		}
		s.Seqs, s.Tokens = s.Seqs+n.N, s.Tokens+n.T
		if r.traced {
			r.sizes = backend.Sizes{Count: scalars.Count, Pairs: r.train.Pairs(micro)}
		}
		weights := graph.Floats[float32](r.run, nn.InWeights)
		clear(weights)
		r.weigh(weights, micro, terms)
		share := r.setShares(n, all)
		if err := r.run.Do(r.ctx, &scalars, i > 0); err != nil {
			return fail(err)
		}
		if err := reads.output(r.run, nn.OutLoss, func(v []float32) { s.Loss += float64(v[0]) }); err != nil {
			return fail(err)
		}
		if err := r.askExtras(&reads, share, &s.Penalty); err != nil {
			return fail(err)
		}
	}
	if err := reads.read(); err != nil { // before the update, which a loss that is not finite forbids
		return fail(err)
	}
	s.Experts = r.experts.summary()
	if math.IsNaN(s.Loss) || math.IsInf(s.Loss, 0) {
		return fail(fmt.Errorf("loss is %w", ErrNotFinite))
	}
	if math.IsNaN(s.Penalty) || math.IsInf(s.Penalty, 0) {
		return fail(fmt.Errorf("the routers' penalty is %w", ErrNotFinite))
	}
	if terms > 0 { // a batch without terms teaches nothing: no update, not even momentum
		var err error
		if s.GradNorm, err = r.opt.step(&scalars); err != nil {
			r.torn = !errors.Is(err, ErrNotFinite)
			return fail(err)
		}
	}
	s.Seconds = time.Since(began).Seconds()
	return s, nil
}

// advance takes the next step of an epoch and counts it.
func (r *Run) advance(batches [][]int) error {
	if r.pos.Batch >= len(batches) {
		return fmt.Errorf("train: step %d: the sampler %s draws %d batches in epoch %d, and drew more before", r.pos.Step+1, r.sample.Name(), len(batches), r.pos.Epoch)
	}
	s, err := r.step(batches[r.pos.Batch])
	if err != nil {
		return err
	}
	r.pos.Step++
	if r.pos.Batch++; r.pos.Batch == len(batches) {
		r.pos.Epoch, r.pos.Batch = r.pos.Epoch+1, 0
	}
	r.pos.Pending, r.pos.Loads = &s, r.experts.loads()
	return r.log.Step(s.record())
}

// conclude hands out the pending step, after its evaluation where one is due.
func (r *Run) conclude() (Step, error) {
	s := *r.pos.Pending
	if r.pos.Step == r.total || due(r.pos.Step, r.cfg.EvalEvery, r.pos.Batch == 0) {
		rec := report.Record{Step: s.N, Loads: r.pos.Loads}
		var e *Evaluation
		var err error
		if r.dev != nil {
			if e, err = r.evaluate(); err != nil {
				return s, err
			}
			rec.Metrics = e.Values
		}
		if rec.Ranks, err = r.ranks(); err != nil {
			return s, err
		}
		if e != nil || rec.Ranks != nil {
			if err := r.log.Step(rec); err != nil {
				return s, err
			}
		}
		if s.Evaluation, s.Ranks = e, rec.Ranks; e != nil {
			r.count(e)
		}
	}
	r.pos.Pending, r.pos.Loads = nil, nil
	return s, nil
}

// saveAfter is the time after which a state is saved in any case: what a kill can lose.
const saveAfter = 5 * time.Minute

func due(step, every int, epochEnds bool) bool {
	if every == 0 {
		return epochEnds
	}
	return step%every == 0
}

func (s *Step) record() report.Record {
	if s.Withheld {
		return report.Record{Step: s.N, Epoch: s.Epoch, LR: &s.LR}
	}
	return report.Record{
		Step: s.N, Epoch: s.Epoch, Loss: &s.Loss, Penalty: s.Penalty, GradNorm: &s.GradNorm, LR: &s.LR,
		Seqs: s.Seqs, Tokens: s.Tokens, Seconds: s.Seconds, Experts: s.Experts,
	}
}

// finish saves the state and the last model, whatever ended the steps, and gives the model the values
// that it has learned.
func (r *Run) finish() {
	if r.torn || r.store == nil {
		return
	}
	done := r.run.Close() // saving takes memory, too
	r.run = nil
	kept := r.keep()
	if r.err != nil && kept != nil { // lost with its device: the last saved state stands
		return
	}
	errs := []error{r.err, done, kept, r.saveState(), r.saveModel("last")}
	if r.err == nil && (r.cfg.KeepBest == "" || r.pos.BestStep == 0) {
		errs = append(errs, r.saveModel("best"))
	}
	r.err = errors.Join(errs...)
}

// keep makes the learned values those that the model's parameters start from.
func (r *Run) keep() error {
	for _, p := range r.model.Params() {
		if !p.Trainable {
			continue
		}
		v, err := graph.ReadWeight[float32](r.store, p.Path)
		if err != nil {
			return err
		}
		p.Init = func(dst []float32) error { copy(dst, v); return nil }
	}
	return nil
}

// Err is what ended the run early, nil if it is complete, was stopped by its patience or by the caller.
// It wraps the context's error after a cancellation, and ErrNotFinite.
func (r *Run) Err() error { return r.err }

// Warnings are what a user should know of the setup: that a run was resumed on another device, say.
func (r *Run) Warnings() []string { return r.warnings }

// Best is the directory of the best checkpoint, "" if the run keeps nothing on disk.
func (r *Run) Best() string {
	if r.cfg.Out == "" {
		return ""
	}
	return filepath.Join(r.cfg.Out, "best")
}

// Total is the number of updates in all, Done those that are done.
func (r *Run) Total() int { return r.total }

// Done is the number of updates that are done.
func (r *Run) Done() int { return r.pos.Step }

// Store is the weights, for as long as the run is open.
func (r *Run) Store() *graph.Store { return r.store }

// Close frees the run's memory and gives its directory free. The model keeps what it has learned.
func (r *Run) Close() error {
	var errs []error
	done := func(c interface{ Close() error }, ok bool) {
		if ok {
			errs = append(errs, c.Close())
		}
	}
	done(r.scorer, r.scorer != nil)
	done(r.run, r.run != nil)
	if r.opt != nil {
		errs = append(errs, r.opt.close())
	}
	if r.private != nil {
		errs = append(errs, r.private.close())
	}
	done(r.store, r.store != nil)
	done(r.log, r.log != nil)
	done(r.lock, r.lock != nil)
	r.scorer, r.run, r.opt, r.private, r.store, r.log, r.lock = nil, nil, nil, nil, nil, nil, nil
	return errors.Join(errs...)
}
