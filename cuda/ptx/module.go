package ptx

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// A Module is parsed PTX. It does not change, and several memories and goroutines may use it at once.
type Module struct {
	Version string // of PTX, such as "7.8"
	Target  string // such as "sm_80"

	globals   []*variable // .global and .const, allocated once a memory
	shared    []*variable // of the module, placed in the kernels that name them
	kernels   map[string]*Kernel
	functions map[string]*function
}

// A function is one that kernels call. Calls are expanded where they stand.
type function struct {
	name    string
	returns []*variable
	params  []*variable
	items   []item // nil: only declared
}

// A Kernel is an entry function of a module, compiled for [Kernel.Launch].
type Kernel struct {
	Name       string
	MaxThreads int // that a block may have, by .maxntid; 0 where the text does not say

	module      *Module
	params      []*variable
	paramBytes  int
	sharedBytes int // static
	localBytes  int // a thread
	firstLine   int
	items       []item // its text
	code        []instruction
	rows32      int // of the register file, with constants and special registers
	rows64      int
	preds       int
	consts32    []constRow[uint32]
	consts64    []constRow[uint64]
	specials    []specialRow
	symbols     []symbolRow // addresses that the memory decides
	lows        [][2]int    // 32-bit rows that hold the lower halves of 64-bit ones
	granule     [2]uint     // log2 of the smallest access: global, shared
}

type constRow[T uint32 | uint64] struct {
	row   int
	value T
}

type specialRow struct {
	row  int
	name string
}

type symbolRow struct {
	row    int
	name   string
	offset int64
}

// Parse reads PTX text and compiles its kernels. An instruction, a modifier or a directive that this package does not know
// is an error that names its line.
func Parse(text string) (*Module, error) {
	m := &Module{kernels: map[string]*Kernel{}, functions: map[string]*function{}}
	s := &scanner{text: withoutComments(text), line: 1}
	var entries []func() error // compiled when all functions are known
	for {
		s.space()
		if s.pos == len(s.text) {
			break
		}
		line := s.line
		compile, err := m.directive(s)
		if err != nil {
			return nil, fmt.Errorf("ptx: line %d: %w", line, err)
		}
		if compile != nil {
			entries = append(entries, compile)
		}
	}
	for _, compile := range entries {
		if err := compile(); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// directive reads one item of a module; for a kernel it returns what compiles it.
func (m *Module) directive(s *scanner) (compile func() error, err error) {
	word := s.text[s.pos:]
	if end := strings.IndexAny(word, " \t\r\n"); end >= 0 {
		word = word[:end]
	}
	switch word {
	case ".version", ".target", ".address_size", ".file", ".loc":
		text, err := s.until("\n")
		if err != nil { // the last line of the text
			text = s.text[s.pos:]
			s.advance(len(s.text))
		}
		f := strings.Fields(text)
		if len(f) < 2 {
			return nil, fmt.Errorf("%s says nothing", word)
		}
		switch value := strings.TrimRight(f[1], ","); word {
		case ".version":
			m.Version = value
		case ".target":
			m.Target = value
		case ".address_size":
			if value != "64" {
				return nil, fmt.Errorf("addresses of %s bits", value)
			}
		}
		return nil, nil
	case ".section":
		if _, err := s.until("{"); err != nil {
			return nil, err
		}
		text := s.text[s.pos:]
		end := strings.IndexByte(text, '}')
		if end < 0 {
			return nil, fmt.Errorf(".section does not end")
		}
		s.advance(s.pos + end + 1)
		return nil, nil
	}
	line := s.line
	head, err := s.until(";{=")
	if err != nil {
		return nil, err
	}
	if strings.Contains(head, ".entry") || strings.Contains(head, ".func") {
		return m.function(s, head, line)
	}
	if s.text[s.pos] == '=' {
		rest, err := s.until(";")
		if err != nil {
			return nil, err
		}
		head += rest
	}
	s.advance(s.pos + 1)
	v, err := declaration(head)
	if err != nil {
		return nil, err
	}
	switch v.space {
	case "shared":
		m.shared = append(m.shared, &v)
	case "global", "const":
		m.globals = append(m.globals, &v)
	default:
		return nil, fmt.Errorf("a variable in space .%s outside a function", v.space)
	}
	return nil, nil
}

// function reads an entry or a function from its head on.
func (m *Module) function(s *scanner, head string, line int) (compile func() error, err error) {
	entry := strings.Contains(head, ".entry")
	_, head, _ = strings.Cut(strings.Join(strings.Fields(head), " "), map[bool]string{true: ".entry", false: ".func"}[entry])
	f := &function{}
	lists := [][]*variable{}
	rest := ""
	for head = strings.TrimSpace(head); head != ""; head = strings.TrimSpace(head) {
		if head[0] != '(' {
			n := strings.IndexByte(head, '(')
			if n < 0 {
				n = len(head)
			}
			if f.name == "" {
				word := strings.Fields(head[:n])[0]
				f.name, rest, head = word, head[len(word):n], head[n:]
			} else {
				rest, head = rest+" "+head[:n], head[n:]
			}
			continue
		}
		end := strings.IndexByte(head, ')')
		if end < 0 {
			return nil, fmt.Errorf("parameters of %s do not end", f.name)
		}
		var list []*variable
		for _, p := range split(head[1:end]) {
			v, err := declaration(p)
			if err != nil {
				return nil, err
			}
			list = append(list, &v)
		}
		if f.name == "" {
			f.returns = list
		} else {
			lists = append(lists, list)
		}
		head = head[end+1:]
	}
	for _, list := range lists {
		f.params = append(f.params, list...)
	}
	if s.text[s.pos] == ';' {
		s.advance(s.pos + 1)
		if _, known := m.functions[f.name]; !known {
			m.functions[f.name] = f
		}
		return nil, nil
	}
	if f.items, err = s.body(); err != nil {
		return nil, err
	}
	if !entry {
		m.functions[f.name] = f
		return nil, nil
	}
	k := &Kernel{Name: f.name, module: m, params: f.params, firstLine: line, items: f.items}
	if k.MaxThreads, err = maxThreads(rest); err != nil {
		return nil, err
	}
	for _, p := range k.params {
		p.place(&k.paramBytes)
	}
	m.kernels[k.Name] = k
	return k.compile, nil
}

// maxThreads reads the performance directives between a kernel's head and its body.
func maxThreads(s string) (int, error) {
	words := strings.Fields(strings.ReplaceAll(s, ",", " "))
	threads := 0
	for i := 0; i < len(words); i++ {
		w := words[i]
		n := 1
		for ; i+1 < len(words) && words[i+1][0] != '.'; i++ {
			d, err := strconv.Atoi(words[i+1])
			if err != nil || d <= 0 {
				return 0, fmt.Errorf("%s %s", w, words[i+1])
			}
			n *= d
		}
		switch w {
		case ".maxntid", ".reqntid":
			threads = n
		case ".minnctapersm", ".maxnreg":
		default:
			return 0, fmt.Errorf("unknown directive %s", w)
		}
	}
	return threads, nil
}

// Kernel is the entry function of that name.
func (m *Module) Kernel(name string) (*Kernel, error) {
	if k := m.kernels[name]; k != nil {
		return k, nil
	}
	return nil, fmt.Errorf("ptx: no kernel %s", name)
}

// Kernels are the names of the entry functions, sorted.
func (m *Module) Kernels() []string { return slices.Sorted(maps.Keys(m.kernels)) }

// Variable is the size in bytes of a .global or .const variable; ok is false where there is none of that name.
func (m *Module) Variable(name string) (bytes int64, ok bool) {
	for _, v := range m.globals {
		if v.name == name {
			return int64(v.size), true
		}
	}
	return 0, false
}

// Params are the sizes in bytes of a kernel's parameters.
func (k *Kernel) Params() []int {
	sizes := make([]int, len(k.params))
	for i, p := range k.params {
		sizes[i] = p.size
	}
	return sizes
}

// ParamOffsets are the offsets of a kernel's parameters where they are packed one behind the other.
func (k *Kernel) ParamOffsets() []int {
	offsets := make([]int, len(k.params))
	for i, p := range k.params {
		offsets[i] = p.offset
	}
	return offsets
}

// SharedBytes is the shared memory that a block has before the dynamic part.
func (k *Kernel) SharedBytes() int { return k.sharedBytes }

// LocalBytes is the local memory of a thread.
func (k *Kernel) LocalBytes() int { return k.localBytes }
