package graph

import (
	"fmt"
	"slices"

	"rung/nn/backend"
)

// Dims are the capacities that a program is compiled for: T tokens, N sequences, B units of K
// candidates. Real counts may be lower at every run.
type Dims struct{ T, N, B, K int }

// A Shape has one or two dimensions. Axis says what the first one counts: two shapes that differ
// only there do not match, even where the capacities are equal.
type Shape struct {
	Axis backend.Axis
	Dims []int
}

// Vec is the shape of n values that count nothing: a bias, or offsets.
func Vec(n int) Shape { return Shape{Dims: []int{n}} }

// Mat is the shape of a weight (r,c).
func Mat(r, c int) Shape { return Shape{Dims: []int{r, c}} }

// Rows is the shape of r rows of c values, which count along axis a.
func Rows(a backend.Axis, r, c int) Shape { return Shape{a, []int{r, c}} }

// Each is the shape of one value for each of r rows: of an index input.
func Each(a backend.Axis, r int) Shape { return Shape{a, []int{r}} }

// Cols is the last dimension.
func (s Shape) Cols() int { return s.Dims[len(s.Dims)-1] }

// Size is the number of elements.
func (s Shape) Size() int {
	n := 1
	for _, d := range s.Dims {
		n *= d
	}
	return n
}

// Equal compares axis and dimensions.
func (s Shape) Equal(o Shape) bool { return s.Axis == o.Axis && slices.Equal(s.Dims, o.Dims) }

func (s Shape) String() string { return fmt.Sprintf("%s%v", s.Axis, s.Dims) }

func (s Shape) withCols(c int) Shape { return Shape{s.Axis, []int{s.Dims[0], c}} }

// valid reports that s has one or two dimensions, none of them 0 or so large that sizes overflow.
func (s Shape) valid() bool {
	for _, d := range s.Dims {
		if d < 1 || d > 1<<28 {
			return false
		}
	}
	return s.Axis < backend.NumAxes && (len(s.Dims) == 1 || len(s.Dims) == 2) && s.Size() <= 1<<40
}

// rows reports that s is rows of c columns along some axis; any number of columns if c < 0.
func (s Shape) rows(c int) bool {
	return s.Axis != backend.Fixed && len(s.Dims) == 2 && (c < 0 || s.Dims[1] == c)
}

// buf is the dense layout of s; the planner says where it lives.
func (s Shape) buf() backend.Buf {
	r, c := 1, s.Cols()
	if len(s.Dims) == 2 {
		r = s.Dims[0]
	}
	axis := s.Axis
	if len(s.Dims) == 1 {
		axis = backend.Fixed // one row of values
	}
	return backend.Buf{Axis: axis, Rows: r, Cols: c, Ld: c}
}
