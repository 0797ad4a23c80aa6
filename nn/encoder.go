package nn

import (
	"fmt"
	"strconv"

	"rung/nn/graph"
)

// An Encoder is BERT, DistilBERT or ELECTRA over packed sequences (Devlin et al. 2019, Sanh et al.
// 2019, Clark et al. 2020): they differ in names, token types and a projection.
type Encoder struct {
	Config         Config
	Prefix         string // of all paths, with its dot: "bert." in a classifier, "" by itself
	Word, Position *Param // (V,D), (P,D)
	Type           *Param // (Y,D), nil where there are no token types
	Norm           *LayerNorm
	Project        Layer // nil, or from the width of embeddings to D
	Blocks         []*Block
}

// A Block is self-attention and a feed-forward layer, each with its residual and LayerNorm.
type Block struct {
	Path                 string
	Query, Key, Value    Layer
	Out                  Layer
	Up, Down             Layer
	AttnNorm, OutNorm    *LayerNorm
	heads                int
	dropout, attnDropout float64
	outDropout           float64 // of the output of attention
	queryPath, keyPath   string
	valuePath, outPath   string
	upPath, downPath     string
}

// names are the module paths of an encoder's kind, with %d for the layer.
type names struct{ layer, query, key, value, out, attnNorm, up, down, outNorm string }

var (
	bertNames = names{
		"encoder.layer.", "attention.self.query", "attention.self.key", "attention.self.value",
		"attention.output.dense", "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm",
	}
	distilNames = names{
		"transformer.layer.", "attention.q_lin", "attention.k_lin", "attention.v_lin",
		"attention.out_lin", "sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm",
	}
)

// NewEncoder makes the layers that c describes. Every path begins with prefix.
func NewEncoder(c Config, prefix string) *Encoder {
	e := &Encoder{Config: c, Prefix: prefix}
	table := func(name string, rows int) *Param {
		return &Param{Path: prefix + "embeddings." + name + ".weight", Dims: []int{rows, c.Embedding}, Trainable: true}
	}
	e.Word, e.Position = table("word_embeddings", c.Vocab), table("position_embeddings", c.Positions)
	if c.Types > 0 {
		e.Type = table("token_type_embeddings", c.Types)
	}
	e.Norm = NewLayerNorm(prefix+"embeddings.LayerNorm", c.Embedding, c.Eps)
	if c.Embedding != c.Hidden {
		e.Project = NewLinear(prefix+"embeddings_project", c.Embedding, c.Hidden, true)
	}
	n, outDropout := bertNames, c.Dropout
	if c.ModelType == "distilbert" { // which drops only probabilities of attention
		n, outDropout = distilNames, 0
	}
	for l := range c.Layers {
		p := prefix + n.layer + strconv.Itoa(l) + "."
		d := c.Hidden
		e.Blocks = append(e.Blocks, &Block{
			Path: p, heads: c.Heads, dropout: c.Dropout, attnDropout: c.AttnDrop, outDropout: outDropout,
			queryPath: p + n.query, keyPath: p + n.key, valuePath: p + n.value, outPath: p + n.out, upPath: p + n.up, downPath: p + n.down,
			Query: NewLinear(p+n.query, d, d, true), Key: NewLinear(p+n.key, d, d, true), Value: NewLinear(p+n.value, d, d, true),
			Out: NewLinear(p+n.out, d, d, true), AttnNorm: NewLayerNorm(p+n.attnNorm, d, c.Eps),
			Up: NewLinear(p+n.up, d, c.FF, true), Down: NewLinear(p+n.down, c.FF, d, true), OutNorm: NewLayerNorm(p+n.outNorm, d, c.Eps),
		})
	}
	return e
}

// Forward returns the last hidden state (T,D).
func (e *Encoder) Forward(p *Pass) graph.E {
	x := e.embed(p)
	for _, b := range e.Blocks {
		x = b.Forward(p, x)
	}
	return x
}

// embed is the embedding layer: (T) ids to (T,D).
func (e *Encoder) embed(p *Pass) graph.E {
	var types graph.E
	if e.Type != nil {
		types = p.Weight(e.Type)
	}
	x := p.Embed(p.IDs, p.Pos, p.Types, p.Weight(e.Word), p.Weight(e.Position), types)
	x = p.Dropout(e.Norm.Forward(p, x), e.Config.Dropout, e.Prefix+"embeddings")
	if e.Project != nil {
		x = e.Project.Forward(p, x)
	}
	return x
}

// Forward applies the block to x (T,D).
func (b *Block) Forward(p *Pass, x graph.E) graph.E {
	rate := 0.0
	if p.Train {
		rate = b.attnDropout
	}
	q, k, v := b.Query.Forward(p, x), b.Key.Forward(p, x), b.Value.Forward(p, x)
	a := p.Attention(q, k, v, p.Offsets, p.Keys, b.heads, rate, Site(b.Path+"attention.probabilities"))
	a = p.Dropout(b.Out.Forward(p, a), b.outDropout, b.outPath)
	x = b.AttnNorm.Forward(p, p.Add(a, x))
	h := p.GELU(b.Up.Forward(p, x)) // (T,F)
	h = p.Dropout(b.Down.Forward(p, h), b.dropout, b.downPath)
	return b.OutNorm.Forward(p, p.Add(h, x))
}

// Params are all parameters, in the order of the computation.
func (e *Encoder) Params() []*Param {
	ps := []*Param{e.Word, e.Position}
	if e.Type != nil {
		ps = append(ps, e.Type)
	}
	ps = append(ps, e.Norm.Params()...)
	if e.Project != nil {
		ps = append(ps, e.Project.Params()...)
	}
	for _, b := range e.Blocks {
		for _, l := range []Layer{b.Query, b.Key, b.Value, b.Out, b.AttnNorm, b.Up, b.Down, b.OutNorm} {
			ps = append(ps, l.Params()...)
		}
	}
	return ps
}

// Slots are the linear layers, by module path.
func (e *Encoder) Slots() []Slot {
	var s []Slot
	if e.Project != nil {
		s = append(s, Slot{e.Prefix + "embeddings_project", &e.Project})
	}
	for _, b := range e.Blocks {
		s = append(s, Slot{b.queryPath, &b.Query}, Slot{b.keyPath, &b.Key}, Slot{b.valuePath, &b.Value},
			Slot{b.outPath, &b.Out}, Slot{b.upPath, &b.Up}, Slot{b.downPath, &b.Down})
	}
	return s
}

// Pooling turns the tokens of a sequence into one vector.
type Pooling string

// The poolings, by the names of sentence-transformers.
const (
	CLS  Pooling = "cls"
	Mean Pooling = "mean"
	Max  Pooling = "max"
)

// ParsePooling reads the name of a pooling.
func ParsePooling(s string) (Pooling, error) {
	switch p := Pooling(s); p {
	case CLS, Mean, Max:
		return p, nil
	}
	return "", fmt.Errorf("nn: pooling %q is not supported, only cls, mean, max", s)
}

// Forward pools x (T,D) to (N,D).
func (k Pooling) Forward(p *Pass, x graph.E) graph.E {
	switch k {
	case CLS:
		return p.First(x, p.Offsets)
	case Max:
		return p.Max(x, p.Offsets)
	}
	return p.Mean(x, p.Offsets)
}
