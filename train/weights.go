package train

import (
	"rung/nn"
	"rung/nn/graph"
)

// terms is how many terms the losses of some units sum.
func (r *Run) terms(units []int) (n int) {
	for _, u := range units {
		n += r.obj.Terms(r.train.Units[u].Labels)
	}
	return n
}

// weigh gives units the weight of one of so many terms; one that has none weighs 0, as weights are before.
func (r *Run) weigh(weights []float32, units []int, terms int) {
	for k, u := range units {
		if r.obj.Terms(r.train.Units[u].Labels) > 0 {
			weights[k] = 1 / float32(terms)
		}
	}
}

// weighOwners gives the units of a micro-batch their weights: an owner's loss is the mean of its terms.
func (r *Run) weighOwners(owners [][]int) {
	weights := graph.Floats[float32](r.run, nn.InWeights)
	clear(weights)
	for _, own := range owners {
		r.weigh(weights, own, r.terms(own))
		weights = weights[len(own):]
	}
}
