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

// A stage is one part of the pre-training: a model learns to tell the second half of a text from those
// of other texts, by the first half or some words of it. Nobody judged the texts: which halves belong
// together is all there is to know (the inverse cloze task, Lee et al. 2019). As the halves say the
// same in other words, it takes what words mean to do it.
type stage struct {
	name  string
	texts int
	words int // of the first half that are asked for, 0 for all of it
	lr    float64
}

// stages: first the encoder learns vectors, as a bi-encoder; then to compare two texts that it reads
// together, as a cross-encoder. A cross-encoder by itself would first have to find out that comparing
// words helps, which takes it far longer.
var stages = []stage{{"vectors", 40000, 0, 2e-3}, {"pairs", 60000, 3, 1e-3}}

const batch = 256 // candidates of one update

// A Step is one update of the pre-training.
type Step struct {
	Stage string
	train.Step
}

// Pretrain trains the encoder on be and returns its parameters, by path without a prefix, each with the
// learned value to start from, and how it went. Progress sees every update; if it returns false,
// Pretrain stops and returns no parameters. What is learned is a function of the backend's instruction
// set alone.
func Pretrain(ctx context.Context, be backend.Backend, progress func(Step) bool) ([]*nn.Param, Record, error) {
	rec := Record{Backend: be.Name()}
	tok, err := tokenizer()
	if err != nil {
		return nil, rec, err
	}
	c := config(tok.VocabSize())
	bi, cross := arch.NewBi(c, nn.Mean), arch.NewCross(c, 1)
	bi.Similarity, bi.Scale = arch.Dot, .1 // a mean of normalised rows is at most √D = 8 long
	bi.Tokenizer, bi.MaxLength, cross.Tokenizer, cross.MaxLength = tok, positions, tok, positions
	for _, p := range cross.Params() {
		if len(p.Dims) == 2 {
			p.Init = p.Normal(Seed, c.InitStd)
		}
	}
	share(bi.Params(), cross.Encoder.Params())
	for i, m := range []train.Model{bi, cross} {
		more, err := stages[i].run(ctx, be, m, &rec, progress)
		if err != nil {
			return nil, rec, fmt.Errorf("base: %s: %w", stages[i].name, err)
		}
		if !more {
			return nil, rec, nil
		}
		if i == 0 {
			share(cross.Encoder.Params(), bi.Params())
		}
	}
	share(bi.Params(), cross.Encoder.Params())
	return bi.Params(), rec, nil
}

// share makes the parameters of one encoder start from the values of another's, which come in the same
// order.
func share(to, from []*nn.Param) {
	for i, p := range to {
		p.Init = from[i].Init
	}
}

// Updates whose losses a Record has.
const first, last = 5, 100

// run trains m; more is false if progress stopped it.
func (s stage) run(ctx context.Context, be backend.Backend, m train.Model, rec *Record, progress func(Step) bool) (more bool, err error) {
	c := train.Defaults()
	c.Backend, c.Batch, c.LR, c.Seed, c.Dropout = be, batch, s.lr, Seed, false
	r, err := train.Start(ctx, m, loss.Listwise{}, train.Data{Train: s.examples(language())}, c)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	rec.Last = 0
	for step := range r.Steps() {
		rec.Steps, rec.Sequences, rec.Tokens = rec.Steps+1, rec.Sequences+step.Seqs, rec.Tokens+step.Tokens
		if len(rec.First) < first {
			rec.First = append(rec.First, step.Loss)
		}
		if step.N > step.Total-last {
			rec.Last += step.Loss / last
		}
		if !progress(Step{s.name, step}) {
			return false, r.Err()
		}
	}
	return true, r.Err()
}
