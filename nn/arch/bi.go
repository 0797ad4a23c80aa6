package arch

import (
	"context"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"

	"rung/checkpoints"
	"rung/data"
	"rung/data/token"
	"rung/nn"
)

// Bi is a bi-encoder: query and passages are sequences of their own, each becomes one vector, and a
// score is how similar two are (Reimers and Gurevych 2019, Sentence-BERT).
type Bi struct {
	Text
	Encoder    *nn.Encoder
	Pooling    nn.Pooling
	Head       []Stage // after pooling, in order
	Similarity Similarity
	Scale      float64 // Outputs.Scores are similarities times this: the inverse of a temperature

	QueryPrompt, PassagePrompt string // put before texts

	carried []string // tensors of the directory that are kept when the model is saved
}

// A Stage is a module after pooling: a Dense layer, or L2 normalisation.
type Stage struct {
	Name       string   // folder in the directory, "2_Dense"
	Dense      nn.Layer // nil: the stage normalises
	Activation string   // of Dense: Identity, Tanh, ReLU, GELU, Sigmoid
	In, Out    int      // of Dense
	Bias       bool     // of Dense
}

// NewBi makes the layers of a bi-encoder that compares by cosine; every value is drawn or zero until a
// checkpoint gives it.
func NewBi(c nn.Config, k nn.Pooling) *Bi {
	return &Bi{Encoder: nn.NewEncoder(c, ""), Pooling: k, Similarity: Cosine, Scale: 1}
}

// readHead reads the modules after pooling.
func (s *source) readHead(m *Bi) error {
	width := m.Encoder.Config.Hidden
	for i, ref := range s.modules {
		switch ref.class() {
		case "Normalize":
			m.Head = append(m.Head, Stage{Name: fmt.Sprintf("%d_Normalize", i)})
		case "Dense":
			st, err := s.dense(ref, fmt.Sprintf("%d_Dense", i), width)
			if err != nil {
				return fmt.Errorf("%s: %w", ref.Path, err)
			}
			m.Head, width = append(m.Head, st), st.Out
		}
	}
	return nil
}

// dense reads a Dense module on vectors of width values, and makes its parameters start from its file.
func (s *source) dense(ref moduleRef, name string, width int) (Stage, error) {
	b, err := s.files.ReadFile(path.Join(ref.Path, configFile), maxJSON)
	if err != nil {
		return Stage{}, err
	}
	c, act, err := parseDense(b)
	if err != nil {
		return Stage{}, err
	}
	if c.In != width {
		return Stage{}, fmt.Errorf("it reads vectors of %d, but they have %d", c.In, width)
	}
	w, err := s.files.Weights(path.Join(ref.Path, checkpoints.ModelFile))
	if err != nil {
		return Stage{}, err
	}
	s.parts = append(s.parts, w)
	bias := c.Bias == nil || *c.Bias
	l := nn.NewLinear(name+".linear", c.In, c.Out, bias)
	for _, p := range l.Params() {
		t, err := w.Tensor(strings.TrimPrefix(p.Path, name+"."))
		if err != nil {
			return Stage{}, err
		}
		if err := startFrom(p, t, w); err != nil {
			return Stage{}, err
		}
	}
	return Stage{Name: name, Dense: l, Activation: act, In: c.In, Out: c.Out, Bias: bias}, nil
}

// Forward computes embeddings (N,D) and scores (B,K).
func (m *Bi) Forward(p *nn.Pass) nn.Outputs {
	x := m.Pooling.Forward(p, m.Encoder.Forward(p)) // (N,D)
	for _, st := range m.Head {
		switch {
		case st.Dense == nil:
			x = p.Normalize(x)
		case st.Activation == "Identity":
			x = st.Dense.Forward(p, x)
		default:
			x = p.Unary(activations[st.Activation], st.Dense.Forward(p, x))
		}
	}
	o := nn.Outputs{Embed: x}
	if m.Similarity == Cosine && !m.normalised() {
		x = p.Normalize(x)
	}
	o.Scores = p.PairDot(x, p.Queries(), p.Slots()) // (B,K)
	if m.Scale != 1 {
		o.Scores = p.Scale(o.Scores, m.Scale)
	}
	return o
}

// normalised tells whether vectors come out with length 1.
func (m *Bi) normalised() bool { return len(m.Head) > 0 && m.Head[len(m.Head)-1].Dense == nil }

// normalize makes vectors come out with length 1, or as they are.
func (m *Bi) normalize(yes bool) {
	m.Head = slices.DeleteFunc(m.Head, func(st Stage) bool { return st.Dense == nil })
	if yes {
		m.Head = append(m.Head, Stage{Name: fmt.Sprintf("%d_Normalize", 2+len(m.Head))})
	}
}

// Dim is the width of the vectors.
func (m *Bi) Dim() int {
	for _, st := range slices.Backward(m.Head) {
		if st.Dense != nil {
			return st.Out
		}
	}
	return m.Encoder.Config.Hidden
}

// Params are all parameters.
func (m *Bi) Params() []*nn.Param {
	ps := m.Encoder.Params()
	for _, st := range m.Head {
		if st.Dense != nil {
			ps = append(ps, st.Dense.Params()...)
		}
	}
	return ps
}

// Slots are the layers that an adapter may wrap.
func (m *Bi) Slots() []nn.Slot {
	slots := m.Encoder.Slots()
	for i := range m.Head {
		if m.Head[i].Dense != nil {
			slots = append(slots, nn.Slot{Path: m.Head[i].Name + ".linear", Layer: &m.Head[i].Dense})
		}
	}
	return slots
}

// Transform is none: a similarity is shown as it is.
func (m *Bi) Transform() Transform { return Identity }

// A Role is what a text is to a bi-encoder.
type Role string

// The roles.
const (
	Query   Role = "query"
	Passage Role = "passage"
)

// Encode appends the query's sequence, one sequence a candidate, and their unit. What is longer than
// MaxLength is cut, and counted.
func (m *Bi) Encode(e *data.Encoded, x data.Example) error {
	u := data.Unit{ID: x.ID, User: x.User}
	var enc token.Encoding
	add := func(slot int32, text string) (int32, error) {
		err := m.Tokenizer.Single(&enc, text, m.MaxLength)
		e.Truncated += enc.Truncated
		return e.Add(x.ID, slot, enc.IDs, len(enc.IDs)), err
	}
	var err error
	if u.Domain, err = m.domain(x.Domain); err != nil {
		return fmt.Errorf("arch: %w", err)
	}
	if u.Query, err = add(data.None, m.QueryPrompt+x.Query); err != nil {
		return fmt.Errorf("arch: query: %w", err)
	}
	for i, c := range x.Candidates {
		s, err := add(int32(i), m.PassagePrompt+c.Text)
		if err != nil {
			return fmt.Errorf("arch: candidate %q: %w", c.ID, err)
		}
		u.Seqs, u.IDs, u.Labels = append(u.Seqs, s), append(u.IDs, c.ID), append(u.Labels, c.Label)
	}
	e.Units = append(e.Units, u)
	return nil
}

// Embed returns the vector (D) of each text.
func (m *Bi) Embed(ctx context.Context, s *Scorer, texts []string, r Role) ([][]float32, error) {
	return m.embed(ctx, s, texts, nil, r)
}

// embed is Embed of texts of domains; nil: all are of the model's.
func (m *Bi) embed(ctx context.Context, s *Scorer, texts, domains []string, r Role) ([][]float32, error) {
	prompt, of := "", ""
	switch r {
	case Query:
		prompt = m.QueryPrompt
	case Passage:
		prompt = m.PassagePrompt
	default:
		return nil, fmt.Errorf("arch: role %q: want query or passage", r)
	}
	out := make([][]float32, 0, len(texts))
	var enc token.Encoding
	for from := 0; from < len(texts); from += pairsAtOnce {
		var e data.Encoded
		for i := from; i < min(from+pairsAtOnce, len(texts)); i++ {
			if domains != nil {
				of = domains[i]
			}
			domain, err := m.domain(of)
			if err != nil {
				return nil, fmt.Errorf("arch: %w", err)
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if err := m.Tokenizer.Single(&enc, prompt+texts[i], m.MaxLength); err != nil {
				return nil, fmt.Errorf("arch: %w", err)
			}
			e.Truncated += enc.Truncated
			e.Units = append(e.Units, data.Unit{Query: e.Add("", data.None, enc.IDs, len(enc.IDs)), Domain: domain})
		}
		v, err := s.Embed(ctx, &e)
		if err != nil {
			return nil, err
		}
		out = append(out, v...)
	}
	return out, nil
}

// ScorePairs returns the similarity (1) of each pair, without Scale. Each text is embedded once.
func (m *Bi) ScorePairs(ctx context.Context, s *Scorer, pairs []Pair) ([][]float32, error) {
	qs, ps := newTexts(), newTexts()
	q, p := make([]int, len(pairs)), make([]int, len(pairs))
	for i, x := range pairs {
		q[i], p[i] = qs.index(x.Query, x.Domain), ps.index(x.Passage, x.Domain)
	}
	u, err := m.embed(ctx, s, qs.list, qs.domains, Query)
	if err != nil {
		return nil, err
	}
	v, err := m.embed(ctx, s, ps.list, ps.domains, Passage)
	if err != nil {
		return nil, err
	}
	out := make([][]float32, len(pairs))
	for i := range pairs {
		out[i] = []float32{m.Similarity.Of(u[q[i]], v[p[i]])}
	}
	return out, nil
}

// texts is a list of texts and their domains, without repetitions.
type texts struct {
	list, domains []string
	at            map[[2]string]int
}

func newTexts() texts { return texts{at: map[[2]string]int{}} }

func (t *texts) index(s, domain string) int {
	key := [2]string{s, domain}
	i, ok := t.at[key]
	if !ok {
		i = len(t.list)
		t.list, t.domains, t.at[key] = append(t.list, s), append(t.domains, domain), i
	}
	return i
}

// Of compares two vectors, summing in float64; 0 where a cosine has no direction.
func (k Similarity) Of(u, v []float32) float32 {
	var dot, uu, vv float64
	for i, x := range u {
		y := float64(v[i])
		dot, uu, vv = dot+float64(x)*y, uu+float64(x)*float64(x), vv+y*y
	}
	if k == Cosine {
		dot /= max(math.Sqrt(uu), 1e-12) * max(math.Sqrt(vv), 1e-12)
	}
	return float32(dot)
}

// Fingerprint is the SHA-256 of configuration, lengths, pooling, tokenizer, parameters and starting
// weights.
func (m *Bi) Fingerprint() string {
	var stages []string
	for _, st := range m.Head {
		stages = append(stages, fmt.Sprint(st.Name, st.Activation, st.In, st.Out))
	}
	return m.fingerprint(m.Params(), BiEncoder, m.Encoder.Config, m.Pooling, stages, m.Similarity, m.Scale, m.QueryPrompt, m.PassagePrompt)
}
