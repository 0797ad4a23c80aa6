package metric

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Parse reads a measure: "nDCG@10", "MAP(rel=2)", "P(rel=2)@5", "nDCG(exp)@10", "IPrec@0.1", or trec_eval's
// names: "ndcg_cut_10", "recip_rank", "recall_1000". Case does not matter. An error on an unknown name
// carries the nearest known one.
func Parse(s string) (Measure, error) {
	m, err := parse(strings.TrimSpace(s))
	if err != nil {
		return Measure{}, fmt.Errorf("metric: measure %q: %w", s, err)
	}
	return m, nil
}

// ParseAll reads several measures and refuses one that is given twice.
func ParseAll(names ...string) ([]Measure, error) {
	out := make([]Measure, 0, len(names))
	for _, s := range names {
		m, err := Parse(s)
		if err != nil {
			return nil, err
		}
		if slices.Contains(out, m) {
			return nil, fmt.Errorf("metric: measure %v is given twice", m)
		}
		out = append(out, m)
	}
	return out, nil
}

func parse(s string) (Measure, error) {
	name, in, at, err := cut(s)
	if err != nil {
		return Measure{}, err
	}
	d := resolve(name)
	if d == nil && at == "" { // trec_eval's P_5, P.5, iprec_at_recall_0.10
		if base, n := cutSuffix(name); n != "" {
			d, at = resolve(base), n
		}
	}
	if d == nil {
		return Measure{}, unknown(s, name)
	}
	m := Measure{name: d.name}
	if d.params&takesP != 0 {
		m.p = .9
	}
	if d.params&takesBeta != 0 {
		m.beta = 1
	}
	if d.params&takesWeights != 0 {
		m.a, m.b = 1, -1
	}
	if err := m.setAt(d, at); err != nil {
		return Measure{}, err
	}
	if err := m.setAll(d, in); err != nil {
		return Measure{}, err
	}
	return m, nil
}

// cut splits name(in)@at; the parentheses may also come last.
func cut(s string) (name, in, at string, err error) {
	head, tail, found := strings.Cut(s, "(")
	if found {
		end := strings.LastIndexByte(tail, ')')
		if end < 0 {
			return "", "", "", errors.New("a parenthesis is not closed")
		}
		if in = strings.TrimSpace(tail[:end]); in == "" {
			return "", "", "", errors.New("the parentheses are empty")
		}
		head += tail[end+1:]
	}
	name, at, found = strings.Cut(head, "@")
	name, at = strings.TrimSpace(name), strings.TrimSpace(at)
	if found && at == "" {
		return "", "", "", errors.New("no number after @")
	}
	if name == "" {
		return "", "", "", errors.New("no name")
	}
	return name, in, at, nil
}

// cutSuffix splits trec_eval's "P_5" and "P.5" into name and number.
func cutSuffix(s string) (name, at string) {
	start := len(s)
	for start > 0 && (s[start-1] == '.' || s[start-1] >= '0' && s[start-1] <= '9') {
		start--
	}
	name, at = s[:start], s[start:]
	if base, ok := strings.CutSuffix(name, "_"); ok {
		return base, at
	}
	if rest, ok := strings.CutPrefix(at, "."); ok {
		return name, rest
	}
	return s, ""
}

func resolve(name string) *definition {
	low := strings.ToLower(name)
	for _, d := range definitions() {
		if low == strings.ToLower(d.name) || slices.Contains(d.aliases, low) {
			return &d
		}
	}
	return nil
}

func (m *Measure) setAt(d *definition, at string) error {
	switch {
	case d.params&(takesCutoff|needsCutoff) != 0:
		if at == "" {
			if d.params&needsCutoff != 0 {
				return fmt.Errorf("needs a cutoff: %s@10", d.name)
			}
			return nil
		}
		k, err := strconv.Atoi(at)
		if err != nil || k < 1 || k > math.MaxInt32 {
			return fmt.Errorf("cutoff %q is not a whole number of at least 1", at)
		}
		m.cutoff = k
	case d.params&takesRecall != 0:
		x, err := finite(at)
		if err != nil || x < 0 || x > 1 {
			return fmt.Errorf("needs a recall level from 0 to 1: %s@0.5", d.name)
		}
		m.at = x
	case d.params&takesMultiple != 0:
		x, err := finite(at)
		if err != nil || x <= 0 || x > 1e6 {
			return fmt.Errorf("needs a multiple above 0: %s@0.5", d.name)
		}
		m.at = x
	case at != "":
		return fmt.Errorf("%s takes no cutoff", d.name)
	}
	return nil
}

func (m *Measure) setAll(d *definition, in string) error {
	seen := map[string]bool{}
	for _, part := range splitTop(in) {
		key, value, _ := strings.Cut(part, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		value = strings.Trim(strings.TrimSpace(value), `'"`)
		if seen[key] {
			return fmt.Errorf("%s is given twice", key)
		}
		seen[key] = true
		if err := m.set(d, key, value); err != nil {
			return err
		}
	}
	if m.exp && m.gains != "" {
		return errors.New("exp and gains exclude each other")
	}
	return nil
}

func (m *Measure) set(d *definition, key, value string) error {
	has := func(p params) bool { return d.params&p != 0 }
	var err error
	switch {
	case key == "rel" && has(takesRel):
		if m.rel, err = strconv.Atoi(value); err != nil || m.rel < 1 || m.rel > math.MaxInt32 {
			return fmt.Errorf("rel %q is not a whole number of at least 1", value)
		}
	case key == "exp" && value == "" && has(takesGain):
		m.exp = true
	case key == "dcg" && has(takesGain):
		if value != "log2" && value != "exp-log2" {
			return fmt.Errorf("dcg %q is neither log2 nor exp-log2", value)
		}
		m.exp = value == "exp-log2"
	case key == "gains" && has(takesGain):
		switch value {
		case "exp":
			m.exp = true
		case "linear":
		default:
			_, m.gains, err = parseGains(strings.TrimSuffix(strings.TrimPrefix(value, "{"), "}"))
		}
	case key == "p" && has(takesP):
		if m.p, err = finite(value); err != nil || m.p <= 0 || m.p >= 1 {
			return fmt.Errorf("p %q is not between 0 and 1", value)
		}
	case key == "beta" && has(takesBeta):
		if m.beta, err = finite(value); err != nil || m.beta < 0 || m.beta > 1e6 {
			return fmt.Errorf("beta %q is not a number of at least 0", value)
		}
	case key == "a" && has(takesWeights):
		m.a, err = finite(value)
	case key == "b" && has(takesWeights):
		m.b, err = finite(value)
	case key == "c" && has(takesWeights):
		m.c, err = finite(value)
	default:
		return fmt.Errorf("%s has no parameter %q: want %s", d.name, key, d.syntax())
	}
	return err
}

// parseGains reads "1:3, 2:9" and also returns it in order and without spaces.
func parseGains(s string) (map[int]float64, string, error) {
	gains := map[int]float64{}
	var grades []int
	for part := range strings.SplitSeq(s, ",") {
		left, right, _ := strings.Cut(part, ":")
		grade, err := strconv.Atoi(strings.TrimSpace(left))
		gain, err2 := finite(strings.TrimSpace(right))
		if err != nil || err2 != nil || grade < 0 || math.Abs(gain) > 1e15 {
			return nil, "", fmt.Errorf("gains: %q is not grade:gain", part)
		}
		if _, ok := gains[grade]; ok {
			return nil, "", fmt.Errorf("gains: grade %d is given twice", grade)
		}
		gains[grade] = gain + 0 // no -0
		grades = append(grades, grade)
	}
	slices.Sort(grades)
	var b strings.Builder
	for i, g := range grades {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%d:%s", g, number(gains[g]))
	}
	return gains, b.String(), nil
}

func finite(s string) (float64, error) {
	x, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(x, 0) || math.IsNaN(x) {
		return 0, fmt.Errorf("%q is not a finite number", s)
	}
	return x + 0, nil // no -0
}

// splitTop splits at the commas outside braces.
func splitTop(s string) []string {
	if s == "" {
		return nil
	}
	var out []string
	depth, start := 0, 0
	for i := range len(s) {
		switch s[i] {
		case '{':
			depth++
		case '}':
			depth--
		case ',':
			if depth == 0 {
				out = append(out, s[start:i])
				start = i + 1
			}
		}
	}
	return append(out, s[start:])
}

func unknown(s, name string) error {
	base, _ := cutSuffix(name)
	best, near := math.MaxInt, ""
	for _, d := range definitions() {
		for _, known := range append([]string{d.name}, d.aliases...) {
			for _, n := range []string{name, base} {
				if dist := editDistance(strings.ToLower(n), strings.ToLower(known)); dist < best {
					best, near = dist, known
				}
			}
		}
	}
	if best > max(1, len(base)/2) {
		var names []string
		for _, d := range definitions() {
			names = append(names, d.name)
		}
		return fmt.Errorf("unknown name; known are %s", strings.Join(names, ", "))
	}
	if i := strings.IndexAny(s, "(@"); i >= 0 {
		near += s[i:]
	}
	return fmt.Errorf("unknown name: did you mean %s?", near)
}

// editDistance counts insertions, deletions, replacements and swaps of neighbours (by bytes).
func editDistance(a, b string) int {
	if len(a) > 64 {
		a = a[:64]
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
