package train

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/graph"
)

// clipper turns the gradients of units into what the optimiser takes (Abadi et al. 2016, "Deep Learning with
// Differential Privacy", algorithm 1): each is clipped to the norm C, their sum gets noise, and is divided by a constant.
//
//	g̃ = (Σ_u min(1, C/|g_u|) g_u + σ C z) / L,   z ~ N(0, 1)
type clipper struct {
	store *graph.Store
	sum   backend.Memory // Σ, over the micro-batches of a step
	noisy backend.Memory // the sum with noise
	work  backend.Memory // norms and factors of units
	add   backend.Exec   // clips the gradients of a micro-batch and adds them to the sum
	out   backend.Exec   // the noisy mean, as the store's gradient
	flat  []float32      // as the weights lie, with gaps
	dense []float32      // without
}

// newClipper is for the gradients of at most units units in a micro-batch, stride elements from one to the next; mean is L.
func newClipper(p *Privacy, s *graph.Store, gradients backend.Memory, stride, units int, mean float64) (*clipper, error) {
	c := &clipper{store: s}
	if err := c.encode(p, gradients, stride, units, mean); err != nil {
		return nil, errors.Join(fmt.Errorf("train: privacy: %w", err), c.close())
	}
	return c, nil
}

func (c *clipper) encode(p *Privacy, gradients backend.Memory, stride, units int, mean float64) error {
	be, k := c.store.Backend(), c.store.Trainable()
	if stride != k {
		return fmt.Errorf("a unit's gradients take %d elements, the store's %d", stride, k)
	}
	parts := []graph.Segment{{Dims: []int{k}}} // flat: all tensors, and the gaps between them, which are 0
	if p.Clipping == clipPerLayer {
		parts = nil
		for _, g := range c.store.Seg {
			if g.Trainable {
				parts = append(parts, g)
			}
		}
	}
	elements := 0
	for _, g := range c.store.Seg {
		if g.Trainable {
			elements += g.Size()
		}
	}
	c.dense, c.flat = make([]float32, elements), make([]float32, k)
	n, size := len(parts), int64(be.Float().Size())
	var err error
	for _, m := range []struct {
		to *backend.Memory
		n  int
	}{{&c.sum, k}, {&c.noisy, k}, {&c.work, 2 * n * units}} {
		if *m.to, err = be.Reserve(int64(m.n) * size); err != nil {
			return err
		}
	}
	norms := backend.Buf{Space: backend.Arena, Axis: backend.Unit, Rows: units, Cols: n, Ld: n}
	factors := norms
	factors.Off = n * units
	var normed, summed []backend.Call
	for i, g := range parts {
		x := backend.Buf{Space: backend.Input, Axis: backend.Unit, Off: g.Off, Rows: units, Cols: g.Size(), Ld: stride}
		y := backend.Buf{Space: backend.Grad, Acc: true, Off: g.Off, Rows: 1, Cols: g.Size(), Ld: g.Size()}
		normed = append(normed, backend.Call{Op: backend.RowNorm, Node: "norms of units", Out: []backend.Buf{norms.ColsOf(i, 1)}, In: []backend.Buf{x}})
		summed = append(summed, backend.Call{Op: backend.SumRows, Node: "sum of clipped units", Out: []backend.Buf{y}, In: []backend.Buf{x, factors.ColsOf(i, 1)}})
	}
	clip := backend.Call{Op: backend.ClipRows, Node: "clip units", Out: []backend.Buf{factors}, In: []backend.Buf{norms}, F: [4]float64{p.Clip}}
	if p.Clipping == clipPerLayer {
		clip.I[0] = 1
	}
	bind := backend.Binding{Arena: c.work}
	bind.Blocks[backend.Input] = []backend.Block{{Mem: gradients}}
	bind.Blocks[backend.Grad] = []backend.Block{{Mem: c.sum}}
	if c.add, err = be.Encode(append(append(normed, clip), summed...), bind); err != nil {
		return err
	}
	flat := func(space backend.Space, id int) backend.Buf {
		return backend.Buf{Space: space, ID: id, Rows: 1, Cols: k, Ld: k}
	}
	bind = backend.Binding{Arena: c.work}
	bind.Blocks[backend.Grad] = []backend.Block{{Mem: c.store.Grad}}
	bind.Blocks[backend.Input] = []backend.Block{{Mem: c.noisy}}
	c.out, err = be.Encode([]backend.Call{
		{Op: backend.Scale, Node: "noisy mean", Out: []backend.Buf{flat(backend.Grad, 0)}, In: []backend.Buf{flat(backend.Input, 0)}, F: [4]float64{1 / mean}},
	}, bind)
	return err
}

// begin starts the sum of a step.
func (c *clipper) begin() error { return c.sum.Clear(0, c.sum.Size()) }

// micro adds the clipped gradients of a micro-batch of so many units.
func (c *clipper) micro(ctx context.Context, s *backend.Scalars, units int) error {
	own := *s
	own.Count[backend.Unit] = units
	return c.add.Launch(ctx, &own)
}

// end makes the noisy mean. noise adds to elements first, first+1, … of what is trained, in the order of the store, on
// the host: there the sum is rounded to a grid that does not tell what was added.
func (c *clipper) end(ctx context.Context, s *backend.Scalars, noise func(dst []float32, first uint64)) error {
	if err := c.sum.ReadAt(host.Bytes(c.flat), 0); err != nil {
		return err
	}
	at := 0
	for _, g := range c.store.Seg {
		if g.Trainable {
			at += copy(c.dense[at:], c.flat[g.Off:g.Off+g.Size()])
		}
	}
	var wait sync.WaitGroup
	const piece = 1 << 12
	workers := min(runtime.GOMAXPROCS(0), (len(c.dense)+piece-1)/piece)
	for w := range workers {
		wait.Go(func() {
			for i := w * piece; i < len(c.dense); i += workers * piece {
				noise(c.dense[i:min(i+piece, len(c.dense))], uint64(i))
			}
		})
	}
	wait.Wait()
	at = 0
	for _, g := range c.store.Seg { // the gaps between weights stay 0
		if g.Trainable {
			at += copy(c.flat[g.Off:g.Off+g.Size()], c.dense[at:])
		}
	}
	if err := c.noisy.WriteAt(host.Bytes(c.flat), 0); err != nil {
		return err
	}
	return c.out.Launch(ctx, s)
}

// bytes is what it reserved.
func (c *clipper) bytes() (n int64) {
	for _, m := range []backend.Memory{c.sum, c.noisy, c.work} {
		n += m.Size()
	}
	return n + c.add.Bytes() + c.out.Bytes()
}

func (c *clipper) close() error {
	var errs []error
	for _, x := range []backend.Exec{c.add, c.out} {
		if x != nil {
			errs = append(errs, x.Close())
		}
	}
	for _, m := range []backend.Memory{c.sum, c.noisy, c.work} {
		if m != nil {
			errs = append(errs, m.Free())
		}
	}
	return errors.Join(errs...)
}
