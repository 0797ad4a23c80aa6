package train

import (
	"context"
	"iter"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/data"
	"rung/lora"
	"rung/nn/loss"
	"rung/train/privacy"
)

// benchRows are rows of token ids of given lengths, taken from WikiQA's sentences one after another.
func benchRows(t testing.TB, m ids, lengths []int) iter.Seq2[data.Example, error] {
	text := wikiQA(t, m, "train", 128).IDs
	return func(yield func(data.Example, error) bool) {
		at := 0
		for i, n := range lengths {
			seq, types := make([]int32, n), make([]int32, n)
			for j := range n {
				seq[j] = text[at%len(text)]
				if j >= n/4 {
					types[j] = 1
				}
				at++
			}
			y := float32(0)
			if i%7 == 0 {
				y = 1
			}
			if !yield(row(i, seq, types, y), nil) {
				return
			}
		}
	}
}

// wikiLengths are eight batches of 32 pairs, evenly over WikiQA's lengths, alike ones together.
func wikiLengths(t testing.TB, m ids) []int {
	e := wikiQA(t, m, "train", 128)
	var all []int
	for s := range e.First {
		all = append(all, e.Len(int32(s)))
	}
	slices.Sort(all)
	var out []int
	n := len(all) / 32
	for k := range 8 {
		i := int((float64(k) + .5) * float64(n) / 8)
		out = append(out, all[32*i:32*i+32]...)
	}
	return out
}

// BenchmarkStep is a training step of MiniLM as a cross-encoder, batch 32: forward, backward, AdamW.
func BenchmarkStep(b *testing.B) {
	for _, shape := range []string{"s128", "wikiqa", "s512"} {
		for _, on := range []struct{ name, device string }{{"", ""}, {"bf16/", "cpu/bf16"}} {
			b.Run(on.name+"full/"+shape, func(b *testing.B) {
				benchStep(b, replayModel(b), on.device, shape, nil)
			})
			b.Run(on.name+"lora/"+shape, func(b *testing.B) {
				benchStep(b, loraModel(b, lora.Config{Rank: 8, Alpha: 16, Targets: []string{"query", "value"}}), on.device, shape, nil)
			})
		}
		b.Run("dp/"+shape, func(b *testing.B) {
			m := loraModel(b, lora.Config{Rank: 8, Alpha: 16, Targets: []string{"query", "value"}})
			benchStep(b, m, "", shape, &Privacy{Unit: unitRow, Delta: 1e-6, Noise: 1, Clip: 1, InsecureSeed: true})
		})
	}
}

// inTurn draws the units in order, as many at a time as are expected: what a step costs is to be compared, not drawn.
type inTurn struct {
	chances
	step, batch int
}

func (d inTurn) Sample(n int) (units []int) {
	for i := range d.batch {
		units = append(units, (d.step*d.batch+i)%n)
	}
	return units
}

// BenchmarkAdapters is the same step of 128 tokens through every kind of adapter, of rank 8 on query and value.
func BenchmarkAdapters(b *testing.B) {
	for _, kind := range lora.Kinds() {
		b.Run(kind, func(b *testing.B) {
			c := lora.DefaultsOf(kind)
			if c.Targets, c.Feedforward = []string{"query", "value"}, nil; c.Rank > 0 {
				c.Rank = 8
			}
			if c.Alpha > 0 {
				c.Alpha = 16
			}
			m := replayModel(b)
			_, err := lora.Apply(m, c, 1)
			require.NoError(b, err)
			benchStep(b, m, "", "s128", nil)
		})
	}
}

func benchStep(b *testing.B, m ids, on, shape string, private *Privacy) {
	if on == "cpu/bf16" {
		needBF16(b)
	}
	lengths, batch := slices.Repeat([]int{128}, 64), 32
	switch shape {
	case "wikiqa":
		lengths = wikiLengths(b, m)
	case "s512":
		lengths, batch = slices.Repeat([]int{512}, 16), 8
	}
	c, n := Defaults(), len(lengths)/batch
	c.Epochs, c.Steps, c.Dropout, c.Unit, c.Batch, c.Clip, c.Sampler = 0, n*(b.N+1), false, "row", batch, 0, data.InOrder{Batch: batch}
	c.Device = on
	if private != nil {
		k := privacy.Insecure(1)
		private.draws = func(step int) chances {
			d, err := k.Draws(privacy.Charge{Step: int64(step), Q: .5, Sigma: 1, Clip: 1, Key: k.Fingerprint(), Domain: privacy.Domain})
			require.NoError(b, err)
			return inTurn{d, step, batch}
		}
		c.Sampler, c.Unit, c.Privacy = nil, "", private
	}
	r, err := Start(context.Background(), m, loss.BCE{}, Data{Train: benchRows(b, m, lengths)}, c)
	require.NoError(b, err)
	defer r.Close()
	seqs, tokens := 0, 0
	steps := r.Steps()
	done := 0
	b.ResetTimer()
	for s := range steps {
		if done++; done <= n { // the first round warms up
			b.ResetTimer()
			continue
		}
		seqs, tokens = seqs+batch, tokens+s.Tokens
		if done >= n+b.N*n {
			break
		}
	}
	b.StopTimer()
	require.NoError(b, r.Err())
	b.ReportMetric(float64(seqs)/b.Elapsed().Seconds(), "seq/s")
	b.ReportMetric(float64(tokens)/b.Elapsed().Seconds(), "tok/s")
	b.ReportMetric(float64(r.Plan().Bytes)/(1<<20), "plan-MiB")
}
