package arch

import (
	"context"
	"fmt"
	"slices"

	"rung/nn"
)

// Options are what a caller may ask of a model that it opens. Zero values leave things as the directory
// has them.
type Options struct {
	Labels     int        // cross-encoder: classes; a head with another number is refused. 0: as the directory, else 1
	MaxLength  int        // tokens of a sequence. 0: as the directory, else 256
	Pooling    nn.Pooling // bi-encoder. "": as the directory, else the mean
	Similarity Similarity // bi-encoder. "": as the directory, else the cosine
	Normalize  *bool      // bi-encoder: vectors of length 1. nil: as the directory
	Scale      float64    // bi-encoder: what Outputs.Scores are multiplied by, for objectives that want it. 0: 1
	Domain     string     // of texts that name none, where an adapter routes by it
	Dropout    *float64   // of all dropouts. nil: as config.json
	Seed       uint64     // of parameters that the directory lacks
}

// defaultLength is the tokens of a sequence where nothing says otherwise.
const defaultLength = 256

// Open opens a model as what its directory holds: a *Cross where that has a sequence classifier, else a
// *Bi. ref is a directory, or "hf:org/name@revision".
func Open(ctx context.Context, ref string, o Options) (Model, error) {
	s, err := openSource(ctx, ref)
	if err != nil {
		return nil, err
	}
	if s.isCross() {
		return finish(s, o, func(s *source, o Options) (Model, error) { return asModel(s.cross(o)) })
	}
	return finish(s, o, func(s *source, o Options) (Model, error) { return asModel(s.bi(o)) })
}

// asModel keeps the nil of a model that was not made from becoming a Model that is not nil.
func asModel[M Model](m M, err error) (Model, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}

// OpenCross opens a cross-encoder, or an encoder as one: what its head lacks is then created, drawn
// from N(0, initializer_range) by name and seed, with zero biases.
func OpenCross(ctx context.Context, ref string, o Options) (*Cross, error) {
	s, err := openSource(ctx, ref)
	if err != nil {
		return nil, err
	}
	return finish(s, o, (*source).cross)
}

// OpenBi opens a bi-encoder, in the layout of sentence-transformers, or the encoder of any model as
// one.
func OpenBi(ctx context.Context, ref string, o Options) (*Bi, error) {
	s, err := openSource(ctx, ref)
	if err != nil {
		return nil, err
	}
	return finish(s, o, (*source).bi)
}

// finish makes a model and closes the source if that fails.
func finish[M any](s *source, o Options, open func(*source, Options) (M, error)) (M, error) {
	var none M
	if d := o.Dropout; d != nil {
		if !(*d >= 0 && *d < 1) {
			_ = s.close()
			return none, fmt.Errorf("arch: dropout %v is not in [0,1)", *d)
		}
		s.config.Dropout, s.config.AttnDrop, s.config.HeadDrop = *d, *d, *d
	}
	m, err := open(s, o)
	if err != nil {
		_ = s.close()
		return none, err
	}
	return m, nil
}

// isCross tells whether the directory holds a cross-encoder.
func (s *source) isCross() bool {
	switch {
	case s.card != nil:
		return s.card.Architecture == CrossEncoder
	case s.st.modelType != "":
		return s.st.modelType == "CrossEncoder"
	case len(s.modules) > 1:
		return false
	}
	return s.config.Head
}

// text makes the part of a model that reads texts. fallback is the length where the directory's own is
// not for this use.
func (s *source) text(o Options, own bool) (Text, error) {
	t := Text{Tokenizer: s.tok, MaxLength: o.MaxLength, Domain: o.Domain, src: s, seed: o.Seed}
	limit := s.config.Positions
	if o.MaxLength < 0 || o.MaxLength > limit {
		return t, fmt.Errorf("arch: %s: a length of %d, but the encoder has %d positions", s.dir, o.MaxLength, limit)
	}
	if t.MaxLength == 0 {
		t.MaxLength = min(s.length(own), limit)
	}
	const least = 3 // a pair's special tokens
	if t.MaxLength < least {
		return t, fmt.Errorf("arch: %s: a length of %d tokens leaves no room for a text", s.dir, t.MaxLength)
	}
	return t, nil
}

// length is the directory's own: what was saved by this package, then max_seq_length, then the
// tokenizer's model_max_length. For another use than the directory's it is at most the default.
func (s *source) length(own bool) int {
	n := s.tok.MaxLength()
	switch {
	case s.card != nil && s.card.MaxLength > 0:
		n = s.card.MaxLength
	case s.seqLen > 0:
		n = s.seqLen
	}
	if own && n > 0 {
		return n
	}
	if n == 0 {
		return defaultLength
	}
	return min(n, defaultLength)
}

func (s *source) cross(o Options) (*Cross, error) {
	labels, has := 1, s.config.Head
	if has {
		labels = s.config.Labels
	}
	if o.Labels < 0 || o.Labels > 1<<16 {
		return nil, fmt.Errorf("arch: %d labels", o.Labels)
	}
	if o.Labels > 0 {
		labels = o.Labels
	}
	m := NewCross(s.config, labels)
	var err error
	if m.Text, err = s.text(o, has || s.isCross()); err != nil {
		return nil, err
	}
	if m.transform = s.st.transform; m.transform == "" || !has {
		m.transform = defaultTransform(labels)
	}
	head := m.head.params()
	err = s.bind(m.Params(), o.Seed, func(path string) bool {
		return !has && slices.ContainsFunc(head, func(p *nn.Param) bool { return p.Path == path })
	})
	if err == nil {
		_, err = s.rest()
	}
	return m, err
}

// defaultTransform is that of sentence-transformers: a sigmoid for a single score.
func defaultTransform(labels int) Transform {
	if labels == 1 {
		return Sigmoid
	}
	return Identity
}

func (s *source) bi(o Options) (*Bi, error) {
	m := NewBi(s.config, nn.Mean)
	var err error
	if m.Text, err = s.text(o, len(s.modules) > 1 || s.card != nil && s.card.Architecture == BiEncoder); err != nil {
		return nil, err
	}
	if m.Similarity, m.QueryPrompt, m.PassagePrompt = s.st.similarity, s.st.query, s.st.passage; m.Similarity == "" {
		m.Similarity = Cosine
	}
	if o.Similarity != "" {
		if m.Similarity, err = parseSimilarity(string(o.Similarity)); err != nil {
			return nil, fmt.Errorf("arch: %w", err)
		}
	}
	if o.Scale != 0 {
		m.Scale = o.Scale
	}
	if o.Pooling != "" {
		m.Pooling, err = nn.ParsePooling(string(o.Pooling))
	} else {
		m.Pooling, err = s.pooling()
	}
	if err == nil {
		err = s.readHead(m)
	}
	if err == nil && o.Normalize != nil {
		m.normalize(*o.Normalize)
	}
	if err != nil {
		return nil, fmt.Errorf("arch: %s: %w", s.dir, err)
	}
	never := func(string) bool { return false }
	if err := s.bind(m.Encoder.Params(), o.Seed, never); err != nil {
		return nil, err
	}
	m.carried, err = s.rest()
	return m, err
}
