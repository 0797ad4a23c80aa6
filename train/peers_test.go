package train

import (
	"bytes"
	"context"
	"encoding/json"
	"iter"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rung/data"
	"rung/lora"
	"rung/nn/arch"
	"rung/nn/backend/philox"
	"rung/nn/loss"
	"rung/nn/nntest/archtest"
)

// peerRow is a sequence of a batch, as testdata/dropout_check.py reads it.
type peerRow struct {
	IDs   []int32 `json:"ids"`
	Types []int32 `json:"types"`
	Key   uint32  `json:"key"`
	Label float32 `json:"label"`
}

// peerJob is a run that testdata/dropout_check.py repeats.
type peerJob struct {
	Base    string      `json:"base"`
	Adapter *string     `json:"adapter"`
	Seed    uint64      `json:"seed"`
	LR      float64     `json:"lr"`
	Warmup  float64     `json:"warmup"`
	Decay   float64     `json:"decay"`
	Clip    float64     `json:"clip"`
	Batches [][]peerRow `json:"batches"`
}

// TestPeersDropout trains with dropout at every site that a model and an adapter have. Transformers and
// PEFT do the same with our masks, where they apply dropout themselves: every loss and gradient norm must
// agree, so that no site is missing, applied twice or in another place.
func TestPeersDropout(t *testing.T) {
	if os.Getenv("RUNG_PEERS") == "" {
		t.Skip("RUNG_PEERS names no Python")
	}
	for _, kind := range []string{"bert", "distilbert", "electra"} {
		for _, adapter := range []bool{false, true} {
			name := kind
			if adapter {
				name += "/lora"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := archtest.Tiny()
				s.ModelType, s.Labels, s.Dropout, s.Layers, s.Heads = kind, 1, .1, 3, 4
				if kind == "electra" {
					s.Embedding = 8
				}
				peerRun(t, archtest.Write(t, t.TempDir(), s), adapter)
			})
		}
	}
}

func peerRun(t *testing.T, base string, adapter bool) {
	ctx := context.Background()
	m, err := arch.OpenCross(ctx, base, arch.Options{Labels: 1})
	require.NoError(t, err)
	defer m.Close()
	if adapter {
		_, err := lora.Apply(m, lora.Config{Rank: 4, Alpha: 8, Dropout: .2, Targets: []string{lora.AllLinear}}, 5)
		require.NoError(t, err)
	}
	c := Defaults()
	c.Backend = workers(t, 2)
	c.Epochs, c.Batch, c.Window, c.Unit, c.LR, c.DecayExclude = 4, 16, 4, "row", 3e-3, nil
	c.Seed, c.Warmup, c.MicroTokens = 3<<40+11, 2, 300 // masks know nothing of micro-batches
	r, err := Start(ctx, m, loss.BCE{}, Data{Train: sentences(24)}, c)
	require.NoError(t, err)
	defer r.Close()

	job := peerJob{Base: base, Seed: c.Seed, LR: c.LR, Warmup: c.Warmup, Decay: c.WeightDecay, Clip: c.Clip}
	if adapter {
		dir := t.TempDir()
		require.NoError(t, m.Save(dir, r.Store()))
		job.Adapter = &dir
	}
	for e := range c.Epochs {
		for _, b := range r.sample.Epoch(r.train, c.Seed, e) {
			job.Batches = append(job.Batches, peerRows(r.train, b))
		}
	}
	want := peerLosses(t, job)
	steps := all(t, r)
	require.Len(t, want.Losses, len(steps))
	var early, late float64
	for i, s := range steps {
		e := max(math.Abs(s.Loss/want.Losses[i]-1), math.Abs(s.GradNorm/want.Norms[i]-1))
		if i < 10 {
			early = max(early, e)
		}
		late = max(late, e)
	}
	t.Logf("%d steps on %s, loss %.4f to %.4f: off by %.1e in the first ten, %.1e in all", len(steps), r.be.Name(), steps[0].Loss, steps[len(steps)-1].Loss, early, late)
	require.Less(t, early, 1e-5)
	require.Less(t, late, 2e-4)
}

func peerRows(e *data.Encoded, units []int) (rows []peerRow) {
	for _, u := range units {
		s := e.Units[u].Seqs[0]
		row := peerRow{IDs: e.IDs[e.Off[s]:e.Off[s+1]], Types: make([]int32, e.Len(s)), Key: uint32(e.Keys[s]), Label: e.Units[u].Labels[0]}
		for j := int(e.First[s]); j < len(row.Types); j++ {
			row.Types[j] = 1
		}
		rows = append(rows, row)
	}
	return rows
}

func peerLosses(t *testing.T, job peerJob) (o struct{ Losses, Norms []float64 }) {
	t.Helper()
	in, err := json.Marshal(job)
	require.NoError(t, err)
	var stderr bytes.Buffer
	cmd := exec.Command(os.Getenv("RUNG_PEERS"), filepath.Join("testdata", "dropout_check.py"))
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	require.NoError(t, json.Unmarshal(out, &o), string(out))
	return o
}

// sentences are made-up queries whose candidates are of 3 to 40 words; a relevant one has the query's last.
func sentences(n int) iter.Seq2[data.Example, error] {
	words := archtest.Tiny().Words
	return func(yield func(data.Example, error) bool) {
		for i := range n {
			draw := func(k, of int) int { return int(philox.Uint64(4, "sentences", uint64(i*1000+k)) % uint64(of)) }
			q := words[draw(0, len(words))]
			x := data.Example{ID: "q" + q, Query: "what is the " + q}
			for c := range 4 {
				text := make([]string, 3+draw(10+c, 38))
				for j := range text {
					text[j] = words[draw(100+50*c+j, len(words))]
				}
				y := float32(0)
				if c == i%4 {
					y, text[draw(20, len(text))] = 1, q
				}
				x.Candidates = append(x.Candidates, data.Candidate{ID: string(rune('a' + c)), Text: strings.Join(text, " "), Label: y})
			}
			if !yield(x, nil) {
				return
			}
		}
	}
}
