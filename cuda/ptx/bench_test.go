package ptx

import "testing"

// BenchmarkLaunch measures how many instructions of threads run in a second, all checks included.
func BenchmarkLaunch(b *testing.B) {
	k := parse(b, rowSums)
	var cover Coverage
	for b.Loop() {
		if err := sums(k, 6400, &cover); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(cover.Instructions())/b.Elapsed().Seconds(), "instructions/s")
}
