package arch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"

	"rung/checkpoints"
	"rung/data/token"
	"rung/nn/backend"
)

// CardFile is the file that says what a saved directory holds, beside what other programs read.
const CardFile = "rank.json"

// The architectures, as rank.json names them.
const (
	CrossEncoder = "cross-encoder"
	BiEncoder    = "bi-encoder"
)

// A Card is rank.json: what a saved directory holds, and scores that prove it.
type Card struct {
	Version      int        `json:"version"`
	Architecture string     `json:"architecture"`
	Labels       int        `json:"labels,omitempty"`     // of a cross-encoder
	Pooling      string     `json:"pooling,omitempty"`    // of a bi-encoder
	Head         []string   `json:"head,omitempty"`       // modules after pooling
	Dim          int        `json:"dim,omitempty"`        // of a bi-encoder's vectors
	Similarity   Similarity `json:"similarity,omitempty"` // of a bi-encoder
	MaxLength    int        `json:"max_length"`           // tokens of a sequence
	Transform    Transform  `json:"score_transform"`
	Tokenizer    string     `json:"tokenizer_sha256"`
	Base         *Base      `json:"base,omitempty"` // of an adapter
	// Privacy is what is claimed of how little the weights tell of single training units: the claim of package
	// train/privacy. Nil: nothing is.
	Privacy json.RawMessage `json:"privacy,omitempty"`
	Golden  Golden          `json:"golden"`
}

// A Base is the model that an adapter belongs to.
type Base struct {
	Ref    string `json:"ref,omitempty"`  // "hf:org/name@commit" of a model of the hub
	Path   string `json:"path,omitempty"` // else its directory, relative to the adapter's, with slashes
	SHA256 string `json:"sha256"`         // of its weights: see Text.WeightsHash
}

// Golden are scores of built-in texts.
type Golden struct {
	Precision string       `json:"precision"` // of the arithmetic: float32
	Pairs     []GoldenPair `json:"pairs"`
}

// A GoldenPair is a pair and what ScorePairs gave for it.
type GoldenPair struct {
	Pair
	Scores []float32 `json:"scores"`
}

// cardVersion is that of the format.
const cardVersion = 1

// ParseCard reads a rank.json.
func ParseCard(b []byte) (*Card, error) {
	c := &Card{}
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(c); err != nil {
		return nil, fmt.Errorf("%s: %w", CardFile, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: more follows the first value", CardFile)
	}
	switch {
	case c.Version != cardVersion:
		return nil, fmt.Errorf("%s: version %d, want %d", CardFile, c.Version, cardVersion)
	case c.Architecture != CrossEncoder && c.Architecture != BiEncoder:
		return nil, fmt.Errorf("%s: architecture %q is not supported, only %s, %s", CardFile, c.Architecture, CrossEncoder, BiEncoder)
	case c.Transform != Identity && c.Transform != Sigmoid:
		return nil, fmt.Errorf("%s: score_transform %q, want %s or %s", CardFile, c.Transform, Identity, Sigmoid)
	case c.MaxLength < 0:
		return nil, fmt.Errorf("%s: max_length %d", CardFile, c.MaxLength)
	}
	return c, nil
}

// CheckTokenizer refuses a tokenizer that is not the one that the card was written for.
func (c *Card) CheckTokenizer(t *token.Tokenizer) error {
	if h := t.Hash(); c.Tokenizer != "" && c.Tokenizer != h {
		return fmt.Errorf("%s: the tokenizer's hash is %.12s…, not %.12s…: its files have changed since the model was saved", CardFile, h, c.Tokenizer)
	}
	return nil
}

// Tolerance is how far golden scores may be off, relative to the greater of 1 and their size;
// ToleranceRounded is that of a backend which rounds the operands of matrix products, to tf32 or bf16.
const (
	Tolerance        = 1e-4
	ToleranceRounded = 2e-2
)

// tolerance is that of a backend. One that rounds says that it is not exact.
func tolerance(be backend.Backend) float64 {
	if r, ok := be.(interface{ Exact() bool }); ok && !r.Exact() {
		return ToleranceRounded
	}
	return Tolerance
}

// ErrScores is wrapped where golden scores are not what the model gives.
var ErrScores = errors.New("the model does not score as it did when it was saved")

// Check scores the card's texts and compares. s scores with m.
func (c *Card) Check(ctx context.Context, m Model, s *Scorer) error {
	pairs := make([]Pair, len(c.Golden.Pairs))
	for i, p := range c.Golden.Pairs {
		pairs[i] = p.Pair
	}
	got, err := m.ScorePairs(ctx, s, pairs)
	if err != nil {
		return err
	}
	for i, p := range c.Golden.Pairs {
		if len(got[i]) != len(p.Scores) {
			return fmt.Errorf("arch: %s: golden pair %d: %d scores, want %d: %w", CardFile, i, len(got[i]), len(p.Scores), ErrScores)
		}
		for k, want := range p.Scores {
			off := math.Abs(float64(got[i][k]) - float64(want))
			if !(off <= tolerance(s.be)*max(1, math.Abs(float64(want)))) { // NaN is off
				return fmt.Errorf("arch: %s: golden pair %d: score %g, want %g: %w", CardFile, i, got[i][k], want, ErrScores)
			}
		}
	}
	return nil
}

// measure scores the built-in texts.
func measure(ctx context.Context, m Model, s *Scorer) (Golden, error) {
	g := Golden{Precision: "float32"}
	texts := slices.Clone(goldenTexts)
	for i, d := 0, m.text().Domains(); len(d) > 0 && i < len(texts); i++ { // each domain in turn
		texts[i].Domain = d[i%len(d)]
	}
	got, err := m.ScorePairs(ctx, s, texts)
	if err != nil {
		return g, err
	}
	for i, p := range texts {
		for _, x := range got[i] {
			if f := float64(x); math.IsNaN(f) || math.IsInf(f, 0) {
				return g, fmt.Errorf("arch: the model scores %v: its weights are not fit to be saved", x)
			}
		}
		g.Pairs = append(g.Pairs, GoldenPair{p, got[i]})
	}
	return g, nil
}

// goldenTexts are made up. They differ in length, script and case, so that a change of tokenizer,
// lengths, positions or any weight shows.
var goldenTexts = []Pair{
	{Query: "how do bees find their way home", Passage: "Bees remember landmarks and the position of the sun, and follow scents close to the hive."},
	{Query: "how do bees find their way home", Passage: "The recipe asks for two spoons of honey and a pinch of salt."},
	{Query: "height of the tallest lighthouse", Passage: "The tallest lighthouse of the coast rises 64.5 metres above the rocks (lamp included)."},
	{Query: "height of the tallest lighthouse", Passage: "Lighthouse keepers wrote down wind, tide and passing ships every four hours."},
	{Query: "Why does bread rise?", Passage: "Yeast eats sugar and gives off gas; the dough holds the bubbles, so the loaf grows."},
	{Query: "Why does bread rise?", Passage: "Prices of wheat and of bread rose last winter."},
	{Query: "replace a bicycle chain", Passage: "Shift to the smallest sprocket, open the chain at its link with a chain tool, and thread the new one through the derailleur before closing it; then turn the pedals backwards and look for a stiff link."},
	{Query: "naïve façade café", Passage: "The café behind the old façade opens at 7, says the naïve painter's sign."},
	{Query: "東京の天気", Passage: "明日の東京は晴れ、午後から風が強くなる。"},
	{Query: "x", Passage: ""},
	{Query: "", Passage: "An answer without a question."},
	{Query: "is the long passage cut", Passage: "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty, and again: one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty, and once more: one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"},
}

// ReadCard reads the rank.json of a directory, nil where there is none.
func ReadCard(dir string) (*Card, error) {
	d, err := checkpoints.OpenDir(dir)
	if err != nil {
		return nil, fmt.Errorf("arch: %w", err)
	}
	defer d.Close()
	b, err := d.ReadFile(CardFile, maxJSON)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("arch: %w", err)
	}
	c, err := ParseCard(b)
	if err != nil {
		return nil, fmt.Errorf("arch: %s: %w", dir, err)
	}
	return c, nil
}

// CheckBase refuses a model whose weights or tokenizer are not those of the base of the card's adapter.
func (c *Card) CheckBase(m Model) error {
	if err := c.CheckTokenizer(m.text().Tokenizer); err != nil {
		return err
	}
	if c.Base == nil || c.Base.SHA256 == "" {
		return nil
	}
	h, err := m.text().WeightsHash()
	if err != nil {
		return err
	}
	if h != c.Base.SHA256 {
		return fmt.Errorf("%s: the weights of %s have the hash %.12s…, but the adapter was trained on %.12s…", CardFile, m.Origin().Dir, h, c.Base.SHA256)
	}
	return nil
}
