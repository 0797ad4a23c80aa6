package base

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"rung/data"
	"rung/data/lingua"
	"rung/data/token"
	"rung/nn"
	"rung/nn/arch"
	"rung/nn/backend"
	"rung/nn/backend/philox"
	"rung/nn/loss"
	"rung/train"
)

// config is that of the encoder: as small as the language allows.
func config(vocab int) nn.Config {
	return nn.Config{
		ModelType: "bert", Layers: 2, Hidden: 64, Heads: 4, FF: 128, Vocab: vocab, Positions: 64, Types: 2, Embedding: 64,
		Eps: 1e-12, InitStd: .05,
	}
}

// A stage of the pre-training: a model that learns to tell the second half of a text from those of
// other texts, by the first half. Nobody judged the texts: which halves belong together is all there is
// to know (the inverse cloze task, Lee et al. 2019). As the halves say the same in other words, it
// takes what words mean to do it.
type stage struct {
	name  string
	texts int
	lr    float64
}

// stages: first the encoder learns vectors, as a bi-encoder; then to compare two texts that it reads
// together, as a cross-encoder. A cross-encoder alone would first have to find out that comparing
// words helps, which takes it far longer.
var stages = []stage{{"texts", 20000, 2e-3}, {"pairs", 10000, 1e-3}}

const (
	choices = 8   // halves to tell apart
	batch   = 256 // halves of one update
)

// A Step is one update of the pre-training.
type Step struct {
	Stage string
	train.Step
}

// Pretrain trains the encoder on be and returns its parameters, by path without a prefix, each with the
// learned value to start from. It reports every update; if report returns false, it stops and returns
// no parameters and no error. What it learns is a function of the backend's instruction set alone.
func Pretrain(ctx context.Context, be backend.Backend, report func(Step) bool) ([]*nn.Param, error) {
	l := lingua.New(Seed)
	tok, err := token.FromVocab(l.Vocabulary(), token.Defaults())
	if err != nil {
		return nil, fmt.Errorf("base: %w", err)
	}
	c := config(tok.VocabSize())
	bi, cross := arch.NewBi(c, nn.Mean), arch.NewCross(c, 1)
	bi.Similarity, bi.Scale = arch.Dot, .1 // vectors are about 8 long
	bi.Tokenizer, bi.MaxLength, cross.Tokenizer, cross.MaxLength = tok, c.Positions, tok, c.Positions
	for _, p := range cross.Params() {
		if len(p.Dims) == 2 {
			p.Init = p.Normal(Seed, c.InitStd)
		}
	}
	share(bi.Params(), cross.Encoder.Params())
	for i, m := range []train.Model{bi, cross} {
		done, err := stages[i].run(ctx, be, m, l, report)
		if err != nil {
			return nil, fmt.Errorf("base: %s: %w", stages[i].name, err)
		}
		if !done {
			return nil, nil
		}
		if i == 0 {
			share(cross.Encoder.Params(), bi.Params())
		}
	}
	share(bi.Params(), cross.Encoder.Params())
	return bi.Params(), nil
}

// share makes the parameters of one encoder start from the values of another's, which come in the
// same order.
func share(to, from []*nn.Param) {
	for i, p := range to {
		p.Init = from[i].Init
	}
}

// run trains m; done is false if report stopped it.
func (s stage) run(ctx context.Context, be backend.Backend, m train.Model, l *lingua.Language, report func(Step) bool) (done bool, err error) {
	c := train.Defaults()
	c.Backend, c.Batch, c.LR, c.Seed, c.Dropout = be, batch, s.lr, Seed, false
	r, err := train.Start(ctx, m, loss.Listwise{}, train.Data{Train: s.halves(l)}, c)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for step := range r.Steps() {
		if !report(Step{s.name, step}) {
			return false, r.Err()
		}
	}
	return true, r.Err()
}

// halves are the examples of a stage: the first half of a text, and as candidates its second half and
// those of other texts. Every second one of these shares a word with the first half, so that to have
// words in common says nothing.
func (s stage) halves(l *lingua.Language) iter.Seq2[data.Example, error] {
	return func(yield func(data.Example, error) bool) {
		texts := make([]lingua.Text, s.texts)
		with := map[string][]int{} // texts whose second half has a word
		for i := range texts {
			texts[i] = l.Text(s.name, i)
			for w := range strings.FieldsSeq(texts[i].Halves[1]) {
				with[w] = append(with[w], i)
			}
		}
		for i, t := range texts {
			n := uint64(0)
			draw := func(of int) int {
				n++
				return int(philox.Uint64(Seed, s.name+" others "+strconv.Itoa(i), n) % uint64(of))
			}
			words := slices.DeleteFunc(strings.Fields(t.Halves[0]), func(w string) bool {
				_, means := l.Concept(w)
				return !means || len(with[w]) == 0
			})
			x := data.Example{ID: strconv.Itoa(i), Query: t.Halves[0]}
			add := func(id int, label float32) {
				x.Candidates = append(x.Candidates, data.Candidate{ID: strconv.Itoa(len(x.Candidates)), Text: texts[id].Halves[1], Label: label})
			}
			add(i, 1)
			for len(x.Candidates) < choices {
				o := draw(s.texts)
				if len(x.Candidates)%2 == 0 && len(words) > 0 {
					same := with[words[draw(len(words))]]
					o = same[draw(len(same))]
				}
				if o != i {
					add(o, 0)
				}
			}
			if !yield(x, nil) {
				return
			}
		}
	}
}
