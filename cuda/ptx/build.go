package ptx

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A class is one of the three register files: 32 bits (and less), 64 bits, predicates.
type class uint8

const (
	c32 class = iota
	c64
	cPred
)

// A register is a row of its class's file: 32 lanes.
type register struct {
	class class
	row   int
	bits  int
}

type operandKind uint8

const (
	opRegister operandKind = iota
	opConstant
	opSpecial
	opVector
	opAddress // [base + offset]
	opSymbol  // the address of a variable
	opSink    // _
	opName    // a label, a function
)

type operand struct {
	kind   operandKind
	text   string
	reg    register // also the base of an address
	based  bool     // an address has a base register
	not    bool
	value  constant
	vector []operand
	second *operand // p of d|p
	symbol *variable
	offset int64
}

// A statement is an instruction as it is written.
type statement struct {
	text   string
	line   int
	op     string   // first part of the opcode
	mods   []string // the rest, without types
	types  []string
	vector int // 1, 2 or 4
	args   []operand
	guard  *operand
	kind   kind   // of what changes the flow, else kindPlain
	label  string // that a branch goes to
}

func (s *statement) has(mod string) bool { return slices.Contains(s.mods, mod) }

// typ is the only type of a statement, or its first.
func (s *statement) typ() string {
	if len(s.types) == 0 {
		return ""
	}
	return s.types[0]
}

// A scope is what a pair of braces declares.
type scope struct {
	regs map[string]register
	vars map[string]*variable
}

// A builder compiles a kernel. Its first error stays.
type builder struct {
	k        *Kernel
	err      error
	scopes   []scope
	list     []*statement
	labels   map[string]int // position in the list
	prefix   string         // of labels, in an expanded call
	end      string         // where ret goes in an expanded call; "" in a kernel
	calls    []string       // functions being expanded
	expanded int
	const32  map[uint32]int
	const64  map[uint64]int
	special  map[string]int
	symbol   map[symbolKey]int
	sharedAt map[*variable]int  // offsets of shared variables that the kernel names
	dynamic  []constRow[uint64] // offsets into the dynamic shared memory, whose start is known last
	granule  [2]uint
}

func (b *builder) fail(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf(format, args...)
	}
}

func (k *Kernel) compile() error {
	b := &builder{
		k: k, labels: map[string]int{}, const32: map[uint32]int{}, const64: map[uint64]int{},
		special: map[string]int{}, symbol: map[symbolKey]int{}, sharedAt: map[*variable]int{}, granule: [2]uint{4, 4},
	}
	top := scope{regs: map[string]register{}, vars: map[string]*variable{}}
	for _, v := range slices.Concat(k.module.globals, k.module.shared, k.params) {
		top.vars[v.name] = v
	}
	b.scopes = []scope{top}
	b.items(k.items)
	if b.err == nil {
		b.allocate()
	}
	if b.err == nil {
		b.compile()
	}
	if b.err != nil {
		return b.err
	}
	k.granule = b.granule
	for _, c := range b.dynamic {
		k.consts64 = append(k.consts64, constRow[uint64]{c.row, c.value + uint64(k.dynamicStart())})
	}
	k.code = append(k.code, instruction{kind: kindExit, guard: -1, line: int32(lastLine(k.items, k.firstLine)), text: "end"})
	return nil
}

func lastLine(items []item, otherwise int) int {
	if len(items) == 0 {
		return otherwise
	}
	return items[len(items)-1].line
}

// dynamicStart is where the dynamic shared memory begins.
func (k *Kernel) dynamicStart() int { return (k.sharedBytes + 15) / 16 * 16 }

func (b *builder) items(items []item) {
	for _, it := range items {
		if b.err != nil {
			return
		}
		switch {
		case it.text == "{":
			b.scopes = append(b.scopes, scope{regs: map[string]register{}, vars: map[string]*variable{}})
		case it.text == "}":
			b.scopes = b.scopes[:len(b.scopes)-1]
		case strings.HasSuffix(it.text, ":"):
			name := b.prefix + strings.TrimSuffix(it.text, ":")
			if _, known := b.labels[name]; known {
				b.fail("label %s stands twice", it.text)
			}
			b.labels[name] = len(b.list)
		case it.text == "" || strings.HasPrefix(it.text, ".pragma"):
		case strings.HasPrefix(it.text, ".reg"):
			b.registers(it.text)
		case it.text[0] == '.':
			b.variable(it.text)
		default:
			b.statement(it)
		}
		b.locate(it.line, it.text)
	}
}

// locate adds to an error where it is, unless it says so already.
func (b *builder) locate(line int, text string) {
	if b.err != nil && !strings.HasPrefix(b.err.Error(), "ptx: ") {
		b.err = fmt.Errorf("ptx: line %d: %q: %w", line, text, b.err)
	}
}

func (b *builder) failAt(s *statement, format string, args ...any) {
	b.fail(format, args...)
	b.locate(s.line, s.text)
}

// registers declares ".reg .f32 %f<8>" or ".reg .b16 low, high".
func (b *builder) registers(text string) {
	words := strings.Fields(text)
	if len(words) < 3 || typeSize(strings.TrimPrefix(words[1], ".")) == 0 {
		b.fail("registers not understood")
		return
	}
	typ := words[1][1:]
	declare := func(name string) {
		r := register{class: c32, bits: 8 * typeSize(typ)}
		switch {
		case typ == "pred":
			r = register{class: cPred, row: b.k.preds, bits: 1}
			b.k.preds++
		case r.bits == 64:
			r.class, r.row = c64, b.k.rows64
			b.k.rows64++
		default:
			r.row = b.k.rows32
			b.k.rows32++
		}
		b.scopes[len(b.scopes)-1].regs[name] = r
	}
	for _, name := range split(strings.Join(words[2:], "")) {
		family, count, many := strings.Cut(strings.TrimSuffix(name, ">"), "<")
		if !many {
			declare(name)
			continue
		}
		n, err := strconv.Atoi(count)
		if err != nil || n < 0 || n > 1<<16 {
			b.fail("registers not understood")
			return
		}
		for i := range n {
			declare(family + strconv.Itoa(i))
		}
	}
}

// variable declares memory of the function. A .param of a call is a thread's own memory, as .local is.
func (b *builder) variable(text string) {
	v, err := declaration(text)
	if err != nil {
		b.fail("%w", err)
		return
	}
	switch v.space {
	case "shared":
	case "local", "param":
		v.space = "local"
		v.place(&b.k.localBytes)
	default:
		b.fail("a variable in space .%s inside a function", v.space)
	}
	b.scopes[len(b.scopes)-1].vars[v.name] = &v
}

func (b *builder) register(name string) (register, bool) {
	for i := len(b.scopes) - 1; i >= 0; i-- {
		if r, ok := b.scopes[i].regs[name]; ok {
			return r, true
		}
	}
	return register{}, false
}

func (b *builder) lookup(name string) *variable {
	for i := len(b.scopes) - 1; i >= 0; i-- {
		if v, ok := b.scopes[i].vars[name]; ok {
			return v
		}
	}
	return nil
}

// statement reads an instruction; calls are expanded at once.
func (b *builder) statement(it item) {
	s := &statement{text: it.text, line: it.line, vector: 1}
	text := it.text
	if text[0] == '@' {
		guard, rest, _ := strings.Cut(text[1:], " ")
		o := b.operand(guard, false)
		if b.err != nil || o.kind != opRegister || o.reg.class != cPred {
			b.fail("no predicate %s", guard)
			return
		}
		s.guard, text = &o, strings.TrimSpace(rest)
	}
	opcode, rest, _ := strings.Cut(text, " ")
	s.op, opcode, _ = strings.Cut(opcode, ".")
	for part := range strings.SplitSeq(opcode, ".") {
		switch {
		case part == "":
		case part == "v2" || part == "v4":
			s.vector = int(part[1] - '0')
		case typeSize(part) > 0:
			s.types = append(s.types, part)
		default:
			s.mods = append(s.mods, part)
		}
	}
	names := s.op == "bra" || s.op == "call"
	for _, o := range split(rest) {
		s.args = append(s.args, b.operand(o, names))
	}
	if b.err != nil {
		return
	}
	switch {
	case s.op == "call":
		b.call(s)
		return
	case s.op == "bra" && len(s.args) == 1:
		s.kind, s.label = kindBranch, b.prefix+s.args[0].text
	case s.op == "ret" && b.end != "": // of an expanded function
		s.kind, s.label = kindBranch, b.end
	case s.op == "ret" || s.op == "exit":
		s.kind = kindExit
	}
	b.list = append(b.list, s)
}

// untyped are the opcodes that have no type, or need not.
var untyped = []string{
	"bra", "ret", "exit", "trap", "brkpt", "bar", "barrier", "membar", "fence", "cp", "prefetch", "prefetchu", "nanosleep", "isspacep",
	"discard", "__assertfail",
}

// compile makes instructions of the statements, whose registers have their rows.
func (b *builder) compile() {
	b.k.code = make([]instruction, 0, len(b.list)+1)
	for _, s := range b.list {
		in := instruction{guard: -1, line: int32(s.line), text: s.text, kind: s.kind}
		if s.guard != nil {
			in.guard, in.negate = int32(s.guard.reg.row), s.guard.not
		}
		if s.kind == kindBranch {
			in.target = int32(b.target(s))
		}
		switch f := handlerOf(s.op); {
		case f == nil:
			b.fail("unknown opcode %s", s.op)
		case len(s.types) == 0 && !slices.Contains(untyped, s.op):
			b.fail("no type")
		default:
			f(b, s, &in)
		}
		if b.err != nil {
			b.locate(s.line, s.text)
			return
		}
		b.k.code = append(b.k.code, in)
	}
}

func (b *builder) operand(text string, names bool) operand {
	o := operand{text: text}
	switch {
	case text == "":
		b.fail("an operand is missing")
		return o
	case text == "_":
		o.kind = opSink
		return o
	case text[0] == '{' || text[0] == '(':
		o.kind = opVector
		for _, e := range split(text[1 : len(text)-1]) {
			o.vector = append(o.vector, b.operand(e, names))
		}
		return o
	case text[0] == '[':
		return b.address(o, strings.ReplaceAll(strings.Trim(text, "[]"), " ", ""))
	}
	if first, second, pair := strings.Cut(text, "|"); pair {
		o = b.operand(first, false)
		p := b.operand(second, false)
		o.second = &p
		return o
	}
	name := strings.TrimSpace(strings.TrimPrefix(text, "!"))
	if r, ok := b.register(name); ok {
		o.reg, o.not = r, text[0] == '!'
		return o
	}
	if text[0] == '%' || text == "WARP_SZ" {
		o.kind = opSpecial
		return o
	}
	if n, err := number(text); err == nil {
		o.kind, o.value = opConstant, n
		return o
	}
	base, offset := cutOffset(text)
	if v := b.lookup(base); v != nil {
		o.kind, o.symbol, o.offset = opSymbol, v, offset
		return o
	}
	if !names {
		b.fail("unknown name %s", text)
	}
	o.kind = opName
	return o
}

// cutOffset takes "name+8" or "name-8" apart.
func cutOffset(s string) (string, int64) {
	i := strings.LastIndexAny(s, "+-")
	if i > 0 && s[i-1] == '+' {
		i--
	}
	if i <= 0 {
		return s, 0
	}
	n, err := number(strings.TrimPrefix(s[i:], "+"))
	if err != nil {
		return s, 0
	}
	return s[:i], int64(n.bits)
}

func (b *builder) address(o operand, text string) operand {
	o.kind = opAddress
	base, offset := cutOffset(text)
	o.offset = offset
	if r, ok := b.register(base); ok {
		o.reg, o.based = r, true
		return o
	}
	if v := b.lookup(base); v != nil {
		o.symbol = v
		return o
	}
	n, err := number(text)
	if err != nil {
		b.fail("unknown name %s", base)
	}
	o.offset = int64(n.bits)
	return o
}
