package data

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
)

// None is the sequence of a query that has none of its own: a cross-encoder's is in its candidates'.
const None = int32(-1)

// Encoded is a data set as token ids: sequences end to end, and units over them. Units are what is
// drawn, weighed and, under privacy, protected.
type Encoded struct {
	IDs       []int32 // of all sequences
	First     []int32 // tokens of type 0, of each sequence; the rest are of type 1
	Off       []int   // first token of each sequence, and the end
	Keys      []int32 // what dropout knows each sequence by: a hash of query, slot and copy
	Units     []Unit
	Owners    int // those whose gradients are kept apart; 0: each unit is its own owner
	Truncated int // tokens that were cut
}

// A Unit is a query with its candidates, as sequences.
type Unit struct {
	ID     string // of the query
	User   string // whose it is, "" where nobody says
	Owner  int32  // counted from 0, where the data set has owners
	Query  int32  // the query's sequence, or None
	Seqs   []int32
	IDs    []string // of the candidates
	Labels []float32
	Domain int32 // of all its sequences: its number among those that a model knows
}

// Add appends a sequence of a query. slot is the candidate, None for the query itself.
func (e *Encoded) Add(query string, slot int32, ids []int32, first int) int32 {
	if len(e.Off) == 0 {
		e.Off = append(e.Off, 0)
	}
	e.IDs = append(e.IDs, ids...)
	e.Off, e.First = append(e.Off, len(e.IDs)), append(e.First, int32(first))
	e.Keys = append(e.Keys, Key(query, slot, 0))
	return int32(len(e.First) - 1)
}

// Key is what dropout knows a sequence by, so that its mask does not depend on the batch it is in.
func Key(query string, slot, copy int32) int32 {
	h := fnv.New32a()
	h.Write([]byte(query))
	for _, v := range []int32{slot, copy} {
		h.Write([]byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)})
	}
	return int32(h.Sum32())
}

// Len is the number of tokens of sequence s.
func (e *Encoded) Len(s int32) int { return e.Off[s+1] - e.Off[s] }

// Tokens is the number of tokens of all sequences of a unit.
func (e *Encoded) Tokens(u *Unit) int {
	n := 0
	if u.Query != None {
		n = e.Len(u.Query)
	}
	for _, s := range u.Seqs {
		n += e.Len(s)
	}
	return n
}

// Pairs is Σ L² over the sequences of units: what attention compares.
func (e *Encoded) Pairs(units []int) (n float64) {
	add := func(s int32) { n += float64(e.Len(s)) * float64(e.Len(s)) }
	for _, i := range units {
		u := &e.Units[i]
		if u.Query != None {
			add(u.Query)
		}
		for _, s := range u.Seqs {
			add(s)
		}
	}
	return n
}

// Rows returns the same sequences with one unit a candidate.
func (e *Encoded) Rows() *Encoded {
	r := *e
	r.Units = nil
	for _, u := range e.Units {
		for i := range u.Seqs {
			row := u
			row.Seqs, row.IDs, row.Labels = u.Seqs[i:i+1:i+1], u.IDs[i:i+1:i+1], u.Labels[i:i+1:i+1]
			r.Units = append(r.Units, row)
		}
	}
	return &r
}

// Sizes are the capacities that a batch of units needs.
type Sizes struct{ T, N, B, K int }

// Max is the greater of each.
func (s Sizes) Max(o Sizes) Sizes {
	return Sizes{max(s.T, o.T), max(s.N, o.N), max(s.B, o.B), max(s.K, o.K)}
}

// Sizes counts tokens, sequences, units and the candidates of the largest unit.
func (e *Encoded) Sizes(units []int) (s Sizes) {
	for _, i := range units {
		u := &e.Units[i]
		s.T, s.B, s.N = s.T+e.Tokens(u), s.B+1, s.N+len(u.Seqs)
		if u.Query != None {
			s.N++
		}
		s.K = max(s.K, len(u.Seqs))
	}
	return s
}

// ByUser returns the same sequences with the units of a user side by side, and users as owners. A unit of nobody is an
// error.
func (e *Encoded) ByUser() (*Encoded, error) {
	r := *e
	r.Units = slices.Clone(e.Units)
	owners := map[string]int32{}
	for i := range r.Units {
		u := &r.Units[i]
		if u.User == "" {
			return nil, fmt.Errorf("data: query %q has no user", u.ID)
		}
		o, ok := owners[u.User]
		if !ok {
			o = int32(len(owners))
			owners[u.User] = o
		}
		u.Owner = o
	}
	r.Owners = len(owners)
	slices.SortStableFunc(r.Units, func(a, b Unit) int { return cmp.Compare(a.Owner, b.Owner) })
	return &r, nil
}

// Owned are the units of each owner, which lie side by side.
func (e *Encoded) Owned(units []int) [][]int {
	var out [][]int
	from := 0
	for i := range units {
		if i+1 == len(units) || !e.together(units[i], units[i+1]) {
			out = append(out, units[from:i+1])
			from = i + 1
		}
	}
	return out
}

// together reports that two units have one owner.
func (e *Encoded) together(u, v int) bool {
	return e.Owners > 0 && e.Units[u].Owner == e.Units[v].Owner
}

// Split cuts units, in order, into micro-batches of at most budget tokens. The units of an owner stay together: what is
// larger is a micro-batch by itself.
func (e *Encoded) Split(units []int, budget int) [][]int {
	var out [][]int
	from, n, at := 0, 0, 0
	for _, own := range e.Owned(units) {
		k := 0
		for _, u := range own {
			k += e.Tokens(&e.Units[u])
		}
		if at > from && n+k > budget {
			out = append(out, units[from:at])
			from, n = at, 0
		}
		n, at = n+k, at+len(own)
	}
	return append(out, units[from:])
}

// Batch is the inputs of a program for some units, as views of its memory. A nil slice is not wanted.
type Batch struct {
	IDs, Pos, Types, Seqs []int32   // (T)
	Offsets               []int32   // (N+1)
	Keys                  []int32   // (N)
	Class                 []int32   // (N)
	Slots                 []int32   // (B,K), -1 for none
	Queries               []int32   // (B)
	Labels, Mask          []float32 // (B,K)
	TokDomain, SeqDomain  []int32   // (T), (N)
	K                     int       // columns of the tables

	// First token, sequence and unit of each owner, and the end (B+1): those of owners that are not there are empty.
	OwnTokens, OwnSeqs, OwnUnits []int32
}

// Pack fills b with units and returns what it filled. Unused sequences are empty, unused slots none.
func (e *Encoded) Pack(units []int, b *Batch) (Sizes, error) {
	s := e.Sizes(units)
	if b.IDs != nil && s.T > len(b.IDs) || b.Offsets != nil && s.N+1 > len(b.Offsets) || b.Slots != nil && (s.B*b.K > len(b.Slots) || s.K > b.K) {
		return s, fmt.Errorf("data: a batch of %+v does not fit its program", s)
	}
	if b.Queries != nil && s.B > len(b.Queries) {
		return s, fmt.Errorf("data: a batch of %+v does not fit its program", s)
	}
	for _, u := range units {
		if b.Queries != nil && e.Units[u].Query == None {
			return s, fmt.Errorf("data: unit %q has no query sequence, but the program reads one", e.Units[u].ID)
		}
	}
	p := packer{e: e, b: b}
	for i, u := range units {
		if i == 0 || !e.together(units[i-1], u) {
			p.bound(i)
		}
		p.unit(i, &e.Units[u])
	}
	for p.own < max(len(b.OwnTokens), len(b.OwnSeqs), len(b.OwnUnits)) {
		p.bound(len(units))
	}
	for i := p.n; i < len(b.Offsets); i++ {
		b.Offsets[i] = int32(p.t)
	}
	for i := s.B * b.K; i < len(b.Slots); i++ {
		b.Slots[i] = -1
	}
	return s, nil
}

type packer struct {
	e    *Encoded
	b    *Batch
	t, n int // tokens and sequences so far
	own  int // owners so far

	domain int32 // of the unit at hand
}

// bound is where an owner's units begin.
func (p *packer) bound(unit int) {
	for _, to := range []struct {
		list []int32
		at   int
	}{{p.b.OwnTokens, p.t}, {p.b.OwnSeqs, p.n}, {p.b.OwnUnits, unit}} {
		if p.own < len(to.list) {
			to.list[p.own] = int32(to.at)
		}
	}
	p.own++
}

func (p *packer) unit(i int, u *Unit) {
	b := p.b
	p.domain = u.Domain
	if u.Query != None {
		if b.Queries != nil {
			b.Queries[i] = int32(p.n)
		}
		p.sequence(u.Query, -1)
	}
	for k := range b.K {
		at := i*b.K + k
		slot, label, mask := int32(-1), float32(0), float32(0)
		if k < len(u.Seqs) {
			slot, label, mask = int32(p.n), u.Labels[k], 1
			p.sequence(u.Seqs[k], int32(label))
		}
		if b.Slots != nil {
			b.Slots[at] = slot
		}
		if b.Labels != nil {
			b.Labels[at] = label
		}
		if b.Mask != nil {
			b.Mask[at] = mask
		}
	}
}

// sequence appends a sequence and its class.
func (p *packer) sequence(s, class int32) {
	e, b := p.e, p.b
	ids := e.IDs[e.Off[s]:e.Off[s+1]]
	copy(b.IDs[p.t:], ids)
	for j := range ids {
		if b.Pos != nil {
			b.Pos[p.t+j] = int32(j)
		}
		if b.Seqs != nil {
			b.Seqs[p.t+j] = int32(p.n)
		}
		if b.TokDomain != nil {
			b.TokDomain[p.t+j] = p.domain
		}
		if b.Types != nil {
			b.Types[p.t+j] = 0
			if j >= int(e.First[s]) {
				b.Types[p.t+j] = 1
			}
		}
	}
	if b.Offsets != nil {
		b.Offsets[p.n] = int32(p.t)
	}
	if b.Keys != nil {
		b.Keys[p.n] = e.Keys[s]
	}
	if b.Class != nil {
		b.Class[p.n] = class
	}
	if b.SeqDomain != nil {
		b.SeqDomain[p.n] = p.domain
	}
	p.t, p.n = p.t+len(ids), p.n+1
}
