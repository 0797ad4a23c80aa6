package train

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rung/checkpoints"
	"rung/data"
	dataread "rung/data/read"
	"rung/data/token"
	"rung/lora"
	"rung/nn/arch"
	"rung/nn/loss"
	"rung/nn/nntest/golden"
	"rung/nn/nntest/shared"
)

// replayed is what golden/replay says of a run.
type replayed struct {
	Settings struct {
		Steps, Batch, Lora int
		LR                 float64
	}
	Decay  float64   `json:"weight_decay"`
	Warmup float64   `json:"warmup_steps"`
	Clip   float64   `json:"clip"`
	Losses []float64 `json:"losses"`
	Norms  []float64 `json:"grad_norms"`
	Dev    struct{ MAP, MRR float64 }
}

// A whole training run of the peers, from the same weights on the same tokens: every loss, the dev
// scores after it, and MAP.
func TestReplayFull(t *testing.T) {
	shared.Long(t)
	replay(t, "full", replayModel(t), float32s)
}

// Both again, with products that round their factors to bf16: what is learned ranks as well.
func TestReplayBF16(t *testing.T) {
	shared.Long(t)
	needBF16(t)
	near := within{device: "cpu/bf16", early: 1e-2, late: .1, logits: .6, metric: 1e-2}
	t.Run("full", func(t *testing.T) { replay(t, "full", replayModel(t), near) })
	t.Run("lora", func(t *testing.T) { replay(t, "lora", replayLoRA(t), near) })
}

// The same with adapters: a hundred updates of rank 16 on every linear layer, the head in full.
func TestReplayLoRA(t *testing.T) {
	shared.Long(t)
	replay(t, "lora", replayLoRA(t), float32s)
}

func replayLoRA(t testing.TB) ids {
	return loraModel(t, lora.Config{Rank: 16, Alpha: 32, Targets: []string{"query", "key", "value", "dense"}})
}

// loraModel is the replayed model with adapters, which start from the file where their shapes agree.
func loraModel(t testing.TB, c lora.Config) ids {
	m := replayModel(t)
	a, err := lora.Apply(m, c, 1)
	require.NoError(t, err)
	f := golden.File(t, "replay", "lora", "initial.safetensors")
	for _, p := range a.Params() {
		at := "net." + peftName(p.Path)
		x, err := f.Tensor(at)
		require.NoError(t, err)
		if slices.Equal(x.Shape, p.Dims) {
			p.Init = golden.Init(t, f, at)
		}
	}
	return m
}

// within is how far a replay on a device (none: auto) may be off: relative losses of the first 20 steps and of all, dev logits, MAP.
type within struct {
	device                      string
	early, late, logits, metric float64
}

var float32s = within{early: 1e-5, late: 2e-4, logits: 2e-3, metric: 1e-3}

func replay(t *testing.T, name string, m ids, most within) {
	var want replayed
	golden.JSON(t, shared.Path(t, "golden", "replay", name, "losses.json"), &want)
	c := Defaults()
	c.LR, c.Steps, c.Epochs, c.Warmup, c.Clip, c.WeightDecay = want.Settings.LR, len(want.Losses), 0, want.Warmup, want.Clip, want.Decay
	c.DecayExclude, c.Dropout, c.Unit, c.Batch = nil, false, "row", want.Settings.Batch
	c.Sampler, c.Device = data.InOrder{Batch: c.Batch}, most.device
	r, err := Start(context.Background(), m, loss.BCE{}, Data{Train: replayRows(t, name)}, c)
	require.NoError(t, err)
	defer r.Close()
	t.Logf("%+v", r.Plan())
	began := time.Now()
	var early, late, norm float64
	for i, s := range all(t, r) {
		e := math.Abs(s.Loss-want.Losses[i]) / want.Losses[i]
		if i < 20 {
			early = max(early, e)
		}
		late = max(late, e)
		norm = max(norm, math.Abs(s.GradNorm-want.Norms[i])/want.Norms[i])
	}
	t.Logf("%d steps in %.0f s on %s: losses off by %.1e in the first 20 steps, %.1e in all; norms by %.1e", r.Done(), time.Since(began).Seconds(), r.be.Name(), early, late, norm)
	require.Less(t, early, most.early)
	require.Less(t, late, most.late)

	var scores map[string]map[string]float64
	golden.JSON(t, shared.Path(t, "golden", "replay", name, "dev_scores.json"), &scores)
	dev := wikiQA(t, m, "dev", 96)
	scorer := arch.NewScorer(r.be, m, 0, r.Store())
	defer scorer.Close()
	got, err := scorer.Score(context.Background(), dev)
	require.NoError(t, err)
	worst, n := 0.0, 0
	for i, u := range dev.Units {
		for k, id := range u.IDs {
			x, ok := scores[u.ID][id]
			require.True(t, ok, "%s %s", u.ID, id)
			worst = max(worst, math.Abs(x-float64(got[i][k])))
			n++
		}
	}
	values, err := Evaluate(dev, got, []string{"MAP", "MRR"})
	require.NoError(t, err)
	t.Logf("%d dev logits off by at most %.1e; MAP %.4f (theirs %.4f), MRR %.4f (%.4f)", n, worst, values["MAP"], want.Dev.MAP, values["MRR"], want.Dev.MRR)
	require.Less(t, worst, most.logits)
	require.InDelta(t, want.Dev.MAP, values["MAP"], most.metric)
}

// replayModel is MiniLM as a cross-encoder, with what the base lacks from a file.
func replayModel(t testing.TB) ids {
	dir := shared.Path(t, "models", "all-MiniLM-L6-v2")
	base, extra := golden.Open(t, filepath.Join(dir, checkpoints.ModelFile)), golden.File(t, "replay", "full", "initial.safetensors")
	m := ids{arch.NewCross(golden.Config(t, dir), 1)}
	for _, p := range m.Params() {
		f, name := base, strings.TrimPrefix(p.Path, "bert.")
		if _, err := f.Tensor(name); err != nil {
			f, name = extra, "net."+p.Path
		}
		p.Init = golden.Init(t, f, name)
	}
	return m
}

// replayRows are the rows of the replayed batches, as texts of token ids.
func replayRows(t testing.TB, name string) iter.Seq2[data.Example, error] {
	return func(yield func(data.Example, error) bool) {
		f, err := os.Open(shared.Path(t, "golden", "replay", name, "batches.jsonl.gz"))
		require.NoError(t, err)
		defer f.Close()
		z, err := gzip.NewReader(f)
		require.NoError(t, err)
		in := json.NewDecoder(bufio.NewReader(z))
		for n := 0; ; {
			var b struct {
				IDs, Types [][]int32
				Labels     []float32
			}
			if err := in.Decode(&b); errors.Is(err, io.EOF) {
				return
			} else if err != nil {
				require.NoError(t, err)
			}
			for i, y := range b.Labels {
				n++
				if !yield(row(n, b.IDs[i], b.Types[i], y), nil) {
					return
				}
			}
		}
	}
}

// wikiQA is a split as a cross-encoder sees it.
func wikiQA(t testing.TB, m ids, split string, length int) *data.Encoded {
	tok, err := token.Open(shared.Path(t, "models", "all-MiniLM-L6-v2"))
	require.NoError(t, err)
	spec, err := dataread.ParseSpec("wikiqa:" + shared.Path(t, "data", "wikiqa") + "#" + split)
	require.NoError(t, err)
	c, err := dataread.Open(context.Background(), spec, dataread.Defaults())
	require.NoError(t, err)
	e := &data.Encoded{}
	var enc token.Encoding
	for x, err := range c.Examples(context.Background()) {
		require.NoError(t, err)
		u := data.Unit{ID: x.ID, Query: data.None}
		for i, p := range x.Candidates {
			require.NoError(t, tok.Pair(&enc, x.Query, p.Text, length, token.LongestFirst))
			first := 0
			for first < len(enc.Types) && enc.Types[first] == 0 {
				first++
			}
			u.Seqs = append(u.Seqs, e.Add(x.ID, int32(i), enc.IDs, first))
			u.IDs, u.Labels = append(u.IDs, p.ID), append(u.Labels, p.Label)
		}
		e.Units = append(e.Units, u)
	}
	return e
}
