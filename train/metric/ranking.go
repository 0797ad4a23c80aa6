package metric

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"math"
	"slices"
)

// Grades of ranked documents that nobody judged.
const (
	unpooled   = -1 // not in the judgements
	poolUnseen = -2 // in the judgements with a negative grade: pooled, but not judged
)

// Rank sorts documents as every measure of this package reads them: by score descending, equal scores by id
// descending by bytes. A NaN score is an error that names the document; the order is then unspecified.
func Rank(docs []Doc) error {
	for _, d := range docs {
		if d.Score != d.Score {
			return fmt.Errorf("metric: document %q: the score is not a number", d.ID)
		}
	}
	slices.SortFunc(docs, func(a, b Doc) int {
		if c := cmp.Compare(b.Score, a.Score); c != 0 {
			return c
		}
		return cmp.Compare(b.ID, a.ID)
	})
	return nil
}

// A ranking is one query's run seen through its judgements. It is reused from query to query.
type ranking struct {
	grades []int     // of the ranked documents, best first; unpooled, poolUnseen, or 0 and above
	judged []int     // all judged grades of the query, descending, retrieved or not
	log2   []float64 // log2[i] = log2(i+2): the discount of rank i+1

	seed    maphash.Seed
	table   []int32  // open addressing: 1 + index of a document; 0 is free
	order   []uint64 // score key (descending) and index
	byDoc   []int    // grade by index of the document
	scratch []float64
}

// set ranks docs, finds their grades, and collects the query's judged grades.
func (r *ranking) set(query string, docs []Doc, judgements map[string]int, opts Options) error {
	if err := r.index(query, docs); err != nil {
		return err
	}
	r.byDoc = r.byDoc[:0]
	for range docs {
		r.byDoc = append(r.byDoc, unpooled)
	}
	r.judged = r.judged[:0]
	for id, grade := range judgements {
		i := r.find(docs, id)
		if i >= 0 {
			r.byDoc[i] = grade
			if grade < 0 {
				r.byDoc[i] = poolUnseen
			}
		}
		if grade >= 0 && (i >= 0 || !opts.CandidatesOnly) {
			r.judged = append(r.judged, grade)
		}
	}
	slices.SortFunc(r.judged, func(a, b int) int { return cmp.Compare(b, a) })

	r.sort(docs)
	r.grades = r.grades[:0]
	rank := 0
	for _, key := range r.order {
		i := uint32(key)
		if opts.DropSelf && docs[i].ID == query {
			continue
		}
		if rank++; opts.Depth > 0 && rank > opts.Depth {
			break
		}
		if g := r.byDoc[i]; g >= 0 || !opts.JudgedOnly {
			r.grades = append(r.grades, g)
		}
	}
	for i := len(r.log2); i < max(len(r.grades), len(r.judged)); i++ {
		r.log2 = append(r.log2, math.Log2(float64(i+2)))
	}
	return nil
}

// index enters the documents' ids into the table and refuses a second entry.
func (r *ranking) index(query string, docs []Doc) error {
	if len(docs) > math.MaxInt32/4 {
		return fmt.Errorf("metric: query %q: %d documents are too many", query, len(docs))
	}
	if r.table == nil {
		r.seed = maphash.MakeSeed()
	}
	size := 8
	for size < 2*len(docs) {
		size *= 2
	}
	r.table = slices.Grow(r.table[:0], size)[:size]
	clear(r.table)
	r.order = r.order[:0]
	for i, d := range docs {
		if d.Score != d.Score {
			return fmt.Errorf("metric: query %q, document %q: the score is not a number", query, d.ID)
		}
		slot := r.slot(docs, d.ID)
		if r.table[slot] != 0 {
			return fmt.Errorf("metric: query %q: document %q is listed twice", query, d.ID)
		}
		r.table[slot] = int32(i + 1)
		r.order = append(r.order, descending(d.Score)<<32|uint64(i))
	}
	return nil
}

// slot returns where id is, or where it would be entered.
func (r *ranking) slot(docs []Doc, id string) uint64 {
	mask := uint64(len(r.table) - 1)
	s := maphash.String(r.seed, id) & mask
	for r.table[s] != 0 && docs[r.table[s]-1].ID != id {
		s = (s + 1) & mask
	}
	return s
}

func (r *ranking) find(docs []Doc, id string) int { return int(r.table[r.slot(docs, id)]) - 1 }

// sort orders by score through integer keys, then each group of equal scores by id.
func (r *ranking) sort(docs []Doc) {
	slices.Sort(r.order)
	for lo := 0; lo < len(r.order); {
		hi := lo + 1
		for hi < len(r.order) && r.order[hi]>>32 == r.order[lo]>>32 {
			hi++
		}
		if hi-lo > 1 {
			slices.SortFunc(r.order[lo:hi], func(a, b uint64) int {
				return cmp.Compare(docs[uint32(b)].ID, docs[uint32(a)].ID)
			})
		}
		lo = hi
	}
}

// descending maps a float32 to an integer that sorts the other way round. -0 and +0 are equal.
func descending(score float32) uint64 {
	b := math.Float32bits(score + 0) // -0 + 0 = +0
	if b>>31 == 0 {
		b |= 1 << 31
	} else {
		b = ^b
	}
	return uint64(^b)
}

// relevant counts judged documents of at least a grade.
func (r *ranking) relevant(rel int) int {
	for i, g := range r.judged {
		if g < rel {
			return i
		}
	}
	return len(r.judged)
}

// retrieved counts relevant documents among the first k; k = 0 means all.
func (r *ranking) retrieved(rel, k int) int {
	n := 0
	for _, g := range r.top(k) {
		if g >= rel {
			n++
		}
	}
	return n
}

func (r *ranking) top(k int) []int {
	if k == 0 || k > len(r.grades) {
		return r.grades
	}
	return r.grades[:k]
}
