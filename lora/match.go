package lora

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"rung/nn"
)

// heads are the modules that PEFT trains in full when the task is to classify.
var heads = []string{"classifier", "score"}

// A matcher is PEFT's rules for one configuration (peft.tuners.tuners_utils.check_target_module_exists).
type matcher struct {
	cfg     *Config
	target  *regexp.Regexp   // instead of names
	exclude *regexp.Regexp   // instead of names
	inner   *regexp.Regexp   // instead of names: IA3's feed-forward layers
	saved   []*regexp.Regexp // what lies in modules that are trained in full is no target
	layer   []*regexp.Regexp // the number of a layer is the first group
	ranks   []pattern
	alphas  []pattern
}

// pattern is a key of RankPattern or AlphaPattern.
type pattern struct {
	key string
	re  *regexp.Regexp
}

// anyLayer finds the first number among the names of a path, with two names before it.
const anyLayer = `^.*?\.[^.]*\.(\d+)\.`

func newMatcher(c *Config, saved []string) (*matcher, error) {
	m := &matcher{cfg: c}
	var err error
	add := func(what, key, expr string) *regexp.Regexp {
		re, e := regexp.Compile(expr)
		if e != nil && err == nil {
			why := e.Error()
			if s := (*syntax.Error)(nil); errors.As(e, &s) { // without the expression, which may have lines
				why = s.Code.String()
			}
			err = fmt.Errorf("%s %q is no regular expression that RE2 reads: %s", what, key, why)
		}
		return re
	}
	if c.TargetPattern != "" {
		m.target = add("target pattern", c.TargetPattern, `^(?:`+c.TargetPattern+`)$`)
	}
	if c.ExcludePattern != "" {
		m.exclude = add("exclude pattern", c.ExcludePattern, `^(?:`+c.ExcludePattern+`)$`)
	}
	if c.FeedforwardPattern != "" {
		m.inner = add("feedforward pattern", c.FeedforwardPattern, `^(?:`+c.FeedforwardPattern+`)$`)
	}
	for _, s := range saved {
		m.saved = append(m.saved, add("module to save", s, `^(?:.*\.)?(?:`+s+`)(?:$|\.)`))
	}
	for _, p := range c.LayersPattern {
		m.layer = append(m.layer, add("layers pattern", p, `^(?:.*?\.)?(?:`+p+`)\.(\d+)\.`))
	}
	if len(m.layer) == 0 {
		m.layer = append(m.layer, regexp.MustCompile(anyLayer))
	}
	for _, k := range sortedKeys(c.RankPattern) {
		m.ranks = append(m.ranks, pattern{k, add("rank pattern", k, `^(?:.*\.)?(?:`+k+`)$`)})
	}
	for _, k := range sortedKeys(c.AlphaPattern) {
		m.alphas = append(m.alphas, pattern{k, add("alpha pattern", k, `^(?:.*\.)?(?:`+k+`)$`)})
	}
	return m, err
}

// named reports that path equals name or ends with "." and it.
func named(path, name string) bool {
	return path == name || strings.HasSuffix(path, "."+name)
}

// excluded reports that no adapter goes to path, whatever the targets.
func (m *matcher) excluded(path string) bool {
	match := func(re *regexp.Regexp) bool { return re.MatchString(path) }
	return m.exclude != nil && match(m.exclude) || slices.ContainsFunc(m.saved, match) ||
		slices.ContainsFunc(m.cfg.Exclude, func(n string) bool { return named(path, n) })
}

// asked reports that target i, or the target pattern, means path.
func (m *matcher) asked(i int, path string) bool {
	if m.target != nil {
		return m.target.MatchString(path)
	}
	t := m.cfg.Targets[i]
	return t == AllLinear || named(path, t)
}

// inLayers reports that path is in one of the chosen layers. A target that is a whole path needs not
// be.
func (m *matcher) inLayers(i int, path string) bool {
	if len(m.cfg.Layers) == 0 || m.target != nil || m.cfg.Targets[i] == path {
		return true
	}
	for _, re := range m.layer {
		if g := re.FindStringSubmatch(path); g != nil {
			n, err := strconv.Atoi(g[len(g)-1])
			return err == nil && slices.Contains(m.cfg.Layers, n)
		}
	}
	return false
}

// size is the rank and α of the adapter at path.
func (m *matcher) size(path string) (rank int, alpha float64) {
	rank, alpha = m.cfg.Rank, m.cfg.Alpha
	matches := func(p pattern) bool { return p.re.MatchString(path) }
	if i := slices.IndexFunc(m.ranks, matches); i >= 0 {
		rank = m.cfg.RankPattern[m.ranks[i].key]
	}
	if i := slices.IndexFunc(m.alphas, matches); i >= 0 {
		alpha = m.cfg.AlphaPattern[m.alphas[i].key]
	}
	return rank, alpha
}

// feedforward reports that IA3 scales the input of path: it matches the pattern, or ends with one of the names, where
// PEFT asks for no dot before it.
func (m *matcher) feedforward(path string) bool {
	if m.inner != nil {
		return m.inner.MatchString(path)
	}
	return slices.ContainsFunc(m.cfg.Feedforward, func(n string) bool { return strings.HasSuffix(path, n) })
}

// targets are the slots that get an adapter. With strict, every target must mean one.
func (m *matcher) targets(slots []nn.Slot, strict bool) ([]nn.Slot, error) {
	n := max(1, len(m.cfg.Targets))
	hits, misses := make([]int, n), make([]string, n)
	var out []nn.Slot
	for _, s := range slots {
		in := false
		for i := range n {
			switch {
			case !m.asked(i, s.Path):
			case m.excluded(s.Path) || !m.inLayers(i, s.Path):
				misses[i] = s.Path
			default:
				hits[i]++
				in = true
			}
		}
		if in {
			out = append(out, s)
		}
	}
	for i := range n {
		if hits[i] == 0 && (strict || len(out) == 0) {
			return nil, m.unmatched(i, misses[i], slots)
		}
	}
	for _, p := range slices.Concat(m.ranks, m.alphas) {
		if strict && !slices.ContainsFunc(out, func(s nn.Slot) bool { return p.re.MatchString(s.Path) }) {
			return nil, fmt.Errorf("pattern %q for a rank or alpha matches no module with an adapter", p.key)
		}
	}
	return out, nil
}

// unmatched says that target i means nothing, and what might have been meant.
func (m *matcher) unmatched(i int, miss string, slots []nn.Slot) error {
	what := "target pattern " + strconv.Quote(m.cfg.TargetPattern)
	if m.target == nil {
		what = "target " + strconv.Quote(m.cfg.Targets[i])
	}
	if miss != "" {
		return fmt.Errorf("%s matches only modules that are excluded, trained in full or in other layers, such as %s", what, miss)
	}
	if m.target != nil {
		return fmt.Errorf("%s matches no module; modules are named as %s", what, slots[0].Path)
	}
	return fmt.Errorf("%s matches no module; the nearest names are %s", what, strings.Join(nearest(m.cfg.Targets[i], slots), ", "))
}

// nearest is the three ends of paths that are nearest to name, by edit distance, each with as many
// names as name has.
func nearest(name string, slots []nn.Slot) []string {
	far := map[string]int{}
	for _, s := range slots {
		parts := strings.Split(s.Path, ".")
		end := strings.Join(parts[max(0, len(parts)-strings.Count(name, ".")-1):], ".")
		if _, ok := far[end]; !ok {
			far[end] = distance(name, end)
		}
	}
	ends := slices.SortedFunc(maps.Keys(far), func(a, b string) int {
		return cmp.Or(cmp.Compare(far[a], far[b]), cmp.Compare(a, b))
	})
	return ends[:min(3, len(ends))]
}

// distance is the fewest insertions, deletions and replacements of bytes that turn a into b
// (Levenshtein 1966).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
