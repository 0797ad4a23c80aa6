package base

import (
	"context"
	"errors"
	"fmt"

	"rung/data/lingua"
	"rung/nn"
	"rung/nn/arch"
	"rung/nn/backend"
	"rung/nn/loss"
	"rung/train"
)

const positions = 64

// config is that of the encoder: about as small as the language allows.
func config(vocab int) nn.Config {
	return nn.Config{
		ModelType: "bert", Layers: 2, Hidden: 64, Heads: 4, FF: 128, Vocab: vocab, Positions: positions, Types: 2, Embedding: 64,
		Eps: 1e-12, InitStd: .05,
	}
}

func language() *lingua.Language { return lingua.New(Seed) }

// How long, and how fast it learns.
const (
	texts        = 200000
	batch        = 256 // candidates of one update
	learningRate = 2e-3
)

// Pretrain trains the encoder on be and returns its parameters, each with the learned value to start
// from, and how it went.
//
// The encoder learns vectors of texts, by which to tell the second half of a text from those of other
// texts, given some words of the first half. Nobody judged the texts: which halves belong together is
// all there is to know (the inverse cloze task, Lee et al. 2019). As the halves say the same in other
// words, it takes what words mean to do it. It never sees two texts at once: to compare them as a
// cross-encoder is left to learn.
//
// Progress sees every update; if it returns false, Pretrain stops and returns no parameters. What is
// learned is a function of the backend's instruction set alone.
func Pretrain(ctx context.Context, be backend.Backend, progress func(train.Step) bool) (ps []*nn.Param, rec Record, err error) {
	rec.Backend = be.Name()
	if err := ctx.Err(); err != nil { // making the texts takes a while
		return nil, rec, fmt.Errorf("base: %w", err)
	}
	tok, err := tokenizer()
	if err != nil {
		return nil, rec, err
	}
	cfg := config(tok.VocabSize())
	m := arch.NewBi(cfg, nn.Mean)
	m.Tokenizer, m.MaxLength = tok, positions
	m.Similarity, m.Scale = arch.Dot, .1 // a mean of normalised rows is at most √D = 8 long
	for _, p := range m.Params() {
		if len(p.Dims) == 2 && p != m.Encoder.Position && p != m.Encoder.Type { // of these, many rows are never trained
			p.Init = p.Normal(Seed, cfg.InitStd)
		}
	}
	c := train.Defaults()
	c.Backend, c.Batch, c.LR, c.Seed, c.Dropout = be, batch, learningRate, Seed, false
	r, err := train.Start(ctx, m, loss.Listwise{}, train.Data{Train: examples(language(), "pretraining", texts)}, c)
	if err != nil {
		return nil, rec, fmt.Errorf("base: %w", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for s := range r.Steps() {
		rec.add(s)
		if !progress(s) {
			return nil, rec, r.Err()
		}
	}
	if err := r.Err(); err != nil {
		return nil, rec, fmt.Errorf("base: %w", err)
	}
	return m.Params(), rec, nil
}

// Updates whose losses a Record has.
const first, last = 5, 100

func (r *Record) add(s train.Step) {
	r.Steps, r.Sequences, r.Tokens = s.N, r.Sequences+s.Seqs, r.Tokens+s.Tokens
	if s.N <= first {
		r.First = append(r.First, s.Loss)
	}
	if s.N > s.Total-last {
		r.Last += s.Loss / last
	}
}
