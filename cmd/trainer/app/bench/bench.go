// Package bench measures training and scoring steps against what the machine can do: each operator by
// itself and the whole step, on a model of given shape and sequences of given lengths.
package bench

import (
	"context"
	"fmt"
	"iter"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"rung/data"
	"rung/lora"
	"rung/nn"
	"rung/nn/arch"
	"rung/nn/backend"
	"rung/nn/backend/cpu/peak"
	"rung/nn/backend/philox"
	"rung/nn/device"
	"rung/nn/graph"
	"rung/nn/loss"
	"rung/train"
)

// MiniLM is the shape of all-MiniLM-L6-v2: 6 layers, 384 wide.
func MiniLM() nn.Config {
	return nn.Config{
		ModelType: "bert", Layers: 6, Hidden: 384, Heads: 12, FF: 1536, Vocab: 30522, Positions: 512, Types: 2, Embedding: 384,
		Eps: 1e-12, Dropout: .1, AttnDrop: .1, HeadDrop: .1, InitStd: .02,
	}
}

// A Case is one kind of work.
type Case struct {
	Name    string
	Kind    string // full, lora (r=8 on query and value), score
	Lengths []int  // tokens of each sequence, batch after batch
	Batch   int
}

// Cases are the kinds of work that are measured: sequences of 128 and 512 tokens, and question-sentence
// pairs of natural lengths.
func Cases() []Case {
	s128, s512, pairs := slices.Repeat([]int{128}, 32), slices.Repeat([]int{512}, 8), natural(8, 32)
	return []Case{
		{"full/128", "full", s128, 32},
		{"lora/128", "lora", s128, 32},
		{"full/pairs", "full", pairs, 32},
		{"lora/pairs", "lora", pairs, 32},
		{"full/512", "full", s512, 8},
		{"score/pairs", "score", pairs, 32},
	}
}

// natural is batches of lengths spread like those of question-sentence pairs, alike ones together: a
// log-normal distribution with median 37, of which 95% are below 67 tokens, cut at 128. The quantiles
// are exact, so nothing is drawn.
func natural(batches, batch int) (out []int) {
	const median, high = 37, 67
	sigma := math.Log(float64(high)/median) / 1.6449
	n := batches * batch
	for i := range n {
		z := math.Sqrt2 * math.Erfinv(2*(float64(i)+.5)/float64(n)-1)
		out = append(out, min(128, max(8, int(math.Round(median*math.Exp(sigma*z))))))
	}
	return out
}

// Options are what Run measures and how often.
type Options struct {
	Config   nn.Config
	Cases    []Case
	Device   string
	Rounds   int // of all batches of a case, after one that warms up
	Progress func(name string)
}

// Run measures.
func Run(ctx context.Context, o Options) (*Report, error) {
	be, err := device.Open(o.Device)
	if err != nil {
		return nil, err
	}
	r := &Report{Device: be.Name(), Workers: runtime.GOMAXPROCS(0), Layers: o.Config.Layers, Hidden: o.Config.Hidden}
	for _, c := range o.Cases {
		if o.Progress != nil {
			o.Progress(c.Name)
		}
		before := r.measurePeak()
		res, err := measure(ctx, be, o, c)
		if err != nil {
			return nil, fmt.Errorf("bench: %s: %w", c.Name, err)
		}
		res.Peak = max(before, r.measurePeak()) * float64(r.Workers)
		res.share()
		r.Cases = append(r.Cases, *res)
	}
	return r, nil
}

// measurePeak is the GFLOP/s of one core, 0 where it is not known.
func (r *Report) measurePeak() float64 {
	_, isa, _ := strings.Cut(r.Device, "/")
	return peak.GFLOPS(isa)
}

// measure runs the batches of a case again and again. Of each call, and of each step, the median over
// the rounds counts: other processes disturb it little.
func measure(ctx context.Context, be backend.Backend, o Options, c Case) (*Result, error) {
	m, err := newModel(o.Config, c.Kind == "lora")
	if err != nil {
		return nil, err
	}
	t := newTable()
	res := &Result{Name: c.Name}
	steps := ceil(len(c.Lengths), c.Batch)
	if c.Kind == "score" {
		err = score(ctx, be, m, c, o.Rounds, res, t)
	} else {
		cfg, rounds := train.Defaults(), o.Rounds+1
		if onDevice(be) {
			rounds++ // one to be traced
		}
		cfg.Backend, cfg.Epochs, cfg.Steps, cfg.Batch, cfg.Unit, cfg.Dropout, cfg.Sampler = be, 0, steps*rounds, c.Batch, "row", false, data.InOrder{Batch: c.Batch}
		err = trainSteps(ctx, m, c, cfg, steps, res, t)
	}
	if err != nil {
		return nil, err
	}
	res.Operators = t.operators(steps)
	for _, op := range res.Operators {
		res.GFLOP += op.GFLOP * float64(steps)
	}
	return res, nil
}

// onDevice tells whether calls run as one graph, without the host.
func onDevice(be backend.Backend) bool { return strings.HasPrefix(be.Name(), "cuda") }

func trainSteps(ctx context.Context, m *model, c Case, cfg train.Config, steps int, res *Result, t *table) error {
	run, err := train.Start(ctx, m, loss.BCE{}, train.Data{Train: examples(c.Lengths)}, cfg)
	if err != nil {
		return err
	}
	defer run.Close()
	res.PlanMiB = float64(run.Plan().Bytes) / (1 << 20)
	var seconds [][]float64 // by step of a round
	traced, timed := steps, cfg.Steps
	if onDevice(cfg.Backend) { // tracing takes the graph apart: steps are timed without it
		traced = cfg.Steps - steps
		timed = traced
	}
	for s := range run.Steps() {
		k := (s.N - 1) % steps
		if s.N == traced { // all buffers have been touched
			run.Trace(t.add)
		}
		if s.N > steps && s.N <= timed {
			seconds = at(seconds, k, s.Seconds)
			if s.N <= 2*steps {
				res.Seqs, res.Tokens = res.Seqs+s.Seqs, res.Tokens+s.Tokens
			}
		}
		if k == steps-1 {
			t.round()
		}
	}
	res.Seconds = sumOfMedians(seconds)
	return run.Err()
}

// score measures forward passes alone, as rank runs them.
func score(ctx context.Context, be backend.Backend, m *model, c Case, rounds int, res *Result, t *table) error {
	store, err := nn.NewStore(be, m.Params(), false)
	if err != nil {
		return err
	}
	defer store.Close()
	s := arch.NewScorer(be, m, 0, store)
	defer s.Close()
	e := &data.Encoded{}
	for x := range examples(c.Lengths) {
		if err := m.Encode(e, x); err != nil {
			return err
		}
	}
	var seconds [][]float64
	for r := range rounds + 1 {
		began := time.Now()
		if _, err := s.Logits(ctx, e); err != nil {
			return err
		}
		if r > 0 {
			seconds = at(seconds, 0, time.Since(began).Seconds())
		}
	}
	res.Seqs, res.Tokens, res.Seconds = len(c.Lengths), len(e.IDs), sumOfMedians(seconds)
	res.GFLOP, err = forwardGFLOP(m, e)
	return err
}

// forwardGFLOP is the products of a compiled forward pass over all sequences.
func forwardGFLOP(m *model, e *data.Encoded) (sum float64, err error) {
	units := make([]int, len(e.Units))
	for i := range units {
		units[i] = i
	}
	n := e.Sizes(units)
	p, err := nn.Compile(m, nn.Plan{Dims: graph.Dims(n)})
	if err != nil {
		return 0, err
	}
	s := backend.Sizes{Count: [backend.NumAxes]int{backend.Tok: n.T, backend.Seq: n.N, backend.Unit: n.B}, Pairs: e.Pairs(units)}
	for i := range p.Calls {
		sum += p.Calls[i].Work(&s).FLOP / 1e9
	}
	return sum, nil
}

// model is a cross-encoder with drawn weights whose texts are numbers: how many tokens.
type model struct{ *arch.Cross }

func newModel(c nn.Config, adapter bool) (*model, error) {
	m := &model{arch.NewCross(c, 1)}
	for _, p := range m.Params() {
		if p.Init == nil {
			p.Init = p.Normal(1, c.InitStd)
		}
	}
	if adapter {
		if _, err := lora.Apply(m.Cross, lora.Config{Rank: 8, Alpha: 16, Targets: []string{"query", "value"}}, 1); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Encode makes up as many tokens as the query says, a quarter of them of type 0.
func (m *model) Encode(e *data.Encoded, x data.Example) error {
	n, err := strconv.Atoi(x.Query)
	if err != nil {
		return err
	}
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(philox.Uint64(1, x.ID, uint64(i)) % uint64(m.Encoder.Config.Vocab))
	}
	c := x.Candidates[0]
	e.Units = append(e.Units, data.Unit{
		ID: x.ID, Query: data.None, Seqs: []int32{e.Add(x.ID, 0, ids, n/4)}, IDs: []string{c.ID}, Labels: []float32{c.Label},
	})
	return nil
}

func examples(lengths []int) iter.Seq2[data.Example, error] {
	return func(yield func(data.Example, error) bool) {
		for i, n := range lengths {
			x := data.Example{ID: strconv.Itoa(i), Query: strconv.Itoa(n), Candidates: []data.Candidate{{ID: "d"}}}
			if i%7 == 0 {
				x.Candidates[0].Label = 1
			}
			if !yield(x, nil) {
				return
			}
		}
	}
}

func ceil(n, by int) int { return (n + by - 1) / by }
