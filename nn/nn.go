// Package nn is the layers of rankers: parameters, the encoder, pooling, heads.
//
// Dimensions, as comments use them:
//
//	T tokens of all sequences, end to end    N sequences       L tokens of one sequence
//	B units (a query and its candidates)     K candidates of a unit, at most
//	D hidden width    H heads    F feed-forward width    C classes    R rank of an adapter    E experts
//
// A batch is packed: no padding inside, offsets (N+1) say where sequences begin. Layers add plain
// nodes to the graph of a Pass; they hold no values. Values live in a graph.Store, keyed by path, and
// one Store serves every program that is compiled.
package nn

import (
	"fmt"
	"hash/fnv"
	"math"

	"rung/nn/backend"
	"rung/nn/backend/philox"
	"rung/nn/graph"
)

// A Param is one named weight: what it is, not its value.
type Param struct {
	Path      string // as in the checkpoint, for example "bert.pooler.dense.weight"
	Dims      []int  // Linear weights are (out, in), as Hugging Face has them
	Trainable bool
	Group     int8 // parameter group: its learning rate
	// Sign, if not 0, is what an update moves each element by, against the sign of what stands for its gradient: no
	// optimizer, learning rate or clipping. Biases of expert choice learn so.
	Sign float64

	Rate   float64 // times the learning rate of its group; 0: 1
	Shrink float64 // λ: after each update the weight is drawn to zero by λ times its learning rate, and not decayed

	// Init fills dst, which is zeroed, with the value to start from: out of a checkpoint, or drawn.
	// Nil leaves zeros.
	Init func(dst []float32) error
	// Created tells that no checkpoint had the parameter: it was drawn, and travels with an adapter.
	Created bool
}

// Size is the number of elements.
func (p *Param) Size() int { return graph.Shape{Dims: p.Dims}.Size() }

// Normal returns an Init that draws from N(0, std²). The draws are those of the seed and the path.
func (p *Param) Normal(seed uint64, std float64) func([]float32) error {
	return func(dst []float32) error {
		v := make([]float64, len(dst))
		philox.Normal(v, seed, p.Path)
		for i, x := range v {
			dst[i] = float32(x * std)
		}
		return nil
	}
}

// Uniform returns an Init that draws from U(-a, a).
func (p *Param) Uniform(seed uint64, a float64) func([]float32) error {
	return func(dst []float32) error {
		v := make([]float64, len(dst))
		philox.Uniforms(v, seed, p.Path)
		for i, x := range v {
			dst[i] = float32(a * (2*x - 1))
		}
		return nil
	}
}

// Ones is an Init.
func Ones(dst []float32) error {
	for i := range dst {
		dst[i] = 1
	}
	return nil
}

// A Layer is a differentiable function of rows, and its parameters. An adapter is a Layer that wraps a
// Layer.
type Layer interface {
	Forward(p *Pass, x graph.E) graph.E
	Params() []*Param
}

// A Slot is a place in a model that holds a layer which may be replaced by another.
type Slot struct {
	Path  string // of the module, for example "bert.encoder.layer.0.attention.self.query"
	Layer *Layer
}

// A Pass is one forward pass that is being built over a packed batch.
type Pass struct {
	*graph.Builder
	Dims  graph.Dims
	Train bool // dropout is on

	IDs, Pos, Types graph.E // (T) token ids, positions in their sequences, token types
	Seqs            graph.E // (T) the sequence of each token
	Offsets         graph.E // (N+1) first token of each sequence, and the end
	Keys            graph.E // (N) what dropout knows a sequence by

	penalties [backend.NumAxes]graph.E // (1,1) by axis
	reports   []named
}

// Names of the inputs of a pass. Targets and slots are those of units.
const (
	InIDs, InPos, InTypes, InSeqs = "ids", "pos", "types", "seqs"
	InOffsets, InKeys             = "offsets", "keys"
	InSlots, InQueries            = "slots", "queries"
	InLabels, InMask, InClass     = "labels", "mask", "class"
	InWeights                     = "weights"
)

// NewPass starts a pass for capacities d.
func NewPass(b *graph.Builder, d graph.Dims, train bool) *Pass {
	tok := graph.Each(backend.Tok, d.T)
	return &Pass{
		Builder: b, Dims: d, Train: train,
		IDs: b.Index(InIDs, tok), Pos: b.Index(InPos, tok), Types: b.Index(InTypes, tok), Seqs: b.Index(InSeqs, tok),
		Offsets: b.Index(InOffsets, graph.Vec(d.N+1)), Keys: b.Index(InKeys, graph.Each(backend.Seq, d.N)),
	}
}

// Slots is the candidates of units: which sequence each is, -1 for none (B,K).
func (p *Pass) Slots() graph.E {
	return p.Index(InSlots, graph.Rows(backend.Unit, p.Dims.B, p.Dims.K))
}

// Queries is the sequence of each unit's query (B), where queries are encoded by themselves.
func (p *Pass) Queries() graph.E { return p.Index(InQueries, graph.Each(backend.Unit, p.Dims.B)) }

// Targets are what an objective compares outputs with.
func (p *Pass) Targets() Targets {
	bk := graph.Rows(backend.Unit, p.Dims.B, p.Dims.K)
	return Targets{
		Labels: p.Input(InLabels, bk), Mask: p.Input(InMask, bk),
		Class: p.Index(InClass, graph.Each(backend.Seq, p.Dims.N)),
	}
}

// Weight is a parameter in the pass's graph.
func (p *Pass) Weight(q *Param) graph.E { return p.Param(q.Path, q.Dims...) }

// Dropout drops elements of x, whose rows are tokens or sequences, when the pass is for training. The
// site is named by a path, so that masks do not depend on what else a model has.
func (p *Pass) Dropout(x graph.E, rate float64, path string) graph.E {
	if !p.Train || rate == 0 {
		return x
	}
	if x.Shape().Axis == backend.Seq {
		return p.Builder.Dropout(x, p.Keys, graph.E{}, graph.E{}, rate, Site(path))
	}
	return p.Builder.Dropout(x, p.Keys, p.Seqs, p.Pos, rate, Site(path))
}

// Site is the dropout site of a path. Attention uses one for each head from there on, so that sites
// are multiples of 4096.
func Site(path string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(path))
	return h.Sum32() &^ 4095 & math.MaxInt32
}

// Outputs are what a model computes. Those that an architecture does not have are the zero E.
type Outputs struct {
	Scores graph.E // (B,K) one score for each candidate, 0 where there is none
	Logits graph.E // (N,C) of a cross-encoder
	Embed  graph.E // (N,D) of an encoder of single texts
}

// Targets are inputs of an objective.
type Targets struct {
	Labels graph.E // (B,K)
	Mask   graph.E // (B,K) 1 where there is a candidate, else 0
	Class  graph.E // (N) class of each sequence, -1 for none
}

// Scope says what an objective's loss of one unit depends on.
type Scope int

// A Batch objective compares a unit with others of its batch; privacy refuses it.
const (
	Unit Scope = iota
	Batch
)

func (s Scope) String() string {
	if s == Batch {
		return "Batch"
	}
	return "Unit"
}

// An Objective adds a loss to the graph.
type Objective interface {
	Name() string
	Scope() Scope
	// Loss is one loss a unit (B,1): the sum of its terms.
	Loss(p *Pass, o Outputs, t Targets) graph.E
	// Terms is how many terms the loss of a unit with these labels sums. What is minimised is the sum
	// of all losses of a batch over the number of their terms.
	Terms(labels []float32) int
}

// Labelled is an Objective that cannot learn from every label.
type Labelled interface {
	Objective
	// CheckLabel says what is wrong with a candidate's label. classes is the number of the model's
	// classes C, 0 where it has no logits.
	CheckLabel(y float32, classes int) error
}

// NewStore reserves memory for params on be and fills it with their initial values.
func NewStore(be backend.Backend, params []*Param, training bool) (*graph.Store, error) {
	seg := make([]graph.Segment, len(params))
	for i, p := range params {
		seg[i] = graph.Segment{Path: p.Path, Dims: p.Dims, Trainable: p.Trainable, Group: p.Group, Shrink: p.Shrink, Sign: p.Sign}
	}
	s, err := graph.NewStore(be, seg, training)
	if err != nil {
		return nil, err
	}
	for _, p := range params {
		if err := initialise(s, p); err != nil {
			_ = s.Close()
			return nil, fmt.Errorf("nn: parameter %q: %w", p.Path, err)
		}
	}
	return s, nil
}

func initialise(s *graph.Store, p *Param) error {
	if p.Init == nil {
		return nil
	}
	if s.Backend().Float() == backend.Float32 {
		return graph.Fill(s, p.Path, p.Init)
	}
	return graph.Fill(s, p.Path, func(dst []float64) error {
		v := make([]float32, len(dst))
		err := p.Init(v)
		for i, x := range v {
			dst[i] = float64(x)
		}
		return err
	})
}
