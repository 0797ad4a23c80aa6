package metric

import (
	"cmp"
	"math"
	"slices"
)

// Graded measures: a document is worth its gain.

// maxExpGrade bounds the grade of 2^grade - 1: beyond it float64 no longer holds the gain exactly.
const maxExpGrade = 52

// gain is what a document of this grade is worth: its grade, 2^grade - 1, or what the measure says.
func (m *compiled) gain(grade int) float64 {
	switch {
	case grade < 0:
		return 0
	case m.exp:
		return math.Ldexp(1, grade) - 1
	case m.gainOf != nil:
		if g, ok := m.gainOf[grade]; ok {
			return g
		}
	}
	return float64(grade)
}

// ideal returns the positive gains of all judged documents, descending. It is valid until the next call.
func (r *ranking) ideal(m *compiled) []float64 {
	r.scratch = r.scratch[:0]
	for _, g := range r.judged {
		if v := m.gain(g); v > 0 {
			r.scratch = append(r.scratch, v)
		} else if m.gainOf == nil {
			break // grades descend and so do their gains
		}
	}
	if m.gainOf != nil {
		slices.SortFunc(r.scratch, func(a, b float64) int { return cmp.Compare(b, a) })
	}
	return r.scratch
}

// ndcg: Järvelin and Kekäläinen, TOIS 2002, with discount log2(rank+1).
func ndcg(r *ranking, m *compiled) float64 {
	ideal := r.ideal(m)
	if m.cutoff > 0 && len(ideal) > m.cutoff {
		ideal = ideal[:m.cutoff]
	}
	best := 0.0
	for i, v := range ideal {
		best += v / r.log2[i]
	}
	if best == 0 {
		return 0
	}
	sum := 0.0
	for i, g := range r.top(m.cutoff) {
		if g >= 0 {
			sum += m.gain(g) / r.log2[i]
		}
	}
	return sum / best
}

// ndcgRel averages nDCG at the rank of each document of positive gain; those not retrieved count with the
// nDCG at the end.
func ndcgRel(r *ranking, m *compiled) float64 {
	ideal := r.ideal(m)
	if len(ideal) == 0 {
		return 0
	}
	dcg, best, sum, found := 0.0, 0.0, 0.0, 0
	for i, g := range r.grades {
		if i < len(ideal) {
			best += ideal[i] / r.log2[i]
		}
		if v := m.gain(g); v > 0 {
			dcg += v / r.log2[i]
			sum += dcg / best
			found++
		}
	}
	for i := len(r.grades); i < len(ideal); i++ {
		best += ideal[i] / r.log2[i]
	}
	return (sum + float64(len(ideal)-found)*dcg/best) / float64(len(ideal))
}

// rNDCG averages nDCG at the ranks where an ideal ranking would pass to a smaller gain, and at the end.
func rNDCG(r *ranking, m *compiled) float64 {
	ideal := r.ideal(m)
	if len(ideal) == 0 {
		return 0
	}
	dcg, best, sum, points := 0.0, 0.0, 0.0, 0
	for i := range max(len(r.grades), len(ideal)+1) {
		if i > 0 && i <= len(ideal) && (i == len(ideal) || ideal[i] != ideal[i-1]) {
			sum += dcg / best
			points++
		}
		if i < len(ideal) {
			best += ideal[i] / r.log2[i]
		}
		if i < len(r.grades) {
			dcg += m.gain(r.grades[i]) / r.log2[i]
		}
	}
	if len(r.grades) > len(ideal)+1 {
		sum += dcg / best
		points++
	}
	return sum / float64(points)
}

// gMeasure discounts a gain not by its rank but by the gain that was missed above it.
func gMeasure(r *ranking, m *compiled) float64 {
	ideal := r.ideal(m)
	if len(ideal) == 0 {
		return 0
	}
	cost, got, sum, total := 0.0, 0.0, 0.0, 0.0
	for i, g := range r.grades {
		if i < len(ideal) {
			cost += max(ideal[i], 1)
		} else {
			cost++
		}
		if v := m.gain(g); v != 0 {
			got += v
			sum += v / math.Log2(2+cost-got)
		}
	}
	for _, v := range ideal {
		total += v
	}
	return sum / total
}

// binaryG is gMeasure with gains of 0 and 1.
func binaryG(r *ranking, m *compiled) float64 {
	relevant, hits, sum := r.relevant(m.rel), 0, 0.0
	if relevant == 0 {
		return 0
	}
	for i, g := range r.grades {
		if g >= m.rel {
			hits++
			sum += 1 / math.Log2(float64(3+i-hits))
		}
	}
	return sum / float64(relevant)
}

// rankBiasedPrecision: Moffat and Zobel, TOIS 2008. Grades are scaled by the query's highest, if above 1.
func rankBiasedPrecision(r *ranking, m *compiled) float64 {
	scale := 1.0
	if len(r.judged) > 0 {
		scale = max(1, float64(r.judged[0]))
	}
	weight, sum := 1.0, 0.0
	for _, g := range r.grades {
		if g > 0 {
			sum += weight * float64(g) / scale
		}
		weight *= m.persistence
	}
	return (1 - m.persistence) * sum
}

// rankBiasedResidual is what rankBiasedPrecision could gain from documents that nobody judged.
func rankBiasedResidual(r *ranking, m *compiled) float64 {
	weight, sum, any := 1.0, 0.0, false
	for _, g := range r.grades {
		if g < 0 {
			sum += weight
			any = true
		}
		weight *= m.persistence
	}
	if !any {
		return 0
	}
	return weight + (1-m.persistence)*sum
}
