package bench

import (
	"math"

	"rung/nn/backend"
)

// A Card is a GPU as its vendor's data sheet has it: dense products, without sparsity.
type Card struct {
	Name      string
	SMs       int                // multiprocessors
	Memory    int64              // bytes
	Peak      map[string]float64 // FLOP/s of products in fp32, tf32 and bf16
	Bandwidth float64            // bytes/s of its memory
}

// Cards are those that rooflines are computed for.
//
// The numbers are of NVIDIA's "A100 Tensor Core GPU Datasheet" (80GB SXM), "H100 Tensor Core GPU Datasheet" (SXM)
// and "H200 Tensor Core GPU Datasheet" (SXM). The latter two give tensor cores' figures with sparsity, which are
// halved here: 989 TFLOP/s for tf32, 1,979 for bf16. Multiprocessors are of the A100 and H100 architecture
// whitepapers.
func Cards() []Card {
	peak := func(fp32, tf32, bf16 float64) map[string]float64 {
		return map[string]float64{"fp32": fp32 * 1e12, "tf32": tf32 * 1e12, "bf16": bf16 * 1e12}
	}
	return []Card{
		{"A100", 108, 80e9, peak(19.5, 156, 312), 2.039e12},
		{"H100", 132, 80e9, peak(67, 989./2, 1979./2), 3.35e12},
		{"H200", 132, 141e9, peak(67, 989./2, 1979./2), 4.8e12},
	}
}

// Roofline is the least time that the work can take: that of its products at the peak of what multiplies, or that of
// moving each element once.
func (c *Card) Roofline(w backend.Work, unit string) (seconds float64) {
	return math.Max(w.FLOP/c.Peak[unit], bytesOf(w)/c.Bandwidth)
}

// bytesOf is what moves: floats and indexes are of four bytes.
func bytesOf(w backend.Work) float64 { return 4 * w.Elems }
