//go:build unix

package cpu_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rung/nn/backend"
	"rung/nn/backend/cpu/peak"
)

// cpuTime is what all threads of this process have used.
func cpuTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cold is more than the caches hold.
const cold = 128 << 20

// measure runs a probe with 1 and 2 workers. It reports work (operations, or bytes) in 1e9 a second of
// processor time, which other processes disturb little, the median of a few launches.
func measure(b *testing.B, p probe, work float64, unit string) {
	for _, workers := range []int{1, 2} {
		for isa, be := range backends(b, workers) {
			b.Run(fmt.Sprint(isa, "/", workers), func(b *testing.B) {
				sets := []*session[float32]{encode[float32](b, be, p)} // what one launch leaves in the caches is no use to the next
				for n := sets[0].mem.Size(); n < cold; n += sets[0].mem.Size() {
					sets = append(sets, encode[float32](b, be, p))
				}
				for _, s := range sets {
					defer s.close(b)
					s.run(b)
				}
				var cpus, walls []time.Duration
				for k := 0; b.Loop(); k++ {
					at, used := time.Now(), cpuTime()
					_ = sets[k%len(sets)].x.Launch(b.Context(), &p.s)
					cpus, walls = append(cpus, cpuTime()-used), append(walls, time.Since(at))
				}
				slices.Sort(cpus)
				slices.Sort(walls)
				best, wall := cpus[len(cpus)/2], walls[len(walls)/2]
				rate := work / best.Seconds() / 1e9
				b.ReportMetric(rate, "G"+unit+"/core-s")
				b.ReportMetric(work/wall.Seconds()/1e9, "G"+unit+"/s")
				if unit == "FLOP" {
					b.ReportMetric(100*rate/peak.GFLOPS(isa), "%peak")
				}
			})
		}
	}
}

func dims(shape ...int) (name string, flop float64) {
	flop = 2
	for _, d := range shape {
		flop *= float64(d)
	}
	return fmt.Sprint(shape), flop
}

func BenchmarkMatNT(b *testing.B) {
	for _, m := range [][3]int{{4096, 384, 384}, {4096, 1536, 384}, {4096, 384, 1536}, {1250, 384, 384}, {1250, 1536, 384}, {4096, 16, 384}, {4096, 8, 384}, {4096, 384, 8}, {32, 384, 384}, {32, 1, 384}} {
		name, flop := dims(m[:]...)
		p := probe{
			op: backend.MatNT, i: [4]int{1}, s: counts(m[0], 1, 1),
			outs: []operand{mat(backend.Tok, m[0], m[1], 0), dead},
			ins:  []operand{mat(backend.Tok, m[0], m[2], 0), weight(m[1], m[2], 0), weight(1, m[1], 0), dead, dead},
		}
		b.Run(name, func(b *testing.B) { measure(b, p, flop, "FLOP") })
	}
	name, flop := dims(4096, 1536, 384)
	p := nt(4096, 1536, 384, 8, backend.ActGELU, false)
	b.Run(name+"gelu+lowrank", func(b *testing.B) { measure(b, p, flop, "FLOP") })
}

func BenchmarkMatNN(b *testing.B) {
	for _, m := range [][4]int{{4096, 384, 384, 0}, {4096, 1536, 384, 1}, {4096, 384, 1536, 0}, {1250, 384, 384, 0}, {4096, 8, 384, 0}} {
		name, flop := dims(m[:3]...)
		p := probe{
			op: backend.MatNN, i: [4]int{1, m[3]}, s: counts(m[0], 1, 1),
			outs: []operand{mat(backend.Tok, m[0], m[1], 0)},
			ins:  []operand{mat(backend.Tok, m[0], m[1], 0), mat(backend.Tok, m[0], m[2], 0), weight(m[2], m[1], 0)},
		}
		b.Run(name, func(b *testing.B) { measure(b, p, flop, "FLOP") })
	}
}

func BenchmarkMatTN(b *testing.B) {
	for _, m := range [][3]int{{384, 384, 4096}, {1536, 384, 4096}, {384, 1536, 4096}, {384, 384, 1250}, {8, 384, 4096}, {384, 8, 4096}} {
		name, flop := dims(m[:]...)
		p := probe{
			op: backend.MatTN, s: counts(m[2], 1, 1), outs: []operand{weight(m[0], m[1], 0)},
			ins: []operand{mat(backend.Tok, m[2], m[0], 0), mat(backend.Tok, m[2], m[1], 0)},
		}
		b.Run(name, func(b *testing.B) { measure(b, p, flop, "FLOP") })
	}
}

// lengths of a batch like WikiQA's: 39 tokens in the mean, to 128.
var short = []int{12, 18, 20, 22, 25, 27, 28, 30, 31, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 46, 48, 50, 52, 55, 58, 62, 67, 80, 100, 128}

func BenchmarkAttn(b *testing.B) {
	same := func(n, l int) (ls []int) {
		for range n {
			ls = append(ls, l)
		}
		return ls
	}
	for _, c := range []struct {
		name    string
		lengths []int
		rate    float64
	}{{"32x128", same(32, 128), 0}, {"32x128 dropout", same(32, 128), .1}, {"WikiQA", short, 0}, {"8x512", same(8, 512), 0}} {
		f := attention(c.lengths, 12, 32, false, c.rate, 1)
		var flop float64
		for _, l := range c.lengths {
			flop += 2 * 2 * 384 * float64(l) * float64(l)
		}
		b.Run(c.name, func(b *testing.B) { measure(b, f, flop, "FLOP") })
		g := backwardLike(f)
		b.Run(c.name+" gradients", func(b *testing.B) { measure(b, g, 2.5*flop, "FLOP") })
	}
}

// backwardLike is the gradients' probe with a large lse, so that nothing overflows.
func backwardLike(f probe) probe {
	p := f
	p.op = backend.AttnGrad
	lse := f.outs[1]
	lse.values = make([]float64, lse.rows*lse.cols)
	for i := range lse.values {
		lse.values[i] = 8
	}
	p.outs = []operand{f.ins[0], f.ins[1], f.ins[2]}
	p.ins = append(append([]operand{}, f.ins...), f.outs[0], lse, f.outs[0])
	return p
}

// BenchmarkRows is what moves memory: bytes read and written.
func BenchmarkRows(b *testing.B) {
	const rows, d = 4096, 384
	full := func(c int) operand { return mat(backend.Tok, rows, c, 0) }
	one := full(1)
	for _, c := range []struct {
		name  string
		p     probe
		bytes float64
	}{
		{"gelu", probe{op: backend.Unary, outs: []operand{full(1536)}, ins: []operand{full(1536)}}, 2 * rows * 1536 * 4},
		{"gelu's derivative", probe{op: backend.UnaryGrad, outs: []operand{full(1536)}, ins: []operand{full(1536), dead, full(1536)}}, 3 * rows * 1536 * 4},
		{"norm", probe{op: backend.Norm, outs: []operand{full(d), one, one, full(d)}, ins: []operand{full(d), full(d), weight(1, d, 0), weight(1, d, 0)}}, 4 * rows * d * 4},
		{"norm dx", probe{op: backend.NormDX, outs: []operand{full(d)}, ins: []operand{full(d), one, one, weight(1, d, 0), full(d)}}, 3 * rows * d * 4},
		{"norm dg", probe{op: backend.NormDG, outs: []operand{weight(1, d, 0), weight(1, d, 0)}, ins: []operand{full(d), one, one, full(d)}}, 2 * rows * d * 4},
		{"column sums", probe{op: backend.ColSum, outs: []operand{weight(1, 1536, 0)}, ins: []operand{full(1536)}}, rows * 1536 * 4},
		{"add", probe{op: backend.Add, outs: []operand{full(d)}, ins: []operand{full(d), full(d)}}, 3 * rows * d * 4},
		{"adamw", update(backend.AdamW, 1<<22, 2, [4]int{}, [4]float64{.9, .999, 1e-8, .01}, 1), 7 * 4 << 22},
	} {
		c.p.s = counts(rows, 1, 1)
		b.Run(c.name, func(b *testing.B) { measure(b, c.p, c.bytes, "B") })
	}
}
