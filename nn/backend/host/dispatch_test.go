package host

import (
	"testing"
	"time"
)

// BenchmarkDo is the hand-over of work to another worker and back.
func BenchmarkDo(b *testing.B) {
	p := NewPool(2)
	defer p.Close()
	spin := func(d time.Duration) {
		for at := time.Now(); time.Since(at) < d; {
		}
	}
	for _, work := range []time.Duration{0, 20 * time.Microsecond, 200 * time.Microsecond} {
		b.Run(work.String(), func(b *testing.B) {
			for b.Loop() {
				_ = p.Do(2, 1, func(_, _, _ int) { spin(work) })
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)-float64(work.Nanoseconds()), "ns-over-work")
		})
	}
}
