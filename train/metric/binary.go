package metric

import "math"

// Binary measures: a document is relevant or not. Each is trec_eval's measure of the name in the table.

func averagePrecision(r *ranking, m *compiled) float64 {
	relevant := r.relevant(m.rel)
	if relevant == 0 {
		return 0
	}
	hits, sum := 0, 0.0
	for i, g := range r.top(m.cutoff) {
		if g >= m.rel {
			hits++
			sum += float64(hits) / float64(i+1)
		}
	}
	return sum / float64(relevant)
}

func reciprocalRank(r *ranking, m *compiled) float64 {
	for i, g := range r.top(m.cutoff) {
		if g >= m.rel {
			return 1 / float64(i+1)
		}
	}
	return 0
}

// Ranks that the run does not fill count as not relevant.
func precision(r *ranking, m *compiled) float64 {
	return float64(r.retrieved(m.rel, m.cutoff)) / float64(m.cutoff)
}

func recall(r *ranking, m *compiled) float64 {
	return ratio(r.retrieved(m.rel, m.cutoff), r.relevant(m.rel))
}

// relativePrecision is precision over the best possible precision at the cutoff.
func relativePrecision(r *ranking, m *compiled) float64 {
	return ratio(r.retrieved(m.rel, m.cutoff), min(m.cutoff, r.relevant(m.rel)))
}

func success(r *ranking, m *compiled) float64 {
	return float64(min(1, r.retrieved(m.rel, m.cutoff)))
}

func rPrecision(r *ranking, m *compiled) float64 {
	relevant := r.relevant(m.rel)
	if relevant == 0 {
		return 0
	}
	return ratio(r.retrieved(m.rel, relevant), relevant)
}

// rPrecisionMultiple is precision at a multiple of the number of relevant documents. trec_eval adds 0.9 and
// truncates here, where it rounds recall levels.
func rPrecisionMultiple(r *ranking, m *compiled) float64 {
	cut := math.Trunc(m.at*float64(r.relevant(m.rel)) + 0.9)
	if cut < 1 {
		return 0
	}
	return float64(r.retrieved(m.rel, int(min(cut, float64(len(r.grades)))))) / cut
}

// bpref: Buckley and Voorhees, SIGIR 2004. Each relevant document retrieved loses the share of the first R
// judged non-relevant documents that stand above it.
func bpref(r *ranking, m *compiled) float64 {
	relevant := r.relevant(m.rel)
	bound := min(relevant, len(r.judged)-relevant)
	above, sum := 0, 0.0
	for _, g := range r.grades {
		switch {
		case g < 0:
		case g < m.rel:
			above++
		case above == 0:
			sum++
		default:
			sum += 1 - float64(min(above, relevant))/float64(bound)
		}
	}
	if relevant == 0 {
		return 0
	}
	return sum / float64(relevant)
}

// inferredAP: Yilmaz and Aslam, CIKM 2006, equation 4, with trec_eval's smoothing constant. The expected
// precision at a relevant document comes from those above it that were pooled.
func inferredAP(r *ranking, m *compiled) float64 {
	const epsilon = 1e-5
	relevant, above, unseen, sum := 0.0, 0.0, 0.0, 0.0
	for i, g := range r.grades {
		switch {
		case g == unpooled:
		case g == poolUnseen:
			unseen++
		case g < m.rel:
			above++
		default:
			rank := float64(i + 1)
			sum += 1/rank + (relevant+above+unseen)/rank*(relevant+epsilon)/(relevant+above+2*epsilon)
			relevant++
		}
	}
	if n := r.relevant(m.rel); n > 0 {
		return sum / float64(n)
	}
	return 0
}

// interpolatedPrecision is the highest precision at or below the rank where the recall level is reached.
func interpolatedPrecision(r *ranking, m *compiled) float64 {
	found := r.retrieved(m.rel, 0)
	return precisionFrom(r, m.rel, found, recallCut(m.at, r.relevant(m.rel)))
}

func elevenPoint(r *ranking, m *compiled) float64 {
	found, relevant, sum := r.retrieved(m.rel, 0), r.relevant(m.rel), 0.0
	for i := range 11 {
		sum += precisionFrom(r, m.rel, found, recallCut(float64(i)/10, relevant))
	}
	return sum / 11
}

// recallCut turns a recall level into a number of relevant documents.
func recallCut(level float64, relevant int) int { return int(math.Round(level * float64(relevant))) }

// precisionFrom is the highest precision from the rank of the cut-th of all found relevant documents on.
func precisionFrom(r *ranking, rel, found, cut int) float64 {
	if cut > found {
		return 0
	}
	best, hits := 0.0, found
	for i := len(r.grades) - 1; i >= 0 && hits > 0; i-- {
		best = max(best, float64(hits)/float64(i+1))
		if r.grades[i] >= rel {
			if hits == cut {
				break
			}
			hits--
		}
	}
	return best
}

func setPrecision(r *ranking, m *compiled) float64 {
	return ratio(r.retrieved(m.rel, 0), len(r.grades))
}

func setRelativePrecision(r *ranking, m *compiled) float64 {
	return ratio(r.retrieved(m.rel, 0), min(len(r.grades), r.relevant(m.rel)))
}

func setRecall(r *ranking, m *compiled) float64 {
	return ratio(r.retrieved(m.rel, 0), r.relevant(m.rel))
}

func setAP(r *ranking, m *compiled) float64 { return setPrecision(r, m) * setRecall(r, m) }

// setF is van Rijsbergen's F: (β²+1)PR / (β²P+R).
func setF(r *ranking, m *compiled) float64 {
	p, rec, b := setPrecision(r, m), setRecall(r, m), m.beta*m.beta
	if p == 0 || rec == 0 {
		return 0
	}
	return (b + 1) * p * rec / (b*p + rec)
}

// utility weighs relevant retrieved, other retrieved, and relevant missed documents.
func utility(r *ranking, m *compiled) float64 {
	found := r.retrieved(m.rel, 0)
	w := m.weights
	return w[0]*float64(found) + w[1]*float64(len(r.grades)-found) + w[2]*float64(r.relevant(m.rel)-found)
}

func numRet(r *ranking, _ *compiled) float64    { return float64(len(r.grades)) }
func numRel(r *ranking, m *compiled) float64    { return float64(r.relevant(m.rel)) }
func numRelRet(r *ranking, m *compiled) float64 { return float64(r.retrieved(m.rel, 0)) }
func numQ(*ranking, *compiled) float64          { return 1 }

func numNonrelRet(r *ranking, m *compiled) float64 {
	return float64(r.retrieved(0, 0) - r.retrieved(m.rel, 0))
}

// judged is the share of the first k ranks that hold a judged document.
func judged(r *ranking, m *compiled) float64 {
	return float64(r.retrieved(0, m.cutoff)) / float64(m.cutoff)
}

func unjudged(r *ranking, m *compiled) float64 {
	return float64(len(r.top(m.cutoff))-r.retrieved(0, m.cutoff)) / float64(m.cutoff)
}

// ratio is 0 where there is nothing to divide by.
func ratio(a, b int) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}
