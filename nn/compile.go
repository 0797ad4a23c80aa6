package nn

import (
	"fmt"
	"strings"

	"rung/nn/backend"
	"rung/nn/graph"
)

// A Model computes outputs from a packed batch.
type Model interface {
	Forward(p *Pass) Outputs
	Params() []*Param
}

// Names of a program's outputs.
const (
	OutScores, OutLogits, OutEmbed = "scores", "logits", "embed"
	OutLosses                      = "losses"  // (B,1)
	OutLoss                        = "loss"    // (1,1) Σ weights losses
	OutPenalty                     = "penalty" // see InShare
)

// A Plan says what to compile of a model.
type Plan struct {
	Dims      graph.Dims
	Float     backend.Float
	Objective Objective // nil: forward only
	Dropout   bool
	PerUnit   bool // gradients of units apart
	Plain     bool // without rewriting, to compare with
}

// Compile builds the program of a plan: outputs and, with an objective, the weighted loss and the
// gradient of every trainable parameter.
func Compile(m Model, pl Plan) (*graph.Program, error) {
	b := graph.New(pl.Float)
	p := NewPass(b, pl.Dims, pl.Dropout)
	o := m.Forward(p)
	outs := []named{{OutScores, o.Scores}, {OutLogits, o.Logits}, {OutEmbed, o.Embed}}
	if pl.Objective != nil {
		// What is not needed for the loss is not computed: scores only are read back.
		outs = append([]named{{OutLosses, pl.Objective.Loss(p, o, p.Targets())}, {OutScores, o.Scores}}, p.extras()...)
	}
	var edges []graph.E
	var names []string
	for _, n := range outs {
		if n.e != (graph.E{}) {
			edges, names = append(edges, n.e), append(names, n.name)
		}
	}
	if err := b.Err(); err != nil {
		return nil, err
	}
	if len(edges) == 0 {
		return nil, fmt.Errorf("nn: the model has no outputs")
	}
	if !pl.Plain {
		b, edges = graph.Rewrite(edges)
	}
	s := graph.Spec{Outputs: map[string]graph.E{}, PerUnit: pl.PerUnit}
	for i, name := range names {
		s.Outputs[name] = edges[i]
	}
	if pl.Objective != nil {
		w := b.Input(InWeights, graph.Rows(backend.Unit, pl.Dims.B, 1))
		s.Seeds = []graph.Seed{{Out: edges[0], Grad: w}}
		s.Outputs[OutLoss] = b.WeightedSum(w, edges[0])
		for i, name := range names {
			if axis, ok := strings.CutPrefix(name, OutPenalty+"."); ok {
				s.Seeds = append(s.Seeds, graph.Seed{Out: edges[i], Grad: b.Input(InShare+"."+axis, graph.Mat(1, 1))})
			}
		}
		for _, q := range m.Params() {
			if q.Trainable {
				s.Wrt = append(s.Wrt, b.Param(q.Path, q.Dims...))
			}
		}
		if len(s.Wrt) == 0 {
			return nil, fmt.Errorf("nn: no parameter is trainable")
		}
	}
	return graph.Compile(b, s)
}

// Computes tells what a model computes: whether it has scores (B,K), and the classes C of its logits
// (N,C), 0 where it has none.
func Computes(m Model) (scores bool, classes int, err error) {
	b := graph.New(backend.Float32)
	o := m.Forward(NewPass(b, graph.Dims{T: 1, N: 1, B: 1, K: 1}, true))
	if err := b.Err(); err != nil {
		return false, 0, err
	}
	if d := o.Logits.Shape().Dims; len(d) == 2 {
		classes = d[1]
	}
	return o.Scores.OK(), classes, nil
}

type named struct {
	name string
	e    graph.E
}
