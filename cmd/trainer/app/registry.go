package app

import (
	"errors"
	"fmt"
	"math"

	"github.com/spf13/cobra"

	"rung/data"
	"rung/nn"
	"rung/nn/loss"
	"rung/train"
)

// A Registry is what a trainer has built in, by the names that configurations use. A trainer of one's own
// starts from Builtin and adds to the maps.
type Registry struct {
	Architectures map[string]Architecture
	Adapters      map[string]Adapter
	Losses        map[string]Loss
	Samplers      map[string]Sampler
	Commands      map[string]func(*Env) *cobra.Command
}

// A Loss is an objective with the values that its parameters have unless a configuration says otherwise.
// A parameter is an exported field, by its yaml tag or its name in snake case: PosWeight is pos_weight.
type Loss struct {
	Objective nn.Objective
	About     string
	Needs     string // what it needs of the data
	// Label refuses a label that the loss cannot learn from, of a model with so many classes. Nil takes
	// every label.
	Label func(y float32, classes int) error
	// Classes tells that the loss is of a model with several labels rather than one score.
	Classes bool
}

// A Sampler draws the batches of an epoch.
type Sampler struct {
	New   func(c train.Config) data.Sampler
	About string
}

// Builtin is what this module brings.
func Builtin() Registry {
	return Registry{
		Architectures: architectures(),
		Adapters:      adapters(),
		Losses: map[string]Loss{
			"bce": {
				Objective: loss.BCE{}, Label: probability,
				About: "binary cross-entropy of each candidate; pos_weight weighs positives", Needs: "labels from 0 to 1",
			},
			"ce":       {Objective: loss.CE{}, Label: class, Classes: true, About: "cross-entropy over classes", Needs: "labels: 2 or more; whole labels from 0"},
			"listwise": {Objective: loss.Listwise{}, Label: gain, About: "softmax cross-entropy over a query's candidates", Needs: "a positive a query"},
			"mse":      {Objective: loss.MSE{}, About: "squared error of each score", Needs: "labels on the scale of scores"},
			"pairwise": {Objective: loss.Pairwise{}, About: "logistic loss of every pair of a query with different labels", Needs: "positives and negatives a query"},
		},
		Samplers: map[string]Sampler{
			"poisson": {
				New:   func(train.Config) data.Sampler { return nil }, // by what privacy protects, which the run knows
				About: "with privacy: every unit by chance, so that batches are of no fixed size",
			},
			"shuffled": {
				New:   func(c train.Config) data.Sampler { return data.Shuffled{Batch: c.Batch, Window: c.Window} },
				About: "every unit once an epoch in random order, in windows of like lengths",
			},
		},
		Commands: map[string]func(*Env) *cobra.Command{
			"bench":      benchCommand,
			"combine":    combineCommand,
			"doctor":     doctorCommand,
			"embed":      embedCommand,
			"eval":       evalCommand,
			"inspect":    inspectCommand,
			"list":       listCommand,
			"merge":      mergeCommand,
			"metrics":    metricsCommand,
			"privacy":    privacyCommand,
			"quickstart": quickstartCommand,
			"rerank":     rerankCommand,
			"score":      scoreCommand,
			"search":     searchCommand,
			"tokenize":   tokenizeCommand,
			"train":      trainCommand,
			"version":    versionCommand,
		},
	}
}

var (
	errProbability = errors.New("want 0 to 1")
	errGain        = errors.New("want 0 or more")
)

func probability(y float32, _ int) error {
	if !(y >= 0 && y <= 1) {
		return errProbability
	}
	return nil
}

func gain(y float32, _ int) error {
	if !(y >= 0) {
		return errGain
	}
	return nil
}

func class(y float32, classes int) error {
	if y != float32(math.Trunc(float64(y))) || y < 0 || int(y) >= classes {
		return fmt.Errorf("want a whole number from 0 to %d", classes-1)
	}
	return nil
}
