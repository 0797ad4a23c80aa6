package arch

import (
	"rung/data"
	"rung/nn"
	"rung/nn/backend"
	"rung/nn/graph"
)

// Feed fills the inputs of a run with units of e, and the counts of s. It returns what it filled.
func Feed(r *graph.Run, d graph.Dims, e *data.Encoded, units []int, s *backend.Scalars) (data.Sizes, error) {
	b := data.Batch{
		IDs: r.Ints(nn.InIDs), Pos: r.Ints(nn.InPos), Types: r.Ints(nn.InTypes), Seqs: r.Ints(nn.InSeqs),
		Offsets: r.Ints(nn.InOffsets), Keys: r.Ints(nn.InKeys), Class: r.Ints(nn.InClass),
		TokDomain: r.Ints(nn.OnAxis(nn.InDomain, backend.Tok)), SeqDomain: r.Ints(nn.OnAxis(nn.InDomain, backend.Seq)),
		Slots: r.Ints(nn.InSlots), Queries: r.Ints(nn.InQueries),
		Labels: graph.Floats[float32](r, nn.InLabels), Mask: graph.Floats[float32](r, nn.InMask), K: d.K,
		OwnTokens: r.Ints(graph.UnitRows(backend.Tok)), OwnSeqs: r.Ints(graph.UnitRows(backend.Seq)), OwnUnits: r.Ints(graph.UnitRows(backend.Unit)),
	}
	n, err := e.Pack(units, &b)
	s.Count = [backend.NumAxes]int{backend.Tok: n.T, backend.Seq: n.N, backend.Unit: n.B}
	return n, err
}
