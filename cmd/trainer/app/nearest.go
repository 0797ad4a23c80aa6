package app

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// suggest is the end of an error about an unknown name: the nearest known one, or all of them if none is
// near.
func suggest(name string, known []string) string {
	if len(known) == 0 {
		return ""
	}
	type near struct {
		name string
		d    int
	}
	var all []near
	for _, k := range known {
		d := distance(strings.ToLower(name), strings.ToLower(k))
		if k == initials(name) || len(k) > 2 && strings.Contains(name, k) { // learning_rate, num_epochs
			d = 0
		}
		all = append(all, near{k, d})
	}
	best := slices.MinFunc(all, func(a, b near) int { return cmp.Or(cmp.Compare(a.d, b.d), cmp.Compare(a.name, b.name)) })
	if best.d <= max(1, max(len(name), len(best.name))/2) {
		return ": did you mean " + best.name + "?"
	}
	return ": want one of " + strings.Join(slices.Compact(slices.Sorted(slices.Values(known))), ", ")
}

// initials are the first letters of a name's words: lr of learning_rate.
func initials(name string) string {
	var b strings.Builder
	for word := range strings.FieldsFuncSeq(name, func(r rune) bool { return r == '_' || r == '-' }) {
		b.WriteByte(word[0])
	}
	return b.String()
}

// distance is the least number of bytes inserted, deleted, replaced or swapped with their neighbour that
// turns a into b (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			change := last[j]
			if a[i] != b[j] {
				change++
			}
			row[j+1] = min(change, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
