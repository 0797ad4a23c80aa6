// Package data holds what a ranker is trained and evaluated on: queries with their candidates.
//
// Readers (data/read) yield Examples; samplers draw them; the rest of the program sees token ids only.
package data

// An Example is one query and its candidates, in the order in which the collection lists them.
type Example struct {
	ID         string // query id, unique in its collection
	Unnamed    bool   // the collection has no id for it: ID is its place, so that nothing tells which examples are of one query
	User       string // whose it is, "" where the collection does not say: what privacy may protect as one
	Query      string
	Candidates []Candidate
	Domain     string // what the example is of, "" if nothing says it: adapters may route by it
}

// A Candidate is one passage that may answer the query.
type Candidate struct {
	ID    string  // passage id, unique within its query
	Text  string  // title and text joined by a space where the collection has both
	Label float32 // graded relevance: above 0 is relevant
}

// Positives is the number of candidates with a label above 0.
func (e Example) Positives() int {
	n := 0
	for _, c := range e.Candidates {
		if c.Label > 0 {
			n++
		}
	}
	return n
}
