//go:build gpu

package cuda

import (
	"fmt"
	"math"

	"rung/nn/backend"
)

// groups gives the products of rows with their own experts their launches.
func groups(t *[backend.NumOps]func(*encoder, *resolved) error) {
	t[backend.GroupNT] = byWarps("group_nt", func(r *resolved) int { return r.In[2].Rows * r.In[2].Cols })
	t[backend.GroupNN] = byWarps("group_nn", outRows)
	t[backend.GroupTN] = (*encoder).groupTN
	t[backend.Take] = byWarps("take", outRows)
	t[backend.TakeGrad] = byWarps("take_grad", outRows)
}

// groupBlocks is how many blocks a grouped gradient should have where rows can be split among them.
const groupBlocks = 512

// groupTN sums by expert and columns: each unit, or parts of the rows that a second kernel adds up.
func (e *encoder) groupTN(r *resolved) error {
	a, h, x, out := &r.a, r.In[0], r.In[1], r.Out[0]
	units, stride, most, err := e.apart(r.Call, 0, h.Axis)
	if err != nil {
		return err
	}
	size := out.Rows * out.Cols
	if size > math.MaxUint32-threads {
		return fmt.Errorf("a gradient of %dx%d elements is more than a kernel counts", out.Rows, out.Cols)
	}
	rank := h.Cols / r.In[2].Cols
	cols, experts := ceil(x.Cols, 32), size/x.Cols/rank
	a.units, a.stride, a.most = units, stride, int32(most)
	a.splits = 1
	first := launch{kernel: "group_tn", grid: [3]int{cols, experts, 1}, block: threads, args: a}
	if units != 0 {
		first.grid[2] = min(most, atOnce)
		e.add(r.Node, first)
		return nil
	}
	a.splits = int32(max(1, min(mostParts, ceil(h.Rows, splitRows), groupBlocks/(cols*experts))))
	first.grid[2] = int(a.splits)
	if a.splits == 1 {
		e.add(r.Node, first)
	} else {
		e.inParts(r, first, size)
	}
	return nil
}
