//go:build unix

package cpu_test

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"rung/nn/backend"
)

// Programs that share a team, one after another at once or after pauses in which its threads fall asleep,
// with more and with fewer threads than cores, compute what one thread computes.
func TestTeam(t *testing.T) {
	probes := []probe{
		{
			op: backend.MatNT, i: [4]int{1}, s: counts(700, 1, 1), outs: []operand{mat(backend.Tok, 700, 96, 0), dead},
			ins: []operand{mat(backend.Tok, 700, 64, 0), weight(96, 64, 0), weight(1, 96, 0), dead, dead},
		},
		{
			op: backend.MatTN, s: counts(1500, 1, 1), outs: []operand{weight(48, 64, 0)},
			ins: []operand{mat(backend.Tok, 1500, 48, 0), mat(backend.Tok, 1500, 64, 0)},
		},
		{op: backend.Add, s: counts(900, 1, 1), outs: []operand{mat(backend.Tok, 900, 64, 0)}, ins: []operand{mat(backend.Tok, 900, 64, 0), mat(backend.Tok, 900, 64, 0)}},
	}
	alone := backends(t, 1)
	for _, workers := range []int{2, 3, 9} {
		for isa, be := range backends(t, workers) {
			var all sync.WaitGroup
			for k, p := range probes {
				want, s := once[float32](t, alone[isa], p), encode[float32](t, be, p)
				all.Go(func() {
					draw := rand.New(rand.NewPCG(uint64(workers), uint64(k)))
					for range 300 {
						if err := s.x.Launch(t.Context(), &s.p.s); err != nil {
							t.Error(err)
							return
						}
						got := floats(s)[s.offs[0]:][:len(want[0])]
						if !slices.Equal(got, want[0]) {
							t.Errorf("%s, %d workers: %v differs", isa, workers, p.op)
							return
						}
						clear(got)
						if draw.IntN(4) == 0 {
							time.Sleep(time.Duration(draw.IntN(500)) * time.Microsecond)
						}
					}
				})
				t.Cleanup(func() { s.close(t) })
			}
			all.Wait()
		}
	}
}
