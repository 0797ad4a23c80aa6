package graph_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/nn/backend"
	"rung/nn/backend/host"
	"rung/nn/backend/ref"
	"rung/nn/graph"
)

// Graphs are built, rewritten and compiled by several goroutines; all make the same program.
func TestCompileTogether(t *testing.T) {
	progs := make([]*graph.Program, 6)
	var wg sync.WaitGroup
	for i := range progs {
		wg.Go(func() {
			_, p, _, err := compile(losses(true), option{rewrite: true, spareT: 3})
			if err == nil {
				progs[i] = p
			}
		})
	}
	wg.Wait()
	for _, p := range progs {
		require.NotNil(t, p)
		require.Equal(t, progs[0].Calls, p.Calls)
		require.Equal(t, progs[0].Leaves, p.Leaves)
		require.Equal(t, progs[0].Arena, p.Arena)
	}
}

// Two runs of one program share its workers and weights, and each has the results of one alone.
func TestRunTogether(t *testing.T) {
	j := start(t, logits(true), option{rewrite: true, workers: 2})
	j.do(t)
	want := j.value(t)
	var wg sync.WaitGroup
	got, errs := make([][]float64, 4), make([]error, 4)
	for i := range got {
		r := j.run(t, option{})
		require.NoError(t, r.Bind(j.store(t, ""))) // the same weights, gradients of its own
		wg.Go(func() {
			n := j.n
			for range 20 {
				if errs[i] = r.Do(context.Background(), &n, false); errs[i] != nil {
					return
				}
			}
			got[i], errs[i] = graph.Output[float64](r, "y", batch.N, nil)
		})
	}
	wg.Wait()
	for i := range got {
		require.NoError(t, errs[i])
		require.Equal(t, want, got[i])
	}
}

// stopping is a context that is cancelled after some calls.
type stopping struct {
	context.Context
	left int
}

func (c *stopping) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

// A cancelled run leaves weights as they are and everything usable.
func TestCancel(t *testing.T) {
	j := start(t, losses(true), option{rewrite: true, workers: 2})
	j.do(t)
	v, g := j.value(t), j.gradients(t)
	for left := 0; left < len(j.p.Calls); left += 7 {
		require.ErrorIs(t, j.r.Do(&stopping{context.Background(), left}, &j.n, false), context.Canceled)
	}
	done, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, j.r.Do(done, &j.n, false), context.Canceled)
	j.do(t)
	require.Equal(t, v, j.value(t))
	require.Equal(t, g, j.gradients(t))
}

// What a kernel cannot do is an error that names the node; the workers live on.
func TestKernelPanics(t *testing.T) {
	for _, n := range []int{1, 2, 3} {
		pool := host.NewPool(n)
		defer pool.Close()
		j := start(t, losses(false), option{rewrite: true})
		j.be = ref.On[float64](pool)
		s := j.store(t, "")
		r := j.run(t, option{})
		require.NoError(t, r.Bind(s))
		for range 3 {
			r.Ints("ids")[2] = 1 << 30
			err := r.Do(context.Background(), &j.n, false)
			require.ErrorContains(t, err, "embed#")
			require.ErrorContains(t, err, "panic")
			r.Ints("ids")[2] = 4
			require.NoError(t, r.Do(context.Background(), &j.n, false))
		}
		j.do(t)
		got, err := graph.Output[float64](r, "y", batch.B, nil)
		require.NoError(t, err)
		require.Equal(t, j.value(t), got)
	}
}

// Memory that a backend does not have is an error, and what was reserved is given back.
func TestNoMemory(t *testing.T) {
	_, p, _, err := compile(losses(false), option{})
	require.NoError(t, err)
	be := workers(t, 1)
	for k := range 12 {
		l := &limited{Backend: be, left: k}
		r, err := p.NewRun(l, 1)
		if err == nil {
			require.NoError(t, r.Close())
		} else {
			require.ErrorIs(t, err, errFull)
			require.ErrorContains(t, err, "graph: ")
		}
		require.Zero(t, l.live, "after %d blocks", k)
	}
	_, err = graph.NewStore(&limited{Backend: be}, []graph.Segment{{Path: "w", Dims: []int{4}}}, true)
	require.EqualError(t, err, "graph: weights: full")
	l := &limited{Backend: be, left: 1}
	_, err = graph.NewStore(l, []graph.Segment{{Path: "w", Dims: []int{4}}}, true)
	require.EqualError(t, err, "graph: gradients: full")
	require.Zero(t, l.live)
}

var errFull = errors.New("full")

// limited runs out of memory after some blocks.
type limited struct {
	backend.Backend
	left, live int
}

func (l *limited) Reserve(n int64) (backend.Memory, error) {
	if l.left--; l.left < 0 {
		return nil, errFull
	}
	m, err := l.Backend.Reserve(n)
	l.live++
	return counted{m, l}, err
}

type counted struct {
	backend.Memory
	l *limited
}

func (c counted) Free() error { c.l.live--; return c.Memory.Free() }
