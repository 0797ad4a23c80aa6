package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"rung/data"
	"rung/nn"
	"rung/nn/backend"
	"rung/nn/device"
	"rung/nn/loss"
	"rung/train"
)

// BERTBase is the shape of bert-base-uncased: 12 layers, 768 wide.
func BERTBase() nn.Config {
	c := MiniLM()
	c.Layers, c.Hidden, c.Heads, c.FF, c.Embedding = 12, 768, 12, 3072, 768
	return c
}

// KernelOptions are what Kernels looks at: a step on sequences of Length tokens each.
type KernelOptions struct {
	Config            nn.Config
	Kind              string // full or lora, see Case
	Device            string // such as cuda:0/tf32
	Sequences, Length int
}

// A KernelReport is the kernels of a training step as the backend encodes them for some cards.
type KernelReport struct {
	Layers    int          `json:"layers"`
	Hidden    int          `json:"hidden"`
	Kind      string       `json:"kind"`
	Device    string       `json:"device"`
	Sequences int          `json:"sequences"`
	Length    int          `json:"length"`
	Without   string       `json:"not_measured,omitempty"` // why nothing is measured
	Steps     []KernelStep `json:"steps"`
}

// A KernelStep is what cards with the same number of multiprocessors run.
type KernelStep struct {
	SMs         int        `json:"multiprocessors"`
	Cards       []string   `json:"cards"`
	Measured    string     `json:"measured_on,omitempty"`
	StepSeconds float64    `json:"measured_step_seconds,omitempty"` // of the whole, kernels not timed one by one
	Memory      StepMemory `json:"memory"`
	Kernels     []Kernel   `json:"kernels"`
}

// StepMemory is the plan's device memory, in bytes, without the driver's own.
type StepMemory struct {
	MicroTokens int   `json:"micro_tokens"` // in how large parts the step runs
	Weights     int64 `json:"weights"`
	Gradients   int64 `json:"gradients"`
	Moments     int64 `json:"moments"`
	Arena       int64 `json:"arena"`
	Other       int64 `json:"other"`
}

// A Kernel is all launches of one kernel in a step. Work is of the operators' shapes.
type Kernel struct {
	Name     string    `json:"name"`
	Unit     string    `json:"unit"`
	Launches int       `json:"launches"`
	GFLOP    float64   `json:"gflop"`
	GByte    float64   `json:"gbyte"`
	Roofline []float64 `json:"estimated_seconds"` // by card, at least
	Seconds  float64   `json:"measured_seconds,omitempty"`
}

// Kernels encodes a training step for each of Cards, which takes neither driver nor GPU, and where the device is there
// measures it.
func Kernels(ctx context.Context, o KernelOptions) (*KernelReport, error) {
	r := &KernelReport{Layers: o.Config.Layers, Hidden: o.Config.Hidden, Kind: o.Kind, Device: o.Device, Sequences: o.Sequences, Length: o.Length}
	groups := map[int][]Card{}
	for _, c := range Cards() {
		groups[c.SMs] = append(groups[c.SMs], c)
	}
	if _, err := device.Record(o.Device, 1, 1<<30); err != nil { // a name that is none
		return nil, err
	}
	be, err := device.Open(o.Device)
	real, ok := be.(interface {
		backend.Watcher
		Card() (string, int, int64)
	})
	switch {
	case err != nil:
		r.Without = err.Error()
	case !ok:
		return nil, fmt.Errorf("bench: %s does not tell its kernels", be.Name())
	default:
		if _, sms, _ := real.Card(); groups[sms] == nil {
			groups[sms] = nil
		}
	}
	for _, sms := range slices.Sorted(maps.Keys(groups)) {
		s, err := o.estimate(ctx, sms, groups[sms])
		if err != nil {
			return nil, fmt.Errorf("bench: %w", err)
		}
		if ok {
			if name, n, _ := real.Card(); n == sms {
				s.Measured = name
				if err := o.measure(ctx, real, s, groups[sms]); err != nil {
					return nil, fmt.Errorf("bench: %s: %w", name, err)
				}
			}
		}
		r.Steps = append(r.Steps, *s)
	}
	return r, nil
}

// start prepares a run of so many steps. Weights are drawn only if they are to be computed with.
func (o *KernelOptions) start(ctx context.Context, be backend.Backend, steps int, draw bool) (*train.Run, error) {
	m, err := newModel(o.Config, o.Kind == "lora")
	if err != nil {
		return nil, err
	}
	if !draw {
		for _, p := range m.Params() {
			p.Init = func([]float32) error { return nil }
		}
	}
	cfg := train.Defaults()
	cfg.Backend, cfg.Epochs, cfg.Steps, cfg.Batch, cfg.Unit, cfg.Dropout = be, 0, steps, o.Sequences, "row", false
	cfg.Sampler = data.InOrder{Batch: o.Sequences}
	return train.Start(ctx, m, loss.BCE{}, train.Data{Train: examples(slices.Repeat([]int{o.Length}, o.Sequences))}, cfg)
}

// estimate records one step.
func (o *KernelOptions) estimate(ctx context.Context, sms int, cards []Card) (s *KernelStep, err error) {
	s = &KernelStep{SMs: sms}
	memory := int64(1) << 40
	for _, c := range cards {
		s.Cards, memory = append(s.Cards, c.Name), min(memory, c.Memory)
	}
	be, err := device.Record(o.Device, sms, memory)
	if err != nil {
		return nil, err
	}
	w, ok := be.(backend.Watcher)
	if !ok {
		return nil, errors.New("a backend that records tells nothing")
	}
	run, err := o.start(ctx, be, 1, false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, run.Close()) }()
	p := run.Plan()
	s.Memory = StepMemory{p.MicroTokens, p.Weights, p.Gradients, p.Moments, p.Arena, p.Other}
	kernels := map[string]*Kernel{}
	w.Watch(o.collect(kernels, cards))
	for range run.Steps() {
	}
	s.list(kernels)
	return s, run.Err()
}

// collect adds up launches by kernel.
func (o *KernelOptions) collect(kernels map[string]*Kernel, cards []Card) backend.Watch {
	return func(l *backend.Launch, sc *backend.Scalars, d time.Duration) {
		k := kernels[l.Kernel]
		if k == nil {
			k = &Kernel{Name: l.Kernel, Unit: l.Unit, Roofline: make([]float64, len(cards))}
			kernels[l.Kernel] = k
		}
		sizes := backend.Sizes{Count: sc.Count, Pairs: float64(sc.Count[backend.Tok]) * float64(o.Length)}
		work := l.Work(&sizes)
		k.Launches++
		k.GFLOP, k.GByte, k.Seconds = k.GFLOP+work.FLOP/1e9, k.GByte+bytesOf(work)/1e9, k.Seconds+d.Seconds()
		for i := range cards {
			k.Roofline[i] += cards[i].Roofline(work, l.Unit)
		}
	}
}

// list makes kernels those of the step, the longest first.
func (s *KernelStep) list(kernels map[string]*Kernel) {
	s.Kernels = nil
	for _, k := range kernels {
		s.Kernels = append(s.Kernels, *k)
	}
	slices.SortFunc(s.Kernels, func(a, b Kernel) int {
		if len(a.Roofline) > 0 {
			return cmp.Or(cmp.Compare(b.Roofline[0], a.Roofline[0]), strings.Compare(a.Name, b.Name))
		}
		return cmp.Or(cmp.Compare(b.GByte, a.GByte), strings.Compare(a.Name, b.Name))
	})
}

// measure runs steps on the device: the last by single kernels, which events time. Those that are listed then are the
// device's: cuBLASLt's may be among them, by the algorithms that it has chosen.
func (o *KernelOptions) measure(ctx context.Context, be backend.Watcher, s *KernelStep, cards []Card) error {
	const timed = 5 // between one that warms up and one by single kernels
	run, err := o.start(ctx, be, timed+2, true)
	if err != nil {
		return err
	}
	defer be.Watch(nil)
	took := map[string]*Kernel{}
	var seconds []float64
	for step := range run.Steps() {
		if step.N > 1 && step.N <= timed+1 {
			seconds = append(seconds, step.Seconds)
		}
		if step.N == timed+1 {
			be.Watch(o.collect(took, cards))
			run.Trace(func(*backend.Call, backend.Work, time.Duration) {})
		}
	}
	s.StepSeconds = median(seconds)
	for _, k := range s.Kernels {
		if k.Name == "memset" { // the driver's own, which is not timed
			took[k.Name] = &k
		}
	}
	s.list(took)
	return errors.Join(run.Err(), run.Close())
}

// Write prints the report.
func (r *KernelReport) Write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "a %s training step of %d layers of %d on %d sequences of %d tokens, %s, no dropout\n", r.Kind, r.Layers, r.Hidden, r.Sequences, r.Length, r.Device)
	fmt.Fprintln(t, "estimated: no kernel can be faster on the card than its products at the data sheet's dense peak, or than moving each\noperand once; FLOP counts matrix products")
	if r.Without != "" {
		fmt.Fprintf(t, "nothing is measured: %s\n", r.Without)
	}
	for i := range r.Steps {
		r.Steps[i].write(t)
	}
	return t.Flush()
}

func (s *KernelStep) write(w io.Writer) {
	const mib = 1 << 20
	m := &s.Memory
	names := strings.Join(s.Cards, ", ")
	if names == "" {
		names = s.Measured
	}
	fmt.Fprintf(w, "\n%s: %d multiprocessors, micro-batches of up to %d tokens\n", names, s.SMs, m.MicroTokens)
	fmt.Fprintf(w, "device memory, planned: %.1f MiB: weights %.1f, gradients %.1f, moments %.1f, arena %.1f, inputs and scratch %.1f\n",
		float64(m.Weights+m.Gradients+m.Moments+m.Arena+m.Other)/mib, float64(m.Weights)/mib, float64(m.Gradients)/mib, float64(m.Moments)/mib, float64(m.Arena)/mib, float64(m.Other)/mib)
	fmt.Fprint(w, "kernel\tlaunches\tGFLOP\tMB\t")
	for _, c := range s.Cards {
		fmt.Fprintf(w, "%s, µs (estimated)\t", c)
	}
	if s.Measured != "" {
		fmt.Fprintf(w, "%s, µs\t", s.Measured)
	}
	fmt.Fprintln(w)
	all := Kernel{Name: "all", Roofline: make([]float64, len(s.Cards))}
	for _, k := range s.Kernels {
		k.write(w, s.Measured != "")
		all.Launches, all.GFLOP, all.GByte, all.Seconds = all.Launches+k.Launches, all.GFLOP+k.GFLOP, all.GByte+k.GByte, all.Seconds+k.Seconds
		for i, v := range k.Roofline {
			all.Roofline[i] += v
		}
	}
	all.write(w, s.Measured != "")
	if s.Measured != "" {
		fmt.Fprintf(w, "the whole step on %s: %.2f ms, median\n", s.Measured, 1e3*s.StepSeconds)
	}
}

func (k *Kernel) write(w io.Writer, measured bool) {
	flop := "-"
	if k.GFLOP > 0 {
		flop = fmt.Sprintf("%.3f", k.GFLOP)
	}
	fmt.Fprintf(w, "%s\t%d\t%s\t%.3f\t", k.Name, k.Launches, flop, 1e3*k.GByte)
	for _, v := range k.Roofline {
		fmt.Fprintf(w, "%.1f\t", 1e6*v)
	}
	if measured && k.Seconds > 0 {
		fmt.Fprintf(w, "%.1f\t", 1e6*k.Seconds)
	} else if measured {
		fmt.Fprint(w, "-\t")
	}
	fmt.Fprintln(w)
}
