// Package loss is the training objectives: one file each. An objective is a struct with fields; its
// Loss adds nodes to the graph and returns one loss a unit (B,1).
//
// B units, K candidates of a unit at most, N sequences, C classes. Where a unit has fewer than K
// candidates the mask is 0 and scores and labels are 0.
package loss

import (
	"rung/nn"
	"rung/nn/graph"
)

// masked is the sum of l (B,K) over real candidates (B,1).
func masked(p *nn.Pass, l graph.E, t nn.Targets) graph.E { return p.RowSum(p.Mul(l, t.Mask)) }
