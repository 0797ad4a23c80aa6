package arch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"rung/data"
	"rung/data/token"
	"rung/nn"
	"rung/nn/graph"
)

// A Model is a ranker: layers, the tokenizer and lengths that turn texts into what they read, and how
// both are saved. *Cross and *Bi are Models.
type Model interface {
	nn.Model
	// Slots are the layers that an adapter may wrap.
	Slots() []nn.Slot
	// Attach tells the model that its layers are wrapped: from then on Save writes the adapter.
	Attach(a Adapter)
	// Encode appends the sequences of an example, and its unit.
	Encode(e *data.Encoded, x data.Example) error
	// ScorePairs returns what a pair's text is worth, for each pair: logits (C) of a cross-encoder, or
	// the similarity (1) of a bi-encoder. s scores with this model.
	ScorePairs(ctx context.Context, s *Scorer, pairs []Pair) ([][]float32, error)
	// Transform is what a score goes through before it is shown.
	Transform() Transform
	// Save writes the model, with the values of s, into the directory dir: as a rule the one that
	// checkpoints.Save hands out. With an adapter attached, it writes the adapter.
	Save(dir string, s *graph.Store) error
	// SaveValues writes the model without its adapter, with the value of each parameter by its path:
	// as a rule what merging the adapter gave.
	SaveValues(dir string, value func(path string) ([]float32, error)) error
	// Fingerprint says what the model is: a run is resumed only with the same.
	Fingerprint() string
	// Settings are what its adapter was made by, by key; nil: it has none.
	Settings() map[string]any
	// Claim has later Saves write what is claimed of the privacy of the training data.
	Claim(c json.RawMessage)
	// Couples says in what the gradient of a unit depends on others of its batch, "" if in nothing.
	Couples() string
	// Origin is where the model was opened from.
	Origin() Origin
	// WeightsHash is the SHA-256 of the weights that it was opened with, "" for none.
	WeightsHash() (string, error)
	// Card is what rank.json says of the directory that the model was opened from, nil without one.
	Card() *Card
	// Close frees the mapped weights: after that, no value can be read from the directory any more.
	// Stores that were filled stay as they are.
	Close() error
	// text is the part that reads texts.
	text() *Text
}

// An Adapter is what wraps the layers of a model.
type Adapter interface {
	// Save writes the adapter's files, with the values of s, into the directory dir. base is the model
	// that it belongs to.
	Save(dir string, base Base, s *graph.Store) error
	// Fingerprint says what the adapter computes beside its parameters: scales, dropout.
	Fingerprint() string
}

// An Origin is where a model was opened from.
type Origin struct {
	Dir string // directory
	Ref string // "hf:org/name@commit" of a model of the hub, else ""
}

// A Pair is a query and a passage.
type Pair struct {
	Query   string `json:"query"`
	Passage string `json:"passage"`
	Domain  string `json:"domain,omitempty"` // "": the model's
}

// A Text is what reads texts: embedded in every Model.
type Text struct {
	Tokenizer *token.Tokenizer
	MaxLength int // tokens of a sequence, special tokens included; what is longer is cut and counted

	// Domain is the domain of texts that name none, where an adapter routes by it.
	Domain string

	src     *source
	adapter Adapter
	domains []string // those that the adapter knows; nil: it asks for none
	seed    uint64
	claim   json.RawMessage
}

// Claim has later Saves write what is claimed of the privacy of the training data, as JSON, into rank.json.
func (t *Text) Claim(c json.RawMessage) { t.claim = c }

// Couples says in what the gradient of a unit depends on other units of its batch through an adapter, "" if in nothing.
func (t *Text) Couples() string {
	if a, ok := t.adapter.(interface{ Couples() string }); ok {
		return a.Couples()
	}
	return ""
}

// Settings are what the adapter was made by, by key; nil: there is none, or it does not say.
func (t *Text) Settings() map[string]any {
	if a, ok := t.adapter.(interface{ Settings() map[string]any }); ok {
		return a.Settings()
	}
	return nil
}

// Attach tells the model that its layers are wrapped by a.
func (t *Text) Attach(a Adapter) {
	t.adapter, t.domains = a, nil
	if d, ok := a.(interface{ Domains() []string }); ok {
		t.domains = d.Domains()
	}
}

// Domains are the domains that an adapter routes by; nil: it does not.
func (t *Text) Domains() []string { return t.domains }

// domain is the number of a domain, for what an adapter routes by.
func (t *Text) domain(name string) (int32, error) {
	if t.domains == nil {
		return 0, nil
	}
	if name == "" {
		name = t.Domain
	}
	i := slices.Index(t.domains, name)
	switch {
	case name == "":
		return 0, fmt.Errorf("no domain, by which the adapter routes: want one of %s", strings.Join(t.domains, ", "))
	case i < 0:
		return 0, fmt.Errorf("domain %q: the adapter knows %s", name, strings.Join(t.domains, ", "))
	}
	return int32(i), nil
}

// Origin is where the model was opened from.
func (t *Text) Origin() Origin {
	if t.src == nil {
		return Origin{}
	}
	return Origin{Dir: t.src.dir, Ref: t.src.ref}
}

// Card is what rank.json says of the directory that the model was opened from, nil without one.
func (t *Text) Card() *Card {
	if t.src == nil {
		return nil
	}
	return t.src.card
}

// WeightsHash is the SHA-256 of the weights that the model was opened with, in hexadecimal: of names,
// types, shapes and bytes of the tensors in the order of their names, however they are sharded.
func (t *Text) WeightsHash() (string, error) {
	if t.src == nil {
		return "", nil
	}
	h, err := t.src.hash()
	if err != nil {
		return "", fmt.Errorf("arch: %s: %w", t.src.dir, err)
	}
	return h, nil
}

// Close frees the mapped weights.
func (t *Text) Close() error {
	if t.src == nil {
		return nil
	}
	return t.src.close()
}

// fingerprint is the SHA-256 of what decides the course of a training run: what is given, lengths,
// tokenizer, adapter, parameters, and the weights that they start from.
func (t *Text) fingerprint(ps []*nn.Param, what ...any) string {
	h := sha256.New()
	fmt.Fprintf(h, "%+v\n%d\n", what, t.MaxLength)
	if t.Tokenizer != nil {
		io.WriteString(h, t.Tokenizer.Hash()+"\n")
	}
	if t.adapter != nil {
		io.WriteString(h, t.adapter.Fingerprint()+"\n")
	}
	created := false
	for _, p := range ps {
		fmt.Fprintf(h, "%q %v %t %t\n", p.Path, p.Dims, p.Trainable, p.Created)
		created = created || p.Created
	}
	if created {
		fmt.Fprintf(h, "seed %d\n", t.seed)
	}
	sum, err := t.WeightsHash()
	if err != nil { // it equals no fingerprint of readable weights
		return err.Error()
	}
	io.WriteString(h, sum)
	return hex.EncodeToString(h.Sum(nil))
}
