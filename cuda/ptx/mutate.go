package ptx

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A Mutant is a kernel with one instruction changed: what a kernel's tests ought to notice.
type Mutant struct {
	Kernel  *Kernel
	Line    Line   // the instruction as it was
	Changed string // and as it is; "" where it is left out
	Caught  error  // what the test said; nil: it noticed nothing
}

func (m *Mutant) String() string {
	outcome := "survived"
	if m.Caught != nil {
		outcome = "caught: " + m.Caught.Error()
	}
	changed := m.Changed
	if changed == "" {
		changed = "nothing"
	}
	return fmt.Sprintf("%s line %d: %q became %q: %s", m.Line.Kernel, m.Line.Number, m.Line.Text, changed, outcome)
}

// Mutate makes n random changes, each of one instruction among those that ran, and lets a test judge each kernel that
// results. The same seed makes the same changes. A change that does not compile is drawn again.
func (k *Kernel) Mutate(ran []Line, n int, seed uint64, test func(*Kernel) error) ([]*Mutant, error) {
	var places []int
	lines := map[Line]bool{}
	for _, l := range ran {
		lines[l] = true
	}
	for i, it := range k.items {
		if lines[Line{k.Name, it.line, it.text}] {
			places = append(places, i)
		}
	}
	if len(places) == 0 {
		return nil, fmt.Errorf("ptx: no instruction of %s has run", k.Name)
	}
	rng := &draws{state: mix(seed)}
	var out []*Mutant
	seen := map[string]bool{}
	for try := 0; len(out) < n && try < 100*n; try++ {
		i := places[rng.below(len(places))]
		old := k.items[i]
		text := rng.change(k, old.text)
		if text == old.text || seen[fmt.Sprint(i, text)] {
			continue
		}
		seen[fmt.Sprint(i, text)] = true
		items := slices.Clone(k.items)
		items[i].text = text
		changed := &Kernel{
			Name: k.Name, MaxThreads: k.MaxThreads, module: k.module, params: k.params, paramBytes: k.paramBytes, firstLine: k.firstLine, items: items,
		}
		if changed.compile() != nil {
			continue
		}
		m := &Mutant{Kernel: changed, Line: Line{k.Name, old.line, old.text}, Changed: text}
		m.Caught = test(changed)
		out = append(out, m)
	}
	return out, nil
}

// draws are random numbers that depend on a seed alone.
type draws struct{ state uint64 }

func (r *draws) below(n int) int {
	r.state++
	return int(mix(r.state*0x9e3779b97f4a7c15) >> 1 % uint64(n))
}

// swaps are opcodes, or parts of them, that a mistake could confuse. Roundings are not among them: within a test's
// tolerance they make no difference.
var swaps = []string{
	"add.:sub.", "sub.:add.", "mul.lo:add", "mad.lo:mul24.lo", "min.:max.", "max.:min.", "and.b:or.b", "or.b:and.b", "xor.b:or.b", "shl.:shr.",
	"shr.:shl.", ".lt.:.le.", ".le.:.lt.", ".gt.:.ge.", ".ge.:.gt.", ".eq.:.ne.", ".ne.:.eq.", ".ltu.:.leu.", ".geu.:.gtu.", ".and.:.or.",
	".or.:.and.", ".bfly.:.down.", ".down.:.up.", ".u16:.s16", "ex2.:lg2.", "rsqrt.:sqrt.", "rcp.approx:sqrt.approx",
	"neg.:abs.", "abs.:neg.", "selp.:slct.", ".x4.:.x2.", ".trans.:.", "wait_group 0:wait_group 1",
	"wait_group 1:wait_group 2",
}

// change makes one change of a statement.
func (r *draws) change(k *Kernel, text string) string {
	switch r.below(8) {
	case 0, 1: // opcode
		var fits []string
		for _, s := range swaps {
			if from, _, _ := strings.Cut(s, ":"); strings.Contains(text, from) {
				fits = append(fits, s)
			}
		}
		if len(fits) > 0 {
			from, to, _ := strings.Cut(fits[r.below(len(fits))], ":")
			return strings.Replace(text, from, to, 1)
		}
	case 2: // guard
		if guard, rest, ok := strings.Cut(text, " "); ok && text[0] == '@' {
			switch {
			case r.below(2) == 0:
				return rest
			case guard[1] == '!':
				return "@" + guard[2:] + " " + rest
			}
			return "@!" + guard[1:] + " " + rest
		}
	case 3: // leave it out; without ret at the end, the end follows anyway
		if text != "ret" {
			return ""
		}
	case 4: // order of two operands
		if p := operandPlaces(text); len(p) > 2 && !commutes.MatchString(text) {
			i := 1 + r.below(len(p)-2)
			a, b := p[i], p[i+1]
			return text[:a[0]] + text[b[0]:b[1]] + text[a[1]:b[0]] + text[a[0]:a[1]] + text[b[1]:]
		}
	case 5, 6: // a constant, or the offset of an address
		if p := numberPlaces(text); len(p) > 0 {
			at := p[r.below(len(p))]
			n, err := number(text[at[0]:at[1]])
			if err == nil && !strings.ContainsAny(text[at[0]:at[1]], "fFdD.") {
				step := []int64{1, -1, 4, -4}[r.below(4)]
				return text[:at[0]] + fmt.Sprint(int64(n.bits)+step) + text[at[1]:]
			}
			if err == nil && !n.double {
				return text[:at[0]] + fmt.Sprintf("0f%08X", f32bits(f32(uint32(n.bits))*1.5+0.125)) + text[at[1]:]
			}
		}
	case 7: // another register
		from := k.items[r.below(len(k.items))].text
		if p, others := registers.FindAllStringIndex(text, -1), registers.FindAllString(from, -1); len(p) > 0 && len(others) > 0 {
			at, other := p[r.below(len(p))], others[r.below(len(others))]
			if strings.TrimRight(other, "0123456789") == strings.TrimRight(text[at[0]:at[1]], "0123456789") {
				return text[:at[0]] + other + text[at[1]:]
			}
		}
	}
	return text
}

var (
	commutes  = regexp.MustCompile(`^(@\S+ )?((add|mul|and|or|xor|min|max|fma|mad)\.|setp\.(eq|ne)\.[a-z])`)
	registers = regexp.MustCompile(`%[a-z]+[0-9]+`)
	numbers   = regexp.MustCompile(`[ ,+\[](-?[0-9][0-9A-Za-z]*)`)
)

// numberPlaces are where constants stand.
func numberPlaces(text string) (places [][]int) {
	for _, m := range numbers.FindAllStringSubmatchIndex(text, -1) {
		places = append(places, m[2:4])
	}
	return places
}

// operandPlaces are where operands stand, without brackets' own.
func operandPlaces(text string) (places [][]int) {
	at := 0
	if text[0] == '@' {
		at = strings.IndexByte(text, ' ') + 1
	}
	opcode, rest, ok := strings.Cut(text[at:], " ")
	if !ok {
		return nil
	}
	at += len(opcode) + 1
	for _, o := range split(rest) {
		from := at + strings.Index(text[at:], o)
		places = append(places, []int{from, from + len(o)})
		at = from + len(o)
	}
	return places
}
